"""Lines to the workers: each stands for a session with a host. All messages share them.

``take`` gives a line whose host has been reached, or raises Unreachable; ``give`` takes it back. At most
``settings.most`` are out at a time, of a host no more than its pace allows (mail/pace.py), and only one
opening goes to a host that has not been reached yet. A host that is known to be down
(mail/hostmemory.py) costs nothing.
"""

from __future__ import annotations

import os
import random
import time
from _socket import SOCK_STREAM
from collections import deque

from mqmail.base import log
from mqmail.base.value import value
from mqmail.base.waiter import Waiter
from mqmail.mail.address import is_ipv4, is_ipv6
from mqmail.mail.mxlist import MOST_ADDRESSES, preferred
from mqmail.mail.pace import Pace
from mqmail.net.expired import Expired
from mqmail.net.stream import Deadlines
from mqmail.prog.mq_rspawn.hints import key_of
from mqmail.prog.mq_rspawn.workers import NoWorker, Workers
from mqmail.remote import request
from mqmail.remote.carrier import NOT_REACHED
from mqmail.remote.opening import Unreachable
from mqmail.remote.verdicts import NOBODY, Host, marked, put_off
from mqmail.xmtp.reply import Reply, facts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from mqmail.mail.hostmemory import Down, HostMemory
    from mqmail.mail.mxlist import Choice
    from mqmail.mail.mxplan import Hop
    from mqmail.net.session import Session

MOST_HOSTS = 10000              # whose pace is remembered
MOST_IDLE = 500                 # lines: each is a descriptor here, and two in a worker


@value
class Settings:
    """*name* for LHLO; *seconds* that a worker may take for a step; *lookup*: seconds for an address;
    *most* lines in use at a time; *start* and *per_host*: sessions with one host, at first and at the
    most; *idle*: seconds that an unused session is kept."""

    name: str
    seconds: float
    lookup: float
    most: int
    start: int
    per_host: int
    idle: float


class Line:
    """A session with a worker, and through it with the host of *hop*."""

    __slots__ = ("closing", "generation", "hop", "host", "session")

    def __init__(self, session: Session, hop: Hop, host: _Host, generation: int) -> None:
        self.generation = generation        # of the control files
        self.session = session
        self.hop = hop
        self.host = host
        self.closing: asyncio.TimerHandle | None = None     # of an idle one


class _Host:
    """One next hop: how many lines to it are out, who waits for one."""

    __slots__ = ("opening", "pace", "reached", "running", "turns")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.running = 0
        self.opening = 0
        self.reached = False
        self.turns: deque[Waiter] = deque()


