"""mq-rspawn: the service of destination ``remote``. Sends to other hosts by SMTP.

Usage:
  mq-rspawn [--home DIR] [--ready-fd N]
  mq-rspawn --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once messages are taken
  --help          this text

Speaks LMTP with XMQ on run/remote.sock. Mail goes where control/smtproutes says, else to the MX hosts.
"""

from __future__ import annotations

import os
from _socket import MSG_DONTWAIT, MSG_PEEK

from mqmail.base import lock, log, program, ready, unix
from mqmail.base.waiter import Running, Waiter
from mqmail.control import reader
from mqmail.control.injectors import TRUSTED
from mqmail.net import daemon, mx
from mqmail.net.owner import give_up_root
from mqmail.net.service import Service
from mqmail.net.stream import Deadlines
from mqmail.prog.mq_rspawn.delivery import Delivery
from mqmail.prog.mq_rspawn.hops import Hops, Settings
from mqmail.prog.mq_rspawn.sending import Message
from mqmail.xmtp import events
from mqmail.xmtp.reply import facts_of, reply
from mqmail.xmtp.server import Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.net.stream import Stream
    from mqmail.xmtp.reply import Reply

SOCKET = "run/remote.sock"
CONTROL = (*mx.CONTROL, "injectors", "timeoutconnect", "timeoutremote", "concurrencyremote")
EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "XMQ")
GRACE = 15.0        # seconds that transactions have to end after TERM
_EVENTS = {"2": "sent", "4": "put_off", "5": "refused"}


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    home, ready_fd, _ = daemon.arguments(__doc__, argv)
    daemon.enter(home)
    daemon.become("mq-rspawn")
    give_up_root()
    held = lock.hold("run/mq-rspawn.lock", "mq-rspawn")
    relay = Relay(unix.listen(SOCKET))
    relay.loop.call_soon(ready.announce, ready_fd)
    daemon.run_loop(relay.loop, relay.stop, relay.reload)
    os.close(held)
    return 0


class Relay:
    """The daemon: its callers, and the sessions to other hosts that they share."""

    def __init__(self, listener: unix.socket) -> None:
        self.loop = daemon.new_loop()
        self.control = reader.load(".", CONTROL)
        self.hops = Hops(self.loop, self._settings())
        self._deadlines = Deadlines(self.loop)
        self.finder = mx.from_control(self.loop, self._deadlines, self.control)
        self._service = Service(self.loop, self._deadlines, listener, self._session, most=5000)

    def _settings(self) -> Settings:
        control = self.control
        return Settings(control.helohost, float(control.timeoutconnect), float(control.timeoutremote),
                        max(1, control.concurrencyremote))

    def reload(self) -> None:
        """Read the control files again; transactions under way go on as they began."""
        self.control = reader.load(".", CONTROL)
        self.hops.settings = self._settings()
        self.finder = mx.from_control(self.loop, self._deadlines, self.control)

    def stop(self, stopped: Callable[[], None]) -> None:
        """End when no transaction is left; those that take too long are cut off, and so put off."""
        self.loop.call_later(GRACE, self.hops.abort)
        self.loop.call_later(GRACE + 2.0, stopped)      # should the resolver keep one
        self._service.stop(GRACE + 1.0, self._last_ended(stopped))

    def _last_ended(self, stopped: Callable[[], None]) -> Callable[[], None]:
        def ended() -> None:
            self.hops.close_idle()
            stopped()
        return ended

    def _session(self, stream: Stream) -> tuple[Server, Caller, Callable[[str], None]]:
        peer = unix.peer_of(stream.sock)
        limits = Limits(errors=1000, refused=100000, idle=0)
        server = Server("lmtp", self.control.me, EXTENSIONS, limits)
        if self.control.injectors.level(peer.uid) == TRUSTED:
            server.greet()
        else:
            log.event("caller_refused", uid=peer.uid, pid=peer.pid)
            server.close(reply(554, "5.7.1", f"uid {peer.uid} is no program of this mail system"))
        caller = Caller(self, stream, server)
        return server, caller, lambda _why: None


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
            return self._server.answer(event, reply(554, "5.5.1", "give the message with XFD"))
        if kind not in (events.Reset, events.BodyFailed, events.Quit):
            self._server.answer(event)
        return None

    async def settle(self) -> None:
        """Wait until all recipients of the message are answered."""
        await self._settled

    def _deliver(self, event: events.BodyFile) -> None:
        mail = self._server.mail
        assert mail is not None
        message = Message(mail, tuple(self._server.accepted), event.fd, event.size, self._is_there)
        self._settled = Waiter()

        def finished(_result: Any, error: BaseException | None) -> None:
            if error is not None:
                program.bug(error, id=mail.xid)
            os.close(event.fd)
            self._settled.set()

        delivery = Delivery(self._relay.loop, self._relay.hops, self._relay.finder, message,
                            lambda number, answer: self._answer(message, number, answer))
        slots = min(max(mail.xconn, 1), self._relay.hops.settings.most)
        Running(delivery.run(slots), finished)

    def _answer(self, message: Message, number: int, answer: Reply) -> None:
        """A recipient's verdict: into the log, and to the caller at once."""
        facts, address = facts_of(answer.text), message.recipients[number].address
        log.event(_EVENTS[answer.status[0]], id=message.mail.xid, address=address,
                  host=facts.get("host"), status=answer.status, said=facts.get("said", "")[:300])
        if not self._server.closed:
            self._server.answer_recipient(number, answer)
            self._stream.write(self._server.take_output())

    def _is_there(self) -> bool:
        """Whether the caller still waits for verdicts."""
        try:
            return self._stream.sock.recv(1, MSG_PEEK | MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
