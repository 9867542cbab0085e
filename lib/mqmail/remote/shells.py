"""What talking to a host needs of its surroundings, under the event loop and without one."""

from __future__ import annotations

import time

from mqmail.base import unix
from mqmail.net.blocking import over_socket
from mqmail.net.tcp import connect_blocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any, Protocol

    from mqmail.control.credentials import Entry
    from mqmail.net.blocking import BlockingStream
    from mqmail.net.session import Session
    from mqmail.net.stream import Deadlines, Stream

    class Limit(Protocol):
        """What ends a session that takes too long."""

        def cancel(self) -> None: ...

    class Shell(Protocol):
        """Both shells: seconds in, streams out; Expired or OSError."""

        def now(self) -> float: ...
        def limit(self, session: Session, seconds: float) -> Limit: ...
        async def connect(self, ip: str, port: int, source: str,
                          seconds: float) -> Stream | BlockingStream: ...
        async def connect_unix(self, path: str, seconds: float) -> Stream | BlockingStream: ...
        async def token(self, entry: Entry) -> str: ...
        def token_refused(self, entry: Entry, token: str) -> None: ...
        async def apart(self, function: Callable[..., Any], *arguments: Any) -> Any: ...


class LoopShell:
    """Under the event loop, for a worker with many sessions."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines) -> None:
        from mqmail.net import stream, threads, token
        self._loop = loop
        self._deadlines = deadlines
        self._stream = stream
        self._tokens = token.Tokens(loop)
        self._threads = threads.Threads(loop)

    def now(self) -> float:
        """Seconds of the loop's clock."""
        return self._loop.time()

    def limit(self, session: Session, seconds: float) -> Limit:
        """After *seconds* whatever the session waits for raises Expired."""
        return _Repeated(self._loop, session, seconds)

    async def connect(self, ip: str, port: int, source: str, seconds: float) -> Stream:
        """A TCP connection from *source* ("": any of ours)."""
        return await self._stream.connect_tcp(self._loop, self._deadlines, ip, port, seconds, source)

    async def connect_unix(self, path: str, _seconds: float) -> Stream:
        """A connection to a Unix socket."""
        return await self._stream.connect_unix(self._loop, self._deadlines, path)

    async def token(self, entry: Entry) -> str:
        """What the entry's program says, or said a short while ago. Raises token.TokenFailed."""
        return await self._tokens.get(entry.program)

    def token_refused(self, entry: Entry, token: str) -> None:
        """It is of no more use."""
        self._tokens.forget(entry.program, token)

    async def apart(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What *function* returns or raises; the other sessions go on meanwhile."""
        return await self._threads.do(function, *arguments)


class _Repeated:
    """Once a second from then on: the session may be busy with something else at the moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop, session: Session, seconds: float) -> None:
        self._loop = loop
        self._session = session
        self._timer = loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._timer = self._loop.call_later(1.0, self._expire)
        self._session.stream.expire()  # type: ignore[union-attr]

    def cancel(self) -> None:
        """It is over in time."""
        self._timer.cancel()


class BlockingShell:
    """Without a loop, for a command that sends one message."""

    def now(self) -> float:
        """Seconds of a clock that does not jump."""
        return time.monotonic()

    def limit(self, _session: Session, _seconds: float) -> Limit:
        """The command has a limit as a whole (SIGALRM)."""
        return _Nothing()

    async def connect(self, ip: str, port: int, source: str, seconds: float) -> BlockingStream:
        """A TCP connection from *source* ("": any of ours)."""
        return connect_blocking(ip, port, seconds, source)

    async def connect_unix(self, path: str, _seconds: float) -> BlockingStream:
        """A connection to a Unix socket."""
        return over_socket(unix.connect(path))

    async def token(self, entry: Entry) -> str:
        """What the entry's program says; raises token.TokenFailed."""
        from mqmail.net import token
        return token.fetch_blocking(entry.program)

    def token_refused(self, _entry: Entry, _token: str) -> None:
        """Nothing is kept."""

    async def apart(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What *function* returns or raises."""
        return function(*arguments)


class _Nothing:
    def cancel(self) -> None:
        """There is nothing to cancel."""
