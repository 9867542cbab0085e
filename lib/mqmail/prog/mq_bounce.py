"""mq-bounce: writes delivery reports, and puts them into the queue.

Usage:
  mq-bounce [--home DIR] [--ready-fd N]
  mq-bounce --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once reports are taken
  --help          this text

Serves the destination error: speaks LMTP (with XMQ) on run/bounce.sock.
"""

from __future__ import annotations

import os
import time

from mqmail.auth.news import News
from mqmail.base import log, program, ready, unix, xtext
from mqmail.base.failure import Failure, Permanent, Temporary
from mqmail.control import reader
from mqmail.mail import dsn
from mqmail.mail.date import format_date
from mqmail.net import daemon
from mqmail.net.service import Service, greet_trusted
from mqmail.net.session import Session, file_pieces
from mqmail.net.stream import Deadlines, connect_unix
from mqmail.net.submit import envelope, queue_id
from mqmail.queue import ids
from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.server import ONLY_XFD, SERVICE_EXTENSIONS, Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.net.stream import Stream

SOCKET = "run/bounce.sock"
QUEUE = "run/queue.sock"
CONTROL = ("me", "injectors", "bouncefrom", "bouncehost", "doublebounceto", "doublebouncehost")
ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded", "none")
MOST_RECIPIENTS = 2000      # of one report; mq-send is told to come back with the others
MOST_SESSIONS = 200
TIMEOUT = 300.0             # seconds for each answer of mq-queue
_LONGEST_LOG = 300          # characters of what was said


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    begun = daemon.start("mq-bounce", __doc__, argv)
    bouncer = Bouncer(daemon.new_loop(), begun.callers(SOCKET))
    service = bouncer.serve(begun.sockets[SOCKET])
    bouncer.loop.call_soon(ready.announce, begun.ready)     # when signals are heard
    daemon.run_loop(bouncer.loop, lambda stopped: service.stop(10.0, stopped), bouncer.reload)
    return 0


class Bouncer:
    """The process: its settings, and its way to mq-queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callers: frozenset[int] | None) -> None:
        self.loop = loop
        self._callers = callers
        self._deadlines = Deadlines(loop)
        self.reload()
        self.news = News(loop, self._deadlines, self.control.me)

    def reload(self) -> None:
        """Read the control files; raises BadFile and changes nothing when one is wrong."""
        self.control: Control = reader.load(".", CONTROL)

    def serve(self, listener: unix.socket) -> Service:
        """Take sessions from *listener* once the loop runs."""
        return Service(self.loop, self._deadlines, listener, self._session, most=MOST_SESSIONS)

    def _session(self, stream: Stream) -> tuple[Server, Reporter, Callable[[str], None]]:
        limits = Limits(recipients=MOST_RECIPIENTS, errors=1000, idle=0)
        server = Server("lmtp", self.control.me, SERVICE_EXTENSIONS, limits)
        greet_trusted(stream, server, self.control.injectors, self._callers, "may not ask for reports")
        return server, Reporter(self, server), lambda _why: None

    async def put(self, about: dsn.Report, via: dict[str, str], original: Iterable[bytes]) -> str:
        """Put one report into the queue; its id, once it is durable. Raises Temporary or Permanent."""
        transaction = envelope("", [about.to], eightbit=dsn.needs_8bit(about),
                               utf8=dsn.needs_utf8(about), via=xtext.facts(via))
        try:
            stream = await connect_unix(self.loop, self._deadlines, QUEUE)
        except OSError as error:
            raise Temporary(f"the queue does not answer ({error.strerror})", "4.3.2") from None
        session = Session(stream, "smtp", self.control.me, TIMEOUT)
        try:
            if not await session.open():
                raise Temporary(f"the queue refused to talk: {session.broken}", "4.3.2")
            await session.run(transaction, pieces=dsn.report(about, original))
            return queue_id(transaction, session.broken)
        finally:
            session.close()


class Reporter:
    """One session with mq-send: each transaction becomes one report, or none."""

    def __init__(self, bouncer: Bouncer, server: Server) -> None:
        self._bouncer = bouncer
        self._server = server
        self._via: dict[str, str] = {}

    async def settle(self) -> None:
        """Everything is answered at once, or awaited."""

    def handle(self, event: Any) -> Any:
        """Answer one event of the core."""
        kind = type(event)
        if kind is events.BodyFile:
            return self._body(event)
        if kind is events.Mail:
            return self._server.answer(event, self._mail(event))
        if kind is events.Rcpt:
            return self._server.answer(event, _rcpt(event))
        if kind is events.Data:
            return self._server.answer(event, ONLY_XFD)
        if kind in (events.Reset, events.Quit):
            return None
        return self._server.answer(event)

    def _mail(self, mail: events.Mail) -> Reply | None:
        try:
            self._via = xtext.parse_facts(mail.xvia.split(" ")) if mail.xvia else {}
        except ValueError:
            return reply(501, "5.5.4", "bad XVIA")
        return None

    async def _body(self, event: events.BodyFile) -> None:
        """Report, and give all recipients the one answer. What is answered well counts: it does not come
        again."""
        try:
            answer = await self._answer(event)
        finally:
            os.close(event.fd)
        if answer.code < 300 and "auth" in self._via:
            self._bouncer.news.note(self._via["auth"], _refused(self._server.accepted))
        for number in range(len(self._server.accepted)):
            self._server.answer_recipient(number, answer)

    async def _answer(self, event: events.BodyFile) -> Reply:
        """250 once the report is durable, or when there is nobody to send it to; else 4xx."""
        mail = self._server.mail
        assert mail is not None
        # a bounce is never bounced, and nobody asked it how it fared
        told = ACTIONS[:-1] if mail.sender else ("failed",)
        accepted = [rcpt for rcpt in self._server.accepted if dict(rcpt.x)["action"] in told]
        if not accepted:
            log.event("nobody_to_tell", id=mail.xid, recipients=len(self._server.accepted))
            return reply(250, "2.0.0", "nobody to tell")
        if not mail.sender and self._via.get("proto") == "double":
            return _drop(mail, accepted)
        about = _report(self._bouncer.control, mail, accepted, event.size)
        try:
            return await self._bounce(mail, about, event)
        except OSError as error:
            why = program.describe(error)
        except Failure as failure:
            why = failure.text
        log.event("bounce_deferred", id=mail.xid, recipients=len(accepted), to=about.to, error=why)
        return reply(451, "4.3.0", why[:_LONGEST_LOG])

    async def _bounce(self, mail: events.Mail, about: dsn.Report, event: events.BodyFile) -> Reply:
        """Put the report into the queue. One that is refused for good is made smaller: with the header
        of the message instead of all of it, then without that too. Raises Failure or OSError."""
        via = {"proto": self._proto(about), "of": mail.xid}
        smaller = about.replace(ret="hdrs")     # type: ignore[attr-defined]  # of every @value
        for shorter, original in ((about, True), (smaller, True), (smaller, False)):
            pieces = file_pieces(event.fd, event.size) if original else ()
            try:
                new = await self._bouncer.put(shorter, via, pieces)
            except Permanent as refused:
                why = refused
                log.event("report_refused", id=mail.xid, to=about.to, said=why.text[:_LONGEST_LOG])
                continue
            log.event("bounced", id=mail.xid, report=new, recipients=len(about.recipients), to=about.to,
                      proto=via["proto"])
            return reply(250, "2.0.0", f"id={new}")
        raise why

    def _proto(self, about: dsn.Report) -> str:
        """A report on a double bounce that a list's owner gets is one too: if it fails, it ends."""
        return "double" if about.double or self._via.get("proto") == "double" else "bounce"


