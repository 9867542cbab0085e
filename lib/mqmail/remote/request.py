"""XHOP: which host a line to a worker stands for, as facts in one command. Pure.

``host=mx.example port=25 ip=192.0.2.1,2001:db8::1 kind=smtp tls=may``; what has its default is left out.
The worker believes none of it: whatever does not parse is refused.
"""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.base.value import value
from mqmail.mail.address import is_ipv4, is_ipv6
from mqmail.mail.mxlist import DIRECT, MOST_ADDRESSES, Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("smtp", "smtps", "lmtp")
LEVELS = ("none", "may", "encrypt", "verify")
VERSIONS = ("", "1.2", "1.3")
_FACTS = frozenset(("host", "port", "ip", "kind", "tls", "names", "min", "sni", "auth", "source"))
_LONGEST = 255


@value
class Request:
    """*addresses* in the order in which they are tried; none for a Unix socket, whose path *host* is."""

    host: str
    port: int
    addresses: tuple[str, ...]
    way: Way

    @property
    def is_unix(self) -> bool:
        """Whether *host* is a path."""
        return self.host[:1] == "/"


def encode(host: str, port: int, addresses: Sequence[str], way: Way) -> str:
    """The command's argument."""
    found = {"host": host, "port": port or "", "ip": ",".join(addresses)}
    if way != DIRECT:
        found.update(way.facts())
    return xtext.facts(found)


def parse(text: str) -> Request:
    """The request in *text*. Raises ValueError that says what is wrong."""
    facts = xtext.parse_facts(text.split())
    odd = [name for name in facts if name not in _FACTS]
    if odd:
        raise ValueError(f"unknown fact {odd[0]}")
    host, port, addresses = facts.get("host", ""), facts.get("port", ""), _list(facts.get("ip", ""))
    if not 0 < len(host) <= _LONGEST or not host.isprintable() or " " in host:
        raise ValueError("no host")
    if host[0] == "/" and (port or addresses):
        raise ValueError("a path has no port and no address")
    if host[0] != "/" and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError("no port")
    if host[0] != "/" and not 0 < len(addresses) <= MOST_ADDRESSES:
        raise ValueError("no address, or too many")
    _check_addresses(addresses)
    return Request(host, int(port or 0), addresses, _way(facts))


def _way(facts: dict[str, str]) -> Way:
    way = Way(kind=facts.get("kind", DIRECT.kind), tls=facts.get("tls", DIRECT.tls),
              names=_list(facts.get("names", "")), minimum=facts.get("min", ""),
              sni=facts.get("sni", ""), auth=facts.get("auth", ""),
              sources=_list(facts.get("source", "")))
    for word, known in ((way.kind, KINDS), (way.tls, LEVELS), (way.minimum, VERSIONS)):
        if word not in known:
            raise ValueError(f"{word[:30]!a} is none of {', '.join(known)}")
    _check_addresses(way.sources)
    return way


def _check_addresses(addresses: Sequence[str]) -> None:
    for address in addresses:
        if not (is_ipv4(address) or is_ipv6(address)):
            raise ValueError(f"{address[:40]!a} is no address")


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
