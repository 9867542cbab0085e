"""The record: a message's envelope and history as text, a fact per line (mq-record(5)).

``parse`` reads a whole record and ``extend`` follows what has been appended to it. The queue's files are
not trusted: whatever is not understood is a BadRecord. The functions that write are in ``lines``.
"""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.base.failure import BadFile
from mqmail.base.value import value
from mqmail.mail.address import is_destination, parse_address
from mqmail.mail.reason import is_status
from mqmail.queue.ids import is_id
from mqmail.queue.lines import ACTIONS, LATEST_DIGITS, RET, SIZE_DIGITS, is_notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST = 64 << 20         # bytes of a record
MOST_RECIPIENTS = 100_000  # sequence numbers of a record


class BadRecord(BadFile):
    """The record cannot be understood: *line* (from 1; 0 for the whole) and *what* is wrong."""

    def __init__(self, line: int, what: str, name: str = "record") -> None:
        super().__init__(f"{name} line {line}: {what}")
        self.line = line
        self.what = what


@value
class Envelope:
    """What was accepted. *at*: seconds since the epoch, to the microsecond; *size*: bytes of the body;
    *sender*: "" is the null sender; *ret* "", "full" or "hdrs"; *via*: how the message came."""

    id: str
    at: float
    size: int
    eightbit: bool
    utf8: bool
    sender: str
    ret: str
    envid: str
    via: dict[str, str]


@value
class Recipient:
    """One recipient, with what it inherited. *sender* replaces the envelope's, None when it does not;
    *orcpt* is ``type;address`` or ""; an empty *notify* was not given."""

    seq: str
    destination: str
    address: str
    notify: tuple[str, ...] = ()
    orcpt: str = ""
    sender: str | None = None


class State:
    """A sequence number and what has become of it.

    *recipient* is what the last ``to`` said, *former* what earlier ones did. *kind* is ``pending``,
    ``wait`` (until *until*), ``done``, ``fail`` or ``replaced``; *time*, *status*, *host* and *said*
    belong to it, *tls* (version:cipher) too, and *dsn*: whether the next hop reports success itself.
    *told* is the last report's action, "" when none came since the last final verdict; *delayed*: one
    has said that it waits.
    *active* is false for replacements whose set was never completed.
    """

    __slots__ = ("_next", "_parts", "active", "delayed", "dsn", "former", "host", "kind", "recipient",
                 "said", "status", "time", "tls", "told", "until")

    def __init__(self, recipient: Recipient, active: bool) -> None:
        self.recipient = recipient
        self.former: list[Recipient] = []
        self.active = active
        self.told = ""
        self.delayed = False
        self.tls = ""
        self._parts: list[State] = []
        self._next = 0
        self._set("pending", 0, "", 0, "", "")

    def _set(self, kind: str, time: int, status: str, until: int, host: str, said: str) -> None:
        self.kind = kind
        self.time = time
        self.status = status
        self.until = until
        self.host = host
        self.said = said
        self.dsn = False

    @property
    def first(self) -> Recipient:
        """The recipient as it was first given under this number."""
        return self.former[0] if self.former else self.recipient

    def _readdress(self, recipient: Recipient) -> None:
        self.former.append(self.recipient)
        self.recipient = recipient
        self._set("pending", 0, "", 0, "", "")

    def _gather(self, part: State, number: int, starts: bool) -> None:
        """Take ``SEQ.number``; *starts*: it is the first of a set. They come last first and replace SEQ
        when SEQ.1 is there, so that a crash between them leaves SEQ as it was; a set that was never
        completed is dropped."""
        if starts or number != self._next:
            self._parts = []
        self._parts.append(part)
        self._next = number - 1
        if number == 1:
            for one in self._parts:
                one.active = True
            self._parts = []
            self._set("replaced", 0, "", 0, "", "")
            self.told = ""


class Record:
    """A record as read so far. *envelope* is None until it is *complete* (its ``ok`` line was there);
    *recipients* holds every sequence number ever seen; *good_length* counts the bytes of whole lines."""

    __slots__ = ("_found", "_most", "complete", "envelope", "good_length", "lines", "recipients")

    def __init__(self, most: int = MOST_RECIPIENTS) -> None:
        self.envelope: Envelope | None = None
        self.recipients: dict[str, State] = {}
        self.complete = False
        self.good_length = 0
        self.lines = 0
        self._found: dict[str, Any] = {}
        self._most = most

    def current(self) -> list[State]:
        """The recipients that count: those that nothing has replaced, in the order they appeared."""
        return [s for s in self.recipients.values() if s.active and s.kind != "replaced"]

    def all(self) -> list[State]:
        """Those too that have been replaced."""
        return [s for s in self.recipients.values() if s.active]

    def _add(self, state: State) -> None:
        seq = state.recipient.seq
        if len(self.recipients) >= self._most and seq not in self.recipients:
            raise ValueError(f"more than {self._most} recipients")
        self.recipients[seq] = state


