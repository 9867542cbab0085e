"""A message's body: policy, then mq-queue, whose word on it is the client's."""

from __future__ import annotations

import os
import time

from mqmail.base import log, xtext
from mqmail.base.failure import BadFile
from mqmail.mail.headerscan import LARGEST_JUDGED, HeaderScan, is_field
from mqmail.policy.facts import SUBMISSION
from mqmail.policy.stages import fields_of
from mqmail.policy.verdict import DEFER, DISCARD, LIMIT, REJECT, Verdict
from mqmail.prog.xmtpd.client import reply_of, shown
from mqmail.prog.xmtpd.recipients import TROUBLE, Recipients, passed_on
from mqmail.xmtp import events
from mqmail.xmtp.client import EAGER, Transaction
from mqmail.xmtp.reply import Reply, facts_of, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mqmail.net.session import Session
    from mqmail.prog.xmtpd.pool import Pool

HELD = 65536            # octets of a body that are kept until the queue is told of the message
MOST_PIECES = 64        # that they are kept in: those of two octets take 20 times their size
SEEN = 65536            # octets of a body that the checks behind it see
_DOWN = reply(451, "4.3.2", "the queue does not answer, try again later")
_HUGE_HEADER = reply(552, "5.3.4", "the header is too large")
_THANKS = reply(250, "2.0.0", "ok")


