"""listeners, resolvers and smtproutes: addresses and ports of this host and of others."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.domains import domain_pattern, suffixes
from mqmail.control.values import domain as check_domain
from mqmail.control.values import is_number
from mqmail.mail.address import is_ipv4, is_ipv6, lower_ascii

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


def parse_listeners(lines: Lines, _me: str) -> tuple[tuple[str, int], ...]:
    """(address, port) of each line."""
    found: list[tuple[str, int]] = []
    for line in lines:
        listener = parse_listener(line)
        if listener in found:
            raise ValueError(f"{line} is given twice: remove one of the lines")
        found.append(listener)
    return tuple(found)


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


@value
class Routes:
    """Next hops: domain, ``.domain`` or "" (all) to (host, port)."""

    hops: dict[str, tuple[str, int]]

    def lookup(self, domain: str) -> tuple[str, int] | None:
        """The next hop for *domain*, None when no line matches. The host "" means: the domain's own
        MX hosts, at that port. First match: the domain, each parent with its dot, the empty name."""
        for name in suffixes(lower_ascii(domain)):
            if name in self.hops:
                return self.hops[name]
        return None


def parse_routes(lines: Lines, _me: str) -> Routes:
    """Lines ``domain:host:port``, ``.domain:host``, ``:host``, ``domain:`` (its MX)."""
    hops: dict[str, tuple[str, int]] = {}
    for line in lines:
        name, colon, hop = line.partition(":")
        if not colon:
            raise ValueError(f"{line!a} has no colon: write DOMAIN:HOST or DOMAIN:HOST:PORT")
        host, port = split_port(hop)
        if host and not is_ipv6(host):
            check_domain(host)
        key = domain_pattern(name)
        if key in hops:
            raise ValueError(f"{name!a} is given twice: remove one of the lines")
        hops[key] = (host, parse_port(port) if port else SMTP_PORT)
    return Routes(hops)
