"""What is wrong with a queue: facts in, findings out. Pure; ``look`` gathers facts, ``repair`` mends.

Nothing that was not understood is ever removed: it goes to ``queue/bad``. A message in flight is no
problem: what mq-queue is writing is young, and all else is looked at twice before it counts.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.queue import ids
from mqmail.queue import record as records
from mqmail.queue.record import BadRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.queue.record import Record, State

STATES = ("new", "wait", "hold")    # in the order a record gets there
PLACES = ("mess", *STATES)
FILE, DIRECTORY, SYMLINK, SPECIAL = "file", "directory", "symlink", "special"
FILE_MODE, DIRECTORY_MODE = 0o640, 0o750
STALE = 36 * 3600.0         # seconds after which mq-send removes what nobody acknowledged,
_SLACK = 2 * 3600.0         # and within which it has done so
_DAY = 86400.0
_LONGEST_TORN = 65536       # octets: more is no line of ours
_SHOWN = 60                 # characters of a torn line
_LONGEST_NAME = 180         # octets of a name in queue/bad


@value
class Seen:
    """A name, as lstat(2) has it. *path*: below the home; *mode*: permission bits; *mtime*: seconds
    since the epoch; *identity*: device and inode."""

    path: str
    form: str
    uid: int
    mode: int
    size: int
    mtime: float
    identity: tuple[int, int]


@value
class Text:
    """What a record's file says. *error*: why it is not understood; *unread*: it could not even be read;
    *size*: of the body; *length*: octets of whole lines; *torn*: the beginning of what is behind them;
    *settled*: nothing is left to do; *until*: the next attempt, seconds since the epoch, 0 at once."""

    id: str = ""
    error: str = ""
    unread: bool = False
    complete: bool = False
    size: int = 0
    length: int = 0
    torn: str = ""
    settled: bool = False
    until: float = 0.0


@value
class Entry:
    """A file or whatever is there, with its *text* where records are. *home*: where it belongs, if that
    is elsewhere, free, and (for a record) the body is there; else "". *original*, of a copy that mq-send
    began in ``wait``: the record that it is the beginning of, "" when there is none; None: no copy."""

    seen: Seen
    text: Text | None = None
    home: str = ""
    original: str | None = None


@value
class Message:
    """What has the name *id* in the directories it belongs in. *aside*: queue/bad has a record of it;
    *blind*: not all of these directories can be looked into."""

    id: str
    records: tuple[Entry, ...]
    body: Entry | None
    aside: bool
    blind: bool


@value
class Folder:
    """A directory of the queue; *seen* None: it is not there. *error*: why it cannot be read."""

    path: str
    seen: Seen | None
    error: str = ""


@value
class Setting:
    """*now*: seconds since the epoch; *running*: mq-queue or mq-send runs; *uid*: the owner of the home,
    -1 when it is none's business whom things belong to; *lifetime*: control/queuelifetime, seconds."""

    now: float
    running: bool
    uid: int
    lifetime: float


@value
class Repair:
    """*action* is a key of ``repair.ACTIONS``. *alone*: only while mq-send does not run; *gentle*: takes
    nothing out of the queue, and comes before all that does."""

    action: str
    path: str
    target: str = ""
    number: float = 0.0
    alone: bool = False
    gentle: bool = False


@value
class Finding:
    """A problem: *kind* is one word, *text* says more. *repair*: None when a person has to decide."""

    path: str
    kind: str
    text: str
    repair: Repair | None


def path_of(place: str, id: str) -> str:
    """Where a message's body (*place* "mess") or record belongs. *id* must be one."""
    return f"queue/{place}/{ids.directory(id)}/{id}"


def aside_name(path: str) -> str:
    """What *path* is called in ``queue/bad``: ``ID.wait`` for a record or body (``ID.mess``) wherever it
    was, so that store knows whose it is; else the path with dots, and at most 180 octets of it."""
    words = path.split("/")[1:]
    if len(words) > 1 and words[0] in PLACES and ids.is_id(words[-1]):
        return f"{words[-1]}.{words[0]}"
    name = ".".join(words if len(words) > 1 else ["queue", *words])
    return name.encode("utf-8", "surrogateescape")[:_LONGEST_NAME].decode("utf-8", "surrogateescape")


