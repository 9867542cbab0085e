"""mq-rspawn: the service of destination ``remote``. Sends to other hosts by SMTP.

Usage:
  mq-rspawn [--home DIR] [--ready-fd N]
  mq-rspawn --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once messages are taken
  --help          this text

Speaks LMTP with XMQ on run/remote.sock. Mail goes where control/smtproutes says, else to the MX hosts.
Its workers, mq-remote, talk to them.
"""

from __future__ import annotations

import os

from mqmail.base import log, program, ready
from mqmail.base.waiter import Running, Waiter
from mqmail.control import reader
from mqmail.net import daemon, mx
from mqmail.net.service import Service, greet_trusted
from mqmail.net.stream import Deadlines
from mqmail.prog.mq_rspawn import lines as lines_
from mqmail.prog.mq_rspawn import memory
from mqmail.prog.mq_rspawn import workers as workers_
from mqmail.prog.mq_rspawn.delivery import Delivery
from mqmail.remote import service
from mqmail.remote.sending import Message
from mqmail.xmtp import events
from mqmail.xmtp.reply import facts_of
from mqmail.xmtp.server import ONLY_XFD, SERVICE_EXTENSIONS, Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.base import unix
    from mqmail.control.reader import Control
    from mqmail.net.stream import Stream
    from mqmail.xmtp.reply import Reply

SOCKET = "run/remote.sock"
CONTROL = (*mx.CONTROL, "injectors", "timeoutconnect", "timeoutremote", "concurrencyremote",
           "remotesessions", "processesremote")
GRACE = 16.0        # seconds that transactions have to end after TERM; the workers cut theirs before
_EVENTS = {"2": "sent", "4": "put_off", "5": "refused"}
_MAY_NOT = "is no program of this mail system"


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    begun = daemon.start("mq-rspawn", __doc__, argv)
    kept = daemon.Kept((*CONTROL, *service.CONTROL))
    listener, lines = begun.sockets[SOCKET], begun.sockets[workers_.SOCKET]

    def work(number: int) -> None:
        if number:
            daemon.become("mq-remote")
            service.Worker(lines, kept.control, begun.callers(workers_.SOCKET)).run()
        else:
            Relay(listener, kept.control, begun.callers(SOCKET)).run()

    workers = daemon.Workers("mq-rspawn", 1 + kept.control.processesremote, work, kept.reload)
    workers.run(lambda: ready.announce(begun.ready))
    return 0


class Relay:
    """The planner: its callers, and the lines that they share."""

    def __init__(self, listener: unix.socket, control: Control, callers: frozenset[int] | None) -> None:
        self.loop = daemon.new_loop()
        self._callers = callers
        self.control = control
        self.memory = memory.Memory(self.loop)
        self.lines = lines_.Lines(self.loop, self._settings(), self.memory.hosts)
        self._deadlines = Deadlines(self.loop)
        self.finder = mx.from_control(self.loop, self._deadlines, self.control)
        self._service = Service(self.loop, self._deadlines, listener, self._session, most=5000)

    def run(self) -> None:
        """Serve until TERM."""
        daemon.run_loop(self.loop, self.stop, self.reload)

    def _settings(self) -> lines_.Settings:
        control, sessions = self.control, self.control.remotesessions
        patience = 6.0 * control.timeoutremote + 600.0      # no worker takes so long
        return lines_.Settings(control.me, patience, float(control.timeoutconnect),
                               max(1, control.concurrencyremote), sessions.start, sessions.most,
                               float(sessions.idle))

    def reload(self) -> None:
        """Read the control files again; transactions under way go on as they began."""
        control = reader.load(".", CONTROL)
        finder = mx.from_control(self.loop, self._deadlines, control)
        self.control, self.finder = control, finder
        self.lines.settings = self._settings()
        self.lines.renew()

    def stop(self, stopped: Callable[[], None]) -> None:
        """End when no transaction is left; those that take too long are cut off, and so put off."""
        self.loop.call_later(GRACE, self.lines.abort)
        self.loop.call_later(GRACE + 2.0, stopped)      # should the resolver keep one
        self._service.stop(GRACE + 1.0, self._last_ended(stopped))

    def _last_ended(self, stopped: Callable[[], None]) -> Callable[[], None]:
        def ended() -> None:
            self.lines.close_idle()
            self.memory.save()
            stopped()
        return ended

    def _session(self, stream: Stream) -> tuple[Server, Caller, Callable[[str], None]]:
        server = Server("lmtp", self.control.me, SERVICE_EXTENSIONS,
                        Limits(errors=1000, refused=100000, idle=0))
        greet_trusted(stream, server, self.control.injectors, self._callers, _MAY_NOT)
        return server, Caller(self, stream, server), lambda _why: None


class Caller:
    """One session of mq-send's."""

    def __init__(self, relay: Relay, stream: Stream, server: Server) -> None:
        self._relay = relay
        self._stream = stream
        self._server = server
        self._settled = Waiter()

    def handle(self, event: Any) -> None:
        """Answer one event of the core."""
        kind = type(event)
        if kind is events.BodyFile:
            return self._deliver(event)
        if kind is events.Data:
            return self._server.answer(event, ONLY_XFD)
        if kind not in (events.Reset, events.BodyFailed, events.Quit):
            self._server.answer(event)
        return None

    async def settle(self) -> None:
        """Wait until all recipients of the message are answered."""
        await self._settled

    def _deliver(self, event: events.BodyFile) -> None:
        mail = self._server.mail
        assert mail is not None
        message = Message(mail, tuple(self._server.accepted), event.fd, event.size,
                          self._stream.is_there)
        self._settled = Waiter()

        def finished(_result: Any, error: BaseException | None) -> None:
            if error is not None:
                program.bug(error, id=mail.xid)
            os.close(event.fd)
            self._stream.watch(None)
            self._settled.set()

        delivery = Delivery(self._relay.loop, self._relay.lines, self._relay.finder, message,
                            lambda number, answer: self._answer(message, number, answer))
        self._stream.watch(lambda: None if self._stream.is_there() else delivery.abandon())
        slots = min(max(mail.xconn, 1), self._relay.lines.settings.most)
        Running(delivery.run(slots), finished)

    def _answer(self, message: Message, number: int, answer: Reply) -> None:
        """A recipient's verdict: into the log, and to the caller at once."""
        facts, address = facts_of(answer.text), message.recipients[number].address
        log.event(_EVENTS[answer.status[0]], id=message.mail.xid, address=address,
                  host=facts.get("host"), tls=facts.get("tls"), secs=facts.get("secs"),
                  status=answer.status, said=facts.get("said", "")[:300])
        if not self._server.closed:
            self._server.answer_recipient(number, answer)
            self._stream.write(self._server.take_output())
