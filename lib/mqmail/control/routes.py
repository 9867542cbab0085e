"""smtproutes, senderroutes and fallbackroute: which host takes mail instead of the MX hosts.

A hop is ``[kind:]host[:port] [fact=value ...]``. Without a host it stands for the domain's MX hosts.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.destinations import LONGEST_PATH
from mqmail.control.domains import domain_pattern, suffixes
from mqmail.control.hosts import SMTP_PORT, parse_port, split_port
from mqmail.control.networks import parse_ip
from mqmail.control.tlspolicy import Policies
from mqmail.control.values import LONGEST_NAME, ascii_domain, facts, is_name, is_number, split_key
from mqmail.mail.address import domain_of, is_ipv4, is_ipv6, lower_ascii, parse_address
from mqmail.mail.mxlist import DIRECT, Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

PORTS = {"smtp": SMTP_PORT, "smtps": 465, "lmtp": 24}     # RFC 8314 section 7.3 for 465
NULL_SENDER = "<>"
_FACTS = ("auth", "source", "prefer")


@value
class Route:
    """A next hop. *host*: a name, an IP address, the path of a Unix socket (*port* is 0 then), or "" for
    the domain's own MX hosts. *file*: the control file that has it, "" if none has."""

    host: str = ""
    port: int = SMTP_PORT
    way: Way = DIRECT
    file: str = ""

    @property
    def is_socket(self) -> bool:
        """Whether it is a Unix socket."""
        return self.host[:1] == "/"


BY_MX = Route()


@value
class Routes:
    """Domain, ``.domain``, "" (all), of senders also ``local@domain`` and ``<>``, to Route."""

    hops: dict[str, Route]

    def of_domain(self, domain: str) -> Route | None:
        """First match: the domain, each parent with its dot. The empty name is not looked up."""
        for name in suffixes(lower_ascii(domain)):
            if name and name in self.hops:
                return self.hops[name]
        return None

    def of_sender(self, sender: str) -> Route | None:
        """First match: the address, its domain, each parent with its dot; of "" only ``<>``."""
        return self.hops.get(lower_ascii(sender) or NULL_SENDER) or self.of_domain(domain_of(sender))


@value
class Routing:
    """Where mail goes, and how it is to be protected there, as far as the control files say."""

    domains: Routes = Routes({})
    senders: Routes = Routes({})
    fallback: Route | None = None
    tls: Policies = Policies({})

    def route(self, domain: str, sender: str) -> Route:
        """For mail to *domain* from *sender* ("" for the null sender): smtproutes' line for the domain,
        senderroutes' line, smtproutes' line for all, the MX hosts."""
        return (self.domains.of_domain(domain) or self.senders.of_sender(sender)
                or self.domains.hops.get("") or BY_MX)

    def way(self, domain: str, route: Route) -> Way:
        """How the hosts of *route* are spoken to when it is mail to *domain*."""
        return route.way if route.is_socket else self.tls.way(domain, route.host, route.way)


def parse_smtproutes(lines: Lines, _me: str) -> Routes:
    """Lines ``domain:hop``, ``.domain:hop``, ``:hop``, ``domain:`` (its MX), ``domain::port``."""
    return _parse(lines, "smtproutes")


def parse_senderroutes(lines: Lines, _me: str) -> Routes:
    """Lines ``local@domain:hop``, ``domain:hop``, ``.domain:hop``, ``<>:hop``."""
    return _parse(lines, "senderroutes")


def parse_fallback(lines: Lines, _me: str) -> Route | None:
    """One hop or none."""
    found: Route | None = None
    for line in lines:
        if found is not None:
            raise ValueError("there is one fallback route already: remove one of the lines")
        found = parse_hop(line, "fallbackroute")
        if not found.host:
            raise ValueError(f"{line!a} names no host: write HOST or HOST:PORT")
    return found


