"""Arguments of MAIL and RCPT: paths and parameters (RFC 5321 sections 4.1.1.2, 4.1.1.3, 4.1.2;
RFC 1870 SIZE, RFC 6152 BODY, RFC 6531 SMTPUTF8, RFC 3461 DSN, RFC 4954 AUTH, and ours: XMQ).
"""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.mail.address import BadAddress, Path, is_destination, parse_path
from mqmail.xmtp.events import Mail, Rcpt
from mqmail.xmtp.reply import Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

XCLIENT_ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT",
                      "REVERSE_NAME")
_KEYWORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_VALUE = frozenset(chr(c) for c in range(33, 127))


class Refused(Exception):
    """The command is refused; ``reply`` says how."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(answer.said())
        self.reply = answer


def syntax(text: str, status: str = "5.5.4") -> Refused:
    """501."""
    return Refused(reply(501, status, text))


def parse_mail(argument: str, extensions: Container[str]) -> Mail:
    """``FROM:<path> params`` -> Mail; raises Refused."""
    path, words = _split(argument, "FROM:")
    if path.destination and "XMQ" in extensions:
        raise syntax("a sender has no destination", "5.1.7")
    if not words and argument.isascii():
        return Mail(path.address)
    found = _parameters(words, _MAIL, extensions)
    _check_ascii(argument, path, extensions, found.get("utf8", False))
    return Mail(path.address, **found)


def parse_rcpt(argument: str, extensions: Container[str], utf8: bool, number: int) -> Rcpt:
    """``TO:<path> params`` -> Rcpt; raises Refused. *utf8*: MAIL said SMTPUTF8."""
    path, words = _split(argument, "TO:")
    if not path.address:
        raise syntax("a recipient is not empty", "5.1.3")
    if path.destination and ("XMQ" not in extensions or not is_destination(path.destination)):
        if "XMQ" in extensions:
            raise syntax("bad destination", "5.1.3")
        path = Path(path.address)       # a source route: ignored (RFC 5321 4.1.1.3, appendix C)
    _check_ascii(argument, path, extensions, utf8)
    if not words:
        return Rcpt(path.address, path.destination, number=number)
    found = _parameters(words, _RCPT, extensions)
    extra = tuple([(name, found.pop(name)) for name in _TOLD if name in found])
    return Rcpt(path.address, path.destination, x=extra, number=number, **found)


def parse_xclient(argument: str) -> tuple[tuple[str, str], ...]:
    """``NAME=xtext …`` -> (name in lower case, value), values that are not available as ""; raises
    Refused. https://www.postfix.org/XCLIENT_README.html"""
    found = {}
    for word in argument.split():
        name, equals, coded = word.partition("=")
        name = _upper(name)
        if not equals or name not in XCLIENT_ATTRIBUTES or name.lower() in found:
            raise syntax("bad XCLIENT attribute")
        text = _decoded(coded, "XCLIENT")
        if not text.isprintable():
            raise syntax("bad XCLIENT attribute")
        found[name.lower()] = "" if text.upper() in ("[UNAVAILABLE]", "[TEMPUNAVAIL]") else text
    if not found:
        raise syntax("XCLIENT wants attributes")
    return tuple(found.items())


_TOLD = ("status", "said", "host", "tls", "time", "until", "action")


def _check_ascii(argument: str, path: Path, extensions: Container[str], utf8: bool) -> None:
    """Without SMTPUTF8 all is US-ASCII (RFC 6531 section 3.4). XMQ's own parameters may be UTF-8."""
    if utf8 or (path.address if "XMQ" in extensions else argument).isascii():
        return
    raise Refused(reply(553, "5.6.7", "this address needs SMTPUTF8"))


def _split(argument: str, keyword: str) -> tuple[Path, list[str]]:
    """The path and the words after it. A space before the path is a mistake (RFC 5321 section 3.3) that
    Outlook and many small programs make."""
    if argument[:len(keyword)].upper() != keyword:
        raise syntax(f"say {keyword}<address>", "5.5.2")
    text = argument[len(keyword):].lstrip(" ")
    end = _path_end(text)
    rest = text[end:]
    if rest and rest[0] != " ":
        raise syntax("a space goes between the address and a parameter", "5.5.2")
    try:
        path = parse_path(text[:end])
    except BadAddress as error:
        raise syntax(str(error), error.status) from None
    return path, rest.split()


def _path_end(text: str) -> int:
    """Where the path ends; quotes may hold a ``>``."""
    if '"' not in text:
        end = text.find(">")
        return end + 1 if end >= 0 else len(text)
    quoted, position = False, 0
    while position < len(text):
        char = text[position]
        if quoted and char == "\\":
            position += 1
        elif char == '"':
            quoted = not quoted
        elif char == ">" and not quoted:
            return position + 1
        position += 1
    return len(text)


