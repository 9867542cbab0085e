"""Asking mq-resolve about recipients: over one session for all clients of a worker, or for one client.

Both have ``ask(transaction)``, which carries out a transaction of mode ASK and returns what to say for
recipients that got no verdict.
"""

from __future__ import annotations

from mqmail.base import log
from mqmail.base.waiter import Running, Waiter
from mqmail.net.expired import Expired
from mqmail.net.session import Session
from mqmail.xmtp.client import Broken, Client, End, Ready
from mqmail.xmtp.reply import Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream
    from mqmail.xmtp.client import Transaction

SOCKET = "run/resolve.sock"
TIMEOUT = 20.0          # seconds for an answer
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_DOWN = reply(451, "4.3.2", "unable to look up addresses now, try again later")
_SLOW = reply(451, "4.4.1", "looking up addresses takes too long, try again later")


class OneResolver:
    """One client's: connects when the first question comes. *connect* gives a stream or OSError."""

    def __init__(self, connect: Callable[[], Awaitable[Stream | BlockingStream]], name: str) -> None:
        self._connect = connect
        self._name = name
        self._session: Session | None = None

    async def ask(self, transaction: Transaction) -> Reply | None:
        """Carry it out."""
        try:
            session = await self._opened()
        except OSError as error:
            log.event("resolve_unavailable", error=error.strerror)
            return _DOWN
        if not session.broken:
            await session.ask([transaction])
        if session.broken:
            log.event("resolve_unavailable", error=session.broken)
            self._session = None
            return _SLOW if session.expired else _DOWN
        return None

    async def _opened(self) -> Session:
        session = self._session
        if session is None or not session.alive():
            if session is not None:
                session.close()
            session = Session(await self._connect(), "lmtp", self._name, TIMEOUT)
            await session.open()
            self._session = session
        return session


class SharedResolver:
    """A worker's: the questions of all clients go over one session, those of one wake-up of the loop in
    one write, and nobody waits for the others' answers to be used up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connect: Callable[[], Awaitable[Stream]],
                 name: str) -> None:
        self._loop = loop
        self._connect = connect
        self._name = name
        self._stream: Stream | None = None
        self._client: Client | None = None                  # greeted, and of use
        self._serving = False
        self._waiting: dict[Transaction, Waiter] = {}       # asked, or to be asked, in order
        self._flushing = False
        self._pause = 0.0
        self._not_before = 0.0

    async def ask(self, transaction: Transaction) -> Reply | None:
        """Carry it out."""
        if not self._serving and self._loop.time() < self._not_before:
            return _DOWN
        waiter = self._waiting[transaction] = Waiter()
        if self._client is not None:
            self._client.begin(transaction)
            self._flush_soon()
        elif not self._serving:
            self._serving = True
            Running(self._serve(), self._ended)
        return await waiter  # type: ignore[no-any-return]

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._client is not None and self._stream is not None:
            if not self._stream.expires:
                self._stream.expire_after(TIMEOUT)
            self._stream.write(*self._client.take_output())

    async def _serve(self) -> str:
        """Connect and read answers until the session is over; returns why."""
        stream = self._stream = await self._connect()
        client = Client("lmtp", self._name, most_lines=10000)
        stream.expire_after(TIMEOUT)
        while True:
            for event in client.feed(await stream.read()):
                kind = type(event)
                if kind is End:
                    self._waiting.pop(event.transaction).set(None)
                elif kind is Ready:
                    self._begin(client)
                elif kind is Broken:
                    return event.why or "closed"
            stream.expire_after(TIMEOUT if self._waiting or self._client is None else 0.0)
            stream.write(*client.take_output())

    def _begin(self, client: Client) -> None:
        """The session stands: ask what has been waiting for it."""
        self._client = client
        self._pause = 0.0
        for transaction in self._waiting:
            client.begin(transaction)

    def _ended(self, why: str | None, error: BaseException | None) -> None:
        """Whoever waits is told to come again; the next question connects again, after a pause if this
        session was of no use."""
        if self._client is None:
            self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
            self._not_before = self._loop.time() + self._pause
        self._client, self._serving = None, False
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        waiting, self._waiting = self._waiting, {}
        if waiting or why is None:
            log.event("resolve_unavailable", error=why or str(error), waiting=len(waiting))
        answer = _SLOW if isinstance(error, Expired) else _DOWN
        for waiter in waiting.values():
            waiter.set(answer)

    def close(self) -> None:
        """Say goodbye."""
        if self._stream is not None:
            self._stream.close()
