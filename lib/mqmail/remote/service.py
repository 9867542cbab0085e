"""A worker: lines of the planner's on a Unix socket, each with one session to one host."""

from __future__ import annotations

# Those that are not used here would be imported late, when a worker cannot read its modules.
import hashlib  # noqa: F401
import hmac  # noqa: F401
import os
import stringprep  # noqa: F401
import unicodedata  # noqa: F401

from mqmail.base.waiter import Running, Waiter
from mqmail.control import reader
from mqmail.mail import recode  # noqa: F401
from mqmail.net import daemon, threads, tls, token  # noqa: F401
from mqmail.net.service import Service, greet_trusted
from mqmail.net.stream import Deadlines
from mqmail.remote import auth, request, settings  # noqa: F401
from mqmail.remote.carrier import Carrier, internal
from mqmail.remote.opening import Unreachable
from mqmail.remote.sending import Message
from mqmail.remote.shells import LoopShell
from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.server import ONLY_XFD, SERVICE_EXTENSIONS, Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from mqmail.base import unix
    from mqmail.control.reader import Control
    from mqmail.net.stream import Stream

CONTROL = (*settings.CONTROL, "injectors")
GRACE = 15.0        # seconds that transactions have to end after TERM
_NO_HOP = reply(503, "5.5.1", "say XHOP first")
_NO_HOST = reply(250, "2.0.0", "no host")
_STOPPING = reply(421, "4.3.2", "closing down")
_MAY_NOT = "is no program of this mail system"


class Worker:
    """One process."""

    def __init__(self, listener: unix.socket, control: Control, callers: frozenset[int] | None) -> None:
        self.loop = daemon.new_loop()
        self.stopping = False
        self._callers = callers
        self._deadlines = Deadlines(self.loop)
        self._outside = Deadlines(self.loop)        # streams to hosts: cut off at the end
        self.shell = LoopShell(self.loop, self._outside)
        self._take(control)
        self._service = Service(self.loop, self._deadlines, listener, self._session, most=5000)

    def run(self) -> None:
        """Serve until TERM."""
        daemon.run_loop(self.loop, self.stop, self.reload)

    def reload(self) -> None:
        """Read the control files again; sessions that are open stay as they are."""
        self._take(reader.load(".", CONTROL))

    def _take(self, control: Control) -> None:
        self.control, self.settings = control, settings.from_control(control)
        tls.forget_contexts()

    def stop(self, stopped: Callable[[], None]) -> None:
        """End when no transaction is left; those that take too long are cut off, and so put off."""
        self.stopping = True
        self.loop.call_later(GRACE, self._abort)
        self._service.stop(GRACE + 1.0, stopped)

    def _abort(self) -> None:
        for stream in list(self._outside.streams):
            stream.close()

    def _session(self, stream: Stream) -> tuple[Server, Line, Callable[[str], None]]:
        server = Server("lmtp", self.control.me, SERVICE_EXTENSIONS,
                        Limits(errors=1000, refused=100000, idle=0))
        greet_trusted(stream, server, self.control.injectors, self._callers, _MAY_NOT)
        line = Line(self, stream, server)
        return server, line, lambda _why: line.end()


class Line:
    """One session of the planner's."""

    def __init__(self, worker: Worker, stream: Stream, server: Server) -> None:
        self._worker = worker
        self._stream = stream
        self._server = server
        self._carrier: Carrier | None = None
        self._settled = Waiter()

    def handle(self, event: Any) -> None:
        """Answer one event of the core."""
        kind = type(event)
        if kind is events.BodyFile:
            return self._carry(event)
        if kind is events.Hop:
            return self._open(event)
        if kind is events.Mail and self._carrier is None:
            return self._server.answer(event, _NO_HOP)
        if kind is events.Data:
            return self._server.answer(event, ONLY_XFD)
        if kind not in (events.Reset, events.BodyFailed, events.Quit):
            self._server.answer(event)
        return None

    async def settle(self) -> None:
        """Wait until what was begun is answered."""
        await self._settled

    def end(self) -> None:
        """The planner has no more use for the session."""
        if self._carrier is not None:
            self._carrier.close()

    def _open(self, event: events.Hop) -> None:
        self.end()
        if self._worker.stopping:
            return self._server.close(_STOPPING)
        if not event.facts:
            self._carrier = None
            return self._server.answer(event, _NO_HOST)
        try:
            wanted = request.parse(event.facts)
        except ValueError as error:
            return self._server.answer(event, reply(501, "5.5.4", f"bad XHOP: {error}"))
        carrier = self._carrier = Carrier(wanted, lambda: self._worker.settings, self._worker.shell)
        self._settled = Waiter()
        Running(carrier.open(), lambda peer, error: self._opened(event, peer, error))
        return None

    def _opened(self, event: events.Hop, peer: Any, error: BaseException | None) -> None:
        if isinstance(error, Unreachable):
            answer = error.verdict
        elif error is not None:
            answer = internal(error)
        else:
            answer = peer.greeting()
        if not self._server.closed:
            self._server.answer(event, answer)
        self._settled.set()

    def _carry(self, event: events.BodyFile) -> None:
        mail, carrier = self._server.mail, self._carrier
        assert mail is not None
        assert carrier is not None
        message = Message(mail, tuple(self._server.accepted), event.fd, event.size,
                          self._stream.is_there)
        self._settled = Waiter()

        def finished(_result: Any, error: BaseException | None) -> None:
            if error is not None:
                internal(error)
            os.close(event.fd)
            self._settled.set()

        Running(carrier.carry(message, self._answer), finished)

    def _answer(self, numbers: Iterable[int], verdict: Reply) -> None:
        """Verdicts go to the planner as they come."""
        if not self._server.closed:
            for number in numbers:
                self._server.answer_recipient(number, verdict)
            self._stream.write(self._server.take_output())
