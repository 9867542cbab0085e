"""Asking a client's host who the client is (RFC 1413), beside whatever else is done for the client."""

from __future__ import annotations

from mqmail.base import program
from mqmail.base.waiter import Running, Waiter
from mqmail.net.expired import Expired
from mqmail.net.stream import connect_tcp
from mqmail.xmtp import ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from _socket import socket

    from mqmail.net.stream import Deadlines

MOST = 200          # questions of a process at a time; others are not asked


class Identd:
    """One for the process. *port* is 113, but in tests."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines,
                 port: int = ident.PORT) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._port = port
        self._asking = 0

    def ask(self, sock: socket, seconds: float) -> Waiter | None:
        """Who is at the other end of *sock*, a TCP connection: the Waiter gives the user, "" when nobody
        says it within *seconds*. None: nobody is asked."""
        try:
            theirs, ours = sock.getpeername(), sock.getsockname()
        except OSError:         # gone already
            return None
        if self._asking >= MOST:
            return None
        self._asking += 1
        found = Waiter()

        def ended(user: str | None, error: BaseException | None) -> None:
            self._asking -= 1
            found.set(user or "")
            if error is not None and not isinstance(error, (OSError, Expired)):
                program.bug(error)

        Running(self._ask(theirs, ours, seconds), ended)
        return found

    async def _ask(self, theirs: tuple[str, int], ours: tuple[str, int], seconds: float) -> str:
        """From the address that the client has called (RFC 1413 section 3)."""
        end = self._loop.time() + seconds
        stream = await connect_tcp(self._loop, self._deadlines, theirs[0], self._port, seconds, ours[0])
        try:
            stream.expire_after(max(0.01, end - self._loop.time()))
            stream.write(ident.question(theirs[1], ours[1]))
            answer = b""
            while b"\n" not in answer and len(answer) <= ident.LONGEST:
                piece = await stream.read()
                if not piece:
                    break
                answer += piece
        finally:
            stream.close()
        return ident.user_of(answer, theirs[1], ours[1])
