"""Addresses and ports; resolvers."""

from __future__ import annotations

from mqmail.control.values import is_number
from mqmail.mail.address import is_ipv4, is_ipv6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

SMTP_PORT = 25
DNS_PORT = 53


def parse_port(text: str) -> int:
    """1 to 65535."""
    if not is_number(text) or not 0 < int(text) < 65536:
        raise ValueError(f"{text!a} is not a port: write a number from 1 to 65535")
    return int(text)


def split_port(text: str) -> tuple[str, str]:
    """``host:port`` or ``[v6]:port`` -> (host without brackets, port); the port may be missing."""
    if text[:1] == "[":
        host, bracket, rest = text[1:].partition("]")
        if not bracket or rest[:1] not in ("", ":") or not (is_ipv6(host) or is_ipv4(host)):
            raise ValueError(f"{text!a}: write an IPv6 address with a port as [2001:db8::1]:25")
        return host, rest[1:]
    host, _, port = text.partition(":")
    return host, port


def parse_listener(text: str) -> tuple[str, int]:
    """``127.0.0.1:2525`` or ``[::1]:2525`` -> (address, port)."""
    host, port = split_port(text)
    if not (is_ipv4(host) or is_ipv6(host)):
        raise ValueError(f"{text!a} is not ADDRESS:PORT: write one such as 127.0.0.1:2525 or [::1]:2525")
    return host, parse_port(port)


def parse_resolvers(lines: Lines, _me: str) -> tuple[tuple[str, int], ...]:
    """(address, port) of each line, ``ADDRESS`` or ``ADDRESS:PORT``."""
    found: list[tuple[str, int]] = []
    for line in lines:
        host, port = (line, "") if is_ipv6(line) else split_port(line)
        if not (is_ipv4(host) or is_ipv6(host)):
            raise ValueError(f"{line!a} is not an address: write one such as 192.0.2.53 or"
                             " [2001:db8::53]:53")
        server = host, parse_port(port) if port else DNS_PORT
        if server in found:
            raise ValueError(f"{line} is given twice: remove one of the lines")
        found.append(server)
    return tuple(found)
