"""One client's session: recipients are asked about, messages handed to the queue, the client answered.

The one application of both shells. It decides nothing about addresses and keeps nothing: mq-resolve
says who is taken, mq-queue when a message is safe. What goes wrong on our side is always 4xx.
"""

from __future__ import annotations

import time

from mqmail.base import log, xtext
from mqmail.mail.address import BadAddress, parse_address
from mqmail.queue import ids
from mqmail.xmtp import events
from mqmail.xmtp.client import ASK, EAGER, Transaction
from mqmail.xmtp.reply import Reply, facts_of, reply
from mqmail.xmtp.server import Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any, Protocol

    from mqmail.control.reader import Control
    from mqmail.net.session import Session
    from mqmail.prog.xmtpd.peer import Peer
    from mqmail.prog.xmtpd.pool import Pool

    class Resolver(Protocol):
        """Who knows the addresses."""

        async def ask(self, transaction: Transaction) -> Reply | None: ...

CONTROL = ("me", "smtpgreeting", "databytes", "maxrecipients", "timeoutsmtpd")
EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES")
HELD = 65536            # octets of a body that are kept until the queue is told of the message
_DOWN = reply(451, "4.3.2", "the queue does not answer, try again later")
_OURS = (421, 500, 501, 502, 503, 504, 555)     # what a program of ours says when we are wrong
_TROUBLE = reply(451, "4.3.0", "internal trouble, try again later")


def make_server(control: Control, peer: Peer, lmtp: bool) -> Server:
    """The protocol core for a client, not greeted yet."""
    host = control.smtpgreeting.split(" ", 1)[0]
    size = control.databytes if peer.databytes is None else peer.databytes
    limits = Limits(size=size, recipients=control.maxrecipients)
    return Server("lmtp" if lmtp else "smtp", host, EXTENSIONS, limits)


def greeting(control: Control, lmtp: bool) -> Reply:
    """220."""
    return Reply(220, (f"{control.smtpgreeting} {'LMTP' if lmtp else 'ESMTP'}",))


class SessionIds:
    """Short names of sessions, unique in this process, that sort by time."""

    def __init__(self) -> None:
        self._last = 0

    def make(self) -> str:
        """The next one: the microsecond, as in queue ids."""
        self._last = max(self._last + 1, int(time.time() * 1e6))
        return ids.make(self._last, 0)[:11]


