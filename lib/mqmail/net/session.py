"""A client's session over a stream: connect once, carry out transactions. Runs under both shells.

``Session.open`` greets; ``run`` carries out one transaction, ``ask`` many at once (mode ASK);
``begin``, ``push`` and ``finish`` are ``run`` for a body that comes bit by bit.
Every wait has a deadline. A session that broke says so in ``broken``; recipients without a verdict
then have none (None in ``transaction.verdicts``), which always means: try again later.
"""

from __future__ import annotations

import os

from mqmail.net.expired import Expired
from mqmail.xmtp.client import Broken, Client, End, Go, Verdict
from mqmail.xmtp.reply import Reply
from mqmail.xmtp.text import BadText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream
    from mqmail.xmtp.client import Transaction

PIECE = 65536
MOST_UNANSWERED = 8     # chunks: a peer whose answers nobody reads stops taking more of them


class Session:
    """*kind* smtp or lmtp, *name* for EHLO, *timeout* seconds for each wait."""

    def __init__(self, stream: Stream | BlockingStream, kind: str, name: str, timeout: float) -> None:
        self.stream = stream
        self.client = Client(kind, name, most_lines=10000)
        self.timeout = timeout
        self.broken = ""                    # why, once it is
        self.expired = False                # whether it broke because the peer was too slow
        self.refusal: Reply | None = None   # the reply that broke it, if one did
        self.used = 0

    @property
    def features(self) -> dict[str, str]:
        """What EHLO or LHLO offered."""
        return self.client.features

    def alive(self) -> bool:
        """Whether a transaction can begin: the last one has ended, and the peer has neither closed the
        session since nor said anything unasked."""
        return not self.broken and self.client.idle and not self.stream.has_input()

    async def open(self) -> bool:
        """Wait for the greeting and say EHLO or LHLO. False: ``broken`` says why."""
        while not self.broken and not self.client.ready:
            for event in await self._turn():
                self._note(event)
        return not self.broken

    async def run(self, transaction: Transaction, fd: int = -1, size: int = 0,
                  pieces: Iterable[bytes] | None = None,
                  verdict: Callable[[int], None] | None = None) -> None:
        """Carry out one transaction. The body: *fd* goes as a descriptor in mode FILE, else is read
        with pread from 0 to *size*; or *pieces*. *verdict* is called as each verdict comes."""
        self.used += 1
        self.client.begin(transaction, fd, size)
        events, ended = self.client.events(), False
        while not self.broken:
            for event in events:
                kind = type(event)
                if kind is Verdict:
                    if verdict is not None:
                        verdict(event.number)
                elif kind is End:
                    ended = True
                elif kind is Go:        # what is answered meanwhile comes next in this loop
                    body = file_pieces(fd, size) if pieces is None else pieces
                    events += await self._body(transaction, body)
                else:
                    self._note(event)
            if ended or self.broken:
                return
            events = await self._turn()

    def begin(self, transaction: Transaction) -> None:
        """Start an EAGER transaction whose body comes by push() and finish()."""
        self.used += 1
        self.client.begin(transaction)
        self.client.events()        # Go, which an EAGER one need not wait for

    async def push(self, transaction: Transaction, piece: bytes) -> bool:
        """Hand over a piece of the body, no faster than the peer takes it. False: the rest is of no
        use, for the session broke or the peer has refused the message (see ``transaction``)."""
        for event in await self._hand_over(transaction, piece):
            self._note(event)
        return not self.broken and transaction.refused is None and transaction.waiting > 0

    async def finish(self, transaction: Transaction, piece: bytes) -> None:
        """The last piece of the body; returns when all verdicts have come or the session is broken."""
        self.client.body(transaction, piece, last=True)
        ended = False
        while not self.broken and not ended:
            for event in await self._turn():
                ended = ended or type(event) is End
                self._note(event)

    async def ask(self, transactions: Sequence[Transaction]) -> None:
        """Carry out several ASK transactions in one burst."""
        self.used += 1
        for transaction in transactions:
            self.client.begin(transaction)
        left = len(transactions)
        while left and not self.broken:
            for event in await self._turn():
                if type(event) is End:
                    left -= 1
                self._note(event)

    def close(self) -> None:
        """Say QUIT without waiting for the answer, and close."""
        if not self.broken and self.client.ready:
            self.client.quit()
            self.stream.write(*self.client.take_output())
        self.broken = self.broken or "closed"
        self.stream.close()

    async def _turn(self) -> list[object]:
        """Write what is to be written, read once, return what it means."""
        out, fds = self.client.take_output()
        if out:
            self.stream.write(out, fds)
        self.stream.expire_after(self.timeout)
        try:
            data = await self.stream.read()
        except Expired:
            return [self._expire("no answer")]
        for fd in self.stream.take_fds():
            os.close(fd)        # a service has no business sending us any
        return self.client.feed(data)

    def _expire(self, what: str) -> Broken:
        self.client.broken = self.expired = True
        return Broken(f"{what} within {self.timeout:g} s")

    def _note(self, event: object) -> None:
        if type(event) is Broken:
            self.broken = event.why or "closed"
            self.refusal = event.reply
            self.stream.close()

    async def _body(self, transaction: Transaction, pieces: Iterable[bytes]) -> list[object]:
        """The whole body; returns the events that came meanwhile."""
        held = b""
        events: list[object] = []
        try:
            for piece in pieces:
                if held:
                    events += await self._hand_over(transaction, held)
                if self.client.broken:
                    return events
                held = piece
            self.client.body(transaction, held, last=True)
            self.stream.write(*self.client.take_output())
        except BadText as error:
            self.client.broken = True
            events.append(Broken(str(error), Reply(550, (str(error),), "5.6.11")))
        return events

    async def _hand_over(self, transaction: Transaction, piece: bytes) -> list[object]:
        """Write a piece that is not the last, when the peer has taken and answered what came before."""
        events: list[object] = []
        self.client.body(transaction, piece)
        self.stream.write(*self.client.take_output())
        self.stream.expire_after(self.timeout)
        try:
            await self.stream.drain()
        except Expired:
            return [self._expire("the body was not taken")]
        while self.client.expecting > MOST_UNANSWERED and not self.client.broken:
            events += await self._turn()
        return events


def file_pieces(fd: int, size: int) -> Iterable[bytes]:
    """The body in pieces, read by position: the descriptor may be shared."""
    offset = 0
    while offset < size:
        piece = os.pread(fd, min(PIECE, size - offset), offset)
        if not piece:
            raise OSError(5, "the body is shorter than its record says")
        offset += len(piece)
        yield piece
