"""One transaction with a worker, and what its verdicts mean for the plan."""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.prog.mq_rspawn.hints import unmarked
from mqmail.remote.carrier import NOT_REACHED
from mqmail.remote.sending import CUT, FINAL
from mqmail.remote.verdicts import NOBODY, put_off
from mqmail.xmtp.client import FILE, Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mqmail.prog.mq_rspawn.lines import Line
    from mqmail.remote.sending import Message
    from mqmail.xmtp.reply import Reply

_DIED = put_off("4.3.0", NOBODY, "mq-remote died, or was stopped, while it sent this message")


class Carrying:
    """*numbers*: recipients of the message. Afterwards ``unreached`` is the verdict if the host could
    not be reached after all, ``cut`` whether it broke the session off."""

    def __init__(self, message: Message, line: Line, numbers: list[int]) -> None:
        self.line = line
        self.cut = False
        self.unreached: Reply | None = None
        self._message = message
        self._numbers = numbers

    async def run(self, answer: Callable[[int, Reply, bool], None]) -> None:
        """*answer(number, verdict, final)* is called once for each recipient, unless ``unreached``."""
        message = self._message
        transaction = Transaction(message.mail.sender, [self._rcpt(n) for n in self._numbers],
                                  self._mail(), FILE)

        def verdict(i: int) -> None:
            said = transaction.verdicts[i]
            assert said is not None
            self._told(self._numbers[i], said, answer)

        await self.line.session.run(transaction, message.fd, message.size, verdict=verdict)
        for number, said in zip(self._numbers, transaction.verdicts, strict=True):
            if said is None:
                answer(number, _DIED, True)     # it may have been taken

    def _told(self, number: int, verdict: Reply, answer: Callable[[int, Reply, bool], None]) -> None:
        text = verdict.text
        if text.endswith(NOT_REACHED):
            self.unreached = verdict
            return
        self.cut = self.cut or text.endswith(CUT)
        answer(number, unmarked(verdict), text.endswith(FINAL))

    def _mail(self) -> list[str]:
        mail = self._message.mail
        words = [f"XID={xtext.encode(mail.xid)}", f"SIZE={self._message.size}"]
        if mail.eightbit:
            words.append("BODY=8BITMIME")
        if mail.utf8:
            words.append("SMTPUTF8")
        if mail.ret:
            words.append(f"RET={mail.ret.upper()}")
        if mail.envid:
            words.append(f"ENVID={xtext.encode(mail.envid)}")
        return words

    def _rcpt(self, number: int) -> tuple[str, list[str]]:
        rcpt = self._message.recipients[number]
        words = []
        if rcpt.notify:
            words.append(f"NOTIFY={','.join(rcpt.notify).upper()}")
        if rcpt.orcpt:
            kind, _, address = rcpt.orcpt.partition(";")
            words.append(f"ORCPT={kind};{xtext.encode(address)}")
        return rcpt.address, words
