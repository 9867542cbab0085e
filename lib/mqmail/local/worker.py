"""A process of mq-lspawn: serves one connection after the other, and ends when it is told to.

TERM ends it where it waits for a connection or a command, and between two deliveries, never inside
one. INT is for the parent, which sends TERM. HUP: the control files anew before the next look-up.
"""

from __future__ import annotations

import signal

from mqmail.base import log, unix, waiter
from mqmail.base.failure import BadFile, Temporary
from mqmail.control import loglevels, reader
from mqmail.local.service import make_server
from mqmail.net.blocking import BlockingStream
from mqmail.net.converse import converse
from mqmail.net.owner import as_owner, owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, TypeVar

    from mqmail.xmtp.server import Server

    T = TypeVar("T")


IDLE = 60.0     # seconds without a call after which a worker that need not stay ends


class Stop(BaseException):
    """TERM came, and this is a good place to end."""


class Gate:
    """``with gate:`` around a wait: there TERM raises Stop. Elsewhere it is only noted."""

    def __init__(self) -> None:
        self._waiting = False
        self._stopping = False

    def __enter__(self) -> None:
        self._waiting = True
        self.check()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._waiting = False

    def check(self) -> None:
        """Raise Stop if TERM has come."""
        if self._stopping:
            raise Stop

    def terminate(self, _number: int, _frame: object) -> None:
        """The handler of TERM."""
        self._stopping = True
        if self._waiting:
            raise Stop


class _Stream(BlockingStream):
    """Waits for commands at the gate."""

    def __init__(self, sock: unix.socket, gate: Gate) -> None:
        super().__init__(sock.fileno(), sock.fileno(), sock)
        self._gate = gate

    async def read(self) -> bytes:
        with self._gate:
            return await super().read()


class Worker:
    """*names* are the control files it uses; *callers* the uids it serves, None: whoever the socket lets
    in. Subclasses say who handles a session's events."""

    timeout = 0.0       # seconds without a command after which a connection is closed; 0: never

    def __init__(self, control: reader.Control, names: tuple[str, ...],
                 callers: frozenset[int] | None = None) -> None:
        self.control = control
        self._callers = callers
        self._names = names
        self._gate = Gate()
        self._stale = False

    def serve(self, listener: unix.socket, stays: bool) -> None:
        """Accept and converse until TERM or, unless it *stays*, until it has had no call for IDLE s."""
        signal.signal(signal.SIGTERM, self._gate.terminate)
        signal.signal(signal.SIGINT, lambda _number, _frame: None)      # programs would inherit SIG_IGN
        signal.signal(signal.SIGHUP, self._hang_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))    # blocked until now; inherited
        listener.settimeout(IDLE)       # by all alike: they share what this sets
        try:
            while self._answer(listener) or stays:
                pass
        except Stop:
            pass

    def _answer(self, listener: unix.socket) -> bool:
        """Take one call; False: none came in time."""
        try:
            with self._gate:
                fd, _ = listener._accept()  # type: ignore[attr-defined]
        except TimeoutError:
            return False
        sock = unix.socket(fileno=fd)
        if self._may_call(sock):
            self._converse(sock)
        else:
            sock.close()
        return True

    def _may_call(self, sock: unix.socket) -> bool:
        peer = unix.peer_of(sock)
        if self._callers is None or peer.uid in self._callers:
            return True
        log.event("caller_refused", uid=peer.uid, pid=peer.pid)
        return False

    def _converse(self, sock: unix.socket) -> None:
        stream = _Stream(sock, self._gate)
        server = make_server(self.control.me)

        def flush() -> None:
            stream.write(server.take_output())

        try:
            waiter.run(converse(stream, server, self.make_handler(server, flush), self.timeout))
        finally:
            stream.close()
            self.ended()

    def make_handler(self, server: Server, flush: Callable[[], None]) -> Any:
        """The application over *server*; *flush()* sends what has been answered."""
        raise NotImplementedError

    def ended(self) -> None:
        """A connection has ended."""

    def check(self) -> None:
        """Between two deliveries: raise Stop if TERM has come."""
        self._gate.check()

    def refresh(self) -> None:
        """Before a look-up: after HUP the control files anew, or the old ones when one is wrong."""
        self.check()
        if self._stale:
            self._stale = False
            self.reload()

    def look_up(self, find: Callable[[], T | None]) -> T | None:
        """What *find()* gives, after a reload if that is None: mq-resolve knows the address, so what we
        remember is old. Raises Temporary if it cannot be renewed."""
        self.refresh()
        found = find()
        if found is None:
            why = self.reload()
            found = find()
            if found is None and why:
                raise Temporary("it is not known whose this address is now", "4.3.5", why)
        return found

    def reload(self) -> str:
        """Read the control files now, never as root: the home's owner may have put a link there. Returns
        why they cannot be used; "": they are in force."""
        try:
            with as_owner(owner_of(".")):
                loglevels.obey()
                self.control = reader.load(".", self._names)
        except (BadFile, OSError) as error:
            log.event("reload_failed", error=str(error))
            return str(error)
        return ""

    def _hang_up(self, _number: int, _frame: object) -> None:
        self._stale = True