class Message(Recipients):
    """Base of the handler. ``pool`` has the sessions to mq-queue."""

    pool: Pool

    def forget_body(self) -> None:
        """Leave nothing of a message that is not complete: the queue forgets it with the session."""
        self._close_link()
        self._held: list[bytes] = []
        self._octets = 0
        self._end = b""                             # of what has come of the header: its last octets
        self._whole = False                         # all of the header has come
        self._begun = False                         # the header has been judged
        self._away = False                          # the message is thrown away
        self._refused: dict[str, Reply] = {}        # recipients that do not get it
        self._header = None

    _link: Session | None = None                    # to mq-queue, while a message is on its way
    _transaction: Transaction | None = None
    _since = 0.0                                    # when MAIL came
    messages = 0                                    # accepted
    taken = 0                                       # octets of bodies, accepted or not
    _completions = 0

    def _close_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._transaction = None

    def body(self, data: bytes) -> Awaitable[None] | None:
        """Keep a small body; hand a large one over as it comes, from the end of its header on."""
        if self._begun:
            self._show(data)
        self._held.append(data)
        if len(self._held) > MOST_PIECES:
            self._held = [b"".join(self._held)]
        self._octets += len(data)
        self.taken += len(data)
        if not self._whole:
            self._end += data
            self._whole = (b"\r\n\r\n" in self._end or self._octets > LARGEST_JUDGED
                           or not self._is_judged)
            self._end = self._end[-3:]
        return self._stream() if self._octets > HELD and self._whole else None

    @property
    def _is_judged(self) -> bool:
        """Whether anybody looks at the header."""
        stages = self.settings.stages
        return self._submitted or stages.has("header") or stages.has("body")

    def _show(self, data: bytes) -> None:
        """More of what follows the header has come."""
        facts = self.facts
        if len(facts.body) < SEEN and self.settings.stages.has("body"):
            facts.body += data[:SEEN - len(facts.body)]

    @property
    def _submitted(self) -> bool:
        return self.facts.role in SUBMISSION

    def _take_held(self) -> bytes:
        held, self._held, self._octets = self._held, [], 0
        return held[0] if len(held) == 1 else b"".join(held)

    async def _stream(self) -> None:
        """Pass on what is held; a refusal ends the body."""
        answer = await self._begin_body()
        if answer is None and not self._away and not self._nobody_left():
            answer = await self._push(self._take_held())
        self._held, self._octets = [], 0
        if answer is not None:
            self.forget_body()
            self._log_refused(answer)
            self.server.fail_body(answer)

    async def _push(self, piece: bytes) -> Reply | None:
        link = self._link or await self._open()
        assert self._transaction is not None
        try:
            piece = self.filtered(piece)
        except BadFile as error:
            return self.no_table(error)
        if link is not None and (not piece or await link.push(self._transaction, piece)):
            return None
        return self._outcome()

    async def _begin_body(self) -> Reply | None:
        """Once, when the header is there: judge it, and put our fields on top. A refusal, or None."""
        if self._begun:
            return None
        self._begun = True
        answer = None
        if self._is_judged:
            text = b"".join(self._held)
            header = header_of(text)
            self._show(text[len(header):].removeprefix(b"\r\n") if header else text)
            if self._submitted:
                if header == text and len(text) > LARGEST_JUDGED:  # a Bcc could be behind what we see
                    return _HUGE_HEADER
                text, header = self._completed(text, header)
                self._held = [text]
            self.facts.header = header
            answer = self._heed(await self.judge("header"))
        self._away = self._away or len(self._thrown) == len(self.server.accepted)
        if self.facts.said:
            self._put_on_top(fields_of(self.facts))
        return answer or self.filter_header()

    def _put_on_top(self, fields: tuple[str, ...]) -> None:
        """Those of our checks; a blank line behind them if the message does not start with a header."""
        if not fields:
            return
        text, scan = b"".join(self._held), HeaderScan()
        scan.feed(text[:SEEN])
        end = "" if scan.starts_with_header else "\r\n"
        top = "".join([f"{field}\r\n" for field in fields]) + end
        self._held = [top.encode("utf-8", "surrogateescape"), text]

    def _completed(self, text: bytes, header: bytes) -> tuple[bytes, bytes]:
        """What a user's program has left out is added, what is not for others taken away."""
        from mqmail.policy.header import submission_header  # dear
        self._completions += 1
        id = f"{time.time_ns():x}.{os.getpid()}.{self._completions}@{self.server.host}"
        complete = submission_header(header, self.facts, time.time(), id)
        rest = text[len(header):]
        if rest and not rest.startswith(b"\r\n"):      # there was no header, and so no empty line
            rest = b"\r\n" + rest
        return complete + rest, complete

    def _heed(self, said: Verdict | None) -> Reply | None:
        """A verdict on the message: a refusal, or None."""
        if said is None:
            return None
        if said.action == DISCARD:
            self._away = True
        if said.action in (REJECT, DEFER, LIMIT):
            return reply_of(said)
        return self._refuse_single(said.recipients)

    def _refuse_single(self, refused: tuple[tuple[str, Reply], ...]) -> Reply | None:
        """What recipients hear who do not get the message. Whose client cannot be told gets it, unless
        nobody does: the reply for all is then the mildest."""
        if self.server.each_is_told:
            self._refused.update(refused)
        elif {self.recipient_of(rcpt) for rcpt in self.server.accepted} <= dict(refused).keys():
            return min([answer for _, answer in refused], key=_code)
        return None

    # --- mq-queue ---

    async def _open(self) -> Session | None:
        """A transaction with mq-queue."""
        self._transaction = self._envelope()
        self._link = await self.pool.take()
        if self._link is not None:
            self._link.begin(self._transaction)
        return self._link

    def _envelope(self) -> Transaction:
        mail, parameters = self.server.mail, self.parameters(self.may_relay)
        assert mail is not None
        if mail.size > 0:
            parameters.append(f"SIZE={mail.size}")
        if mail.eightbit:
            parameters.append("BODY=8BITMIME")
        if mail.ret:
            parameters.append(f"RET={mail.ret.upper()}")
        if mail.envid:
            parameters.append(f"ENVID={xtext.encode(mail.envid)}")
        recipients = [(self.path_of(rcpt), self._words(rcpt)) for rcpt in self.server.accepted
                      if not self._is_left_out(rcpt)]
        return Transaction(self.sender(), recipients, parameters, EAGER)

    def _words(self, rcpt: events.Rcpt) -> list[str]:
        """RCPT's DSN parameters (RFC 3461); of one that is rewritten, what the client said (section
        5.2.1)."""
        words, orcpt = [], rcpt.orcpt
        if rcpt.notify:
            words.append("NOTIFY=" + ",".join(rcpt.notify).upper())
        if not orcpt and rcpt.address.isascii() and self.recipient_of(rcpt) != rcpt.address:
            orcpt = f"rfc822;{rcpt.address}"
        if orcpt:
            kind, _, address = orcpt.partition(";")
            words.append(f"ORCPT={kind};{xtext.encode(address)}")
        return words

    async def finish(self, event: events.BodyEnd) -> None:
        """The body is complete: the queue's word is ours."""
        answer = await self._begin_body()
        if answer is None and self.settings.stages.has("body"):
            self.facts.octets = event.size
            answer = self._heed(await self.judge("body"))
        if answer is None and not self._away and not self._nobody_left():
            answer = await self._hand_over()
        if answer is None:
            answer = _THANKS
            self.log("discarded", sender=shown(self.sender()), recipients=len(self.server.accepted))
        elif answer.code < 300:
            self.messages += 1
            self._log_accepted(event, answer)
        else:
            self._log_refused(answer)
        self._close_link()
        self._say(event, answer)

    def _nobody_left(self) -> bool:
        return all([self._is_left_out(rcpt) for rcpt in self.server.accepted])

    def _is_left_out(self, rcpt: events.Rcpt) -> bool:
        return rcpt.number in self._thrown or self.recipient_of(rcpt) in self._refused

    async def _hand_over(self) -> Reply:
        """The last of the body to the queue, and what it says."""
        try:
            piece = self.filtered(self._take_held(), is_last=True)
        except BadFile as error:
            return self.no_table(error)
        link = self._link or await self._open()
        assert self._transaction is not None
        if link is not None:
            await link.finish(self._transaction, piece)
        answer = self._outcome()
        if link is not None:
            self.pool.give(link)
        self._link = self._transaction = None
        return answer

    def _outcome(self) -> Reply:
        """What the client is told, by what the queue said so far."""
        transaction = self._transaction
        assert transaction is not None
        missed = _refused_later(transaction)
        if missed is not None and missed.code >= 500:
            log.event("bad_answer", said=missed.said())
            return TROUBLE
        known = [verdict for verdict in transaction.verdicts if verdict is not None]
        worst = max(known, key=_code, default=transaction.refused)
        if worst is None or worst.code < 300:
            worst = transaction.refused or worst
        if worst is not None and worst.code >= 300:
            return passed_on(worst)
        if worst is None or len(known) < len(transaction.verdicts):
            return _DOWN
        return reply(250, "2.0.0", f"ok {facts_of(worst.text).get('id', '')}".rstrip(" "))

    def _say(self, event: events.BodyEnd, answer: Reply) -> None:
        """Once, or for each recipient (RFC 2033 section 4.2, PRDR)."""
        server = self.server
        if server.closed:
            return
        if not server.each_is_told:
            return server.answer(event, answer)
        answers = [self._refused.get(self.recipient_of(rcpt), answer) for rcpt in server.accepted]
        for number, one in enumerate(answers):
            server.answer_recipient(number, one)
        return None

    # --- the log ---

    def _log_accepted(self, event: events.BodyEnd, answer: Reply) -> None:
        self.log("accepted", id=answer.text[3:], sender=shown(self.sender()),
                 recipients=len(self.server.accepted), size=event.size,
                 ms=int((time.monotonic() - self._since) * 1000))

    def _log_refused(self, answer: Reply) -> None:
        self.log("message_refused", sender=shown(self.sender()), recipients=len(self.server.accepted),
                 said=answer.said())


def header_of(text: bytes) -> bytes:
    """The header at the start of a message, with its last line end, without the empty line; nothing of a
    message that begins with something else."""
    if not is_field(text.partition(b"\r\n")[0]):
        return b""
    end = text.find(b"\r\n\r\n")
    return text[:end + 2] if end >= 0 else text


def _refused_later(transaction: Transaction) -> Reply | None:
    """How the queue refused a recipient whom we have taken; None if it did not. It refuses the message
    for all then, and so do we, for now: nobody is to be lost, and nobody to get it twice."""
    taken = set(transaction.accepted)
    for number, verdict in enumerate(transaction.verdicts):
        if verdict is not None and number not in taken and verdict is not transaction.refused:
            return verdict
    return None


def _code(answer: Reply) -> int:
    return answer.code
