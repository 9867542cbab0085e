"""The text of an SPF record, read (RFC 7208 sections 4.5, 4.6, 5, 6 and 12). Pure."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.networks import parse_ip
from mqmail.mail.address import is_ipv4, is_ipv6
from mqmail.policy.spfmacro import parse_name, parse_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.policy.spfmacro import Pieces

VERSION = b"v=spf1"
LONGEST = 8192              # octets of a record; those in use have a few hundred
_DOMAIN = {                 # whether a mechanism has a domain: must, may; whether it has prefix lengths
    "include": (True, True, False), "exists": (True, True, False), "ptr": (False, True, False),
    "a": (False, True, True), "mx": (False, True, True), "all": (False, False, False),
}
_ALPHA = frozenset("abcdefghijklmnopqrstuvwxyz")
_NAME = _ALPHA | frozenset("0123456789-_.")


@value
class Directive:
    """*qualifier* one of ``+ - ~ ?``; *domain* "" for the one at hand; *network*: of ip4 and ip6, width
    and number; *four*, *six*: prefix lengths. *text*: as it stands in the record."""

    qualifier: str
    mechanism: str
    text: str
    domain: Pieces = ()
    network: tuple[int, int] = (0, 0)
    four: int = 32
    six: int = 128


@value
class Record:
    """*redirect*, *explain*: domains; () for none."""

    directives: tuple[Directive, ...]
    redirect: Pieces = ()
    explain: Pieces = ()


def is_record(data: bytes) -> bool:
    """Whether a TXT record is of SPF (section 4.5)."""
    return data[:6].lower() == VERSION and data[6:7] in (b"", b" ")


def parse(data: bytes) -> Record:
    """Raises ValueError for any mistake anywhere (section 4.6)."""
    if len(data) > LONGEST:
        raise ValueError(f"longer than {LONGEST} octets")
    if not data.isascii():
        raise ValueError("not ASCII")
    directives: list[Directive] = []
    modifiers: dict[str, Pieces] = {}
    for term in data[6:].decode("ascii").split(" "):
        if not term:
            continue
        name, sign, rest = _split(term)
        if sign != "=":
            directives.append(_directive(term, name, sign, rest))
        elif name in ("redirect", "exp"):
            if name in modifiers:
                raise ValueError(f"{name}= twice")
            modifiers[name] = parse_name(rest)
        else:
            parse_text(rest, " ")
            if not (name[:1] in _ALPHA and name and _NAME.issuperset(name)):
                raise ValueError(f"the modifier {term[:80]!a}")
    return Record(tuple(directives), modifiers.get("redirect", ()), modifiers.get("exp", ()))


def _split(term: str) -> tuple[str, str, str]:
    """(name in lower case with its qualifier, the first of ``: / =`` or "", the rest)."""
    for place, char in enumerate(term):
        if char in ":/=":
            return term[:place].lower(), char, term[place + 1:]
    return term.lower(), "", ""


def _directive(term: str, name: str, sign: str, rest: str) -> Directive:
    qualifier = name[0] if name[:1] in ("+", "-", "~", "?") else "+"
    name = name.removeprefix(qualifier)
    if name in ("ip4", "ip6"):
        if sign != ":":
            raise ValueError(f"{term[:80]!a} without an address")
        return _network(qualifier, name, term, rest)
    if name not in _DOMAIN:
        raise ValueError(f"the mechanism {term[:80]!a}")
    must, may, prefixes = _DOMAIN[name]
    if sign == "/":
        rest = "/" + rest
    domain, four, six = _prefixes(rest) if prefixes else (rest, 32, 128)
    if sign == ":" and not (may and domain) or sign == "/" and (domain or not prefixes):
        raise ValueError(f"the mechanism {term[:80]!a}")
    if must and sign != ":":
        raise ValueError(f"{term[:80]!a} without a domain")
    return Directive(qualifier, name, term, parse_name(domain) if domain else (), (0, 0), four, six)


def _network(qualifier: str, name: str, term: str, rest: str) -> Directive:
    ip, slash, prefix = rest.partition("/")
    width, good = (32, is_ipv4(ip)) if name == "ip4" else (128, is_ipv6(ip))
    if not good or name == "ip4" and any([len(p) > 1 and p[0] == "0" for p in ip.split(".")]):
        raise ValueError(f"the address of {term[:80]!a}")
    length = _prefix(prefix, width) if slash else width
    number = parse_ip(ip)[1]
    return Directive(qualifier, name, term, (), (width, number), length, length)


def _prefixes(text: str) -> tuple[str, int, int]:
    """(domain, IPv4 prefix, IPv6 prefix) of ``domain/24//64`` (section 5.3)."""
    four, six = 32, 128
    head, slashes, tail = text.rpartition("//")
    if slashes and tail.isdigit():
        text, six = head, _prefix(tail, 128)
    head, slash, tail = text.rpartition("/")
    if slash and (tail.isdigit() or not tail):
        text, four = head, _prefix(tail, 32)
    return text, four, six


def _prefix(text: str, width: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3) or len(text) > 1 and text[0] == "0" \
            or int(text) > width:
        raise ValueError(f"the prefix length {text[:20]!a}")
    return int(text)