def understand(data: bytes) -> Text:
    """What a record says, or why it cannot be understood."""
    try:
        record = records.parse(data)
    except BadRecord as error:
        return Text(error=f"line {error.line}: {error.what}")
    tail = data[record.good_length:]
    if len(tail) > _LONGEST_TORN:
        return Text(error=f"{len(tail)} bytes behind the last whole line")
    torn = tail[:_SHOWN].decode("utf-8", "replace")
    envelope = record.envelope
    if envelope is None:
        return Text(length=record.good_length, torn=torn)
    return Text(id=envelope.id, complete=True, size=envelope.size, length=record.good_length, torn=torn,
                settled=all([is_settled(state) for state in record.all()]), until=_until(record))


def is_settled(state: State) -> bool:
    """Whether it is certain that nothing is left to do for this recipient, nor to tell. mq-send may know
    so of others too."""
    if state.kind not in ("done", "fail", "replaced"):
        return False
    notify = state.recipient.notify
    if state.told:
        return True
    if state.kind == "fail":
        return bool(notify) and "failure" not in notify
    return "success" not in notify


def _until(record: Record) -> float:
    """The first attempt that any recipient waits for; 0 when one waits for none."""
    return float(min([s.until if s.kind == "wait" else 0 for s in record.current()
                      if not is_settled(s)], default=0))


# --- judging ---

def judge(facts: Message | Entry | Folder, setting: Setting) -> list[Finding]:
    """Everything that is wrong with *facts*. An Entry is one that is not where it belongs."""
    if isinstance(facts, Message):
        return _message(facts, setting)
    if isinstance(facts, Folder):
        return _folder(facts, setting)
    return _stray(facts, setting)


def _folder(folder: Folder, setting: Setting) -> list[Finding]:
    path, seen = folder.path, folder.seen
    if seen is None:
        return [Finding(path, "missing", "a directory that is not there",
                        Repair("make", path, gentle=True))]
    if seen.form == SYMLINK:
        return [Finding(path, "symlink", "a symbolic link instead of a directory: not followed", None)]
    if seen.form != DIRECTORY:
        able = path != "queue/bad"
        return [Finding(path, "foreign", f"a {seen.form} instead of a directory",
                        _aside(path) if able else None)]
    found = _rights(seen, setting)
    if folder.error and not found:
        found.append(Finding(path, "unreadable", folder.error, None))
    return found


def _rights(seen: Seen, setting: Setting) -> list[Finding]:
    """Owner and mode of what is ours."""
    found: list[Finding] = []
    path = seen.path
    if setting.uid < 0:
        return found
    if seen.uid != setting.uid:
        found.append(Finding(path, "owner", f"belongs to uid {seen.uid}",
                             Repair("own", path, number=setting.uid, gentle=True)))
    if seen.form == DIRECTORY:
        good, right = seen.mode & 0o727 == 0o700, DIRECTORY_MODE
    else:
        good, right = seen.mode & 0o7737 == 0o600, FILE_MODE
    if not good:
        found.append(Finding(path, "mode", f"has mode {seen.mode:04o}",
                             Repair("mode", path, number=right, gentle=True)))
    return found


def _stray(entry: Entry, setting: Setting) -> list[Finding]:
    seen = entry.seen
    if seen.form != FILE:
        return [_odd(entry)]
    if entry.original is not None and _is_in_flight(seen, setting):
        return []
    if entry.original:
        return [Finding(seen.path, "leftover", f"a copy of {entry.original} that mq-send began",
                        Repair("discard", seen.path, entry.original, alone=True))]
    return [_stray_file(entry)]


def _stray_file(entry: Entry) -> Finding:
    seen, text = entry.seen, entry.text
    if entry.home:
        return Finding(seen.path, "misplaced", "belongs elsewhere",
                       Repair("place", seen.path, entry.home, alone=text is not None, gentle=True))
    if ids.is_id(seen.path.rpartition("/")[2]) or text is not None and text.complete:
        return Finding(seen.path, "misplaced", "belongs elsewhere, where there is no place for it",
                       _aside(seen.path))
    return Finding(seen.path, "foreign", f"a file of {seen.size} bytes that is not ours",
                   _aside(seen.path))


def _odd(entry: Entry) -> Finding:
    """What is no regular file."""
    form, path = entry.seen.form, entry.seen.path
    text = "a directory that is not ours" if form == DIRECTORY else f"a {form}, no regular file"
    return Finding(path, "foreign" if form == DIRECTORY else form, text, _aside(path))


