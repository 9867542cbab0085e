"""What a service's answer means for a recipient. Pure: replies in, record lines out.

2xx is done, 4xx is later, 5xx has failed, 551 replaces the recipient. No answer, an answer that makes
no sense, and a complaint about the protocol itself (500, 502, 503, 504, 555) are our trouble or the
service's, not the recipient's: later.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.mail.retry import SKIP_LOCAL, SKIP_REMOTE, expired, next_attempt
from mqmail.prog.mq_send.places import Places, key_of
from mqmail.queue import lines
from mqmail.queue.record import LONGEST, MOST_RECIPIENTS, Recipient, Record, State, ancestors
from mqmail.xmtp.reply import ProtocolError, Reply, Target, facts_of, targets_of, untagged

DEEPEST = 20                # replacements of replacements: more is a loop
_LOCAL = frozenset(("new", "mailbox", "local"))
_OUR_TROUBLE = frozenset((500, 502, 503, 504, 555))
_ROOM_FOR_OTHERS = LONGEST // 4 * 3     # octets of a record with which none is replaced any more
_LONGEST_HINT = 86400
_LONGEST_SITE = 255
_PATIENCE = 2               # lifetimes until a message fails that a service of ours never answered for
_FEW = 40                   # characters of a verdict in a record that is large
_SOON = 10.0                # seconds until a broken service is tried again, at first


@value
class Verdict:
    """*kind* done, wait, fail or replace; *status* RFC 3463; *host* and *said* for record and log;
    *targets* for replace; *retry* seconds that the service asks for (0: none); *broken*: the service
    gave no answer. *site*: who answered, or with *retry* did not (see ``sites``); *tls* and *secs*: how
    and how long; *dsn*: the next hop was asked to report success itself. *until*: when to try again, as
    mq-send itself knows (0: it does not); *tried*: this counts as an attempt."""

    kind: str
    status: str = ""
    host: str = ""
    said: str = ""
    targets: tuple[Target, ...] = ()
    retry: int = 0
    broken: bool = False
    site: str = ""
    tls: str = ""
    secs: str = ""
    dsn: bool = False
    until: float = 0.0
    tried: bool = True


@value
class Clock:
    """What time-dependent rules need: *now*, the queue's *lifetime* in seconds, *fuzz* in [0, 1)."""

    now: float
    lifetime: float
    fuzz: float = 0.0


def of_reply(answer: Reply | None, why: str = "", asked: bool = False) -> Verdict:
    """The verdict in *answer*; None: the session ended without one, *why* says how. *asked*: there was
    no body, so a 2xx delivers nothing."""
    if answer is None:
        return Verdict("wait", "4.4.2", "", why or "no answer", broken=True)
    facts = facts_of(answer.text)
    host, said = facts.get("host", ""), facts.get("said") or untagged(answer).said()
    verdict = _meaning(answer, host, said, asked, facts)
    if facts and verdict.kind != "replace":
        verdict = _with_facts(verdict, facts)
    return verdict


def _meaning(answer: Reply, host: str, said: str, asked: bool, facts: dict[str, str]) -> Verdict:
    code = answer.code
    if 200 <= code < 300:
        if asked:
            return Verdict("wait", "4.3.5", host, f"accepted without a body: {said}")
        return Verdict("done", _status(answer, "2.0.0"), host, said, dsn=facts.get("dsn") == "1")
    if code == 551:
        return _elsewhere(answer, host, said)
    if 400 <= code < 500:
        return Verdict("wait", _status(answer, "4.0.0"), host, said, retry=_hint(facts))
    if code < 300 or code >= 600 or code in _OUR_TROUBLE or _is_syntax(answer):
        return Verdict("wait", "4.5.0", host, f"unexpected answer: {said}")
    return Verdict("fail", _status(answer, "5.0.0"), host, said)


def _with_facts(verdict: Verdict, facts: dict[str, str]) -> Verdict:
    """*verdict* with who answered, and how."""
    site = facts.get("site", "").lower()
    good = len(site) <= _LONGEST_SITE and site.isprintable()
    return verdict.replace(     # type: ignore[attr-defined,no-any-return]  # of every @value
        site=site if good else "", tls=facts.get("tls", ""), secs=facts.get("secs", ""))


def _is_syntax(answer: Reply) -> bool:
    """501 about anything but the address is about how we speak."""
    return answer.code == 501 and not answer.status.startswith("5.1.")


def _status(answer: Reply, default: str) -> str:
    return answer.status or default


def _hint(facts: dict[str, str]) -> int:
    text = facts.get("retry", "")
    good = text.isascii() and text.isdigit() and len(text) <= 6
    return min(int(text), _LONGEST_HINT) if good else 0


