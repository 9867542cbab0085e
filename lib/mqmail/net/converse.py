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
    from mqmail.xmtp.server import Server

    class Handler(Protocol):
        """What converse() needs of an application."""

        def handle(self, event: Any) -> Awaitable[None] | None: ...
        async def settle(self) -> None: ...


async def converse(stream: Stream | BlockingStream, server: Server, handler: Handler,
                   timeout: float = 0.0) -> str:
    """Serve until QUIT, the peer's end, the deadline (*timeout* seconds per read) or a bug.

    Returns how it ended: ``quit``, ``closed``, ``lost``, ``timeout`` or ``bug``. A bug of ours is
    logged and said as 421: temporary.
    """
    try:
        return await _talk(stream, server, handler, timeout)
    except Expired:
        server.close(reply(421, "4.4.2", "timeout"))
        return "timeout"
    except ProtocolError:
        return "closed"
    except Exception as error:  # noqa: BLE001  a bug of ours is temporary
        program.bug(error)
        server.close(reply(421, "4.3.0", "internal trouble, try again later"))
        return "bug"
    finally:
        stream.write(server.take_output())
        for fd in server.take_descriptors(everything=True):
            os.close(fd)


async def _talk(stream: Stream | BlockingStream, server: Server, handler: Handler,
                timeout: float) -> str:
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
        stream.expire_after(timeout)        # its time begins here: answering may have taken long
        out = server.take_output()
        if out:
            stream.write(out)
            await stream.drain()
        if server.closed:
            return "quit"
        data = await stream.read()
        if not data:
            return "lost"
        server.feed(data, stream.take_fds())
        for fd in server.take_descriptors():
            os.close(fd)
