"""The client's half of SMTP, LMTP and XMQ: what to say, and what the answers mean. No I/O, no clock.

    client = Client("lmtp", "me.example")
    write(client.take_output()); for event in client.feed(read()): …

Events: ``Ready`` (greeted and EHLOed), ``Go(transaction)`` (hand the body over now: ``body`` and
``body_end``), ``Verdict(transaction, number)`` (one recipient's answer is known), ``End(transaction)``
(all are), ``Broken(why, reply)`` (the session is of no more use; recipients without a verdict have
none). A verdict is the server's Reply, be it to MAIL, RCPT or after the body.

Three ways to carry out a transaction:

* ``ASK``: MAIL, RCPT…, RSET in one burst; no body (destination ``new``). If the service accepts a
  recipient all the same, it is accepted for nothing: a 2xx without a body is no delivery.
* ``FILE``: MAIL, RCPT…, XFD in one burst, with the body's descriptor. XMQ services only.
* ``BODY``: MAIL, RCPT…, then the body by BDAT or DATA once a recipient was accepted.
* ``EAGER``: as BODY, but the body may be written at once behind RCPT (BDAT, RFC 3030 section 4.2)
  when the server offers PIPELINING and CHUNKING; else it is BODY.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.xmtp.reply import ProtocolError, Reply, ReplyReader, tag_of
from mqmail.xmtp.text import DataEncoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

ASK, FILE, BODY, EAGER = "ask", "file", "body", "eager"


@value
class Ready:
    """The server knows us; ``client.features`` is filled."""


@value
class Go:
    """The transaction's body may be handed over."""

    transaction: Transaction


@value
class Verdict:
    """``transaction.verdicts[number]`` has come."""

    transaction: Transaction
    number: int


@value
class End:
    """All verdicts of the transaction have come; the next one may begin."""

    transaction: Transaction


@value
class Broken:
    """The session is over. *reply* is the refusal, if it was one (greeting, EHLO, 421)."""

    why: str
    reply: Reply | None = None


class Transaction:
    """One message to some recipients, at least one, over one session.

    *sender* and *recipients* are paths without brackets (``@local:a@b`` too), each recipient with its
    parameters (``["NOTIFY=NEVER"]``); *parameters* are MAIL's. ``verdicts`` grows from None to Reply.
    """

    __slots__ = ("_accepted", "_finals", "_rcpts", "mode", "parameters", "recipients", "refused",
                 "sender", "verdicts", "waiting")

    def __init__(self, sender: str, recipients: Sequence[tuple[str, Sequence[str]]],
                 parameters: Sequence[str] = (), mode: str = BODY) -> None:
        self.sender = sender
        self.recipients = recipients
        self.parameters = parameters
        self.mode = mode
        self.verdicts: list[Reply | None] = [None] * len(recipients)
        self.waiting = len(recipients)
        self.refused: Reply | None = None       # MAIL's refusal
        self._accepted: list[int] = []
        self._rcpts = 0
        self._finals = 0


