"""relayclients: networks, matched by whole numbers (``ipaddress`` is slow to import and to match)."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from mqmail.base.value import value
from mqmail.control.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_MAPPED = 0xFFFF   # ::ffff:0:0/96 (RFC 4291 2.5.5.2)
_MOST_KNOWN = 1000
_known: dict[str, tuple[int, int]] = {}     # a client's address is looked at ten times in a session


def parse_ip(text: str) -> tuple[int, int]:
    """(width in bits, number) of an address; an IPv4 address written as ``::ffff:a.b.c.d`` is an IPv4
    one, and a zone (``%eth0``) is dropped. Raises ValueError."""
    found = _known.get(text)
    if found is None:
        found = _parse_ip(text)
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[text] = found
    return found


def _parse_ip(text: str) -> tuple[int, int]:
    try:
        if ":" not in text:
            return 32, int.from_bytes(inet_pton(AF_INET, text), "big")
        number = int.from_bytes(inet_pton(AF_INET6, text.partition("%")[0]), "big")
    except OSError:
        raise ValueError(f"{text!a} is not an IP address") from None
    return (32, number & 0xFFFFFFFF) if number >> 32 == _MAPPED else (128, number)


def ip_text(width: int, number: int) -> str:
    """An address, from what parse_ip() gives, in its one spelling (RFC 5952)."""
    return inet_ntop(AF_INET if width == 32 else AF_INET6, number.to_bytes(width // 8, "big"))


@value
class Networks:
    """(width, host bits) to the set of network numbers: one set look-up per distinct prefix length."""

    networks: dict[tuple[int, int], set[int]]

    def contains(self, ip: str) -> bool:
        """Whether one of the networks holds *ip*; False for what is not an IP address."""
        try:
            width, number = parse_ip(ip)
        except ValueError:
            return False
        for (family, shift), numbers in self.networks.items():
            if family == width and number >> shift in numbers:
                return True
        return False


def parse_networks(lines: Iterable[str], _me: str) -> Networks:
    """Lines ``127.0.0.1``, ``10.0.0.0/8``, ``::1``, ``2001:db8::/32``."""
    networks: dict[tuple[int, int], set[int]] = {}
    for line in lines:
        width, number, shift = _parse_network(line)
        networks.setdefault((width, shift), set()).add(number >> shift)
    return Networks(networks)


NOBODY = Networks({})


def networks_of(text: str) -> Networks:
    """The same with commas between them; "" holds nobody."""
    return parse_networks(text.split(","), "") if text else NOBODY


def _parse_network(text: str) -> tuple[int, int, int]:
    """(width, number, host bits)."""
    ip, slash, prefix = text.partition("/")
    if "%" in ip or ip[:7].lower() == "::ffff:":
        raise ValueError(f"{text!a}: write the network without a zone, and an IPv4 network as IPv4")
    try:
        width, number = parse_ip(ip)
    except ValueError:
        raise ValueError(f"{text!a} is not a network: write one such as 192.0.2.0/24"
                         " or 2001:db8::/32") from None
    if slash and not (is_number(prefix) and 0 < int(prefix) <= width):
        raise ValueError(f"{text!a}: the prefix length goes from 1 to {width}")
    shift = width - int(prefix) if slash else 0
    if number & ((1 << shift) - 1):
        raise ValueError(f"{text!a} has bits set outside its prefix: write the network's first address")
    return width, number, shift
