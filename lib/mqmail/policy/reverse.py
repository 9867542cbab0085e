"""Addresses as DNS has them: in reverse below in-addr.arpa, ip6.arpa and the zones of lists. Pure."""

from __future__ import annotations

from mqmail.control.networks import parse_ip


def dotted(ip: str) -> str:
    """``192.0.2.1``; an IPv6 address as 32 hex digits with dots between them (RFC 7208 section 7.3)."""
    width, number = parse_ip(ip)
    return ip if width == 32 else ".".join(f"{number:032x}")


def reversed_ip(ip: str) -> str:
    """``1.2.0.192``; 32 hex digits of an IPv6 address (RFC 3596 section 2.5, RFC 5782 section 2.4)."""
    return ".".join(reversed(dotted(ip).split(".")))


def reverse_name(ip: str) -> str:
    """Where the names of *ip* are (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    return reversed_ip(ip) + (".ip6.arpa" if ":" in ip else ".in-addr.arpa")
