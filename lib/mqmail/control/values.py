"""What a control file of one line may say. Each function takes the line, returns the value, and
raises ValueError with what is wrong and what to write instead."""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.mail.address import LONGEST_LOCAL, BadAddress, check_domain, is_dot_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LONGEST_NAME = 64       # of an option set, or of an entry of credentials
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_DELIMITERS = frozenset("+-=_#%")
LONGEST_TEXT = 400   # with "220 " and CRLF within 512 octets (RFC 5321 4.5.3.1.5)


def number(text: str, unit: str, lowest: int, highest: int) -> int:
    """ASCII digits within the limits; of bytes also with K, M or G (powers of 1024) behind them."""
    digits, factor = text, 1
    if unit == "bytes" and text[-1:].upper() in SUFFIXES:
        digits, factor = text[:-1], SUFFIXES[text[-1].upper()]
    found = int(digits) * factor if is_number(digits) else -1
    if not lowest <= found <= highest:
        more = ", K, M or G allowed behind it" if unit == "bytes" else ""
        raise ValueError(f"{text!a} is not a number of {unit} from {lowest} to {highest}"
                         f" (digits only{more})")
    return found


def account_deliveries(concurrencylocal: int) -> int:
    """Of the deliveries at a time, how many may be to accounts of this host: each takes a process of
    root's beside the account's own."""
    return (concurrencylocal + 1) // 2


def is_number(text: str) -> bool:
    """Whether *text* is 1 to 20 ASCII digits."""
    return 0 < len(text) <= 20 and text.isascii() and text.isdigit()


def is_name(text: str, also: str = "") -> bool:
    """Whether *text* is 1 to LONGEST_NAME of: ASCII letters, digits, ``-``, ``_``, those in *also*."""
    return 0 < len(text) <= LONGEST_NAME and _LABEL.union(also).issuperset(text)


def fqdn(text: str) -> str:
    """A host's full name: ASCII, with a dot, no address (RFC 5321 2.3.5)."""
    labels = text.split(".")
    if not _LABEL.issuperset(text.replace(".", "")) or labels[-1].isdigit():
        raise ValueError(f"{text!a} is not a host name: write one such as mail.example.org")
    domain(text)
    if len(labels) < 2:
        raise ValueError(f"{text!a} is not a full host name: write one with a dot, such as"
                         f" {text}.example.org")
    return text


def domain(text: str) -> str:
    """A domain, or an address literal in brackets."""
    try:
        check_domain(text)
    except BadAddress as error:
        raise ValueError(f"{text!a} is not a domain ({error}): write one such as example.org") from None
    return text


def ascii_domain(text: str) -> str:
    """A domain as DNS and certificates have it: an internationalized one in its xn-- form."""
    if not text.isascii():
        raise ValueError(f"{text!a} is not ASCII: write the form of the name that begins with xn--")
    return domain(text)


def facts(words: list[str], known: tuple[str, ...]) -> dict[str, str]:
    """Words ``name=value``, each name one of *known* and there once, each value not empty."""
    names = f"{'=, '.join(known)}="
    try:
        found = xtext.parse_facts(words)
    except ValueError as error:
        raise ValueError(f"{error}: write no other facts than {names}, each once") from None
    for name, text in found.items():
        if name not in known or not text:
            raise ValueError(f"{name}={text}: write no other facts than {names}, each with"
                             " a value")
    return found


def split_key(line: str, form: str) -> tuple[str, str]:
    """What stands before and after the first colon that is not in quotes or brackets; *form* is what to
    write if there is none."""
    closing = ""
    for place, char in enumerate(line):
        if closing:
            closing = "" if char == closing else closing
        elif char == ":":
            return line[:place], line[place + 1:]
        else:
            closing = {'"': '"', "[": "]"}.get(char, "")
    raise ValueError(f"{line[:60]!a} has no colon: write {form}")


def authorities(text: str) -> str:
    """The path of a file; "" for the word ``system``."""
    if not text.isprintable():
        raise ValueError(f"{text[:100]!a} is no path of a file: write one such as"
                         " /etc/ssl/certs/ca-certificates.crt, or system")
    return "" if text == "system" else text


def local_part(text: str) -> str:
    """The part of an address before the @."""
    if not is_dot_string(text) or len(text.encode()) > LONGEST_LOCAL:
        raise ValueError(f"{text!a} cannot stand before the @ of an address: write a name such as"
                         " postmaster")
    return text


def greeting(text: str) -> str:
    """What follows 220; it begins with the host's name (RFC 5321 4.2)."""
    if not text.isascii() or "\t" in text or len(text) > LONGEST_TEXT:
        raise ValueError(f"write at most {LONGEST_TEXT} ASCII characters, without tabs")
    fqdn(text.split(" ")[0])
    return text


def one_of(*words: str) -> Callable[[str], str]:
    """A check for a line that is one of *words*."""
    def check(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!a}: write {', '.join(words[:-1])} or {words[-1]}")
        return text
    return check


def delimiters(text: str) -> str:
    """The characters that may separate name and detail; "" for the word ``none``."""
    if text == "none":
        return ""
    if not _DELIMITERS.issuperset(text) or len(set(text)) < len(text):
        raise ValueError(f"{text!a}: write one or more of + - = _ # %, each once, or none")
    return text