class Dialogue:
    """The handler of one session (net/converse.py). Without a *resolver* all recipients are taken."""

    def __init__(self, server: Server, peer: Peer, session: str, resolver: Resolver | None,
                 pool: Pool) -> None:
        self._server = server
        self._peer = peer
        self._session = session
        self._resolver = resolver
        self._pool = pool
        self._hello: events.Hello | None = None
        self._via = ""                              # the XVIA parameter
        self._asked: list[events.Rcpt] = []         # RCPTs that are not answered yet
        self._messages = 0
        self.logs = True                            # whether the usual is logged
        self._since = 0.0                           # when MAIL came
        self._link: Session | None = None           # to mq-queue, while a message is on its way
        self._transaction: Transaction | None = None
        self._held: list[bytes] = []
        self._octets = 0

    # --- what the shell calls ---

    def begin(self) -> None:
        """The client is there."""
        peer = self._peer
        self._log("connect", session=self._session, ip=peer.ip, host=peer.host, uid=peer.uid)

    def end(self, why: str) -> None:
        """The session is over."""
        self._drop()
        self._log("disconnect", session=self._session, why=why, messages=self._messages)

    def handle(self, event: Any) -> Awaitable[None] | None:
        """Answer an event of the core, now or in what is returned."""
        kind = type(event)
        if kind is events.Body:
            return self._body(event.data)
        if kind is events.BodyEnd:
            return self._finish(event)
        if kind is events.Rcpt:
            self._asked.append(event)
            return None
        if kind in (events.BodyFailed, events.Reset, events.Quit):
            self._drop()
            return None
        if kind is events.Mail:
            self._since = time.monotonic()
        elif kind is events.Hello:
            self._drop()
            self._hello, self._via = event, ""
        self._server.answer(event)
        return None

    async def settle(self) -> None:
        """Ask mq-resolve about all RCPTs that came together."""
        asked, self._asked = self._asked, []
        if self._peer.refusal is not None:
            answers: list[Reply | None] = [self._peer.refusal] * len(asked)
        else:
            answers = await self._resolve(asked)
        if self._server.closed:
            return
        for rcpt, answer in zip(asked, answers, strict=True):
            if answer is not None:
                self._log("recipient_refused", session=self._session, ip=self._peer.ip,
                          sender=shown(self._sender()), recipient=rcpt.address, said=answer.said())
            self._server.answer(rcpt, answer)

    # --- recipients ---

    async def _resolve(self, asked: list[events.Rcpt]) -> list[Reply | None]:
        """A refusal for each, or None."""
        if self._resolver is None:
            return [None] * len(asked)
        try:
            recipients = [(self._address(rcpt), ()) for rcpt in asked]
        except BadAddress:
            log.event("bad_relayclient", session=self._session, suffix=self._peer.suffix)
            return [_TROUBLE] * len(asked)
        transaction = Transaction(self._sender(), recipients, self._parameters(), ASK)
        missing = await self._resolver.ask(transaction)
        return [missing if verdict is None else _refusal(verdict) for verdict in transaction.verdicts]

    def _address(self, rcpt: events.Rcpt) -> str:
        """As the client gave it, with RELAYCLIENT's suffix."""
        if not self._peer.suffix:
            return rcpt.address
        return parse_address(rcpt.address + self._peer.suffix)

    def _sender(self) -> str:
        mail = self._server.mail
        assert mail is not None
        return mail.sender

    def _parameters(self) -> list[str]:
        """MAIL's, as far as mq-resolve and mq-queue both want them."""
        mail = self._server.mail
        if not self._via:
            self._via = "XVIA=" + xtext.encode(xtext.facts(self._facts()))
        return [self._via, "SMTPUTF8"] if mail is not None and mail.utf8 else [self._via]

    def _facts(self) -> dict[str, str]:
        """Where the message comes from, for the record (mq-record(5)) and for mq-resolve."""
        peer, hello = self._peer, self._hello
        assert hello is not None
        if peer.local:
            facts = {"proto": "local", "uid": peer.uid}
        else:
            proto = "lmtp" if hello.verb == "LHLO" else "smtp" if hello.verb == "HELO" else "esmtp"
            # never without ip: who has none is a program of this host, and may relay
            facts = {"proto": proto, "ip": peer.ip or "unknown", "helo": hello.name}
        return {**facts, "relay": "1" if peer.relay else "", "session": self._session}

    # --- the message ---

    def _body(self, data: bytes) -> Awaitable[None] | None:
        """Keep a small body; hand a large one over as it comes."""
        self._held.append(data)
        self._octets += len(data)
        return self._stream() if self._octets > HELD else None

    def _take_held(self) -> bytes:
        held, self._held, self._octets = self._held, [], 0
        return held[0] if len(held) == 1 else b"".join(held)

    async def _stream(self) -> None:
        """Pass on what is held; a refusal ends the body."""
        piece = self._take_held()
        link = self._link or await self._open()
        assert self._transaction is not None
        if link is None or not await link.push(self._transaction, piece):
            answer = self._outcome()
            self._drop()
            self._log_refused(answer)
            self._server.fail_body(answer)

    async def _open(self) -> Session | None:
        """A transaction with mq-queue."""
        self._transaction = self._envelope()
        self._link = await self._pool.take()
        if self._link is not None:
            self._link.begin(self._transaction)
        return self._link

    def _envelope(self) -> Transaction:
        mail, parameters = self._server.mail, self._parameters()
        assert mail is not None
        if mail.size > 0:
            parameters.append(f"SIZE={mail.size}")
        if mail.eightbit:
            parameters.append("BODY=8BITMIME")
        if mail.ret:
            parameters.append(f"RET={mail.ret.upper()}")
        if mail.envid:
            parameters.append(f"ENVID={xtext.encode(mail.envid)}")
        recipients = [(self._address(rcpt), _words(rcpt)) for rcpt in self._server.accepted]
        return Transaction(mail.sender, recipients, parameters, EAGER)

    async def _finish(self, event: events.BodyEnd) -> None:
        """The body is complete: the queue's word is ours."""
        piece = self._take_held()
        link = self._link or await self._open()
        assert self._transaction is not None
        if link is not None:
            await link.finish(self._transaction, piece)
        answer = self._outcome()
        if answer.code < 300:
            self._messages += 1
            self._log_accepted(event, answer)
        else:
            self._log_refused(answer)
        if link is not None:
            self._pool.give(link)
        self._link = self._transaction = None
        self._say(event, answer)

    def _outcome(self) -> Reply:
        """What the client is told, by what the queue said so far."""
        transaction = self._transaction
        assert transaction is not None
        known = [verdict for verdict in transaction.verdicts if verdict is not None]
        worst = max(known, key=_code, default=transaction.refused)
        if worst is None or worst.code < 300:
            worst = transaction.refused or worst
        if worst is not None and worst.code >= 300:
            return _passed_on(worst)
        if worst is None or len(known) < len(transaction.verdicts):
            return _DOWN
        return reply(250, "2.0.0", f"ok {facts_of(worst.text).get('id', '')}".rstrip(" "))

    def _say(self, event: events.BodyEnd, answer: Reply) -> None:
        """Once to an SMTP client, for each recipient to an LMTP one (RFC 2033 section 4.2)."""
        server = self._server
        if server.closed:
            return
        if server.kind == "smtp":
            return server.answer(event, answer)
        for number in range(len(server.accepted)):
            server.answer_recipient(number, answer)
        return None

    def _drop(self) -> None:
        """Leave nothing of a message that is not complete: the queue forgets it with the session."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._transaction = None
        self._held, self._octets = [], 0

    # --- the log ---

    def _log(self, kind: str, **facts: object) -> None:
        if self.logs:
            log.event(kind, **facts)

    def _log_accepted(self, event: events.BodyEnd, answer: Reply) -> None:
        self._log("accepted", session=self._session, id=answer.text[3:], sender=shown(self._sender()),
                  recipients=len(self._server.accepted), size=event.size,
                  ms=int((time.monotonic() - self._since) * 1000))

    def _log_refused(self, answer: Reply) -> None:
        self._log("message_refused", session=self._session, sender=shown(self._sender()),
                  recipients=len(self._server.accepted), said=answer.said())


def _words(rcpt: events.Rcpt) -> list[str]:
    """RCPT's DSN parameters (RFC 3461)."""
    words = []
    if rcpt.notify:
        words.append("NOTIFY=" + ",".join(rcpt.notify).upper())
    if rcpt.orcpt:
        kind, _, address = rcpt.orcpt.partition(";")
        words.append(f"ORCPT={kind};{xtext.encode(address)}")
    return words


def shown(sender: str) -> str:
    """In the log the null sender is ``<>``."""
    return sender or "<>"


def _code(answer: Reply) -> int:
    return answer.code


def _refusal(answer: Reply) -> Reply | None:
    """mq-resolve's word on a recipient: None when we take it. Where it goes is nobody's business."""
    if answer.code < 300 or (answer.code == 551 and "<" in answer.text):
        return None
    return _passed_on(answer)


def _passed_on(answer: Reply) -> Reply:
    """What a program of ours said, as the client is told it: our mistakes are temporary."""
    if answer.code in _OURS or answer.code < 400:
        log.event("bad_answer", said=answer.said())
        return _TROUBLE
    if not answer.status:
        return Reply(answer.code, answer.lines, f"{answer.code // 100}.0.0")
    return answer
