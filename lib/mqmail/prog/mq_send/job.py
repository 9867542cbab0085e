"""One transaction to be: some recipients of one message, all with one destination and one sender."""

from __future__ import annotations

from mqmail.base import program, xtext
from mqmail.base.waiter import Waiter
from mqmail.mail.address import needs_utf8
from mqmail.net.session import file_pieces
from mqmail.xmtp.client import ASK, BODY, FILE, Transaction
from mqmail.xmtp.reply import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from mqmail.net.session import Session
    from mqmail.prog.mq_send.sites import Hold
    from mqmail.queue.record import Envelope, State

    Said = Callable[[State, Reply | None, str], None]
    PutOff = Callable[[State, Hold], None]

MOST_RECIPIENTS = 100       # of one transaction: what every server takes (RFC 5321 4.5.3.1.8)
FEW_MAILBOXES = 10          # so many recipients here have a transaction each
MOST_PLANNED = 1000         # for mq-rspawn, which groups them by host; the more it sees, the better


class Job:
    """*said(state, reply or None, why)* is called once for each recipient as its verdict comes; None:
    there was none. *put_off(state, hold)* takes its place for those nobody is asked about; without it
    everybody is asked. ``done`` comes after the last. *addresses*: by sequence number, the address and
    RCPT parameters that take the recipient's own place (reports). *forced*: when this was asked for.

    For an Outlet: ``site`` that all recipients share or "", ``slots`` in use, ``progress`` that is
    called after each verdict, ``begun``: a service may have the body, ``again``: begun for the second
    time."""

    def __init__(self, envelope: Envelope, sender: str, destination: str, states: list[State],
                 said: Said, open_body: Callable[[], int],
                 addresses: dict[str, tuple[str, list[str]]] | None = None,
                 put_off: PutOff | None = None, forced: float = 0.0) -> None:
        self.id = envelope.id
        self.states = states
        self.done = Waiter()
        self.transaction: Transaction
        self.forced = forced
        self.site = ""
        self.slots = 0
        self.progress: Callable[[], None] | None = None
        self.begun = self.again = False
        self._envelope = envelope
        self._sender = sender
        self._destination = destination
        self._said = said
        self._put_off = put_off
        self._open_body = open_body
        self._addresses = addresses
        self._left = set(range(len(states)))
        self._domains: dict[str, list[State]] = {}

    @property
    def left(self) -> int:
        """How many recipients have no verdict yet."""
        return len(self._left)

    # --- before it is begun ---

    @property
    def domains(self) -> dict[str, list[State]]:
        """The recipients, by domain in lower case."""
        if not self._domains:
            for state in self.states:
                self._domains.setdefault(domain_of(state.recipient.address), []).append(state)
        return self._domains

    def put_off(self, hold_for: Callable[[str], Hold | None]) -> None:
        """Leave out the recipients of domains that *hold_for* gives a Hold for."""
        if self._put_off is None:
            return
        holds = {domain: hold for domain in self.domains if (hold := hold_for(domain)) is not None}
        if not holds:
            return
        held = [(state, hold) for domain, hold in holds.items() for state in self._domains.pop(domain)]
        out = {state.recipient.seq for state, _ in held}
        self.states = [state for state in self.states if state.recipient.seq not in out]
        self._left = set(range(len(self.states)))
        for state, hold in held:
            self._put_off(state, hold)

    # --- carrying it out ---

    async def run(self, session: Session) -> None:
        """Carry it out over *session*."""
        features = session.features
        xmq = "XMQ" in features
        fd = self._open_body()
        if not xmq and "SMTPUTF8" not in features and self._refuse_utf8():
            return
        recipients = [self._rcpt(state, features) for state in self.states]
        self.transaction = Transaction(self._sender, recipients, self._mail(features),
                                       FILE if xmq else BODY)
        self.begun = xmq
        pieces = None if xmq else self._pieces(fd)
        await session.run(self.transaction, fd, self._envelope.size, pieces, self._verdict)

    def _pieces(self, fd: int) -> Iterator[bytes]:
        self.begun = True
        yield from file_pieces(fd, self._envelope.size)

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

    def answered(self) -> None:
        """After a question: hand on the verdicts that have come."""
        for number, answer in enumerate(self.transaction.verdicts):
            if answer is not None:
                self._tell(number, answer, "")

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
            words += self._private()
        return words

    def _private(self) -> list[str]:
        """What XMQ adds: to mq-bounce how the message came, to mq-rspawn what it may do."""
        words = [f"XID={self.id}"]
        if self._destination == "error" and self._envelope.via:
            words.append(f"XVIA={xtext.encode(xtext.facts(self._via()))}")
        if self._destination == "remote":
            words.append(f"XCONN={self.slots}")
            if self.forced:
                words.append(f"XFORCE={int(self.forced * 1000)}")
        return words

    def _via(self) -> dict[str, str]:
        """For mq-bounce. What a list's members refuse is no fault of the account that wrote to it."""
        via = self._envelope.via
        if self._sender == self._envelope.sender:
            return via
        return {name: text for name, text in via.items() if name != "auth"}

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

    # --- its verdicts ---

    def _verdict(self, number: int) -> None:
        self._tell(number, self.transaction.verdicts[number], "")
        if self.progress is not None:
            self.progress()

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


def domain_of(address: str) -> str:
    """What is behind the last ``@``, in lower case."""
    return address.rpartition("@")[2].lower()