def _parameters(words: list[str], table: dict[str, tuple[str, str, Callable[[str], Any]]],
                extensions: Container[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        keyword, equals, text = word.partition("=")
        keyword = _upper(keyword)
        extension, field, read = table.get(keyword, ("", "", _flag))
        if not keyword or not _KEYWORD.issuperset(keyword):
            raise syntax("bad parameter")
        if not field or extension not in extensions:
            raise Refused(reply(555, "5.5.4", f"parameter {keyword[:30]} is not known here"))
        if field in found:
            raise syntax(f"{keyword} given twice")
        if not equals and read is not _flag or equals and (read is _flag or not _is_value(text)):
            raise syntax(f"bad {keyword}")
        found[field] = read(text)
    return found


def _is_value(text: str) -> bool:
    """esmtp-value (RFC 5321 4.1.2), with UTF-8 as RFC 6531 3.3 allows, and with ``=`` too: BASE64
    and XVIA hold it, and no parameter is harmed by it."""
    return bool(text) and (_VALUE.issuperset(text) or all(
        c in _VALUE or (c > "\x7f" and c.isprintable()) for c in text))


def _upper(text: str) -> str:
    """In capitals; what is not US-ASCII stays as it is: str.upper makes S of a long s."""
    return text.upper() if text.isascii() else text


def _flag(_text: str) -> bool:
    return True


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):     # RFC 1870 section 3
        raise syntax("bad SIZE")
    return int(text)


def _body(text: str) -> bool:
    kinds = {"7BIT": False, "8BITMIME": True}
    if _upper(text) not in kinds:
        raise syntax("BODY is 7BIT or 8BITMIME")
    return kinds[_upper(text)]


def _ret(text: str) -> str:
    if _upper(text) not in ("FULL", "HDRS"):
        raise syntax("RET is FULL or HDRS")
    return text.lower()


def _decoded(text: str, what: str) -> str:
    try:
        return xtext.decode(text)
    except ValueError:
        raise syntax(f"bad xtext in {what}") from None


def _envid(text: str) -> str:
    """At most 100 characters; printable US-ASCII once decoded (RFC 3461 sections 4.4, 5.4)."""
    plain = _decoded(text, "ENVID")
    if len(text) > 100 or not (plain.isascii() and plain.isprintable()):
        raise syntax("bad ENVID")
    return plain


def _notify(text: str) -> tuple[str, ...]:
    """NEVER alone, or any of the three (RFC 3461 section 4.1)."""
    words = tuple(text.lower().split(","))
    if words == ("never",):
        return words
    if len(set(words)) != len(words) or not {"success", "failure", "delay"}.issuperset(words):
        raise syntax("NOTIFY is NEVER, or a list of SUCCESS, FAILURE, DELAY")
    return words


def _orcpt(text: str) -> str:
    """``addr-type;xtext`` of at most 500 characters (RFC 3461 section 4.2)."""
    kind, semicolon, coded = text.partition(";")
    address = _decoded(coded, "ORCPT")
    good = semicolon and kind and _KEYWORD.issuperset(_upper(kind)) and address and len(text) <= 500
    if not good or not address.isprintable():
        raise syntax("bad ORCPT")
    return f"{kind.lower()};{address}"


def _auth(text: str) -> str:
    """``<>`` or xtext (RFC 4954 section 5); read and not trusted."""
    plain = text if text == "<>" else _decoded(text, "AUTH")
    if not plain.isprintable():
        raise syntax("bad AUTH")
    return plain


def _x(text: str) -> str:
    return _decoded(text, "an XMQ parameter")


def _milliseconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise syntax("bad XFORCE")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise syntax("bad XCONN")
    return int(text)


_MAIL: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "SIZE": ("SIZE", "size", _size),
    "BODY": ("8BITMIME", "eightbit", _body),
    "SMTPUTF8": ("SMTPUTF8", "utf8", _flag),
    "RET": ("DSN", "ret", _ret),
    "ENVID": ("DSN", "envid", _envid),
    "AUTH": ("AUTH", "auth", _auth),
    "PRDR": ("PRDR", "prdr", _flag),
    "XID": ("XMQ", "xid", _x),
    "XVIA": ("XMQ", "xvia", _x),
    "XCONN": ("XMQ", "xconn", _count),
    "XFORCE": ("XMQ", "xforce", _milliseconds),
}
_RCPT: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "NOTIFY": ("DSN", "notify", _notify),
    "ORCPT": ("DSN", "orcpt", _orcpt),
    "XSTATUS": ("XMQ", "status", _x),
    "XSAID": ("XMQ", "said", _x),
    "XHOST": ("XMQ", "host", _x),
    "XTLS": ("XMQ", "tls", _x),
    "XTIME": ("XMQ", "time", _x),
    "XUNTIL": ("XMQ", "until", _x),
    "XACTION": ("XMQ", "action", _x),
}
