"""From what DNS says to the hosts that take a domain's mail (RFC 5321 section 5.1). Pure.

First ``names_of`` reads the MX answer, then addresses are looked up for those names, then ``choices``
drops what must not or cannot be sent to. Both give NoHosts when nothing is left.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.mail.address import is_ipv4, lower_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

FOUND, NOTHING, UNKNOWN, FAILED = "found", "nothing", "unknown", "failed"
MOST_HOSTS = 50             # of a domain that are considered, the best first
MOST_ADDRESSES = 8          # of a host


@value
class Answer:
    """What DNS says of a name. *kind*: FOUND; NOTHING, the name has no such record; UNKNOWN, there is no
    such name; FAILED, nobody can say now, *why* being the reason. *records*: (preference, name in
    lower case without the last dot, or ".") for MX, addresses for A and AAAA, octets for TXT, names as
    MX' for PTR. *ttl*: seconds."""

    kind: str
    records: tuple[Any, ...] = ()
    ttl: int = 0
    why: str = ""


@value
class Way:
    """How a host is spoken to. *kind*: smtp, smtps (TLS from the first octet) or lmtp. *tls*: none, may,
    encrypt or verify; *names*: those that the certificate must be for one of (``.example.org``:
    anything below), *minimum*: 1.2, 1.3 or "" for any version, *sni*: "" for the host's name. *auth*: an
    entry of control/credentials. *sources*: our addresses to connect from. *prefer*: ipv4 or ipv6."""

    kind: str = "smtp"
    tls: str = "may"
    names: tuple[str, ...] = ()
    minimum: str = ""
    sni: str = ""
    auth: str = ""
    sources: tuple[str, ...] = ()
    prefer: str = ""

    def facts(self) -> dict[str, str]:
        """As XHOP has them; what is empty is to be left out."""
        return {"kind": self.kind, "tls": self.tls, "names": ",".join(self.names), "min": self.minimum,
                "sni": self.sni, "auth": self.auth, "source": ",".join(self.sources)}


DIRECT = Way()


@value
class Choice:
    """A host that takes a domain's mail. Without *addresses* either *trouble* says why they are not
    known now, or they are the system's business (the host of a route). A Unix socket (LMTP only) has
    its path for *host* and 0 for *port*."""

    preference: int
    host: str
    port: int
    addresses: tuple[str, ...] = ()
    trouble: str = ""
    way: Way = DIRECT

    @property
    def hop(self) -> tuple[str, int, Way]:
        """What makes it another next hop than the others."""
        return self.host, self.port, self.way


@value
class NoHosts:
    """Nobody takes a domain's mail: *status* 4.y.z for now, 5.y.z for good, and *why*."""

    status: str
    why: str


@value
class Limits:
    """What must not be sent to. *names*: ours, in lower case. *is_ours(ip)*, *is_refused(ip)*."""

    names: frozenset[str]
    is_ours: Callable[[str], bool]
    is_refused: Callable[[str], bool]


def names_of(domain: str, answer: Answer) -> list[tuple[int, str]] | NoHosts:
    """The (preference, name) that the answer to the MX question gives, sorted, each name once."""
    if answer.kind == FAILED:
        return NoHosts("4.4.3", f"the MX of {domain} cannot be looked up: {answer.why}")
    if answer.kind == UNKNOWN:
        return NoHosts("5.1.2", f"{domain} does not exist")
    if answer.kind == NOTHING:
        return [(0, domain)]                # the implicit MX
    found: dict[str, int] = {}
    for preference, name in sorted(answer.records):
        found.setdefault(name, preference)
    if list(found) == ["."]:                # RFC 7505 section 3
        return NoHosts("5.1.10", f"{domain} takes no mail (null MX)")
    found.pop(".", None)
    return [(preference, name) for name, preference in found.items()][:MOST_HOSTS]


def choices(domain: str, names: Sequence[tuple[int, str]], found: Mapping[str, Sequence[Answer]],
            port: int, limits: Limits) -> list[Choice] | NoHosts:
    """The hosts for *domain*, by preference. *found*: the answers to A and AAAA for each name."""
    addresses = {name: _merge(found.get(name, ())) for _, name in names}
    best = min([p for p, name in names if _is_ours(name, addresses[name], limits)], default=65536)
    others = [(p, name) for p, name in names if p < best]
    if not others:
        return NoHosts("5.4.6", f"{domain} has this host as its best MX, yet is no domain of ours")
    out, reasons = [], []
    for preference, name in others:
        good = [ip for ip in addresses[name] if not limits.is_refused(ip)]
        trouble = [answer.why for answer in found.get(name, ()) if answer.kind == FAILED]
        if good and not _looks_like_address(name):
            out.append(Choice(preference, name, port, tuple(good[:MOST_ADDRESSES])))
        elif trouble:
            out.append(Choice(preference, name, port, (), f"no address of {name} known: {trouble[0]}"))
        else:
            reasons.append(_why_not(name, addresses[name]))
    if out:
        return out
    implicit = [name for _, name in names] == [domain]
    return NoHosts("5.1.2" if implicit else "5.4.4", f"no host takes mail for {domain}: {reasons[0]}")


def literal(domain: str, port: int, limits: Limits) -> list[Choice] | NoHosts:
    """The host that an address literal names (RFC 5321 section 4.1.3)."""
    ip = lower_ascii(domain[1:-1]).removeprefix("ipv6:")
    return choices(domain, [(0, domain)], {domain: [Answer(FOUND, (ip,))]}, port, limits)


def preferred(addresses: Iterable[str], family: str) -> tuple[str, ...]:
    """Those of *family* (ipv4, ipv6, or "": as they are) first, otherwise in their order."""
    return tuple(sorted(addresses, key=lambda ip: bool(family) and (":" in ip) != (family == "ipv6")))


def with_way(found: Iterable[Choice], way: Way) -> list[Choice]:
    """The same hosts, to be spoken to in that way, addresses of the preferred family first."""
    return [Choice(choice.preference, choice.host, choice.port, preferred(choice.addresses, way.prefer),
                   choice.trouble, way) for choice in found]


def _merge(answers: Iterable[Answer]) -> list[str]:
    """The addresses of both families in turn, each once: neither family can crowd out the other."""
    lists = [answer.records for answer in answers]
    longest = max([len(one) for one in lists], default=0)
    return list(dict.fromkeys([one[i] for i in range(longest) for one in lists if i < len(one)]))


def _is_ours(name: str, addresses: Iterable[str], limits: Limits) -> bool:
    return name in limits.names or any([limits.is_ours(ip) for ip in addresses])


def _looks_like_address(name: str) -> bool:
    """``10 192.0.2.1.``: a mistake in the zone (RFC 5321 section 5.1 wants a name)."""
    return is_ipv4(name)


def _why_not(name: str, addresses: Sequence[str]) -> str:
    if _looks_like_address(name):
        return f"its MX {name} is an address, not a name"
    if addresses:
        return f"{name} is at {addresses[0]}, where no mail is sent to"
    return f"{name} has no address"
