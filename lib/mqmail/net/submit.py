"""Putting a message into the queue, for programs that do just that: mq-inject, sendmail, mq-bounce."""

from __future__ import annotations

from mqmail.base import unix, waiter, xtext
from mqmail.base.failure import Permanent, Temporary
from mqmail.mail.address import needs_utf8
from mqmail.net.blocking import over_socket
from mqmail.net.session import Session
from mqmail.xmtp.client import EAGER, Transaction
from mqmail.xmtp.reply import facts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqmail.xmtp.reply import Reply

TIMEOUT = 300.0


def submit(home: str, sender: str, recipients: list[str], pieces: Iterable[bytes], *, ret: str = "",
           envid: str = "", notify: str = "", eightbit: bool = False, utf8: bool = False,
           via: str = "", host: str = "localhost") -> str:
    """Queue a message; returns its queue id once it is durable.

    *pieces*: the message with CRLF line ends. *ret* full|hdrs, *notify* as in NOTIFY=, *via* record
    facts (trusted callers only). Raises Temporary (queue down or full) or Permanent (refused).
    """
    path = f"{home}/run/queue.sock"
    try:
        stream = over_socket(unix.connect(path, timeout=None))
    except OSError as error:
        raise Temporary(f"the queue of {home} does not answer ({error.strerror}): is mq-queue running?",
                        "4.3.2") from None
    session = Session(stream, "smtp", host, TIMEOUT)
    transaction = envelope(sender, recipients, ret=ret, envid=envid, notify=notify,
                           eightbit=eightbit, utf8=utf8, via=via)
    try:
        return waiter.run(_submit(session, transaction, pieces))  # type: ignore[no-any-return]
    finally:
        session.close()


def envelope(sender: str, recipients: list[str], *, ret: str = "", envid: str = "", notify: str = "",
             eightbit: bool = False, utf8: bool = False, via: str = "") -> Transaction:
    """The transaction for mq-queue, whose body may be written at once."""
    parameters = []
    if eightbit:
        parameters.append("BODY=8BITMIME")
    if utf8 or needs_utf8(sender) or any([needs_utf8(r) for r in recipients]):
        parameters.append("SMTPUTF8")
    if ret:
        parameters.append(f"RET={ret.upper()}")
    if envid:
        parameters.append(f"ENVID={xtext.encode(envid)}")
    if via:
        parameters.append(f"XVIA={xtext.encode(via)}")
    words = [f"NOTIFY={notify.upper()}"] if notify else []
    return Transaction(sender, [(r, words) for r in recipients], parameters, EAGER)


async def _submit(session: Session, transaction: Transaction, pieces: Iterable[bytes]) -> str:
    if not await session.open():
        raise Temporary(f"the queue refused to talk: {session.broken}", "4.3.2")
    await session.run(transaction, pieces=pieces)
    return queue_id(transaction, session.broken)


def queue_id(transaction: Transaction, broken: str) -> str:
    """The id that mq-queue gave; raises Temporary or Permanent unless every recipient was taken."""
    worst: Reply | None = None
    for answer in transaction.verdicts:
        if answer is None:
            raise Temporary(f"the queue broke off: {broken}", "4.3.2")
        if worst is None or answer.code > worst.code:
            worst = answer
    if worst is None or worst.code >= 500:
        raise Permanent(worst.said() if worst else "no recipients", worst.status if worst else "5.5.1")
    if worst.code >= 300:
        raise Temporary(worst.said(), worst.status)
    return facts_of(worst.text).get("id", "")
