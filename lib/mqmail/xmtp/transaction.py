"""What a client carries out and what it reports: Transaction, and the events of xmtp/client.py."""

from __future__ import annotations

from mqmail.base.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mqmail.xmtp.reply import Reply

ASK, FILE, BODY, EAGER = "ask", "file", "body", "eager"


@value
class Ready:
    """The server knows us; ``client.features`` is filled."""


@value
class TlsGo:
    """The server waits for a TLS handshake: shake hands, then call ``client.tls_started()``."""


@value
class TlsRefused:
    """STARTTLS was refused; the session goes on as it was."""

    reply: Reply


@value
class AuthDone:
    """The server knows who we are."""


@value
class AuthFailed:
    """*reply* is the refusal; None when we gave up, or when the server is not to be believed (the
    session is broken then)."""

    reply: Reply | None
    why: str


@value
class AuthSaid:
    """What the server says to a line of somebody else's AUTH, whatever its code."""

    reply: Reply


@value
class Alive:
    """A probe was answered."""


@value
class Hop:
    """The answer to XHOP, whatever its code."""

    reply: Reply


@value
class SessionKnown:
    """The answer to XSESSION, whatever its code."""

    reply: Reply


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
    ``accepted`` (numbers), ``rcpts`` (answered) and ``finals`` (verdicts after the body) are the
    client's counting; ``data_said``: DATA need not be said again.
    """

    __slots__ = ("accepted", "data_said", "finals", "mode", "parameters", "rcpts", "recipients",
                 "refused", "sender", "verdicts", "waiting")

    def __init__(self, sender: str, recipients: Sequence[tuple[str, Sequence[str]]],
                 parameters: Sequence[str] = (), mode: str = BODY) -> None:
        self.sender = sender
        self.recipients = recipients
        self.parameters = parameters
        self.mode = mode
        self.verdicts: list[Reply | None] = [None] * len(recipients)
        self.waiting = len(recipients)
        self.refused: Reply | None = None       # MAIL's refusal
        self.accepted: list[int] = []
        self.rcpts = 0
        self.finals = 0
        self.data_said = False


def commands(transaction: Transaction, fd: int, size: int) -> list[tuple[str, tuple[str, Any, Any]]]:
    """The commands known beforehand: (line, (kind, transaction, recipient's number or descriptor)).
    Raises ValueError when something does not fit into one."""
    if not transaction.recipients:
        raise ValueError("a transaction without recipients")
    mail = " ".join([f"MAIL FROM:<{transaction.sender}>", *transaction.parameters])
    found: list[tuple[str, tuple[str, Any, Any]]] = [(mail, ("MAIL", transaction, None))]
    for number, (path, parameters) in enumerate(transaction.recipients):
        found.append((" ".join([f"RCPT TO:<{path}>", *parameters]), ("RCPT", transaction, number)))
    for line, _ in found:
        check_command(line)
    if transaction.mode == ASK:
        found.append(("RSET", ("RSET", transaction, None)))
    elif transaction.mode == FILE:
        found.append((f"XFD {size}", ("XFD", transaction, fd)))
    return found


def check_command(line: str) -> None:
    """Raises ValueError when *line* holds what could end it."""
    if not line.isprintable():
        raise ValueError(f"not fit for a command: {line[:80]!a}")
