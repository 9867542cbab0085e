"""Who is to be told what (RFC 3461): decides, and words the transaction to destination error. Pure."""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.queue.record import Record, State

MOST_RECIPIENTS = 1000      # of one report
_PLACES = frozenset(("mailbox", "local"))
_LONGEST_SAID = 1200        # octets in a command, which has 4096: ORCPT may take 2000 of them
_LONGEST_HOST = 300


def action(state: State) -> str:
    """``failed``, ``delivered``, ``relayed``, ``expanded``: the sender is to be told so, and ``delayed``
    if the recipient is ``late``; ``none``: a failure nobody asked to hear of; "": nothing to tell (any
    more).

    Of one that was replaced by several we say so, and no more of their success (RFC 3461 section
    5.2.7.3): they do not inherit that they are to be told of it. A next hop that was given NOTIFY tells
    of success itself (5.2.1); of one that was not, we say that the message was relayed (5.2.2)."""
    notify = state.recipient.notify
    if state.told:
        return ""
    if state.kind == "wait":
        return "delayed"
    if state.kind == "fail":
        return "failed" if not notify or "failure" in notify else "none"
    if state.kind == "replaced":
        return "expanded" if "success" in notify else ""
    if state.kind == "done" and "success" in notify:
        if state.recipient.destination in _PLACES:
            return "delivered"
        return "" if state.dsn else "relayed"
    return ""


def to_tell(record: Record, is_late: bool) -> dict[str, list[State]]:
    """Recipients with something to tell, by the sender who is to hear it. *is_late*: those that wait
    too."""
    found: dict[str, list[State]] = {}
    final = [state for state in record.all() if state.kind != "wait" and _is_told(record, state)]
    for state in final + (late(record) if is_late else []):
        found.setdefault(sender_of(record, state), []).append(state)
    return found


def _is_told(record: Record, state: State) -> bool:
    """Whether mq-bounce is to know: for the sender, or, of a failure that nobody asked to hear of, for
    an account's count."""
    assert record.envelope is not None
    what = action(state)
    counts = "auth" in record.envelope.via and state.recipient.sender is None
    return what not in ("", "none") or what == "none" and counts


def late(record: Record) -> list[State]:
    """The waiting recipients whose sender wants to know when they are late, and has not been told. It
    hears once of an address it gave, however many that was replaced by."""
    known = {_known_as(state) for state in record.recipients.values() if state.delayed}
    found = []
    for state in record.current():
        name = _known_as(state)
        if state.kind == "wait" and name not in known and _hears_of_delay(record, state):
            known.add(name)
            found.append(state)
    return found


def _known_as(state: State) -> str:
    """The sequence number of what ``first_given`` names."""
    own = state.recipient
    return own.seq.partition(".")[0] if own.sender is None else own.seq


def _hears_of_delay(record: Record, state: State) -> bool:
    """Whoever asked for it (RFC 3461 section 4.1). Who did not say is told if it has logged in: any
    other sender's address may be forged."""
    assert record.envelope is not None
    notify, via = state.recipient.notify, record.envelope.via
    wanted = "delay" in notify if notify else bool(via.get("auth") or via.get("cert"))
    return wanted and sender_of(record, state) != ""


def sender_of(record: Record, state: State) -> str:
    """The envelope sender for this recipient."""
    assert record.envelope is not None
    own = state.recipient.sender
    return record.envelope.sender if own is None else own


def first_given(record: Record, state: State) -> str:
    """The address that the sender knows. Where mail is forwarded to is nobody's business but a
    list's owner's (SPEC: confidential forwarding addresses are not revealed)."""
    if state.recipient.sender is not None:
        return state.recipient.address
    return record.recipients[state.recipient.seq.partition(".")[0]].first.address


def parameters(record: Record, state: State, ends: float) -> tuple[str, list[str]]:
    """(address, RCPT parameters) for one recipient in the transaction to ``error``. *ends*: when one
    that waits is given up."""
    shown, current = first_given(record, state), state.recipient.address
    said = state.said.replace(current, shown) if current != shown else state.said
    words = [f"XACTION={action(state)}", f"XSTATUS={state.status or '2.0.0'}"]
    if said:
        words.append(f"XSAID={_bounded(said, _LONGEST_SAID)}")
    if state.host:
        words.append(f"XHOST={_bounded(state.host, _LONGEST_HOST)}")
    if state.tls:
        words.append(f"XTLS={_bounded(state.tls, _LONGEST_HOST)}")
    if state.time:
        words.append(f"XTIME={state.time}")
    if state.kind == "wait":
        words.append(f"XUNTIL={int(ends)}")
    if state.recipient.orcpt:
        kind, _, address = state.recipient.orcpt.partition(";")
        words.append(f"ORCPT={kind};{xtext.encode(address)}")
    return shown, words


def _bounded(text: str, most: int) -> str:
    """*text* in xtext, its end cut off if that needs more than *most* octets."""
    coded = xtext.encode(text)
    while len(coded.encode()) > most:
        text = text[:len(text) * 3 // 4]
        coded = xtext.encode(text)
    return coded