def _parse(lines: Lines, file: str) -> Routes:
    hops: dict[str, Route] = {}
    for line in lines:
        name, hop = split_key(line, "DOMAIN:HOST or DOMAIN:HOST:PORT")
        _check_ascii(name.rpartition("@")[2])
        key = domain_pattern(name) if file == "smtproutes" else _sender_pattern(name)
        if key in hops:
            raise ValueError(f"{name!a} is given twice: remove one of the lines")
        hops[key] = parse_hop(hop, file)
    return Routes(hops)


def _check_ascii(domain: str) -> None:
    if not domain.isascii():
        ascii_domain(domain)


def _sender_pattern(text: str) -> str:
    if text == NULL_SENDER:
        return text
    if not text:
        raise ValueError("a line for all senders is written into smtproutes, as :HOST")
    return lower_ascii(parse_address(text)) if "@" in text else domain_pattern(text)


def parse_hop(text: str, file: str) -> Route:
    """``[kind:]host[:port] [fact=value ...]``; ValueError says what is wrong with it."""
    words = text.split()
    where = ""
    if words and words[0].partition("=")[0] not in _FACTS:
        where = words.pop(0)
    kind, host, port = _where(where)
    found = facts(words, _FACTS)
    if "auth" in found and not host:
        raise ValueError("auth= needs a host: an MX host, that a stranger names, is told no secrets")
    if host[:1] == "/" and ("source" in found or "prefer" in found):
        raise ValueError("a Unix socket has neither source= nor prefer=: remove them")
    way = Way(kind, "none" if host[:1] == "/" else "may", auth=_auth(found.get("auth")),
              sources=_sources(found.get("source")), prefer=_family(found.get("prefer")))
    return Route(host, port, way, file)


def _where(text: str) -> tuple[str, str, int]:
    """(kind, host without brackets, port)."""
    kind, colon, rest = text.partition(":")
    named = bool(colon) and kind in PORTS
    if not named:
        kind, rest = "smtp", text
    if kind == "lmtp" and rest[:1] == "/":
        return kind, _path(rest), 0
    if is_ipv6(rest):
        raise ValueError(f"{rest}: write an IPv6 address in brackets, as [2001:db8::1]:25")
    host, port = split_port(rest)
    if is_number(host) or named and not host:       # 25 alone is a port, smtp:25 a host called smtp
        raise ValueError(f"{text!a} names no host: write HOST:PORT, before it smtp:, smtps: or lmtp:"
                         " if wanted")
    if host and not is_ipv6(host):
        ascii_domain(host)
    return kind, lower_ascii(host), parse_port(port) if port else PORTS[kind]


def _path(text: str) -> str:
    if len(text.encode()) > LONGEST_PATH:
        raise ValueError(f"{text[:60]!a}...: a socket's path has at most {LONGEST_PATH} bytes")
    return text


def _auth(text: str | None) -> str:
    if text is not None and not is_name(text, ".@"):
        raise ValueError(f"auth={text[:60]}: write the name of an entry of credentials: at most"
                         f" {LONGEST_NAME} letters, digits and - _ . @")
    return text or ""


def _sources(text: str | None) -> tuple[str, ...]:
    """One address of each family at the most, the IPv4 one first."""
    found = sorted(text.split(","), key=lambda ip: ":" in ip) if text else []
    for ip in found:
        if not (is_ipv4(ip) or is_ipv6(ip) and parse_ip(ip)[0] == 128):
            raise ValueError(f"source={text}: write one IPv4 address, one IPv6 address, or both with a"
                             " comma")
    if len({":" in ip for ip in found}) < len(found):
        raise ValueError(f"source={text}: write at most one address of each family")
    return tuple([lower_ascii(ip) for ip in found])


def _family(text: str | None) -> str:
    if text not in (None, "ipv4", "ipv6"):
        raise ValueError(f"prefer={text}: write prefer=ipv4 or prefer=ipv6")
    return text or ""
