"""One transaction to be: some recipients of one message, all with one destination and one sender."""

from __future__ import annotations

from mqmail.base import program, xtext
from mqmail.base.waiter import Waiter
from mqmail.mail.address import needs_utf8
from mqmail.xmtp.client import ASK, BODY, FILE, Transaction
from mqmail.xmtp.reply import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from mqmail.net.session import Session
    from mqmail.queue.record import Envelope, State

    Said = Callable[[State, Reply | None, str], None]

MOST_RECIPIENTS = 100       # of one transaction: what every server takes (RFC 5321 4.5.3.1.8)
MOST_PLANNED = 1000         # for mq-rspawn, which groups them by host; the more it sees, the better


class Job:
    """*said(state, reply or None, why)* is called once for each recipient as its verdict comes; None:
    there was none. ``done`` comes after the last. *addresses*: by sequence number, the address and RCPT
    parameters that take the recipient's own place (reports)."""

    def __init__(self, envelope: Envelope, sender: str, destination: str, states: list[State],
                 said: Said, open_body: Callable[[], int],
                 addresses: dict[str, tuple[str, list[str]]] | None = None) -> None:
        self.id = envelope.id
        self.states = states
        self.done = Waiter()
        self.transaction: Transaction
        self._envelope = envelope
        self._sender = sender
        self._destination = destination
        self._said = said
        self._open_body = open_body
        self._addresses = addresses
        self._left = set(range(len(states)))

    async def run(self, session: Session, slots: int) -> None:
        """Carry it out over *session*; *slots* connections may be opened for it."""
        features = session.features
        xmq = "XMQ" in features
        fd = self._open_body()
        if not xmq and "SMTPUTF8" not in features and self._refuse_utf8():
            return
        words = self._mail(features)
        if xmq and self._destination == "remote":
            words.append(f"XCONN={slots}")
        recipients = [self._rcpt(state, features) for state in self.states]
        self.transaction = Transaction(self._sender, recipients, words, FILE if xmq else BODY)
        await session.run(self.transaction, fd, self._envelope.size, verdict=self._verdict)

    def _refuse_utf8(self) -> bool:
        """A service without SMTPUTF8 cannot be given such an address (RFC 6531 section 3.2)."""
        if not any([needs_utf8(a) for a in (self._sender, *[s.recipient.address for s in self.states])]):
            return False
        answer = Reply(553, ("the service does not know SMTPUTF8",), "5.6.7")
        for number in sorted(self._left):
            self._tell(number, answer, "")
        return True

    def prepare_question(self) -> None:
        """The transaction for destination ``new``: only addresses."""
        words = [f"XID={self.id}"] + (["SMTPUTF8"] if self._utf8() else [])
        recipients = [(state.recipient.address, ()) for state in self.states]
        self.transaction = Transaction(self._sender, recipients, words, ASK)

    def answered(self, broken: str) -> None:
        """After a question: hand the verdicts on."""
        for number, answer in enumerate(self.transaction.verdicts):
            self._tell(number, answer, broken)

    def _utf8(self) -> bool:
        return self._envelope.utf8 or needs_utf8(self._sender) or any(
            [needs_utf8(s.recipient.address) for s in self.states])

    def _mail(self, features: Container[str]) -> list[str]:
        """MAIL's parameters, as far as the service knows them."""
        envelope, words = self._envelope, []
        if "SIZE" in features:
            words.append(f"SIZE={envelope.size}")
        if envelope.eightbit and "8BITMIME" in features:
            words.append("BODY=8BITMIME")
        if "SMTPUTF8" in features and self._utf8():
            words.append("SMTPUTF8")
        if "DSN" in features and envelope.ret:
            words.append(f"RET={envelope.ret.upper()}")
        if "DSN" in features and envelope.envid:
            words.append(f"ENVID={xtext.encode(envelope.envid)}")
        if "XMQ" in features:
            words.append(f"XID={envelope.id}")
            if self._destination == "error" and envelope.via:       # mq-bounce asks how it came
                words.append(f"XVIA={xtext.encode(xtext.facts(envelope.via))}")
        return words

    def _rcpt(self, state: State, features: Container[str]) -> tuple[str, list[str]]:
        recipient = state.recipient
        if self._addresses is not None:
            address, words = self._addresses[recipient.seq]
            return f"@{self._destination}:{address}", words
        words = []
        if "DSN" in features and recipient.notify:
            words.append(f"NOTIFY={','.join(recipient.notify).upper()}")
        if "DSN" in features and recipient.orcpt:
            kind, _, address = recipient.orcpt.partition(";")
            words.append(f"ORCPT={kind};{xtext.encode(address)}")
        route = f"@{self._destination}:" if "XMQ" in features else ""
        return route + recipient.address, words

    def _verdict(self, number: int) -> None:
        self._tell(number, self.transaction.verdicts[number], "")

    def _tell(self, number: int, answer: Reply | None, why: str) -> None:
        if number in self._left:
            self._left.discard(number)
            self._said(self.states[number], answer, why)

    def finish(self, why: str, error: BaseException | None) -> None:
        """It is over, well or not: whoever has no verdict gets none."""
        if error is not None and not isinstance(error, OSError):
            program.bug(error, id=self.id)
        for number in sorted(self._left):
            self._tell(number, None, why or (str(error) if error else ""))
        self.done.set()