def ancestors(record: Record, seq: str) -> list[Recipient]:
    """Everything that *seq* was before it became what it is now, oldest first: its own former
    addresses and those of the numbers it replaces. KeyError for an unknown *seq*."""
    found: list[Recipient] = []
    end = seq.find(".")
    while end > 0:
        state = record.recipients[seq[:end]]
        found += (*state.former, state.recipient)
        end = seq.find(".", end + 1)
    return [*found, *record.recipients[seq].former]


# Reading. The functions below raise ValueError; extend() turns that into a BadRecord with the line.

def parse(data: bytes, name: str = "record", longest: int = LONGEST,
          most: int = MOST_RECIPIENTS) -> Record:
    """The record in *data*; *name* is for the error's text. A last line without LF is left out, and a
    record without ``ok`` is not *complete*. Raises BadRecord, nothing else."""
    if len(data) > longest:
        raise BadRecord(0, f"larger than {longest} bytes", name)
    record = Record(most)
    extend(record, data, name)
    return record


def extend(record: Record, data: bytes, name: str = "record") -> None:
    """Follow lines that come after those of *record*. After a BadRecord it is of no more use."""
    good = data.rfind(b"\n") + 1
    try:
        text = data[:good].decode()
    except UnicodeDecodeError as error:
        line = record.lines + data.count(b"\n", 0, error.start) + 1
        raise BadRecord(line, "not UTF-8", name) from None
    try:
        for whole in text.split("\n")[:-1]:
            record.lines += 1
            words = whole.split(" ")
            if record.complete:
                _read_later(record, words)
            else:
                _read_head(record, words)
    except ValueError as error:
        raise BadRecord(record.lines, str(error), name) from None
    record.good_length += good


def _read_head(record: Record, words: list[str]) -> None:
    """A line up to ``ok``: the five of _HEAD in their order, then the recipients."""
    if record.lines <= len(_HEAD):
        name, read = _HEAD[record.lines - 1]
        if words[0] != name:
            raise ValueError(f"{name} expected, not {words[0][:40]!a}")
        read(record._found, words)
    elif words[0] == "to":
        seq = str(len(record.recipients) + 1)
        if words[1:2] != [seq]:
            raise ValueError(f"recipient {seq} expected")
        record._add(State(_read_to(words, _NOBODY, xtext.parse_facts(words[4:])), active=True))
    elif words == ["ok"] and record.recipients:
        record.envelope = Envelope(**record._found)
        record.complete = True
    else:
        raise ValueError(f"a recipient or ok expected, not {words[0][:40]!a}")


def _read_id(found: dict[str, Any], words: list[str]) -> None:
    if len(words) != 2 or not is_id(words[1]):
        raise ValueError("bad queue id")
    found["id"] = words[1]


def _read_at(found: dict[str, Any], words: list[str]) -> None:
    seconds, dot, micro = words[-1].partition(".")
    if len(words) != 2 or not dot or len(micro) != 6:
        raise ValueError("bad time")
    _number(seconds)
    _number(micro)
    found["at"] = float(words[1])


def _read_body(found: dict[str, Any], words: list[str]) -> None:
    flags = words[2:]
    if len(words) < 2 or words[1][:5] != "size=":
        raise ValueError("size= expected")
    if flags not in ([], ["8bit"], ["utf8"], ["8bit", "utf8"], ["utf8", "8bit"]):
        raise ValueError("only 8bit and utf8 may follow the size")
    found["size"] = _number(words[1][5:], SIZE_DIGITS)
    found["eightbit"] = "8bit" in flags
    found["utf8"] = "utf8" in flags


def _read_from(found: dict[str, Any], words: list[str]) -> None:
    if len(words) < 2:
        raise ValueError("no sender")
    facts = xtext.parse_facts(words[2:])
    found["sender"] = _sender(xtext.decode(words[1]))
    found["ret"] = facts.pop("ret", "")
    found["envid"] = facts.pop("envid", "")
    if found["ret"] not in RET:
        raise ValueError("ret is full or hdrs")
    _nothing_left(facts)


def _read_via(found: dict[str, Any], words: list[str]) -> None:
    found["via"] = xtext.parse_facts(words[1:])


_HEAD = (("mqmail1", _read_id), ("at", _read_at), ("body", _read_body), ("from", _read_from),
         ("via", _read_via))
