"""mq-queue: makes messages durable.

Usage:
  mq-queue [--home DIR] [--ready-fd N]
  mq-queue --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once messages are accepted
  --help          this text

Speaks SMTP (with XMQ) on run/queue.sock. Who may inject is control/injectors.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter

from mqmail.base import log, program, ready, unix, waiter, xtext
from mqmail.control import reader
from mqmail.control.injectors import NONE, TRUSTED
from mqmail.control.listeners import given_destinations
from mqmail.mail.address import needs_utf8
from mqmail.mail.date import format_date
from mqmail.mail.headerscan import HeaderScan
from mqmail.mail.received import received_line
from mqmail.net import daemon
from mqmail.net.service import Service, refuse_caller
from mqmail.net.stream import Deadlines
from mqmail.net.trigger import Trigger
from mqmail.policy.pressure import Floor
from mqmail.queue import incoming, lines, load, paths
from mqmail.queue.record import Envelope, Recipient
from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.server import Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.net.stream import Stream

SOCKET = "run/queue.sock"
CONTROL = ("me", "injectors", "databytes", "minfree", "okfree", "concurrencyqueue", "listeners")
EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES")
MOST_RECIPIENTS = 100000
MOST_ENVELOPE = 32 << 20    # octets of recipients: the record has as much room for their fates
MOST_OF_A_USER = 50         # sessions at a time in each process, of who is not trusted
ENVELOPE_OF_A_USER = 4 << 20
HELD = 65536            # octets of a body that are kept in memory before a file is made
MOST_RECEIVED = 100     # Received fields that make a loop (RFC 5321 section 6.3)
_LOGGED = frozenset(("event", "prog", "id", "size", "sender", "recipients", "caller"))
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOOPS = reply(554, "5.4.6", f"more than {MOST_RECEIVED} Received fields: this message loops")
_TOO_MANY = reply(452, "4.5.3", "too many recipients")
_NOT_FOR_ALL = reply(451, "4.5.3", "a recipient was refused: a message is taken for all, or for nobody")
_HUGE_HEADER = reply(552, "5.3.4", "the header is too large")


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    begun = daemon.start("mq-queue", __doc__, argv)
    kept = daemon.Kept(CONTROL)
    listener, believed = begun.sockets[SOCKET], begun.callers(SOCKET)
    workers = daemon.Workers("mq-queue", kept.control.concurrencyqueue,
                             lambda number: Worker(number, listener, kept.control, believed).run(),
                             kept.reload)
    workers.run(lambda: ready.announce(begun.ready))
    return 0


class Worker:
    """One process: many sessions, and one commit for all messages that are complete together. The uids
    *believed* are trusted whatever control/injectors says, but for the destinations they may give: those
    of control/listeners."""

    def __init__(self, number: int, listener: unix.socket, control: Control,
                 believed: frozenset[int] | None) -> None:
        self.number = number
        self.control = control
        self._listener = listener
        self._believed = believed or frozenset()
        self._batch: list[tuple[incoming.Incoming, bytes]] = []
        self._waiting: list[waiter.Waiter] = []
        self._trigger = Trigger()
        self._users: Counter[int] = Counter()       # sessions of each uid
        self._intakes: set[Intake] = set()
        self._floor = Floor()

    def run(self) -> None:
        """Serve until TERM."""
        self.loop: asyncio.AbstractEventLoop = daemon.new_loop()
        service = Service(self.loop, Deadlines(self.loop), self._listener, self._session, most=5000)
        self._resend()
        if self.number == 0:
            self._count(load.Count())
        daemon.run_loop(self.loop, lambda stopped: service.stop(10.0, stopped), self._reload)

    def _reload(self) -> None:
        """For the sessions that are open too: xmtpd keeps its own for as long as there is mail."""
        self.control = reader.load(".", CONTROL)
        for intake in self._intakes:
            intake.obey()

    def _session(self, stream: Stream) -> tuple[Server, Intake, Callable[[str], None]]:
        peer = unix.peer_of(stream.sock)
        level = TRUSTED if peer.uid in self._believed else self.control.injectors.level(peer.uid)
        server = Server("smtp", self.control.me, (*EXTENSIONS, "XMQ"))
        intake = Intake(self, server, peer.uid, level == TRUSTED)
        if level == NONE:
            refuse_caller(server, peer, "may not put mail into this queue")
        elif level != TRUSTED and self._users[peer.uid] >= MOST_OF_A_USER:
            server.close(reply(421, "4.3.2", f"uid {peer.uid} has too many sessions, come back later"))
        else:
            server.greet()
        self._users[peer.uid] += 1
        self._intakes.add(intake)

        def end(why: str) -> None:
            self._intakes.discard(intake)
            self._users[peer.uid] -= 1
            if not self._users[peer.uid]:
                del self._users[peer.uid]
            intake.end(why)

        return server, intake, end

    def destinations(self, uid: int, trusted: bool) -> frozenset[str] | None:
        """Those that a caller may give besides new, *trusted* as a program of ours or by
        control/injectors; None: all."""
        if not trusted:
            return frozenset()
        is_chosen = self.control.injectors.level(uid) == TRUSTED
        return None if is_chosen else given_destinations(self.control.listeners)

    def commit(self, message: incoming.Incoming, record: bytes) -> waiter.Waiter:
        """Make *message* durable with all that are ready now; the Waiter gives None or OSError."""
        if not self._batch:
            self.loop.call_soon(self._commit)
        self._batch.append((message, record))
        done = waiter.Waiter()
        self._waiting.append(done)
        return done

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        waiting, self._waiting = self._waiting, []
        results = _commit(batch)
        good = [message.id for message, _ in batch if results[message] is None]
        self._trigger.send(good)
        for (message, _), done in zip(batch, waiting, strict=True):
            done.set(results[message])

    def _resend(self) -> None:
        """Ids that mq-send could not be told go out as soon as it takes them."""
        if self._trigger.kept:
            self._trigger.send([])
        self.loop.call_later(0.05 if self._trigger.kept else 0.5, self._resend)

    def _count(self, count: load.Count, failed: bool = False) -> None:
        """One of the processes tells xmtpd how much waits, every second."""
        try:
            count.tell()
        except OSError as error:
            if not failed:
                log.event("load_unknown", error=program.describe(error))
            failed = True
        else:
            failed = False
        self.loop.call_later(load.EVERY, self._count, count, failed)

    def space_for(self, size: int) -> Reply | None:
        """A refusal when the disk has too little left: below minfree acceptance stops, until there is
        okfree."""
        free, inodes = paths.space()
        is_low = self._floor.feel(free, self.control.minfree, self.control.okfree)
        if is_low or free - max(size, 0) < self.control.minfree:
            return reply(452, "4.3.1", "not enough disk space")
        if inodes < 1000:
            return reply(452, "4.3.1", "not enough inodes")
        return None


def _commit(batch: list[tuple[incoming.Incoming, bytes]]) -> dict[incoming.Incoming, OSError | None]:
    """As incoming.commit; a bug of ours is no answer either."""
    try:
        return incoming.commit(batch)
    except Exception as error:  # noqa: BLE001  nobody may wait for ever
        program.bug(error)
        for message, _ in batch:
            message.abort()
        return dict.fromkeys([message for message, _ in batch], OSError(errno.EIO, repr(error)[:200]))


class Intake:
    """One session's messages on their way into the queue."""

    def __init__(self, worker: Worker, server: Server, uid: int, trusted: bool) -> None:
        self._worker = worker
        self._server = server
        self._uid = uid
        self._trusted = trusted
        self._message: incoming.Incoming | None = None
        self._forget()
        self.obey()

    def obey(self) -> None:
        """Take what the control files say now."""
        self._destinations = self._worker.destinations(self._uid, self._trusted)
        self._server.set_limits(Limits(size=self._worker.control.databytes, recipients=MOST_RECIPIENTS,
                                       errors=1000, refused=100000, idle=0))

    def _forget(self) -> None:
        self._held: list[bytes] = []
        self._octets = 0
        self._scan = HeaderScan()
        self._via: dict[str, str] = {}
        self._eightbit = False
        self._envelope = 0
        self._at_once = False

    def _drop(self) -> None:
        """Leave nothing of an unfinished message behind."""
        message, self._message = self._message, None
        if message is not None:
            message.abort()
        self._forget()

    def end(self, _why: str) -> None:
        """The session is over."""
        self._drop()

    async def settle(self) -> None:
        """Everything is answered at once, or awaited."""

    def handle(self, event: Any) -> Any:
        """Answer one event of the core."""
        kind = type(event)
        if kind is events.Body:
            return self._body(event.data)
        if kind is events.BodyEnd:
            return self._finish(event)
        if kind is events.Data:
            self._at_once = event.chunked
        if kind is events.Mail:
            return self._server.answer(event, self._mail(event))
        if kind is events.Rcpt:
            return self._server.answer(event, self._rcpt(event))
        if kind in (events.BodyFailed, events.Reset, events.Quit):
            return self._drop()
        if kind is events.Verify:
            return self._server.answer(event, reply(252, "2.5.2", "the queue knows no addresses"))
        return self._server.answer(event)

    def _mail(self, mail: events.Mail) -> Reply | None:
        self._drop()
        try:
            refusal = self._worker.space_for(mail.size)
            self._via = self._facts(mail)
        except OSError as error:
            return trouble(error)
        except ValueError:
            return reply(501, "5.5.4", "bad XVIA")
        return refusal

    def _facts(self, mail: events.Mail) -> dict[str, str]:
        """The record's via line. Only programs of ours may say that a message came from elsewhere."""
        if self._trusted and mail.xvia:
            facts = xtext.parse_facts(mail.xvia.split(" "))
            if not _LOGGED.isdisjoint(facts):
                raise ValueError("a fact with a name of ours")
            return facts
        return {"proto": "local", "uid": str(self._uid)}

    def _rcpt(self, rcpt: events.Rcpt) -> Reply | None:
        name, may = rcpt.destination, self._destinations
        if name not in ("", "new") and may is not None and name not in may:
            return reply(550, "5.7.1", "this destination is not yours to choose")
        self._envelope += 100 + len(xtext.encode(rcpt.address)) + len(xtext.encode(rcpt.orcpt))
        return _TOO_MANY if self._is_too_long() else None

    def _is_too_long(self) -> bool:
        return self._envelope > (MOST_ENVELOPE if self._trusted else ENVELOPE_OF_A_USER)

    def _lacks_recipients(self) -> Reply | None:
        """A message that has lost a recipient is refused for all, if its sender may have written all at
        once (by BDAT; with DATA it knows): it would send it again to those who have it."""
        if self._is_too_long():
            return _TOO_MANY
        return _NOT_FOR_ALL if self._at_once and self._server.missed else None

    def _body(self, data: bytes) -> None:
        """Keep a small body in memory, put a large one into its file as it comes."""
        lacks = self._lacks_recipients()
        if lacks is not None:
            return self._drop_with(lacks)
        self._scan.feed(data)
        if self._scan.loops(MOST_RECEIVED) or self._scan.too_large:
            return self._drop_with(_LOOPS if self._scan.loops(MOST_RECEIVED) else _HUGE_HEADER)
        self._eightbit = self._eightbit or not data.isascii()
        self._held.append(data)
        self._octets += len(data)
        if self._octets > HELD:
            try:
                self._flush()
            except OSError as error:
                self._drop_with(trouble(error))
        return None

    def _drop_with(self, answer: Reply) -> None:
        self._drop()
        self._server.fail_body(answer)

    def _flush(self) -> None:
        """Write what is held, with our Received on top when it is the first."""
        if self._message is None:
            self._message = incoming.Incoming.begin(int(time.time() * 1e6), os.getpid())
            self._held.insert(0, self._top(self._message.id))
        self._message.write(b"".join(self._held))
        self._held, self._octets = [], 0

    def _top(self, id: str) -> bytes:
        """Received, and a blank line if the message does not start with a header."""
        mail = self._server.mail
        received = received_line(self._worker.control.me, id, self._via, format_date(time.time()),
                                 utf8=mail is not None and mail.utf8)
        return received if self._scan.starts_with_header else received + b"\r\n"

    async def _finish(self, event: events.BodyEnd) -> None:
        lacks = self._lacks_recipients()
        if lacks is not None:           # and an empty body
            return self._server.answer(event, lacks)
        try:
            self._flush()
            assert self._message is not None
            message = self._message
            error = await self._worker.commit(message, self._record(message))
            self._message = None
        except OSError as failed:
            error = failed
        if error is not None:
            log.event("queue_failed", error=error.strerror or str(error), uid=self._uid)
            self._drop()
            return self._server.answer(event, trouble(error))
        self._log(message)
        self._server.answer(event, reply(250, "2.0.0", f"id={message.id}"))
        return self._forget()

    def _record(self, message: incoming.Incoming) -> bytes:
        mail = self._server.mail
        assert mail is not None
        accepted = self._server.accepted
        utf8 = mail.utf8 or needs_utf8(mail.sender)
        envelope = Envelope(message.id, time.time(), message.size, self._eightbit, utf8, mail.sender,
                            mail.ret, mail.envid, self._via)
        recipients = [Recipient(str(n), r.destination or "new", r.address, r.notify, r.orcpt, None)
                      for n, r in enumerate(accepted, 1)]
        return lines.head(envelope, recipients)

    def _log(self, message: incoming.Incoming) -> None:
        mail = self._server.mail
        log.event("queued", id=message.id, size=message.size, sender=mail.sender if mail else "",
                  recipients=len(self._server.accepted), caller=self._uid, **self._via)


def trouble(error: OSError) -> Reply:
    """The machine's trouble is never the sender's fault: 452 when the disk is full, else 451."""
    if error.errno in _FULL:
        return reply(452, "4.3.1", "not enough disk space")
    return reply(451, "4.3.0", "trouble with the queue's disk")
