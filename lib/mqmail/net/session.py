"""A client's session over a stream: connect once, carry out transactions. Runs under both shells.

``Session.open`` greets, ``start_tls`` and ``authenticate`` may follow; ``run`` carries out one
transaction, ``ask`` many at once (mode ASK); ``begin``, ``push`` and ``finish`` are ``run`` for a body
that comes bit by bit. ``probe`` asks an idle session whether it lives.
Every reply has a deadline, however many octets of it have come. A session that broke says so in
``broken``; recipients without a verdict then have none (None in ``transaction.verdicts``), which always
means: try again later.
"""

from __future__ import annotations

import os

from mqmail.base.value import value
from mqmail.net.expired import Expired
from mqmail.xmtp.client import (
    Alive,
    AuthDone,
    AuthFailed,
    AuthSaid,
    Broken,
    Client,
    End,
    Go,
    Hop,
    SessionKnown,
    TlsGo,
    TlsRefused,
    Verdict,
)
from mqmail.xmtp.reply import Reply
from mqmail.xmtp.text import BadText

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream
    from mqmail.net.tls import TlsStream
    from mqmail.xmtp.authtalk import Exchange
    from mqmail.xmtp.client import Transaction

PIECE = 65536
MOST_UNANSWERED = 8     # chunks: a peer whose answers nobody reads stops taking more of them
_FIELDS = {"STARTTLS": "starttls", "AUTH": "auth", "MAIL": "mail", "RCPT": "rcpt", "DATA": "data",
           "BDAT": "block", "message": "end", "XFD": "end", "RSET": "rset", "QUIT": "quit"}
_NAMES = {"greeting": "no greeting", "hello": "no answer to the hello",
          "message": "no answer to the message"}


@value
class Timeouts:
    """Seconds for each reply (RFC 5321 section 4.5.3.2) and for each block of the body; none is
    longer than ``most``."""

    greeting: float = 300.0
    hello: float = 300.0
    starttls: float = 120.0     # the handshake too
    auth: float = 120.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end: float = 600.0
    rset: float = 20.0
    quit: float = 5.0
    most: float = 600.0

    def of(self, kind: str) -> float:
        """For the reply to *kind*, as Client.awaiting calls it."""
        return min(getattr(self, _FIELDS.get(kind, kind), self.most), self.most)