def _message(message: Message, setting: Setting) -> list[Finding]:
    everything = [*message.records, *([message.body] if message.body else [])]
    odd = [_odd(entry) for entry in everything if entry.seen.form != FILE]
    if odd:
        return odd              # the rest when these are gone
    found = [one for entry in everything for one in _rights(entry.seen, setting)]
    if not message.records:
        return found + _body_alone(message, setting)
    kept = max(message.records, key=_rank)
    for entry in message.records:
        if entry is not kept:
            found.append(_twice(entry.seen, kept.seen))
    return found + _record(message, kept, setting)


def _rank(entry: Entry) -> tuple[bool, int, int]:
    """Of several records of a message the one to keep: the last in time, for they only grow."""
    text = entry.text or Text()
    good = text.complete and text.id == entry.seen.path.rpartition("/")[2]
    return good, text.length, STATES.index(_place(entry.seen.path))


def _twice(seen: Seen, kept: Seen) -> Finding:
    if seen.identity == kept.identity:
        return Finding(seen.path, "twice", f"the same file as {kept.path}",
                       Repair("drop", seen.path, kept.path, alone=True, gentle=True))
    return Finding(seen.path, "twice", f"another record of the message in {kept.path}",
                   _aside(seen.path, alone=True))


def _body_alone(message: Message, setting: Setting) -> list[Finding]:
    body = message.body
    if body is None or message.aside or message.blind or _is_in_flight(body.seen, setting):
        return []
    return [Finding(body.seen.path, "no-record", f"a body of {body.seen.size} bytes without a record",
                    _aside(body.seen.path, alone=True))]


def _is_in_flight(seen: Seen, setting: Setting) -> bool:
    """Whether somebody may be at work on it, or mq-send will see to it."""
    return setting.running and abs(setting.now - seen.mtime) < STALE + _SLACK


def _record(message: Message, entry: Entry, setting: Setting) -> list[Finding]:
    seen, text = entry.seen, entry.text or Text()
    path = seen.path
    if text.unread:
        return [] if _rights(seen, setting) else [Finding(path, "unreadable", text.error, None)]
    if text.error:
        return [_set_aside(path, "bad", text.error)]
    if not text.complete:
        if _place(path) == "new" and _is_in_flight(seen, setting):
            return []
        what = "no ok line" if seen.size else "empty"
        return [_set_aside(path, "incomplete", f"{what}: was never acknowledged, or is damaged")]
    if text.id != message.id:
        return [_misnamed(entry, text)]
    torn = [_torn(path, text)] if text.torn else []
    return torn + (_finished(path, text) or _without_body(message, path, text)
                   or _time(seen, text, setting))


def _misnamed(entry: Entry, text: Text) -> Finding:
    path = entry.seen.path
    if entry.home:
        return Finding(path, "misnamed", f"is the record of {text.id}",
                       Repair("place", path, entry.home, alone=True, gentle=True))
    return _set_aside(path, "misnamed", f"says it is the record of {text.id}")


def _finished(path: str, text: Text) -> list[Finding]:
    if not text.settled:
        return []
    return [Finding(path, "finished", "nothing is left to do",
                    Repair("finish", path, alone=True))]


def _without_body(message: Message, path: str, text: Text) -> list[Finding]:
    if message.body is not None and message.body.seen.size != text.size:
        return [_set_aside(path, "size", f"the body has {message.body.seen.size} bytes,"
                                         f" the record says {text.size}")]
    if message.body is None and not message.blind:
        return [_set_aside(path, "no-body", "a record without a body")]
    return []


def _torn(path: str, text: Text) -> Finding:
    return Finding(path, "torn", f"the last line has no end: {text.torn!a}",
                   Repair("cut", path, number=text.length, alone=True))


def _time(seen: Seen, text: Text, setting: Setting) -> list[Finding]:
    """The next attempt, which is the file's time in ``wait``."""
    latest = setting.now + max(setting.lifetime, _DAY)
    if _place(seen.path) != "wait" or 0 < seen.mtime <= latest:
        return []
    what = "in the far future" if seen.mtime > 0 else "the beginning of time"
    until = text.until if text.until <= latest else 0.0
    return [Finding(seen.path, "time", f"the next attempt is {what}",
                    Repair("due", seen.path, number=until, alone=True))]


def _set_aside(path: str, kind: str, text: str) -> Finding:
    return Finding(path, kind, text, _aside(path, alone=True))


def _aside(path: str, alone: bool = False) -> Repair:
    return Repair("aside", path, f"queue/bad/{aside_name(path)}", alone=alone)


def _place(path: str) -> str:
    return path.split("/")[1]
