"""Writing the record: a line per fact (mq-record(5)). Pure; ``record`` reads what is written here.

Every value from outside goes through xtext, so that none can hold a space or a line end. A value that
``record.parse`` would not take back is a ValueError here, except that addresses must come from
``mail.address``: they are not looked at again.
"""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.mail.address import is_destination
from mqmail.mail.reason import is_status
from mqmail.queue.ids import is_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mqmail.queue.record import Envelope, Recipient

LONGEST_SAID = 500   # characters of a peer's words that are kept
LONGEST_HOST = 255
LONGEST_FACT = 80    # characters of TLS version and cipher, and of seconds
LATEST_DIGITS = 10   # digits of a time in seconds
SIZE_DIGITS = 15

ACTIONS = frozenset(("failed", "delayed", "delivered", "relayed", "expanded", "none"))
NOTIFY = frozenset(("never", "success", "failure", "delay"))
RET = frozenset(("", "full", "hdrs"))   # RFC 3461 section 4.3


def head(envelope: Envelope, recipients: Sequence[Recipient]) -> bytes:
    """The record of a message just accepted, up to and with its ``ok``. The recipients are numbered
    "1", "2", … in their order; empty values of *via* are left out."""
    if not is_id(envelope.id) or envelope.ret not in RET or not recipients:
        raise ValueError(f"no record can hold this: {envelope!r:.400}")
    if not (0 <= envelope.size < 10 ** SIZE_DIGITS and 0 <= envelope.at < 10 ** LATEST_DIGITS - 1):
        raise ValueError(f"no record can hold size {envelope.size!r:.40} or time {envelope.at!r:.40}")
    lines = [f"mqmail1 {envelope.id}",
             f"at {envelope.at:.6f}",
             f"body size={envelope.size}{' 8bit' * envelope.eightbit}{' utf8' * envelope.utf8}",
             _line("from", _sender(envelope.sender), {"ret": envelope.ret, "envid": envelope.envid}),
             _line("via", "", envelope.via)]
    for number, recipient in enumerate(recipients, 1):
        if recipient.seq != str(number):
            raise ValueError(f"recipient {number} says it is {recipient.seq}")
        lines.append(_to(recipient.seq, recipient.destination, recipient.address,
                         recipient.notify, recipient.orcpt, recipient.sender))
    lines.append("ok\n")
    return "\n".join(lines).encode()


def to_line(seq: str, destination: str, address: str, notify: tuple[str, ...] = (), orcpt: str = "",
            sender: str | None = None) -> bytes:
    """A later ``to`` line for *seq* itself. What is not given is inherited from what it was."""
    return (_to(_seq(seq), destination, address, notify, orcpt, sender) + "\n").encode()


def replacements(seq: str, targets: Sequence[tuple[str, str, str | None]],
                 notify: Sequence[tuple[str, ...]] = ()) -> bytes:
    """The ``to`` lines for a recipient that is replaced by *targets*: (destination, address, sender or
    None). *notify*: what each does not inherit of it, () of one that does. One keeps the number; several
    become ``SEQ.n``, the last first, which says ``of=n``: SEQ is replaced only when SEQ.1 is there, so a
    crash between the lines loses none of them."""
    if not targets:
        raise ValueError(f"recipient {seq} would be lost")
    wanted = notify or [()] * len(targets)
    if len(targets) == 1:
        destination, address, sender = targets[0]
        return to_line(seq, destination, address, wanted[0], sender=sender)
    parts = [_to(_seq(f"{seq}.{n}"), destination, address, wanted[n - 1], "", sender)
             for n, (destination, address, sender) in enumerate(targets, 1)]
    parts[-1] += f" of={len(parts)}"
    return ("\n".join(reversed(parts)) + "\n").encode()


def done_line(seq: str, time: float, status: str, host: str = "", said: str = "", tls: str = "",
              secs: str = "", dsn: bool = False) -> bytes:
    """Delivered. *time*: seconds since the epoch; *status*: RFC 3463 code; *said*: the peer's words;
    *tls*: version and cipher; *secs*: what it took; *dsn*: the peer reports success itself."""
    return _verdict("done", seq, time, status, {"host": host[:LONGEST_HOST], "said": said[:LONGEST_SAID],
                    "tls": tls[:LONGEST_FACT], "secs": secs[:LONGEST_FACT], "dsn": "1" if dsn else None})


def wait_line(seq: str, time: float, status: str, until: float, host: str = "", said: str = "",
              tls: str = "", secs: str = "") -> bytes:
    """Tried, to be tried again at *until* (seconds since the epoch)."""
    return _verdict("wait", seq, time, status, {
        "until": _seconds(until), "host": host[:LONGEST_HOST], "said": said[:LONGEST_SAID],
        "tls": tls[:LONGEST_FACT], "secs": secs[:LONGEST_FACT]})


def fail_line(seq: str, time: float, status: str, host: str = "", said: str = "", tls: str = "",
              secs: str = "") -> bytes:
    """Failed for good."""
    return _verdict("fail", seq, time, status, {"host": host[:LONGEST_HOST], "said": said[:LONGEST_SAID],
                    "tls": tls[:LONGEST_FACT], "secs": secs[:LONGEST_FACT]})


def told_line(seq: str, time: float, action: str) -> bytes:
    """The sender has been told (``none``: needs no telling); the report is durable."""
    if action not in ACTIONS:
        raise ValueError(f"unknown action {action!a}")
    return f"told {_seq(seq)} {_seconds(time)} {action}\n".encode()


def is_notify(words: Sequence[str]) -> bool:
    """Whether *words* are known, each there once, and ``never`` alone (RFC 3461 section 4.1)."""
    return (NOTIFY.issuperset(words) and 0 < len(words) == len(set(words))
            and ("never" not in words or len(words) == 1))


def _verdict(kind: str, seq: str, time: float, status: str, facts: Mapping[str, str | None]) -> bytes:
    if not is_status(status):
        raise ValueError(f"bad status {status[:40]!a}")
    return (_line(f"{kind} {_seq(seq)} {_seconds(time)}", status, facts) + "\n").encode()


def _to(seq: str, destination: str, address: str, notify: tuple[str, ...], orcpt: str,
        sender: str | None) -> str:
    if not is_destination(destination) or not address or not (notify == () or is_notify(notify)):
        raise ValueError(f"no recipient: {destination[:40]!a} {address[:40]!a} {notify!a:.80}")
    start = f"to {seq} {destination} {xtext.encode(address)}"
    if not notify and not orcpt and sender is None:
        return start
    return _line(start, "", {"notify": ",".join(notify), "orcpt": orcpt,
                             "sender": None if sender is None else sender or "<>"})


def _sender(address: str) -> str:
    return xtext.encode(address) if address else "<>"


def _line(start: str, word: str, facts: Mapping[str, str | None]) -> str:
    """The parts that are not empty, with a space between them."""
    for name in facts:
        if not name.isidentifier() or not name.isascii():
            raise ValueError(f"no name for a fact: {name[:40]!a}")
    return " ".join([part for part in (start, word, xtext.facts(facts)) if part])


def _seconds(time: float) -> str:
    """Whole seconds since the epoch, cut off."""
    text = str(int(time))
    if len(text) > LATEST_DIGITS or not text.isdigit():
        raise ValueError(f"no time for a record: {text[:40]}")
    return text


def _seq(seq: str) -> str:
    if not seq.isascii() or not all(p.isdigit() and p[0] != "0" for p in seq.split(".")):
        raise ValueError(f"bad sequence number {seq[:40]!a}")
    return seq
