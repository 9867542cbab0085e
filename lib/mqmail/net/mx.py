"""The hosts that take a domain's mail, by control/smtproutes and by DNS.

What the answers mean is decided in mail/mxlist.py.
"""

from __future__ import annotations

# Those that are not used here would be imported late, when mq-rspawn cannot read its modules.
import encodings.punycode  # noqa: F401
from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, socket

import idna
import idna.uts46data  # noqa: F401

from mqmail.base import program
from mqmail.base.waiter import Running, Waiter
from mqmail.control.hosts import SMTP_PORT
from mqmail.mail import mxlist
from mqmail.mail.address import lower_ascii
from mqmail.mail.mxlist import FAILED, Answer, Choice, Limits, NoHosts
from mqmail.net.dns import Resolver, system_servers

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from mqmail.control.hosts import Routes
    from mqmail.control.reader import Control
    from mqmail.net.stream import Deadlines

CONTROL = ("me", "helohost", "smtproutes", "resolvers", "refusednetworks")
TOTAL = 30.0        # seconds for a domain
AT_ONCE = 4         # hosts of a domain whose addresses are looked up at a time

Found = dict[str, "list[Answer]"]


def from_control(loop: asyncio.AbstractEventLoop, deadlines: Deadlines, control: Control) -> Finder:
    """By the control files CONTROL."""
    servers = list(control.resolvers) or system_servers()
    names = frozenset([lower_ascii(control.me), lower_ascii(control.helohost)])
    limits = Limits(names, is_own_address, control.refusednetworks.contains)
    return Finder(loop, Resolver(loop, deadlines, servers), limits, control.smtproutes)


class Finder:
    """Looks up domains: in *routes*, then with *resolver*."""

    def __init__(self, loop: asyncio.AbstractEventLoop, resolver: Resolver, limits: Limits,
                 routes: Routes) -> None:
        self._loop = loop
        self._resolver = resolver
        self._limits = limits
        self._routes = routes

    def known(self, domain: str) -> list[Choice]:
        """The next hop that smtproutes has for *domain*; [] if it has none."""
        host, port = self._routes.lookup(domain) or ("", 0)
        return [Choice(0, host, port)] if host else []

    async def find(self, domain: str) -> list[Choice] | NoHosts:
        """The MX hosts of *domain*, which is in lower case and may be an address literal or in UTF-8."""
        _, port = self._routes.lookup(domain) or ("", SMTP_PORT)
        if not domain:
            return NoHosts("4.4.4", "an address without a domain, and no route for it")
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
