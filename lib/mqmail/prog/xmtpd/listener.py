"""Many sessions in a few processes: they share the listening sockets, and each has one session to
mq-resolve and a few to mq-queue."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  with the next two: what is needed once root is given up,
import ctypes  # noqa: F401               when the interpreter's own files may be out of our reach
from _socket import socket

import uvloop  # noqa: F401

from mqmail.base import files, log, ready
from mqmail.base.failure import BadFile, Usage
from mqmail.control import reader
from mqmail.control.hosts import parse_listener, split_port
from mqmail.net import daemon
from mqmail.net.listening import listen
from mqmail.net.owner import give_up_root
from mqmail.net.service import Service
from mqmail.net.stream import Deadlines, connect_unix
from mqmail.prog.xmtpd import peer, pool, resolver
from mqmail.prog.xmtpd.dialogue import CONTROL, Dialogue, SessionIds, greeting, make_server
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mqmail.control.reader import Control
    from mqmail.net.stream import Stream
    from mqmail.prog.xmtpd import Options
    from mqmail.xmtp.server import Server

LISTENER_CONTROL = (*CONTROL, "concurrencyincoming", "processesincoming")
GRACE = 15.0            # seconds for messages on their way when we are stopped
_TIDY = 15.0            # seconds between looks at idle sessions to mq-queue
_BUSY = reply(421, "4.3.2", "too many sessions, come back later")


def serve(options: Options) -> int:
    """Listen until TERM."""
    daemon.enter(options.home)
    daemon.become("xmtpd")
    control = reader.load(".", LISTENER_CONTROL)
    sockets = _sockets(options)
    give_up_root("xmtpd")
    workers = daemon.Workers("xmtpd", control.processesincoming,
                             lambda number: Worker(sockets, control, options.lmtp).run())
    workers.run(lambda: ready.announce(options.ready_fd))
    return 0


def _sockets(options: Options) -> list[socket]:
    """Those we were given, and those we make; where port 0 was asked for, the real one is printed."""
    addresses = [_address(text) for text in options.listen if text]
    if "" in options.listen:
        addresses += reader.load(".", ["listeners"]).listeners
    given = [socket(fileno=fd) for fd in options.sockets]
    made = [listen(ip, port) for ip, port in addresses]
    for sock in given + made:
        ip, port = sock.getsockname()[:2]
        log.event("listening", ip=ip, port=port)
    for sock, (ip, port) in zip(made, addresses, strict=True):
        if port == 0:
            shown = f"[{ip}]" if ":" in ip else ip
            files.write_all(1, f"{shown}:{sock.getsockname()[1]}\n".encode())
    return given + made


def _address(text: str) -> tuple[str, int]:
    """ADDR:PORT of the command line; port 0 lets the system choose."""
    try:
        if split_port(text)[1] == "0":
            return parse_listener(text[:-1] + "1")[0], 0
        return parse_listener(text)
    except ValueError as error:
        raise Usage(f"--listen {error}") from None


class Worker:
    """One process."""

    def __init__(self, sockets: list[socket], control: Control, lmtp: bool) -> None:
        self._sockets = sockets
        self._control = control
        self._lmtp = lmtp
        self._ids = SessionIds()
        self._open = 0

    def run(self) -> None:
        """Serve until TERM."""
        self._read_again()
        loop: asyncio.AbstractEventLoop = daemon.new_loop()
        deadlines = Deadlines(loop)
        name = self._control.me
        self._resolver = resolver.SharedResolver(
            loop, lambda: connect_unix(loop, deadlines, resolver.SOCKET), name)
        self._pool = pool.Pool(lambda: connect_unix(loop, deadlines, pool.SOCKET), name)
        self._services = [Service(loop, deadlines, sock, self._session, most=1 << 30,
                                  timeout=self._control.timeoutsmtpd) for sock in self._sockets]
        self._tidy(loop)
        daemon.run_loop(loop, self._stop, self._reload)

    def _session(self, stream: Stream) -> tuple[Server, Dialogue, Callable[[str], None]]:
        client = peer.of_socket(stream.sock)
        server = make_server(self._control, client, self._lmtp)
        handler = Dialogue(server, client, self._ids.make(), self._resolver, self._pool)
        if self._open >= self._most():
            server.close(_BUSY)
        else:
            server.greet(greeting(self._control, self._lmtp))
        self._open += 1
        handler.begin()

        def end(why: str) -> None:
            self._open -= 1
            handler.end(why)

        return server, handler, end

    def _most(self) -> int:
        """Our share of concurrencyincoming."""
        processes: int = self._control.processesincoming
        sessions: int = self._control.concurrencyincoming
        return -(-sessions // processes)

    def _reload(self) -> None:
        """For sessions that begin from now on; listeners and the number of processes stay."""
        self._control = reader.load(".", LISTENER_CONTROL)
        for service in self._services:
            service.timeout = self._control.timeoutsmtpd

    def _read_again(self) -> None:
        """A worker that is started anew must not bring back what HUP has replaced."""
        try:
            self._control = reader.load(".", LISTENER_CONTROL)
        except BadFile as error:
            log.event("reload_failed", error=str(error))

    def _tidy(self, loop: asyncio.AbstractEventLoop) -> None:
        self._pool.tidy()
        loop.call_later(_TIDY, self._tidy, loop)

    def _stop(self, stopped: Callable[[], None]) -> None:
        """When the last session of the last service is over, so are we."""
        left = list(self._services)

        def one_stopped() -> None:
            left.pop()
            if not left:
                self._pool.close()
                self._resolver.close()
                stopped()

        for service in self._services:
            service.stop(GRACE, one_stopped)
