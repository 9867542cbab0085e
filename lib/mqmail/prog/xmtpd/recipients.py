"""RCPT: policy, then mq-resolve about all recipients that came together."""

from __future__ import annotations

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.mail.address import BadAddress, parse_address
from mqmail.policy.accounts import note_refused
from mqmail.policy.stages import for_recipient, may_relay
from mqmail.policy.verdict import DEFER, DISCARD, LIMIT, NO_OPINION, REJECT, Verdict
from mqmail.prog.xmtpd.client import reply_of, shown
from mqmail.prog.xmtpd.rewriting import Rewriting
from mqmail.xmtp import events
from mqmail.xmtp.client import ASK, Transaction
from mqmail.xmtp.reply import Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Resolver(Protocol):
        """Who knows the addresses."""

        async def ask(self, transaction: Transaction) -> Reply | None: ...

_OURS = (421, 500, 501, 502, 503, 504, 555)     # what a program of ours says when we are wrong
TROUBLE = reply(451, "4.3.0", "internal trouble, try again later")
_TOO_MANY = reply(452, "4.5.3", "too many recipients")     # RFC 5321 section 4.5.3.1.10
_APART = reply(452, "4.5.3", "other rules hold for this recipient: send it a message of its own")


class Recipients(Rewriting):
    """Base of the handler. ``resolver`` None: all recipients are taken."""

    resolver: Resolver | None = None

    def forget_recipients(self) -> None:
        """A transaction begins or ends."""
        self._asked: list[events.Rcpt] = []         # RCPTs that are not answered yet
        self._thrown: frozenset[int] = frozenset()  # numbers of those whose mail is thrown away
        self._message_set = self._session_set
        self.use_set(self._session_set)

    def ask_later(self, rcpt: events.Rcpt) -> None:
        """Its answer is owed; settle() gives it."""
        self._asked.append(rcpt)

    async def settle(self) -> None:
        """Answer all RCPTs that came together: at once, or one by one if a check wants to know who has
        been taken."""
        asked, self._asked = self._asked, []
        together = 1 if self.settings.stages.sees_taken else max(1, len(asked))
        for first in range(0, len(asked), together):
            await self._settle(asked[first:first + together])

    async def _settle(self, asked: list[events.Rcpt]) -> None:
        judged = [await self._judge_recipient(rcpt) for rcpt in asked]
        answers = await self._resolve(asked, judged)
        if self.server.closed:
            return
        for rcpt, said, answer in zip(asked, judged, answers, strict=True):
            self._answer(rcpt, said, answer)

    async def _judge_recipient(self, rcpt: events.Rcpt) -> Verdict:
        """What policy says, what was kept against the client included."""
        facts, stages, in_force = self.facts, self.settings.stages, self.facts.options
        try:
            recipient = self.recipient_of(rcpt)
        except BadFile as error:
            return Verdict(DEFER, self.no_table(error), "rewrite", why=error.text[:500])
        if not stages.has("rcpt"):
            return for_recipient(facts, NO_OPINION) if facts.said else NO_OPINION
        facts.recipient, facts.options = recipient, self._message_set
        said = await stages.run("rcpt", facts)
        facts.options = in_force
        return for_recipient(facts, said)

    async def _resolve(self, asked: list[events.Rcpt], judged: list[Verdict]) -> list[Reply | None]:
        """A refusal for each, or None. mq-resolve is asked about those whom policy lets through."""
        answers: list[Reply | None] = []
        groups: dict[bool, list[int]] = {}
        for number, said in enumerate(judged):
            answers.append(reply_of(said) if said.action in (REJECT, DEFER, LIMIT) else None)
            if answers[-1] is None and said.action != DISCARD:
                relay = self.may_relay or may_relay(self.facts, said)
                groups.setdefault(relay, []).append(number)
        for relay, numbers in groups.items():
            found = await self._ask([asked[number] for number in numbers], relay)
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer
        return answers

    async def _ask(self, asked: list[events.Rcpt], relay: bool) -> list[Reply | None]:
        if self.resolver is None:
            return [None] * len(asked)
        try:
            recipients = [(self.address_of(rcpt), ()) for rcpt in asked]
        except BadAddress:
            log.event("bad_relayclient", session=self.facts.session, suffix=self.peer.suffix)
            return [TROUBLE] * len(asked)
        transaction = Transaction(self.sender(), recipients, self.parameters(relay), ASK)
        missing = await self.resolver.ask(transaction)
        return [missing if verdict is None else self._refusal(verdict)
                for verdict in transaction.verdicts]

    def _refusal(self, answer: Reply) -> Reply | None:
        """mq-resolve's word on a recipient: None when we take it. Where it goes is nobody's business,
        unless the option set says so."""
        if answer.code < 300:
            return None
        if answer.code == 551 and "<" in answer.text:
            return answer if self.options.show551 and "<@" not in answer.text else None
        return passed_on(answer)

    def _answer(self, rcpt: events.Rcpt, said: Verdict, answer: Reply | None) -> None:
        facts = self.facts
        rules = said.options or self._message_set
        if answer is None and facts.recipients and rules != facts.options:
            answer = _APART
        elif answer is None and len(facts.recipients) >= self._most:
            answer = _TOO_MANY
        if answer is None and rules != facts.options:
            answer = self.lacks(self.settings.options(facts.role, rules))
        if answer is None:
            self.use_set(rules)
            facts.recipients.append(self.recipient_of(rcpt))
            if said.action == DISCARD:
                self._thrown |= {rcpt.number}
        else:
            note_refused(facts, answer)
            self.log("recipient_refused", ip=facts.ip, sender=shown(self.sender()),
                     recipient=rcpt.address, said=answer.said(), check=said.check, why=said.why)
        self.server.answer(rcpt, answer)

    @property
    def _most(self) -> int:
        """Recipients of a message: of a burst the core has asked about before the set was in force."""
        return self.options.maxrecipients or int(self.settings.control.maxrecipients)

    # --- of the transaction ---

    def address_of(self, rcpt: events.Rcpt) -> str:
        """As it goes to mq-resolve and mq-queue: rewritten, with RELAYCLIENT's suffix."""
        address = self.recipient_of(rcpt)
        return parse_address(address + self.peer.suffix) if self.peer.suffix else address

    def path_of(self, rcpt: events.Rcpt) -> str:
        """For mq-queue, with the destination that the listener gives. mq-resolve is asked without: who
        may send to whom does not hang on it."""
        given = self.listener.destination
        return f"@{given}:{self.address_of(rcpt)}" if given else self.address_of(rcpt)

    def parameters(self, relay: bool) -> list[str]:
        """MAIL's, as far as mq-resolve and mq-queue both want them."""
        mail = self.server.mail
        via = self.via(relay)
        return [via, "SMTPUTF8"] if mail is not None and mail.utf8 else [via]


def passed_on(answer: Reply) -> Reply:
    """What a program of ours said, as the client is told it: our mistakes are temporary."""
    if answer.code in _OURS or answer.code < 400:
        log.event("bad_answer", said=answer.said())
        return TROUBLE
    if not answer.status:
        return Reply(answer.code, answer.lines, f"{answer.code // 100}.0.0")
    return answer
