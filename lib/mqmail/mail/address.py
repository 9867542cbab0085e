"""Mail addresses and SMTP paths (RFC 5321 section 4.1.2, RFC 6531 section 3.3 for UTF-8).

An address is a ``str`` ``local@domain`` in SMTP form: the local part is quoted if, and only if, it
needs to be. ``parse_path`` brings any spelling into that form. No address holds a control
character, a line end or a ``>`` outside quotes, so ``f"<{address}>"`` is always a valid path.
"""

from __future__ import annotations

from mqmail.base.value import value

LONGEST_LOCAL = 64       # RFC 5321 4.5.3.1.1
LONGEST_DOMAIN = 255     # RFC 5321 4.5.3.1.2
LONGEST_PATH = 256       # RFC 5321 4.5.3.1.3, brackets included

_ALNUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_ATEXT_DOT = frozenset(_ALNUM + "!#$%&'*+-/=?^_`{|}~.")
_LABELS = frozenset(_ALNUM + "-._")   # the underscore is not in 5321's grammar but in use
_QTEXT = frozenset(chr(c) for c in range(32, 127))
_DESTINATION = frozenset(_ALNUM + "-_")


class BadAddress(ValueError):
    """The text is not an address; str() says why, *status* is an RFC 3463 code."""

    def __init__(self, text: str, status: str = "5.1.3") -> None:
        super().__init__(text)
        self.status = status


@value
class Path:
    """A parsed path: the address ("" for ``<>``), and the destination of ``<@destination:a@b>``
    ("" without one). Source routes of several hosts are read and dropped (RFC 5321 4.1.1.3)."""

    address: str
    destination: str = ""


def parse_path(text: str) -> Path:
    """Parse ``<a@b>``, ``<>``, ``<@route:a@b>``; raises BadAddress. ``<Postmaster>`` alone is allowed
    without a domain (RFC 5321 4.1.1.3), in any case of letters, and comes back as ``postmaster``."""
    if len(text) < 2 or text[0] != "<" or text[-1] != ">":
        raise BadAddress("an address goes in <angle brackets>")
    inner = text[1:-1]
    if not inner:
        return Path("")
    if len(text.encode("utf-8", "surrogateescape")) > LONGEST_PATH + (128 if inner[0] == "@" else 0):
        raise BadAddress("path too long")
    destination = ""
    if inner[0] == "@":
        destination, inner = _route(inner)
    if inner.lower() == "postmaster":
        return Path("postmaster", destination)
    return Path(parse_address(inner), destination)


def _route(inner: str) -> tuple[str, str]:
    """``@one,@two:a@b`` -> ("one" if it is the only one, "a@b")."""
    route, colon, rest = inner.partition(":")
    hops = route.split(",")
    if not colon or not rest:
        raise BadAddress("a source route ends in ':'")
    for hop in hops:
        if hop[:1] != "@":
            raise BadAddress("bad source route")
        check_domain(hop[1:])
    return (hops[0][1:] if len(hops) == 1 else ""), rest


def parse_address(text: str) -> str:
    """``local@domain`` in its one canonical spelling; raises BadAddress."""
    local, domain = split(text)
    check_domain(domain)
    if len(local.encode("utf-8", "surrogateescape")) > LONGEST_LOCAL:
        raise BadAddress("local part longer than 64 octets")
    return f"{quote_local(local)}@{domain}"


def split(text: str) -> tuple[str, str]:
    """(local part unquoted, domain) of an address; raises BadAddress. The domain is not checked."""
    if text[:1] == '"':
        return _split_quoted(text)
    local, at, domain = text.rpartition("@")
    if not at or not domain:
        raise BadAddress("an address has a local part, '@' and a domain")
    if not is_dot_string(local):
        raise BadAddress("bad local part")
    return local, domain


def _split_quoted(text: str) -> tuple[str, str]:
    """Quoted-string "@" domain; quoted pairs are undone (RFC 5321 4.1.2)."""
    out, position = [], 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\":
            position += 1
        char = text[position:position + 1]
        if not (char in _QTEXT and char) and not _is_utf8_text(char):
            raise BadAddress("bad character in the quoted local part")
        out.append(char)
        position += 1
    if text[position:position + 2] != '"@' or len(text) == position + 2:
        raise BadAddress("bad quoted local part")
    return "".join(out), text[position + 2:]


def is_dot_string(local: str) -> bool:
    """Whether the local part needs no quotes."""
    if not local or local[0] == "." or local[-1] == "." or ".." in local:
        return False
    return _ATEXT_DOT.issuperset(local) or all(c in _ATEXT_DOT or _is_utf8_text(c) for c in local)


