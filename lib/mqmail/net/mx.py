"""The hosts that take a domain's mail, by the control files' routes and by DNS, and the way to speak to
each. What DNS' answers mean is decided in mail/mxlist.py.
"""

from __future__ import annotations

# Those that are not used here would be imported late, when mq-rspawn cannot read its modules.
import encodings.punycode  # noqa: F401
from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, socket

import idna
import idna.uts46data  # noqa: F401

from mqmail.base import program
from mqmail.base.waiter import Running, Waiter
from mqmail.control.routes import Routing
from mqmail.mail import mxlist
from mqmail.mail.address import lower_ascii, written_domain_of
from mqmail.mail.mxlist import FAILED, Answer, Choice, Limits, NoHosts
from mqmail.net.dns import Resolver, system_servers

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from mqmail.control.reader import Control
    from mqmail.control.routes import Route
    from mqmail.net.stream import Deadlines

CONTROL = ("me", "helohost", "smtproutes", "senderroutes", "fallbackroute", "tlspolicy", "resolvers",
           "refusednetworks")
TOTAL = 30.0        # seconds for a domain
AT_ONCE = 4         # hosts of a domain whose addresses are looked up at a time
MOST_CHOICES = 10000            # next hops of the control files that are remembered
FALLBACK = 65536    # the preference of the fallback route: worse than any MX host's

Found = dict[str, "list[Answer]"]


def from_control(loop: asyncio.AbstractEventLoop, deadlines: Deadlines, control: Control) -> Finder:
    """By the control files CONTROL."""
    servers = list(control.resolvers) or system_servers()
    names = frozenset([lower_ascii(control.me), lower_ascii(control.helohost)])
    limits = Limits(names, is_own_address, control.refusednetworks.contains)
    routing = Routing(control.smtproutes, control.senderroutes, control.fallbackroute, control.tlspolicy)
    return Finder(loop, Resolver(loop, deadlines, servers), limits, routing)


class Finder:
    """Looks up domains, which are in lower case and may be address literals or in UTF-8: in *routing*,
    then with *resolver*. The *sender* is the envelope's, "" for the null sender."""

    def __init__(self, loop: asyncio.AbstractEventLoop, resolver: Resolver, limits: Limits,
                 routing: Routing) -> None:
        self._loop = loop
        self._resolver = resolver
        self._limits = limits
        self._routing = routing
        self._choices: dict[tuple[int, str, Route], Choice] = {}

    def route(self, domain: str, sender: str) -> Route:
        """What the control files say, without the fallback route."""
        return self._routing.route(_for_look_up(domain), _sender_for_look_up(sender))

    def known(self, domain: str, sender: str) -> list[Choice]:
        """The next hop that the control files have; [] if they have none."""
        route = self.route(domain, sender)
        return [self._choice(0, domain, route)] if route.host else []

    async def find(self, domain: str, sender: str) -> list[Choice] | NoHosts:
        """The MX hosts of *domain*, and the fallback route behind them, or for them when they are not
        known for now."""
        if not domain:
            return NoHosts("4.4.4", "an address without a domain, and no route for it")
        route, fallback = self.route(domain, sender), self._routing.fallback
        found = await self._mx_hosts(domain, route.port)
        if isinstance(found, NoHosts):
            if fallback is None or found.status[0] == "5":
                return found
            return [self._choice(FALLBACK, domain, fallback)]
        hosts = mxlist.with_way(found, self._routing.way(_for_look_up(domain), route))
        if fallback is None:
            return hosts
        last = self._choice(FALLBACK, domain, fallback)
        return hosts if last.hop in [choice.hop for choice in hosts] else [*hosts, last]

    def _choice(self, preference: int, domain: str, route: Route) -> Choice:
        known = self._choices.get((preference, domain, route))
        if known is None:
            way = self._routing.way(_for_look_up(domain), route)
            known = Choice(preference, route.host, route.port, way=way)
            if len(self._choices) >= MOST_CHOICES:
                self._choices.clear()
            self._choices[preference, domain, route] = known
        return known

    async def _mx_hosts(self, domain: str, port: int) -> list[Choice] | NoHosts:
        if domain[0] == "[":
            return mxlist.literal(domain, port, self._limits)
        try:
            name = to_ascii(domain)
        except UnicodeError as error:
            return NoHosts("5.1.2", f"{domain} is no internationalized domain: {error}")
        end = self._loop.time() + TOTAL
        names = mxlist.names_of(name, await self._resolver.ask(name, "MX"))
        if isinstance(names, NoHosts):
            return names
        found = await self._addresses([name for _, name in names], end - self._loop.time())
        return mxlist.choices(name, names, found, port, self._limits)

    async def _addresses(self, names: Sequence[str], seconds: float) -> Found:
        """The answers to A and AAAA for each of *names*, as far as they come in time."""
        late = Answer(FAILED, why="no answer in time")
        found: Found = {name: [late, late] for name in names}
        if not names:
            return found
        waiting = list(reversed(names))
        left = len(names)
        done = Waiter()

        def one() -> None:
            if waiting:
                Running(self._both(waiting.pop(), found), ended)

        def ended(_result: object, error: BaseException | None) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                program.bug(error)
            if not left:
                done.set()
            else:
                self._loop.call_soon(one)

        timer = self._loop.call_later(max(seconds, 0.0), done.set)
        for _ in range(AT_ONCE):
            one()
        await done
        timer.cancel()
        return found

    async def _both(self, name: str, found: Found) -> None:
        """Both families of one host, side by side."""
        six = Waiter()
        Running(self._resolver.ask(name, "AAAA"),
                lambda answer, error: six.fail(error) if error else six.set(answer))
        found[name][1] = await self._resolver.ask(name, "A")
        found[name][0] = await six


def to_ascii(domain: str) -> str:
    """The A-label form (IDNA 2008, mapped by UTS 46); UnicodeError if there is none. Python's own codec
    is IDNA 2003 and would turn one domain into another, sharp s into ss."""
    if domain.isascii():
        return domain
    return idna.encode(domain, uts46=True).decode("ascii").lower()


def _for_look_up(domain: str) -> str:
    """As the control files have it; a domain that has no such form is in none."""
    try:
        return to_ascii(domain)
    except UnicodeError:
        return domain


def _sender_for_look_up(sender: str) -> str:
    local, at, _ = sender.rpartition("@")
    return f"{local}@{_for_look_up(written_domain_of(sender))}" if at else sender


def is_own_address(ip: str) -> bool:
    """Whether *ip* belongs to this host: then the kernel would send from it what is sent to it."""
    sock = socket(AF_INET6 if ":" in ip else AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        sock.connect((ip, 25))
        return bool(sock.getsockname()[0] == ip)
    except OSError:
        return False
    finally:
        sock.close()