_NOBODY = Recipient("", "", "")


def _read_to(words: list[str], base: Recipient, facts: dict[str, str]) -> Recipient:
    """The recipient of a ``to`` line; what *facts* does not give comes from *base*."""
    if len(words) < 4:
        raise ValueError("too few words")
    if not is_destination(words[2]):
        raise ValueError(f"bad destination {words[2][:40]!a}")
    address = _address(xtext.decode(words[3]))
    if not facts:
        return Recipient(words[1], words[2], address, base.notify, base.orcpt, base.sender)
    notify = _notify(facts.pop("notify")) if "notify" in facts else base.notify
    orcpt = facts.pop("orcpt", base.orcpt)
    sender = _sender(facts.pop("sender")) if "sender" in facts else base.sender
    _nothing_left(facts)
    return Recipient(words[1], words[2], address, notify, orcpt, sender)


def _read_later(record: Record, words: list[str]) -> None:
    """A line after ``ok``."""
    word = words[0]
    if word == "to":
        _read_later_to(record, words)
    elif word in ("done", "wait", "fail"):
        _read_verdict(record, words)
    elif word == "told":
        _read_told(record, words)
    else:
        raise ValueError(f"unknown first word {word[:40]!a}")


def _read_later_to(record: Record, words: list[str]) -> None:
    seq = words[1] if len(words) > 1 else ""
    facts = xtext.parse_facts(words[4:])
    state = record.recipients.get(seq)
    if state is not None and state.active:
        return _changeable(record, seq)._readdress(_read_to(words, state.recipient, facts))
    above, _, last = seq.rpartition(".")
    parent = record.recipients.get(above)
    if parent is None or not parent.active or last[:1] == "0":
        raise ValueError(f"unknown recipient {seq[:40]!a}")
    number = _number(last)
    of = "" if parent.kind == "replaced" else facts.pop("of", "")
    if of not in ("", last):
        raise ValueError(f"of={last} expected")
    part = State(_read_to(words, parent.recipient, facts), active=parent.kind == "replaced")
    record._add(part)
    if not part.active:
        parent._gather(part, number, starts=of != "")
    return None


def _read_verdict(record: Record, words: list[str]) -> None:
    """``done``, ``wait`` and ``fail``: SEQ TIME STATUS and facts."""
    if len(words) < 4:
        raise ValueError("too few words")
    kind, seq, time, status = words[:4]
    state = _changeable(record, seq)
    facts = xtext.parse_facts(words[4:])
    if not is_status(status):
        raise ValueError(f"bad status {status[:40]!a}")
    until = _number(facts.pop("until", "")) if kind == "wait" else 0
    state._set(kind, _number(time), status, until, facts.pop("host", ""), facts.pop("said", ""))
    state.tls = facts.pop("tls", "")
    facts.pop("secs", "")
    if kind == "done":
        state.dsn = facts.pop("dsn", "") == "1"
    if kind != "wait":
        state.told = ""
    _nothing_left(facts)


def _read_told(record: Record, words: list[str]) -> None:
    """``told SEQ TIME ACTION``: allowed for replaced ones too, a report on an alias for one."""
    if len(words) < 4 or words[3] not in ACTIONS:
        raise ValueError("told SEQ TIME ACTION expected")
    state = record.recipients.get(words[1])
    if state is None or not state.active:
        raise ValueError(f"unknown recipient {words[1][:40]!a}")
    _number(words[2])
    facts = xtext.parse_facts(words[4:])
    facts.pop("host", "")
    facts.pop("said", "")
    _nothing_left(facts)
    state.told = words[3]
    state.delayed = state.delayed or words[3] == "delayed"


def _changeable(record: Record, seq: str) -> State:
    state = record.recipients.get(seq)
    if state is None or not state.active:
        raise ValueError(f"unknown recipient {seq[:40]!a}")
    if state.kind == "replaced":
        raise ValueError(f"recipient {seq} has been replaced")
    return state


def _address(text: str) -> str:
    return text if text == "postmaster" else parse_address(text)


def _sender(text: str) -> str:
    return "" if text == "<>" else _address(text)


def _notify(text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    if not is_notify(words):
        raise ValueError(f"bad notify {text[:40]!a}")
    return words


def _number(text: str, digits: int = LATEST_DIGITS) -> int:
    if not (text.isdigit() and text.isascii() and len(text) <= digits):
        raise ValueError(f"bad number {text[:40]!a}")
    return int(text)


def _nothing_left(facts: dict[str, str]) -> None:
    for name in facts:
        raise ValueError(f"unknown fact {name[:40]}")
