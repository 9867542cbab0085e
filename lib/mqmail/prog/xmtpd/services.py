"""What checks may use of the process they run in."""

from __future__ import annotations

from mqmail.prog.xmtpd.auth import SOCKET, AccountBook, AuthTalk

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Deadlines, Stream
    from mqmail.policy.inflow import Inflow


class Services:
    """*loop* and *deadlines*: the event loop's; None where one session is served without one, and then
    nothing may be awaited that is not there yet. *connect* opens a stream to the Unix socket at a path
    in the home (OSError), *name* is ours. *book*: what accounts may send; *inflow*: what clients may,
    None where there is but one session. One object for the life of the process: what checks keep between
    reloads of control files goes into *kept*, by their name."""

    def __init__(self, connect: Callable[[str], Awaitable[Stream | BlockingStream]], name: str,
                 loop: asyncio.AbstractEventLoop | None = None,
                 deadlines: Deadlines | None = None) -> None:
        self.connect = connect
        self.name = name
        self.loop = loop
        self.deadlines = deadlines
        self.kept: dict[str, object] = {}
        self.inflow: Inflow | None = None
        self.book = AccountBook(lambda: connect(SOCKET), name)

    def auth(self) -> AuthTalk:
        """For one client."""
        return AuthTalk(lambda: self.connect(SOCKET), self.name)

    def close(self) -> None:
        """The end."""
        self.book.close()
