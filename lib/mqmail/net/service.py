"""Serving many sessions in one process: accept, converse, stop without cutting a transaction.

``Service(loop, listener, make, …)``: for each connection ``make(stream)`` gives (server, handler, end);
the server core and handler go to converse(), ``end(why)`` is called when the session is over.
"""

from __future__ import annotations

import errno
from _socket import AF_UNIX, IPPROTO_TCP, TCP_NODELAY, socket

from mqmail.base import log, program, unix
from mqmail.base.waiter import Running
from mqmail.control.injectors import TRUSTED
from mqmail.net.converse import Conversation
from mqmail.net.stream import Stream
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from mqmail.control.injectors import Injectors
    from mqmail.net.converse import Handler
    from mqmail.net.stream import Deadlines
    from mqmail.xmtp.server import Server

    Make = Callable[[Stream], tuple[Server, Handler, Callable[[str], None]]]

_GOODBYE = reply(421, "4.3.2", "closing down, come back")
_BUSY = reply(421, "4.3.2", "too many sessions, come back later")
_PAUSE = 0.5        # seconds without accepting after the system refused a descriptor


def greet_trusted(stream: Stream, server: Server, injectors: Injectors,
                  callers: frozenset[int] | None, may_not: str) -> None:
    """Greet programs of ours: the uids *callers*, or if that is None whom *injectors* trusts. Tell
    others that they *may_not*."""
    peer = unix.peer_of(stream.sock)
    if peer.uid in callers if callers is not None else injectors.level(peer.uid) == TRUSTED:
        server.greet()
    else:
        refuse_caller(server, peer, may_not)


def refuse_caller(server: Server, peer: unix.Peer, may_not: str) -> None:
    """Close the session of an account that control/injectors does not admit."""
    log.event("caller_refused", uid=peer.uid, pid=peer.pid)
    server.close(reply(554, "5.7.1", f"uid {peer.uid} {may_not}"))


class Service:
    """A listening socket (non-blocking is set here) and its sessions. *most* sessions at a time,
    *timeout* seconds of silence before a session is closed (0: none), *batch* connections accepted
    at each wake-up (1 shares the load best when several processes listen). *talk*: what a session is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, listener: socket,
                 make: Make, most: int = 1000, timeout: float = 0.0, batch: int = 1,
                 talk: type[Conversation] = Conversation) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._listener = listener
        self._make = make
        self.most = most
        self.timeout = timeout
        self._batch = batch
        self._talk = talk
        self._open: dict[Conversation, Server] = {}
        self._stopped: Callable[[], None] | None = None
        self._told = False
        listener.setblocking(False)
        loop.add_reader(listener.fileno(), self._accept)

    @property
    def sessions(self) -> int:
        """How many are open."""
        return len(self._open)

    def _accept(self) -> None:
        listener = self._listener
        for _ in range(self._batch):
            try:
                fd, _ = listener._accept()  # type: ignore[attr-defined]
            except OSError as error:
                return self._accept_failed(error)
            sock = socket(listener.family, listener.type, listener.proto, fd)
            sock.setblocking(False)
            if sock.family != AF_UNIX:
                sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            self._begin(Stream(self._loop, sock, self._deadlines))

    def _accept_failed(self, error: OSError) -> None:
        """Another process was faster; or we are out of descriptors: wait, others may end."""
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            log.event("accept_failed", error=error.strerror)
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(_PAUSE, self._resume)
        elif error.errno == errno.EINVAL:       # it listens no more
            self._loop.remove_reader(self._listener.fileno())

    def _resume(self) -> None:
        if self._stopped is None and self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _begin(self, stream: Stream) -> None:
        if len(self._open) >= self.most:
            stream.write(_BUSY.encode())
            return stream.close()
        try:
            server, handler, end = self._make(stream)
        except Exception as error:  # noqa: BLE001  one session's trouble is not the others'
            program.bug(error)
            return stream.close()
        talk = self._talk(stream, server, handler, self.timeout)
        self._open[talk] = server

        def finished(why: Any, error: BaseException | None) -> None:
            if error is not None:
                program.bug(error)
            self._open.pop(talk, None)
            end(why or "bug")
            talk.stream.close()
            if not self._open:
                self._all_ended()

        Running(talk.run(), finished)

    def close_listener(self) -> None:
        """Accept no more; sessions go on."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def stop(self, grace: float, stopped: Callable[[], None]) -> None:
        """Accept no more; end idle sessions now, the others after their transaction or *grace* seconds;
        then call *stopped*."""
        if self._stopped is not None:
            return
        self._stopped = stopped
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(grace, self._end_all)
        self._end_idle()

    def _end_idle(self) -> None:
        for talk, server in list(self._open.items()):
            if not server.in_transaction and not server.owing:
                talk.say_goodbye(_GOODBYE)
        if self._open:
            self._loop.call_later(0.05, self._end_idle)
        else:
            self._all_ended()

    def _all_ended(self) -> None:
        """Say so if we are stopping, and only once: one may wait for several services."""
        if self._stopped is not None and not self._told:
            self._told = True
            self._stopped()

    def _end_all(self) -> None:
        for talk in list(self._open):
            talk.say_goodbye(_GOODBYE)