class Session:
    """*kind* smtp or lmtp, *name* for EHLO, *timeouts* for the replies, or seconds for any. A server's
    reply has *most_lines* lines at the most."""

    def __init__(self, stream: Stream | BlockingStream | TlsStream, kind: str, name: str,
                 timeouts: float | Timeouts, most_lines: int = 10000) -> None:
        self.stream = stream
        self.client = Client(kind, name, most_lines)
        self._timeouts = timeouts
        self._clock: tuple[int, str] | None = None      # which reply the deadline is for
        self.broken = ""                    # why, once it is
        self.expired = False                # whether it broke because the peer was too slow
        self.refusal: Reply | None = None   # the reply that broke it, if one did
        self.used = 0

    @property
    def features(self) -> dict[str, str]:
        """What EHLO or LHLO offered."""
        return self.client.features

    @property
    def timeout(self) -> float:
        """Seconds for the reply that may take longest."""
        return self._timeouts.most if isinstance(self._timeouts, Timeouts) else self._timeouts

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

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> str:
        """STARTTLS, the handshake and EHLO anew. Returns "", or why not: a server that refused with 4xx
        or 5xx can be talked to as before, else the session is ``broken``. ``stream`` is the TlsStream
        then: whom its certificate is for is for the caller to check."""
        if self.broken:
            return self.broken
        self.client.start_tls()
        event = await self._outcome(TlsGo, TlsRefused)
        if type(event) is TlsRefused:
            return event.reply.said()
        if type(event) is TlsGo:
            await self._shake_hands(context, server_name)
        return self.broken

    async def _shake_hands(self, context: ssl.SSLContext, server_name: str) -> None:
        from mqmail.net.tls import TlsFailed, start_client  # dear: most sessions do without
        plain = self.stream
        try:
            self.stream = await start_client(plain, context, server_name,  # type: ignore[arg-type]
                                             self._seconds("STARTTLS"))
        except TlsFailed as error:
            self.client.broken = True
            return self._note(Broken(f"TLS: {error}"))
        self._clock = None
        self.client.tls_started()
        await self.open()

    async def authenticate(self, exchange: Exchange) -> AuthFailed | None:
        """AUTH with one mechanism. None when the server knows us now; else why not, with the server's
        reply if it refused us: then another mechanism may be tried, unless the session is ``broken``."""
        if not self.broken:
            self.client.authenticate(exchange)
            event = await self._outcome(AuthDone, AuthFailed)
            if type(event) is AuthDone and not self.broken:
                return None
            if type(event) is AuthFailed:
                return event
        return AuthFailed(self.refusal, self.broken)

    async def probe(self) -> bool:
        """Whether an idle session still lives: RSET is answered."""
        if not self.alive():
            return False
        self.client.probe()
        await self._outcome(Alive)
        return not self.broken

    async def hop(self, facts: str) -> Reply | None:
        """XHOP, to a service that has XMQ; None when the session broke. ValueError: *facts* do not fit
        into a command."""
        if self.broken:
            return None
        self.client.hop(facts)
        event = await self._outcome(Hop)
        return event.reply if type(event) is Hop else None

    async def tell(self, facts: str) -> Reply | None:
        """XSESSION, to a service that has XMQ: whom we ask for; None when the session broke. ValueError:
        *facts* do not fit into a command."""
        if self.broken:
            return None
        self.client.session(facts)
        event = await self._outcome(SessionKnown)
        return event.reply if type(event) is SessionKnown else None

    async def pass_on(self, line: str) -> Reply | None:
        """A line of somebody else's AUTH, and what the server says to it; None when the session broke
        (``refusal`` may say how). ValueError: *line* is none."""
        if self.broken:
            return None
        self.client.pass_on(line)
        event = await self._outcome(AuthSaid)
        return event.reply if type(event) is AuthSaid else None

    async def _outcome(self, *kinds: type) -> object | None:
        """Talk until an event of one of *kinds* comes; None: the session broke before."""
        found = None
        while found is None and not self.broken:
            for event in await self._turn():
                if type(event) in kinds:
                    found = event
                self._note(event)
        return found

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
        self._wait_for(self.client.awaiting, anew=bool(out))
        if out:
            self.stream.write(out, fds)
        try:
            data = await self.stream.read()
        except Expired:
            return [self._expire()]
        for fd in self.stream.take_fds():
            os.close(fd)        # a service has no business sending us any
        return self.client.feed(data)

    def _wait_for(self, kind: str, anew: bool) -> None:
        """Start the clock for the next reply, once for each: a reply that comes octet by octet gets no
        more time for it."""
        clock = self.client.answers, kind
        if anew or clock != self._clock:
            self._clock = clock
            self.stream.expire_after(self._seconds(kind))

    def _seconds(self, kind: str) -> float:
        return self._timeouts.of(kind) if isinstance(self._timeouts, Timeouts) else self._timeouts

    def _expire(self, block: bool = False) -> Broken:
        self.client.broken = self.expired = True
        kind = "block" if block else self.client.awaiting
        what = "the body was not taken" if block else _NAMES.get(kind, f"no answer to {kind}")
        return Broken(f"{what} within {self._seconds(kind):g} s")

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
        except BadText as error:
            self.client.broken = True
            events.append(Broken(str(error), Reply(550, (str(error),), "5.6.11")))
        return events

    async def _hand_over(self, transaction: Transaction, piece: bytes) -> list[object]:
        """Write a piece that is not the last, when the peer has taken and answered what came before."""
        events: list[object] = []
        self.client.body(transaction, piece)
        self._wait_for("block", anew=True)
        self.stream.write(*self.client.take_output())
        try:
            await self.stream.drain()
        except Expired:
            return [self._expire(block=True)]
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
