"""The client's half of SMTP, LMTP and XMQ: what to say, and what the answers mean. No I/O, no clock.

    client = Client("lmtp", "me.example")
    write(client.take_output()); for event in client.feed(read()): …

Events: ``Ready`` (greeted and EHLOed), ``Go(transaction)`` (hand the body over now: ``body`` and
``body_end``), ``Verdict(transaction, number)`` (one recipient's answer is known), ``End(transaction)``
(all are), ``Broken(why, reply)`` (the session is of no more use; recipients without a verdict have
none). A verdict is the server's Reply, be it to MAIL, RCPT or after the body. Before and between
transactions: ``TlsGo`` or ``TlsRefused(reply)`` after start_tls(), ``AuthDone`` or ``AuthFailed(reply,
why)`` after authenticate(), ``AuthSaid(reply)`` after pass_on(), ``Alive`` after probe(), ``Hop(reply)``
after hop(), ``SessionKnown(reply)`` after session().

Three ways to carry out a transaction:

* ``ASK``: MAIL, RCPT…, RSET in one burst; no body (destination ``new``). If the service accepts a
  recipient all the same, it is accepted for nothing: a 2xx without a body is no delivery.
* ``FILE``: MAIL, RCPT…, XFD in one burst, with the body's descriptor. XMQ services only.
* ``BODY``: MAIL, RCPT…, then the body by BDAT or DATA once a recipient was accepted. With PIPELINING
  DATA goes in one burst with RCPT.
* ``EAGER``: as BODY, but the body may be written at once behind RCPT (BDAT, RFC 3030 section 4.2)
  when the server offers PIPELINING and CHUNKING; else it is BODY.
"""

from __future__ import annotations

from mqmail.xmtp.conversation import Conversation
from mqmail.xmtp.reply import Reply, tag_of
from mqmail.xmtp.text import DataEncoder
from mqmail.xmtp.transaction import (
    ASK,
    BODY,
    EAGER,
    FILE,
    Alive,
    AuthDone,
    AuthFailed,
    AuthSaid,
    Broken,
    End,
    Go,
    Hop,
    Ready,
    SessionKnown,
    TlsGo,
    TlsRefused,
    Transaction,
    Verdict,
    commands,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["ASK", "BODY", "EAGER", "FILE", "Alive", "AuthDone", "AuthFailed", "AuthSaid", "Broken",
           "Client", "End", "Go", "Hop", "Ready", "SessionKnown", "TlsGo", "TlsRefused", "Transaction",
           "Verdict"]


class Client(Conversation):
    """One session. *kind* "smtp" or "lmtp"; *name* is what we call ourselves."""

    _several = ("XFD", "message")
    _stays = ("RCPT", "XFD", "message")

    def __init__(self, kind: str, name: str, most_lines: int = 512) -> None:
        super().__init__(kind, name, most_lines)
        self._encoder: DataEncoder | None = None

    # --- what the application calls ---

    def begin(self, transaction: Transaction, fd: int = -1, size: int = 0) -> None:
        """Start a transaction; *fd* and *size* for FILE. ASK and FILE may be begun before the one
        before has ended. Raises ValueError when something does not fit into a command."""
        for line, expected in commands(transaction, fd, size):
            self._say(line, *expected)
        pipelining = self.ready and "PIPELINING" in self.features
        chunking = pipelining and "CHUNKING" in self.features
        if transaction.mode == EAGER and not chunking:
            transaction.mode = BODY
        if transaction.mode == BODY and pipelining and not chunking:
            transaction.data_said = True        # RFC 2920 section 3.1: as the last of a group
            self._say("DATA", "DATA", transaction)
        self._pump()
        if transaction.mode == EAGER:
            self._events.append(Go(transaction))

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
                self._expected.append(("message", transaction, None))
            return
        if not data and not last:
            return
        self._out.append(b"BDAT %d%s\r\n" % (len(data), b" LAST" if last else b""))
        self._out.append(data)
        self._expected.append(("message" if last else "BDAT", transaction, None))

    # --- replies ---

    def _on_reset(self, answer: Reply, transaction: Transaction | None, number: Any) -> None:
        if transaction is None or answer.code >= 300:
            return self._on_rset(answer, None, number)
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
        transaction.rcpts += 1
        if transaction.refused is not None:
            self._verdict(transaction, number, transaction.refused)
        elif answer.code < 300 and transaction.mode != ASK:
            transaction.accepted.append(number)
        else:
            self._verdict(transaction, number, answer)
        if transaction.rcpts == len(transaction.recipients) and transaction.mode == BODY:
            self._all_rcpts(transaction)

    def _all_rcpts(self, transaction: Transaction) -> None:
        """BODY: every RCPT is answered."""
        if transaction.data_said:
            return                      # its answer is due
        if not transaction.accepted:
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
            return self._send_body(transaction)
        if answer.code < 400:
            return self._break("DATA answered " + answer.said())
        for number in transaction.accepted:
            self._verdict(transaction, number, answer)
        self._say("RSET", "RSET", transaction)

    def _send_body(self, transaction: Transaction) -> None:
        """After DATA. Without a recipient, an empty one (RFC 2920 section 3.1); LMTP has no reply to
        that, and must not have let it come so far (RFC 2033 section 4.2)."""
        if transaction.accepted:
            self._encoder = DataEncoder()
            self._events.append(Go(transaction))
        elif self.kind == "lmtp":
            self._break("DATA taken for nobody")
        else:
            self._out.append(b".\r\n")
            self._expected.append(("message", transaction, None))

    def _on_bdat(self, answer: Reply, transaction: Transaction, _n: Any) -> None:
        """A chunk before the last: a refusal here is the verdict on all (RFC 3030 section 2)."""
        if answer.code >= 300 and transaction.refused is None:
            transaction.refused = answer

    def _on_final(self, answer: Reply, transaction: Transaction, _n: Any) -> None:
        """A reply after the body: one for all in SMTP, one for each accepted in LMTP."""
        accepted, kind = transaction.accepted, self.awaiting
        if not accepted or transaction.refused is not None:
            for number in accepted:
                self._verdict(transaction, number, transaction.refused or answer)
            return self._last_final(transaction, reset=kind == "message")
        if self.kind == "smtp":
            for number in accepted:
                self._verdict(transaction, number, answer)
            return self._last_final(transaction)
        tag = tag_of(answer) if kind == "XFD" else None
        position = transaction.finals if tag is None else tag - 1
        if not 0 <= position < len(accepted) or transaction.verdicts[accepted[position]] is not None:
            return self._break(f"a verdict on recipient {position + 1}, which there is not")
        transaction.finals += 1
        self._verdict(transaction, accepted[position], answer)
        if transaction.finals == len(accepted):
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

    _on: dict[str, Callable[..., None]] = Conversation._on | {
        "MAIL": _on_mail, "RCPT": _on_rcpt, "DATA": _on_data, "BDAT": _on_bdat, "RSET": _on_reset,
        "XFD": _on_final, "message": _on_final,
    }
