"""mq-qread: lists the queue.

Usage:
  mq-qread [--home DIR] [--json] [ID ...]
  mq-qread --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --json          one JSON object a line for each message, with all that is known of it
  --help          this text

Without IDs it lists all messages, the oldest first. It takes no locks and changes nothing.
"""

from __future__ import annotations

import json
import os
import signal

from mqmail.base.failure import EXIT_TEMPORARY, Failure, Temporary, Usage
from mqmail.base.files import write_all
from mqmail.base.program import complain, describe
from mqmail.mail.date import format_date
from mqmail.mail.shown import clean
from mqmail.net import daemon
from mqmail.net.owner import give_up_root, owner_of
from mqmail.queue import ids, listing, paths
from mqmail.queue.listing import BAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from mqmail.queue.listing import Listed
    from mqmail.queue.record import Envelope, Record, State

NOT_FOUND = 1           # exit code
_AT_ONCE = 65536        # octets that are written together
_MARKS = {"done": "  done", "fail": "  failed"}


def main(argv: list[str]) -> int:
    """List the queue; mq-qread(8) has the exit codes."""
    home, _, found = daemon.arguments(__doc__, argv)
    wanted = [_id(word) for word in found["ID"]]        # type: ignore[attr-defined]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)       # a reader may have seen enough
    _enter(home)
    return List(_as_json if found["--json"] else _as_text).run(wanted, summary=not found["--json"])


def _id(word: str) -> str:
    """An id, perhaps as it is listed: ``#ID``."""
    id = word.removeprefix("#")
    if not ids.is_id(id):
        raise Usage(f"{word!a} is no queue id: those have {ids.LENGTH} letters and digits")
    return id


def _enter(home: str) -> None:
    """Work in the home; find out now whether its queue can be read."""
    try:
        os.chdir(home)
        if os.geteuid() == 0 == os.stat(".").st_uid:
            _become_reader()
        for place in (*paths.STATES, BAD):
            os.scandir(f"queue/{place}").close()
    except PermissionError:
        raise Temporary(f"the queue of {home} may be read only by root{_and_owner()}") from None
    except OSError as error:
        raise Temporary(f"{home} has no queue ({describe(error)}): make a home with"
                        f" mq-setup --home {home}") from None


def _become_reader() -> None:
    """In a system home: mq-send's account, which may read records. Where there is none, root may too."""
    try:
        give_up_root("mq-send")
    except Failure:
        pass


def _and_owner() -> str:
    """Who else, as far as can be seen from here."""
    try:
        owner = owner_of("queue")
    except OSError:
        return " and the owner of the home"
    return f" and {owner.name or f'uid {owner.uid}'}" if owner.uid else ""


class List:
    """Writes messages to descriptor 1 as *form* makes lines of them, a few at a time."""

    def __init__(self, form: Callable[[Listed], Iterator[str]]) -> None:
        self._form = form
        self._lines: list[str] = []
        self._size = 0
        self._count = 0
        self._bad = 0
        self._code = 0

    def run(self, wanted: list[str], summary: bool) -> int:
        """List *wanted*, or all messages with a *summary* behind them. Returns the exit code."""
        if wanted:
            for id in wanted:
                self._one(id)
        else:
            for found in listing.everything():
                self._put(found)
            if summary:
                self._write(self._summary())
        self._flush()
        return self._code

    def _one(self, id: str) -> None:
        before = self._count
        for found in listing.one(id):
            self._put(found)
        if self._count == before:
            complain("mq-qread", f"no message {id} in the queue")
            self._code = self._code or NOT_FOUND

    def _put(self, found: Listed) -> None:
        self._count += 1
        if found.place == BAD:
            self._bad += 1
        elif found.record is None:      # and mq-send could not read it either
            self._code = EXIT_TEMPORARY
        for line in self._form(found):
            self._write(line)

    def _summary(self) -> str:
        """The last line, as that of mailq(1)."""
        if not self._count:
            return "Mail queue is empty"
        bad = f", {self._bad} of them bad" if self._bad else ""
        return f"-- {self._count} messages in queue{bad}"

    def _write(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size > _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        write_all(1, "".join([f"{line}\n" for line in self._lines]).encode("utf-8", "replace"))
        self._lines, self._size = [], 0


# --- text: qmail-qread's lines, and more behind them ---

def _as_text(found: Listed) -> Iterator[str]:
    if found.record is None or found.record.envelope is None:
        yield f"{_when(_arrival(found.id))}  #{found.id}  {found.place}  {_shown(found.error)}"
        return
    envelope, states = found.record.envelope, found.record.current()
    bouncing = "  bouncing" if any([s.kind == "fail" and not s.told for s in states]) else ""
    place = f"  {found.place}" if found.place in ("hold", BAD) else ""
    error = f"  {_shown(found.error)}" if found.error else ""
    yield (f"{_when(envelope.at)}  #{found.id}  {envelope.size}  <{_shown(envelope.sender)}>"
           f"{bouncing}{place}{error}")
    for state in states:
        yield _recipient(state)


def _recipient(state: State) -> str:
    """``  done<tab>destination<tab>address``, then what was last heard and the next attempt."""
    recipient = state.recipient
    words = [_MARKS.get(state.kind, ""), recipient.destination, _shown(recipient.address)]
    if state.kind == "wait":
        words.append(f"next {_when(state.until)}")
    if state.status:
        words.append(_shown(" ".join([w for w in (state.status, state.host, state.said) if w])))
    return "\t".join(words)


def _shown(text: str) -> str:
    """Fit for a terminal, whatever another host has said."""
    return clean(text, wide=True)


def _when(seconds: float) -> str:
    """``22 Nov 2026 08:20:00 GMT``."""
    return format_date(seconds).partition(" ")[2].removesuffix("+0000") + "GMT"


def _arrival(name: str) -> float:
    """When a message came, as its id says; the beginning of time for what has none."""
    id = name.partition(".")[0]
    return ids.microseconds(id) / 1e6 if ids.is_id(id) else 0.0


# --- JSON ---

def _as_json(found: Listed) -> Iterator[str]:
    facts: dict[str, Any] = {"id": found.id, "place": found.place}
    if found.record is not None and found.record.envelope is not None:
        facts.update(_envelope(found.record.envelope))
        facts["recipients"] = [_state(found.record, state) for state in found.record.current()]
    if found.error:
        facts["error"] = found.error
    yield json.dumps(_clean(facts), separators=(",", ":"))


def _envelope(envelope: Envelope) -> dict[str, Any]:
    return {"arrival": envelope.at, "size": envelope.size, "sender": envelope.sender,
            "eightbit": envelope.eightbit, "utf8": envelope.utf8, "ret": envelope.ret,
            "envid": envelope.envid, "via": envelope.via}


def _state(record: Record, state: State) -> dict[str, Any]:
    """*given*: the address as it was first given, before aliases; *next*: when it is tried again."""
    recipient = state.recipient
    return {"seq": recipient.seq, "destination": recipient.destination, "address": recipient.address,
            "given": record.recipients[recipient.seq.partition(".")[0]].first.address,
            "sender": recipient.sender, "notify": list(recipient.notify), "orcpt": recipient.orcpt,
            "state": state.kind, "time": state.time or None, "status": state.status, "host": state.host,
            "said": state.said, "next": state.until if state.kind == "wait" else None,
            "told": state.told}


def _clean(value: Any) -> Any:
    """Octets that were no UTF-8 become U+FFFD: JSON is Unicode (RFC 8259 section 8.1)."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {key: _clean(one) for key, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list) else value