def _elsewhere(answer: Reply, host: str, said: str) -> Verdict:
    if not any("<" in line for line in answer.lines):       # plain RFC 5321: not here, and no hint
        return Verdict("fail", "5.1.6", host, said)
    try:
        return Verdict("replace", "5.1.6", host, said, tuple(targets_of(answer)))
    except ProtocolError as error:
        return Verdict("wait", "4.5.0", host, str(error))


def lines_for(record: Record, state: State, verdict: Verdict, clock: Clock, places: Places) -> bytes:
    """The record lines that *verdict* makes for the recipient in *state*. *places* are the record's."""
    seq, now = state.recipient.seq, clock.now
    if verdict.kind == "done":
        return lines.done_line(seq, now, verdict.status, verdict.host, verdict.said, verdict.tls,
                               verdict.secs, verdict.dsn)
    if verdict.kind == "fail":
        return lines.fail_line(seq, now, verdict.status, verdict.host, verdict.said, verdict.tls,
                               verdict.secs)
    if verdict.kind == "replace":
        return _replace(record, state, verdict, now, places)
    assert record.envelope is not None
    arrived = record.envelope.at
    lifetime = _PATIENCE * clock.lifetime if verdict.broken else clock.lifetime
    if verdict.tried and expired(arrived, now, lifetime):
        said = f"not delivered in {int(clock.lifetime) // 3600} hours; last: {verdict.said}"
        return lines.fail_line(seq, now, "5.4.7", verdict.host, said)
    until = due(arrived, state.recipient.destination, verdict, clock)
    return lines.wait_line(seq, now, verdict.status, until, verdict.host, verdict.said, verdict.tls,
                           verdict.secs)


def due(arrived: float, destination: str, verdict: Verdict, clock: Clock) -> float:
    """When to try again: as its site's time wants it or the service asks, or by qmail's schedule, or
    sooner when the service itself was away (10 seconds at first, then a quarter of the message's age).
    """
    if verdict.until:
        return verdict.until
    if verdict.retry:
        return clock.now + verdict.retry
    skip = SKIP_LOCAL if destination in _LOCAL else SKIP_REMOTE
    until = next_attempt(arrived, clock.now, skip, clock.fuzz)
    if verdict.broken:
        until = min(until, clock.now + max(_SOON, (clock.now - arrived) / 4) * (1 + clock.fuzz / 10))
    return until


def _replace(record: Record, state: State, verdict: Verdict, now: float, places: Places) -> bytes:
    """Lines that put the targets in the recipient's place: loops fail, duplicates go."""
    seq = state.recipient.seq
    before = ancestors(record, seq) + [state.recipient]
    visited = {(r.destination, r.address) for r in before}
    if len(before) > DEEPEST or any((t.destination, t.address) in visited for t in verdict.targets):
        return lines.fail_line(seq, now, "5.4.6", verdict.host, "this address forwards to itself")
    fresh = _unknown(places, state.recipient, verdict.targets)
    if not fresh:
        return lines.done_line(seq, now, "2.1.5", "", "the message goes there already")
    if len(record.recipients) + len(fresh) > MOST_RECIPIENTS or record.good_length > _ROOM_FOR_OTHERS:
        return lines.fail_line(seq, now, "5.5.3", verdict.host, "it stands for too many others")
    return lines.replacements(seq, [(t.destination, t.address, t.sender or None) for t in fresh],
                              [_notify(state.recipient, t, len(fresh)) for t in fresh])


def _notify(recipient: Recipient, target: Target, number: int) -> tuple[str, ...]:
    """What is to be told of one of *number* targets; () for what is to be told of the *recipient*. A
    list's owner hears of failures whatever who writes to the list wants (RFC 3461 section 5.2.7.1); who
    writes to several at once hears that they are several (5.2.7.3), and not of each one's success."""
    wanted = recipient.notify
    if target.sender and wanted and (number > 1 or "success" not in wanted):
        return ("failure",)
    if number > 1 and "success" in wanted:
        return tuple([word for word in wanted if word != "success"]) or ("never",)
    return ()


def brief(verdict: Verdict) -> Verdict:
    """*verdict* in few words, for a record that has little room left."""
    return verdict.replace(     # type: ignore[attr-defined,no-any-return]  # of every @value
        said=verdict.said[:_FEW], host="", tls="", secs="")


def _unknown(places: Places, recipient: Recipient, targets: tuple[Target, ...]) -> list[Target]:
    """The targets that no other recipient of the message has (SPEC: duplicates are suppressed)."""
    known, fresh = set(), []
    for target in targets:
        sender = target.sender or recipient.sender
        one = Recipient(recipient.seq, target.destination, target.address, recipient.notify, "", sender)
        if key_of(one) not in known and not places.covers(one):
            known.add(key_of(one))
            fresh.append(target)
    return fresh
