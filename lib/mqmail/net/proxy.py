"""The PROXY protocol, versions 1 and 2: what a load balancer says of its client, before the client.

https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop

from mqmail.base.value import value
from mqmail.mail.address import is_ipv4, is_ipv6
from mqmail.xmtp.reply import ProtocolError

LONGEST_V1 = 107        # octets with CRLF
LONGEST_V2 = 2048       # with the TLVs, which are passed over
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FAMILIES = {0x11: (AF_INET, 4), 0x21: (AF_INET6, 16)}      # TCP over IPv4 and IPv6
_NOT = "that is not the PROXY protocol"


@value
class Proxied:
    """The client's *ip* and *port*, and where it connected to; "" and 0 when the proxy does not say: it
    speaks for itself, or of no TCP connection."""

    ip: str = ""
    port: int = 0
    to_ip: str = ""
    to_port: int = 0


def parse_proxy(data: bytes) -> tuple[Proxied, int] | None:
    """(what is said, how many octets of *data* say it); None when not all has come. Raises
    ProtocolError."""
    if data[:12] == _SIGNATURE[:len(data)]:
        return _version_2(data)
    return _version_1(data)


def _version_1(data: bytes) -> tuple[Proxied, int] | None:
    if data[:6] != b"PROXY "[:len(data)]:
        raise ProtocolError(_NOT)
    end = data.find(b"\r\n", 0, LONGEST_V1)
    if end < 0:
        if len(data) >= LONGEST_V1:
            raise ProtocolError("the PROXY line is too long")
        return None
    words = data[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return Proxied(), end + 2
    is_ip = {"TCP4": is_ipv4, "TCP6": is_ipv6}.get(words[1])
    if is_ip is None or len(words) != 6 or not (is_ip(words[2]) and is_ip(words[3])):
        raise ProtocolError(_NOT)
    return Proxied(words[2], _port(words[4]), words[3], _port(words[5])), end + 2


def _port(text: str) -> int:
    if not (0 < len(text) <= 5 and text.isascii() and text.isdigit() and int(text) < 65536):
        raise ProtocolError(_NOT)
    return int(text)


def _version_2(data: bytes) -> tuple[Proxied, int] | None:
    if len(data) < 16:
        return None
    size = 16 + int.from_bytes(data[14:16], "big")
    if data[12] not in (0x20, 0x21) or size > LONGEST_V2:
        raise ProtocolError(_NOT)
    if len(data) < size:
        return None
    family, octets = _FAMILIES.get(data[13], (0, 0))
    if data[12] == 0x20 or not octets:      # LOCAL, or nothing that has addresses like ours
        return Proxied(), size
    if size < 16 + 2 * octets + 4:
        raise ProtocolError(_NOT)
    return _addresses(data[16:size], family, octets), size


def _addresses(data: bytes, family: int, octets: int) -> Proxied:
    ports = data[2 * octets:]
    return Proxied(inet_ntop(family, data[:octets]), int.from_bytes(ports[:2], "big"),
                   inet_ntop(family, data[octets:2 * octets]), int.from_bytes(ports[2:4], "big"))
