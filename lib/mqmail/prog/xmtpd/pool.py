"""Sessions to mq-queue: one transaction at a time on each, kept open for the next."""

from __future__ import annotations

import time

from mqmail.base import log
from mqmail.net.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream

SOCKET = "run/queue.sock"
TIMEOUT = 300.0         # seconds for an answer of mq-queue
MOST_IDLE = 32
LONGEST_IDLE = 60.0     # seconds


class Pool:
    """*connect* opens a stream to mq-queue (OSError), *name* is ours."""

    def __init__(self, connect: Callable[[], Awaitable[Stream | BlockingStream]], name: str) -> None:
        self._connect = connect
        self._name = name
        self._idle: list[tuple[float, Session]] = []

    async def take(self) -> Session | None:
        """A session that nobody else uses; None when mq-queue cannot be reached or wants none of us. One
        that mq-queue has closed meanwhile (it was restarted) is passed over before anything is sent."""
        while self._idle:
            session = self._idle.pop()[1]
            if session.alive():
                return session
            session.close()
        try:
            session = Session(await self._connect(), "smtp", self._name, TIMEOUT)
        except OSError as error:
            log.event("queue_unavailable", error=error.strerror)
            return None
        if await session.open():
            return session
        log.event("queue_unavailable", error=session.broken)
        return None

    def give(self, session: Session) -> None:
        """Back after a transaction; a broken session is forgotten."""
        if session.broken:
            return
        if session.client.idle and len(self._idle) < MOST_IDLE:
            self._idle.append((time.monotonic(), session))
        else:
            session.close()

    def tidy(self) -> None:
        """Close what nobody has wanted for a minute."""
        before = time.monotonic() - LONGEST_IDLE
        while self._idle and self._idle[0][0] < before:
            self._idle.pop(0)[1].close()

    def close(self) -> None:
        """Close all that is idle."""
        idle, self._idle = self._idle, []
        for _, session in idle:
            session.close()