def _rcpt(rcpt: events.Rcpt) -> Reply | None:
    """Refuse what cannot be reported."""
    action = dict(rcpt.x).get("action")
    if rcpt.destination != "error":
        return reply(550, "5.1.6", "only destination error is served here")
    if action is None:      # an address that somebody's table sends here: it fails, and is reported then
        return reply(550, "5.1.0", "mail to this address is refused")
    if action not in ACTIONS:
        return reply(501, "5.5.4", f"XACTION is one of {', '.join(ACTIONS)}")
    return None


def _refused(accepted: list[events.Rcpt]) -> int:
    """How many addresses that the sender gave have been refused for good. What nobody refused, as time
    ran out or there is no way to it (RFC 3463 section 3.5), is no fault of his."""
    return len({rcpt.address for rcpt in accepted if dict(rcpt.x)["action"] in ("failed", "none")
                and not dict(rcpt.x).get("status", "").startswith("5.4.")})


def _report(control: Control, mail: events.Mail, accepted: list[events.Rcpt], size: int) -> dsn.Report:
    """What the report says. The null sender's goes to the postmaster."""
    arrived = format_date(ids.microseconds(mail.xid) // 1000000) if ids.is_id(mail.xid) else ""
    return dsn.Report(
        host=control.me,
        sender=f"{control.bouncefrom}@{control.bouncehost}",
        to=mail.sender or f"{control.doublebounceto}@{control.doublebouncehost}",
        date=format_date(time.time()),
        message_id=f"<{mail.xid or 'report'}.{os.urandom(6).hex()}@{control.me}>",
        seed=os.urandom(15).hex(),
        recipients=tuple([_reported(rcpt) for rcpt in accepted]),
        envid=mail.envid, arrived=arrived, ret=mail.ret, size=size,
        eight_bit=mail.eightbit, utf8=mail.utf8, double=not mail.sender)


def _reported(rcpt: events.Rcpt) -> dsn.Reported:
    x = dict(rcpt.x)
    return dsn.Reported(rcpt.address, x["action"], x.get("status", ""), rcpt.orcpt, x.get("host", ""),
                        x.get("said", ""), final=_date(x.get("time", "")),
                        until=_date(x.get("until", "")), tls=x.get("tls", ""))


def _date(seconds: str) -> str:
    good = seconds.isascii() and seconds.isdigit() and len(seconds) < 12
    return format_date(int(seconds)) if good else ""


def _drop(mail: events.Mail, accepted: list[events.Rcpt]) -> Reply:
    """A double bounce that failed: the log is all that is left of it."""
    said = "; ".join([f"<{r.address}> {dict(r.x).get('said', '')[:_LONGEST_LOG]}" for r in accepted[:5]])
    log.event("double_bounce_dropped", id=mail.xid, recipients=len(accepted), said=said)
    return reply(250, "2.0.0", "dropped: a double bounce is not bounced")