def _is_utf8_text(char: str) -> bool:
    """UTF8-non-ascii of RFC 6531 3.3, less what no one should see in an address."""
    return char > "\x7f" and char.isprintable()


def quote_local(local: str) -> str:
    """The local part as it is written: quoted only when it must be."""
    if is_dot_string(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


def check_domain(domain: str) -> None:
    """Raise BadAddress unless *domain* is a domain name or an address literal."""
    if domain[:1] == "[":
        return _check_literal(domain)
    if len(domain) > LONGEST_DOMAIN or len(domain.encode("utf-8", "surrogateescape")) > LONGEST_DOMAIN:
        raise BadAddress("domain longer than 255 octets", "5.1.2")
    if not _LABELS.issuperset(domain) and not all(c in _LABELS or _is_utf8_text(c) for c in domain):
        raise BadAddress("bad character in the domain", "5.1.2")
    for label in domain.split("."):
        if not label or len(label) > 63 or label[0] == "-" or label[-1] == "-":
            raise BadAddress("bad domain", "5.1.2")
    return None


def _check_literal(domain: str) -> None:
    """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 4.1.3)."""
    inner = domain[1:-1]
    if domain[-1] == "]":
        if inner[:5].lower() == "ipv6:" and is_ipv6(inner[5:]):
            return
        if is_ipv4(inner):
            return
    raise BadAddress("bad address literal", "5.1.2")


def is_ipv4(text: str) -> bool:
    """Whether *text* is four decimal numbers, nothing else."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        p.isascii() and p.isdigit() and len(p) <= 3 and int(p) < 256 for p in parts)


def is_ipv6(text: str) -> bool:
    """Whether *text* is an IPv6 address as RFC 5321 4.1.3 writes it (no zone)."""
    head, double, tail = text.partition("::")
    groups = _ipv6_groups(head, double == "") + _ipv6_groups(tail, last=True) if double \
        else _ipv6_groups(head, last=True)
    if min(groups, default=0) < 0:
        return False
    return sum(groups) <= 6 + (1 if double else 0) if double else sum(groups) == 8


def _ipv6_groups(text: str, last: bool) -> list[int]:
    """How many 16-bit groups each piece makes; -1 for a bad piece."""
    if not text:
        return []
    pieces = text.split(":")
    out = [1 if 0 < len(p) <= 4 and all(c in "0123456789abcdefABCDEF" for c in p) else -1
           for p in pieces]
    if last and is_ipv4(pieces[-1]):
        out[-1] = 2
    return out


def domain_of(address: str) -> str:
    """What tables have the domain by (``domain_key``), "" for ``<>`` and ``postmaster``."""
    return domain_key(address.rpartition("@")[2]) if "@" in address else ""


def written_domain_of(address: str) -> str:
    """The domain as it is written, ASCII letters in lower case: for DNS it is mapped later."""
    return lower_ascii(address.rpartition("@")[2]) if "@" in address else ""


def domain_key(domain: str) -> str:
    """What tables have *domain* or ``.domain`` by: ASCII letters in lower case, a U-label as its A-label
    (RFC 5890 section 2.3.2.1). Nothing else is mapped, and no other characters give the same A-label:
    what merely looks like a domain is not taken for it."""
    if domain.isascii() or len(domain) > LONGEST_DOMAIN:
        return lower_ascii(domain)
    return ".".join([label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
                     for label in lower_ascii(domain).split(".")])


def address_key(address: str) -> str:
    """What tables have a good *address* by: the local part with ASCII letters in lower case, and the
    domain's key."""
    local = quote_local(lower_ascii(local_of(address)))
    return f"{local}@{domain_of(address)}" if "@" in address else local


def local_of(address: str) -> str:
    """The local part, unquoted."""
    if "@" not in address:
        return address
    return split(address)[0]


_LOWER = {c: c + 32 for c in range(65, 91)}


def lower_ascii(text: str) -> str:
    """ASCII letters in lower case; nothing else is folded (RFC 6531 leaves UTF-8 as it is)."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def needs_utf8(address: str) -> bool:
    """Whether the address can only travel with SMTPUTF8 (RFC 6531)."""
    return not address.isascii()


def is_destination(name: str) -> bool:
    """Whether *name* can be a destination: letters, digits, ``-`` and ``_``, at most 32."""
    return 0 < len(name) <= 32 and _DESTINATION.issuperset(name)