class Lines:
    """All lines of this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, memory: HostMemory) -> None:
        self.settings = settings
        self.memory = memory
        self._loop = loop
        self._deadlines = Deadlines(loop)
        self._workers = Workers(loop, self._deadlines)
        self._idle: dict[Hop, list[Line]] = {}
        self._resting: dict[Line, None] = {}        # the same, the oldest first
        self._generation = 0
        self._hosts: dict[Hop, _Host] = {}
        self._turns: deque[Waiter] = deque()
        self._busy = 0
        self._closing = False

    async def take(self, choice: Choice, force: float = 0.0) -> Line:
        """A line to the host of *choice*; *force*: when somebody wanted an attempt at once. To be
        given back."""
        host = self._host(choice.hop)
        while True:
            while not self._may_begin(host):
                host.turns.append(Waiter())
                await host.turns[-1]
            host.running += 1
            try:
                return await self._take(choice, host, force)
            except _Full:
                host.running -= 1
                host.pace.capped(host.running)      # whoever is out comes back and wakes us
            except BaseException:
                host.running -= 1
                self._next_turn(host)
                raise

    async def _take(self, choice: Choice, host: _Host, force: float) -> Line:
        await self._overall_turn()
        try:
            return self._take_idle(choice.hop, host) or await self._open(choice, host, force)
        except BaseException:
            self._pass_overall_turn()
            raise

    def give(self, line: Line, cut: bool = False, unreached: Reply | None = None) -> None:
        """The line is not needed now: keep it for a while if it is sound. *cut*: the host broke the
        session off; *unreached*: the verdict when no new one could be had instead of the one that had
        ended."""
        host, now = line.host, self._loop.time()
        if unreached is not None:
            self._fell(line, unreached)
        elif cut:
            host.pace.failure(now)
        else:
            host.pace.success(now)
        fit = not cut and unreached is None and line.generation == self._generation
        if fit and self.settings.idle and line.session.client.idle and not line.session.broken:
            self._keep(line)
        else:
            self._workers.let_go(line.session)
        host.running -= 1
        self._pass_overall_turn()
        self._next_turn(host)

    def _fell(self, line: Line, verdict: Reply) -> None:
        """A host that was reached cannot be any more, unless it has only enough of us."""
        host = line.host
        if host.running > 1:
            return host.pace.capped(host.running - 1)
        host.reached = False
        host.pace.failure(self._loop.time())
        self._remember(key_of(line.hop), verdict)
        return None

    def renew(self) -> None:
        """Use no line of now again: what the control files say has changed."""
        self._generation += 1
        self.close_idle()

    def close_idle(self) -> None:
        """Close all that nobody uses."""
        for line in list(self._resting):
            self._close_idle(line)
        self._workers.close()

    def abort(self) -> None:
        """Cut all lines and make no more: every recipient under way gets its verdict now."""
        self._closing = True
        for stream in list(self._deadlines.streams):
            stream.close()

    # --- turns ---

    def _host(self, hop: Hop) -> _Host:
        host = self._hosts.pop(hop, None)
        if host is None:
            if len(self._hosts) >= MOST_HOSTS:
                self._forget_one()
            host = _Host(Pace(self.settings.start, self.settings.per_host))
        self._hosts[hop] = host         # the last used last
        return host

    def _forget_one(self) -> None:
        """One that nobody uses, of those that were not used for long."""
        for hop, host in self._hosts.items():
            if not host.running and not host.turns:
                del self._hosts[hop]
                return

    def _may_begin(self, host: _Host) -> bool:
        """One attempt finds out whether a host can be reached; the others wait for it."""
        if host.opening and not host.reached:
            return False
        return host.pace.may_begin(host.running, self._loop.time())

    def _next_turn(self, host: _Host) -> None:
        """Whoever waits for the host goes on in the loop, not inside of us, and looks for himself."""
        if host.turns and self._may_begin(host):
            self._loop.call_soon(self._wake, host)

    def _wake(self, host: _Host) -> None:
        if host.turns and self._may_begin(host):
            host.turns.popleft().set()
            self._next_turn(host)

    async def _overall_turn(self) -> None:
        if self._busy >= self.settings.most:
            self._turns.append(Waiter())
            await self._turns[-1]
        else:
            self._busy += 1

    def _pass_overall_turn(self) -> None:
        if self._turns and self._busy <= self.settings.most:
            self._loop.call_soon(self._turns.popleft().set)
        else:
            self._busy -= 1

    # --- idle lines ---

    def _keep(self, line: Line) -> None:
        line.closing = self._loop.call_later(self.settings.idle, self._close_idle, line)
        self._idle.setdefault(line.hop, []).append(line)
        self._resting[line] = None
        if len(self._resting) > MOST_IDLE:
            self._close_idle(next(iter(self._resting)))

    def _take_idle(self, hop: Hop, host: _Host) -> Line | None:
        for line in reversed(self._idle.get(hop, [])):
            if line.session.alive():
                self._forget(line)
                line.host = host
                return line
            self._close_idle(line)
        return None

    def _forget(self, line: Line) -> None:
        lines = self._idle[line.hop]
        lines.remove(line)
        del self._resting[line]
        if not lines:
            del self._idle[line.hop]
        if line.closing is not None:
            line.closing.cancel()

    def _close_idle(self, line: Line) -> None:
        self._forget(line)
        self._workers.let_go(line.session)

    # --- opening ---

    async def _open(self, choice: Choice, host: _Host, force: float) -> Line:
        """A line by which a worker has reached the host. It becomes known as up or down."""
        if self._closing:
            raise Unreachable(put_off("4.3.2", NOBODY, "closing down"))
        key = key_of(choice.hop)
        known = self.memory.known(key, time.time(), force)
        if known is not None:
            raise Unreachable(_is_down(known))
        host.opening += 1
        try:
            line = await self._connect(choice, host)
        except NoWorker:
            self.memory.not_tried(key, time.time())
            raise
        except Unreachable as failure:
            if host.reached and host.running > 1 and failure.verdict.code < 500:
                self.memory.up(key)
                raise _Full(failure.verdict) from None
            host.reached = False
            host.pace.failure(self._loop.time())
            self._remember(key, failure.verdict)
            raise
        finally:
            host.opening -= 1
        host.reached = True
        self.memory.up(key)
        self._next_turn(host)
        return line

    def _remember(self, key: str, verdict: Reply) -> None:
        """That the host is down, unless it will not have us at all."""
        if verdict.code < 500:
            facts = facts_of(verdict.text)
            until = self.memory.down(key, time.time(), random.random(),  # noqa: S311  spreads load
                                     verdict.status, facts.get("host", ""), facts.get("said", ""))
            log.event("host_down", host=key, seconds=int(until - time.time()),
                      said=facts.get("said", "")[:300])
        else:
            self.memory.up(key)

    async def _connect(self, choice: Choice, host: _Host) -> Line:
        facts, settings = await self._request(choice), self.settings
        session = await self._workers.reach(facts, settings.name, settings.seconds)
        return Line(session, choice.hop, host, self._generation)

    async def _request(self, choice: Choice) -> str:
        """XHOP's argument; addresses that are the system's business are looked up."""
        addresses = choice.addresses
        label = Host(f"{choice.host}:{choice.port}")
        if choice.trouble:
            raise Unreachable(put_off("4.4.3", label, choice.trouble))
        if not addresses and choice.host[:1] != "/":
            try:
                addresses = await self._look_up(choice)
            except (OSError, UnicodeError, Expired) as error:
                raise Unreachable(put_off("4.4.3", label, _words(error))) from None
        return request.encode(choice.host, choice.port, addresses, choice.way)

    async def _look_up(self, choice: Choice) -> tuple[str, ...]:
        """An address as it is; of a name, what the system's resolver says, each address once."""
        if is_ipv4(choice.host) or is_ipv6(choice.host):
            return (choice.host,)
        waiter = Waiter()
        task = self._loop.create_task(self._loop.getaddrinfo(choice.host, choice.port, type=SOCK_STREAM))
        task.add_done_callback(lambda done: _hand_over(done, waiter))
        limit = self._loop.call_later(self.settings.lookup, waiter.fail, Expired())
        try:
            found = await waiter
        finally:
            limit.cancel()
            task.cancel()
        addresses = list(dict.fromkeys([str(entry[4][0]) for entry in found]))
        return preferred(addresses, choice.way.prefer)[:MOST_ADDRESSES]


class _Full(Unreachable):
    """The host serves us, and wants no further session at the moment."""


def _is_down(known: Down) -> Reply:
    """The verdict without an attempt."""
    return marked(put_off(known.status, Host(known.host), known.said), NOT_REACHED)


def _hand_over(done: asyncio.Task[Any], waiter: Waiter) -> None:
    if done.cancelled():
        return
    error = done.exception()
    if error is None:
        waiter.set(done.result())
    else:
        waiter.fail(error)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or os.strerror(error.errno or 0)
    return "no answer in time" if isinstance(error, Expired) else str(error)
