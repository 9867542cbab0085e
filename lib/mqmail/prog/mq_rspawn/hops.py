"""Sessions to next hops: opened when needed, kept for a moment, bounded in number.

``take`` gives an open session to a next hop or raises Unreachable; ``give`` takes it back. At most
``settings.most`` are out at a time; who comes later waits for a turn.
"""

from __future__ import annotations

import os
from _socket import SOCK_STREAM
from collections import deque

from mqmail.base.value import value
from mqmail.base.waiter import Waiter
from mqmail.mail.address import is_ipv4, is_ipv6
from mqmail.mail.mxlist import MOST_ADDRESSES
from mqmail.net.expired import Expired
from mqmail.net.session import Session
from mqmail.net.stream import Deadlines, connect_tcp
from mqmail.prog.mq_rspawn.verdicts import passed_on, put_off
from mqmail.xmtp.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from typing import Any

    from mqmail.mail.mxlist import Choice
    from mqmail.mail.mxplan import Hop
    from mqmail.xmtp.reply import Reply

MOST_LINES = 100        # of a reply
KEPT = 5.0              # seconds that an idle session is kept
MOST_KEPT = 20


@value
class Settings:
    """*name* for EHLO; *connect* and *answer*: seconds; *most* sessions in use at a time."""

    name: str
    connect: float
    answer: float
    most: int


class Unreachable(Exception):
    """No session to the next hop; ``verdict`` is for all its recipients."""

    def __init__(self, verdict: Reply) -> None:
        super().__init__(verdict.said())
        self.verdict = verdict


class Peer:
    """An open session; *host* is ``name[ip]:port``."""

    __slots__ = ("closing", "hop", "host", "session")

    def __init__(self, session: Session, hop: Hop, host: str) -> None:
        self.session = session
        self.hop = hop
        self.host = host
        self.closing: asyncio.TimerHandle | None = None     # of an idle one


class Hops:
    """All sessions of this process to other hosts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings) -> None:
        self.settings = settings
        self._loop = loop
        self._deadlines = Deadlines(loop)
        self._idle: list[Peer] = []
        self._turns: deque[Waiter] = deque()
        self._busy = 0
        self._closing = False

    async def take(self, choice: Choice, fresh: bool = False) -> Peer:
        """A session to a host, one that was used before unless *fresh*. To be given back."""
        if self._busy >= self.settings.most:
            self._turns.append(Waiter())
            await self._turns[-1]
        else:
            self._busy += 1
        try:
            if self._closing:
                raise Unreachable(put_off("4.3.2", "", "closing down"))
            idle = None if fresh else self._take_idle((choice.host, choice.port))
            return idle or await self._open(choice)
        except BaseException:
            self._pass_turn()
            raise

    def give(self, peer: Peer) -> None:
        """The session is not needed now: keep it for a while if it is sound."""
        if peer.session.client.idle and not peer.session.broken:
            peer.closing = self._loop.call_later(KEPT, self._close_idle, peer)
            self._idle.append(peer)
            if len(self._idle) > MOST_KEPT:
                self._close_idle(self._idle[0])
        else:
            peer.session.close()
        self._pass_turn()

    def close_idle(self) -> None:
        """Say QUIT to all that nobody uses."""
        for peer in list(self._idle):
            self._close_idle(peer)

    def abort(self) -> None:
        """Cut all connections and make no more: every recipient under way gets its verdict now."""
        self._closing = True
        for stream in list(self._deadlines.streams):
            stream.close()

    def _pass_turn(self) -> None:
        """Whoever waits goes on in the loop, not inside of us."""
        if self._turns and self._busy <= self.settings.most:
            self._loop.call_soon(self._turns.popleft().set)
        else:
            self._busy -= 1

    def _take_idle(self, hop: Hop) -> Peer | None:
        for peer in [p for p in self._idle if p.hop == hop]:
            if peer.session.alive():
                self._forget(peer)
                return peer
            self._close_idle(peer)
        return None

    def _forget(self, peer: Peer) -> None:
        self._idle.remove(peer)
        if peer.closing is not None:
            peer.closing.cancel()

    def _close_idle(self, peer: Peer) -> None:
        self._forget(peer)
        peer.session.close()

    # --- opening ---

    async def _open(self, choice: Choice) -> Peer:
        """The first of the host's addresses that talks to us."""
        hop = (choice.host, choice.port)
        addresses = choice.addresses or await self._system_addresses(choice)
        end = self._loop.time() + 2 * self.settings.answer
        failure: Unreachable | None = None
        for ip in addresses:
            try:
                return await self._greet(hop, ip)
            except Unreachable as error:
                failure = error
            if self._loop.time() > end:         # slow ones have had their time
                break
        assert failure is not None
        raise failure

    async def _system_addresses(self, choice: Choice) -> Sequence[str]:
        """Those of a host of smtproutes."""
        host = f"{choice.host}:{choice.port}"
        if choice.trouble:
            raise Unreachable(put_off("4.4.3", host, choice.trouble))
        try:
            return await self._look_up(choice.host, choice.port)
        except (OSError, UnicodeError, Expired) as error:
            raise Unreachable(put_off("4.4.3", host, _words(error))) from None

    async def _greet(self, hop: Hop, ip: str) -> Peer:
        settings = self.settings
        host = f"{hop[0].strip('[]')}[{ip}]:{hop[1]}"
        try:
            stream = await connect_tcp(self._loop, self._deadlines, ip, hop[1], settings.connect)
        except (OSError, Expired) as error:
            raise Unreachable(put_off("4.4.1", host, _words(error))) from None
        session = Session(stream, "smtp", settings.name, settings.answer)
        session.client = Client("smtp", settings.name, MOST_LINES)
        limit = self._loop.call_later(2 * settings.answer, stream.expire)
        try:
            if await session.open():
                return Peer(session, hop, host)
        finally:
            limit.cancel()
        raise Unreachable(_refusal(session, host))

    async def _look_up(self, host: str, port: int) -> list[str]:
        """An address as it is; of a name, what the system's resolver says, each address once."""
        if is_ipv4(host) or is_ipv6(host):
            return [host]
        waiter = Waiter()
        task = self._loop.create_task(self._loop.getaddrinfo(host, port, type=SOCK_STREAM))
        task.add_done_callback(lambda done: _hand_over(done, waiter))
        limit = self._loop.call_later(self.settings.connect, waiter.fail, Expired())
        try:
            found = await waiter
        finally:
            limit.cancel()
            task.cancel()
        return list(dict.fromkeys([str(entry[4][0]) for entry in found]))[:MOST_ADDRESSES]


def _hand_over(done: asyncio.Task[Any], waiter: Waiter) -> None:
    if done.cancelled():
        return
    error = done.exception()
    if error is None:
        waiter.set(done.result())
    else:
        waiter.fail(error)


def _refusal(session: Session, host: str) -> Reply:
    """What a session that could not be opened means."""
    if session.refusal is None:
        return put_off("4.4.2", host, session.broken)
    if session.refusal.code < 500:
        return put_off(session.refusal.status or "4.4.1", host, session.broken)
    return passed_on(session.refusal, host)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or os.strerror(error.errno or 0)
    return "no answer in time" if isinstance(error, Expired) else str(error)