class Client:
    """One session. *kind* "smtp" or "lmtp"; *name* is what we call ourselves."""

    def __init__(self, kind: str, name: str, most_lines: int = 512) -> None:
        self.kind = kind
        self.features: dict[str, str] = {}
        self.ready = False
        self.broken = False
        self._name = name
        self._reader = ReplyReader(most_lines)
        self._out: list[bytes] = []
        self._fds: list[int] = []
        self._unsent: list[tuple[str, tuple[str, Any, Any]]] = []
        self._expected: list[tuple[str, Any, Any]] = [("greeting", None, None)]
        self._events: list[Any] = []
        self._encoder: DataEncoder | None = None

    # --- what the shell calls ---

    def take_output(self) -> tuple[bytes, tuple[int, ...]]:
        """(octets, descriptors that ride on them)."""
        if not self._out:
            return b"", ()
        out, fds = b"".join(self._out), tuple(self._fds)
        self._out, self._fds = [], []
        return out, fds

    def feed(self, data: bytes) -> list[Any]:
        """Events for what the server said; b"" is the end of the connection."""
        if self.broken:
            return []
        try:
            if not data:
                self._break("connection closed" + self._when())
            for answer in self._reader.read(data) if data else ():
                self._answer(answer)
                if self.broken:
                    break
        except ProtocolError as error:
            self._break(str(error) + self._when())
        self._pump()
        events, self._events = self._events, []
        return events

    def _when(self) -> str:
        if not self._expected:
            return ""
        kind = self._expected[0][0]
        return f" while waiting for the reply to {kind}"

    @property
    def idle(self) -> bool:
        """Whether a transaction can begin now with nothing before it."""
        return self.ready and not self.broken and not self._expected and not self._unsent

    @property
    def expecting(self) -> int:
        """How many replies are still to come."""
        return len(self._expected) + len(self._unsent)

    # --- what the application calls ---

    def begin(self, transaction: Transaction, fd: int = -1, size: int = 0) -> None:
        """Start a transaction; *fd* and *size* for FILE. ASK and FILE may be begun before the one
        before has ended. Raises ValueError when something does not fit into a command."""
        for line, expected in _commands(transaction, fd, size):
            self._say(line, *expected)
        self._pump()
        if transaction.mode == EAGER:
            if self._unsent or self.broken or "CHUNKING" not in self.features:
                transaction.mode = BODY
            else:
                self._events.append(Go(transaction))

    def events(self) -> list[Any]:
        """Events that came without input (Go of an EAGER transaction)."""
        events, self._events = self._events, []
        return events

    def body(self, transaction: Transaction, data: bytes, last: bool = False) -> None:
        """A piece of the body after Go; *last* ends it. With DATA a flaw raises text.BadText: break
        the connection then, for half a message is on its way."""
        if self.broken:
            return
        if self._encoder is not None:
            self._out.append(self._encoder.feed(data))
            if last:
                self._out.append(self._encoder.finish())
                self._encoder = None
                self._expect_finals(transaction, "message")
            return
        if not data and not last:
            return
        self._out.append(b"BDAT %d%s\r\n" % (len(data), b" LAST" if last else b""))
        self._out.append(data)
        if last:
            self._expect_finals(transaction, "message")
        else:
            self._expected.append(("BDAT", transaction, None))

    def quit(self) -> None:
        """QUIT; ``feed`` of the answer gives Broken("bye")."""
        self._say("QUIT", "QUIT")
        self._pump()

    # --- commands ---

    def _say(self, line: str, kind: str, transaction: Any = None, detail: Any = None) -> None:
        self._unsent.append((line, (kind, transaction, detail)))

    def _pump(self) -> None:
        """Write what may be written: all of it with PIPELINING, else one command at a time."""
        if not self._unsent or self.broken:
            return
        if self.ready and "PIPELINING" in self.features:
            now, self._unsent = self._unsent, []
        elif self._expected:
            return
        else:
            now = [self._unsent.pop(0)]
        self._out.append("\r\n".join([line for line, _ in now]).encode("utf-8") + b"\r\n")
        for _, expected in now:
            self._expected.append(expected)
            if expected[0] == "XFD":        # the descriptor rides on its own command
                self._fds.append(expected[2])

    def _expect_finals(self, transaction: Transaction, kind: str) -> None:
        self._expected.append((kind, transaction, None))

    # --- replies ---

    def _answer(self, answer: Reply) -> None:
        if not self._expected:
            return self._break("a reply to nothing", answer if answer.code == 421 else None)
        if answer.code == 421 and self._expected[0][0] not in ("RCPT", "message", "XFD"):
            return self._break(answer.said(), answer)
        kind, transaction, number = self._expected[0]
        if 300 <= answer.code < 400 and kind != "DATA":
            return self._break(f"{kind} answered {answer.said()}")
        if kind in ("XFD", "message"):
            return self._final(answer, kind, transaction)
        self._expected.pop(0)
        return self._on[kind](self, answer, transaction, number)

    def _break(self, why: str, answer: Reply | None = None) -> None:
        self.broken = True
        self.ready = False
        self._events.append(Broken(why, answer))

    def _on_greeting(self, answer: Reply, _t: Any, _n: Any) -> None:
        if answer.code >= 300:
            return self._break("greeted with " + answer.said(), answer)
        return self._hello("LHLO" if self.kind == "lmtp" else "EHLO")

    def _hello(self, verb: str) -> None:
        """Before anything that has been begun already."""
        self._unsent.insert(0, (f"{verb} {self._name}", ("hello", verb, None)))

    def _on_hello(self, answer: Reply, verb: str, _n: Any) -> None:
        if answer.code >= 300:
            if verb == "EHLO" and answer.code >= 500:        # RFC 5321 4.1.4: fall back
                return self._hello("HELO")
            return self._break(f"{verb} refused: " + answer.said(), answer)
        if verb != "HELO":
            lines = [line.partition(" ") for line in answer.lines[1:]]
            self.features = {word.upper(): rest.strip() for word, _, rest in lines}
        self.ready = True
        self._events.append(Ready())
        return None

    def _on_quit(self, _answer: Reply, _t: Any, _n: Any) -> None:
        self._break("bye")

    def _on_rset(self, answer: Reply, transaction: Transaction, _n: Any) -> None:
        if answer.code >= 300:
            return self._break("RSET refused: " + answer.said(), answer)
        return self._end(transaction)

    def _on_mail(self, answer: Reply, transaction: Transaction, _n: Any) -> None:
        if answer.code < 300:
            return
        transaction.refused = answer
        if "PIPELINING" not in self.features:           # nothing else of it was sent yet
            self._unsent = [u for u in self._unsent if u[1][1] is not transaction]
            for number in range(len(transaction.recipients)):
                self._verdict(transaction, number, answer)
            self._end(transaction)

    def _on_rcpt(self, answer: Reply, transaction: Transaction, number: int) -> None:
        transaction._rcpts += 1
        if transaction.refused is not None:
            self._verdict(transaction, number, transaction.refused)
        elif answer.code < 300 and transaction.mode != ASK:
            transaction._accepted.append(number)
        else:
            self._verdict(transaction, number, answer)
        if transaction._rcpts == len(transaction.recipients) and transaction.mode == BODY:
            self._all_rcpts(transaction)

    def _all_rcpts(self, transaction: Transaction) -> None:
        """BODY: every RCPT is answered."""
        if not transaction._accepted:
            if transaction.refused is None:
                self._say("RSET", "RSET", transaction)
            else:
                self._end(transaction)
        elif "CHUNKING" in self.features and "PIPELINING" in self.features:    # RFC 3030 section 4.2
            self._events.append(Go(transaction))
        else:
            self._say("DATA", "DATA", transaction)

    def _on_data(self, answer: Reply, transaction: Transaction, _n: Any) -> None:
        if answer.code == 354:
            self._encoder = DataEncoder()
            self._events.append(Go(transaction))
            return
        if answer.code < 400:
            return self._break("DATA answered " + answer.said())
        for number in transaction._accepted:
            self._verdict(transaction, number, answer)
        self._say("RSET", "RSET", transaction)

    def _on_bdat(self, answer: Reply, transaction: Transaction, _n: Any) -> None:
        """A chunk before the last: a refusal here is the verdict on all (RFC 3030 section 2)."""
        if answer.code >= 300 and transaction.refused is None:
            transaction.refused = answer

    _on: dict[str, Callable[..., None]] = {
        "greeting": _on_greeting, "hello": _on_hello, "QUIT": _on_quit, "RSET": _on_rset,
        "MAIL": _on_mail, "RCPT": _on_rcpt, "DATA": _on_data, "BDAT": _on_bdat,
    }

    def _final(self, answer: Reply, kind: str, transaction: Transaction) -> None:
        """A reply after the body: one for all in SMTP, one for each accepted in LMTP."""
        accepted = transaction._accepted
        if not accepted or transaction.refused is not None:
            for number in accepted:
                self._verdict(transaction, number, transaction.refused or answer)
            return self._last_final(transaction, reset=kind == "message")
        if self.kind == "smtp":
            for number in accepted:
                self._verdict(transaction, number, answer)
            return self._last_final(transaction)
        tag = tag_of(answer) if kind == "XFD" else None
        position = transaction._finals if tag is None else tag - 1
        if not 0 <= position < len(accepted) or transaction.verdicts[accepted[position]] is not None:
            return self._break(f"a verdict on recipient {position + 1}, which there is not")
        transaction._finals += 1
        self._verdict(transaction, accepted[position], answer)
        if transaction._finals == len(accepted):
            self._last_final(transaction)
        return None

    def _last_final(self, transaction: Transaction, reset: bool = False) -> None:
        self._expected.pop(0)
        if reset:       # the body was refused for want of recipients: the transaction is still open
            self._say("RSET", "RSET", transaction)
        else:
            self._end(transaction)

    def _verdict(self, transaction: Transaction, number: int, answer: Reply) -> None:
        if transaction.verdicts[number] is None:
            transaction.verdicts[number] = answer
            transaction.waiting -= 1
            self._events.append(Verdict(transaction, number))

    def _end(self, transaction: Transaction) -> None:
        self._events.append(End(transaction))


def _commands(transaction: Transaction, fd: int, size: int) -> list[tuple[str, tuple[str, Any, Any]]]:
    """The commands known beforehand: (line, (kind, transaction, recipient's number or descriptor))."""
    if not transaction.recipients:
        raise ValueError("a transaction without recipients")
    mail = " ".join([f"MAIL FROM:<{transaction.sender}>", *transaction.parameters])
    found: list[tuple[str, tuple[str, Any, Any]]] = [(mail, ("MAIL", transaction, None))]
    for number, (path, parameters) in enumerate(transaction.recipients):
        found.append((" ".join([f"RCPT TO:<{path}>", *parameters]), ("RCPT", transaction, number)))
    for line, _ in found:
        if not line.isprintable():
            raise ValueError(f"not fit for a command: {line[:80]!a}")
    if transaction.mode == ASK:
        found.append(("RSET", ("RSET", transaction, None)))
    elif transaction.mode == FILE:
        found.append((f"XFD {size}", ("XFD", transaction, fd)))
    return found
