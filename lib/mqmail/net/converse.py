"""A server's session: octets from a stream into the core, events to a handler, replies out.

Runs under both shells. The handler has ``handle(event)``, which answers through the server it knows
(or returns an awaitable that will), and ``settle()``, awaited when the core cannot go on because
answers are owed (a handler that collects RCPTs to ask about many at once asks then).
"""

from __future__ import annotations

import os

from mqmail.base import program
from mqmail.net.expired import Expired
from mqmail.xmtp.reply import ProtocolError, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any, Protocol

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream
    from mqmail.net.tls import TlsStream
    from mqmail.xmtp.reply import Reply
    from mqmail.xmtp.server import Server

    AnyStream = Stream | BlockingStream | TlsStream

    class Handler(Protocol):
        """What converse() needs of an application."""

        def handle(self, event: Any) -> Awaitable[None] | None: ...
        async def settle(self) -> None: ...


_TROUBLE = reply(421, "4.3.0", "internal trouble, try again later")
_TIMEOUT = reply(421, "4.4.2", "timeout")


async def converse(stream: Stream | BlockingStream, server: Server, handler: Handler,
                   timeout: float = 0.0) -> str:
    """Serve a client that has been greeted; see Conversation."""
    return await Conversation(stream, server, handler, timeout).run()


class Conversation:
    """One session: *timeout* seconds of silence end it (0: none do). ``stream`` is what is spoken over
    now: a derived class may change it, in ``open`` or ``secure``."""

    def __init__(self, stream: AnyStream, server: Server, handler: Handler,
                 timeout: float = 0.0) -> None:
        self.stream = stream
        self._server = server
        self._handler = handler
        self._timeout = timeout

    async def run(self) -> str:
        """Serve until QUIT, the peer's end, the deadline or a bug.

        Returns how it ended: ``quit``, ``closed``, ``lost``, ``bug``, or what open(), secure() or
        late() (``timeout``) say. A bug of ours is logged and said as 421: temporary.
        """
        server = self._server
        try:
            return await self.open() or await self._talk()
        except Expired:
            why, answer = self.late()
            server.close(answer)
            return why
        except ProtocolError:
            return "closed"
        except Exception as error:  # noqa: BLE001  a bug of ours is temporary
            program.bug(error)
            server.close(_TROUBLE)
            return "bug"
        finally:
            self.stream.write(server.take_output())
            for fd in server.take_descriptors(everything=True):
                os.close(fd)

    async def open(self) -> str:
        """What comes before the first command; a text ends the session."""
        return ""

    async def secure(self) -> str:
        """STARTTLS has been answered with 220: shake hands. A text ends the session."""
        return "closed"

    def allow(self, answered: bool) -> float:
        """Seconds for the client's next octets, 0: as many as it likes. *answered*: we have something to
        say to what came before."""
        return self._timeout

    def heard(self, data: bytes) -> None:
        """Octets have come that the core has not seen yet."""

    def late(self) -> tuple[str, Reply]:
        """The time is over: how that ends, and what the client hears."""
        return "timeout", _TIMEOUT

    async def _talk(self) -> str:
        server, handler = self._server, self._handler
        while True:
            event = server.next_event()
            if event is not None:
                waiting = handler.handle(event)
                if waiting is not None:
                    await waiting
                continue
            if server.owing and not server.closed:
                await handler.settle()
                continue
            stream = self.stream
            out = server.take_output()
            stream.expire_after(self.allow(bool(out)))  # from here on: answering may have taken long
            if out:
                stream.write(out)
                await stream.drain()
            if server.at_rest:
                why = "quit" if server.closed else await self.secure()
                if why:
                    return why
                continue
            data = await stream.read()
            if not data:
                return "lost"
            self.heard(data)
            server.feed(data, stream.take_fds())
            for fd in server.take_descriptors():
                os.close(fd)

    def say_goodbye(self, answer: Reply) -> None:
        """End it from outside."""
        self._server.close(answer)
        self.stream.write(self._server.take_output())
        self.stream.close()
