"""Gathering the facts of a whole queue for ``check``. Changes nothing, takes no locks, follows no links.

Records are looked for before bodies and in the order they move, so a message in flight is seen in two
places or without its record at the worst, never the other way about; a second look tells.
"""

from __future__ import annotations

import os
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_IMODE

from mqmail.base.failure import BadFile
from mqmail.base.files import read_fd_bounded
from mqmail.queue import check, ids, paths, record, store
from mqmail.queue.check import Entry, Folder, Message, Seen, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Facts = Message | Entry | Folder

BUCKETS = tuple([f"{n:02x}" for n in range(256)])
BAD = "queue/bad"
_TOP = frozenset((*check.PLACES, "bad"))
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FORMS = {S_IFREG: check.FILE, S_IFDIR: check.DIRECTORY, S_IFLNK: check.SYMLINK}


class Look:
    """A look through the queue of the home, which is the current directory. *done* counts the buckets
    of ``walk`` so far, up to len(BUCKETS); *messages* the messages."""

    def __init__(self) -> None:
        self.done = 0
        self.messages = 0
        self._closed: set[str] = set()      # directories that cannot be looked into

    def walk(self) -> Iterator[Facts]:
        """Everything there is, and the directories that are not there."""
        self.done = self.messages = 0
        self._closed.clear()
        yield from self._top()
        for bucket in BUCKETS:
            yield from self._bucket(bucket)
            self.done += 1

    def again(self, facts: Facts) -> Facts | None:
        """The same thing, as it is now; None when it is gone."""
        if isinstance(facts, Message):
            return self.message(facts.id)
        if isinstance(facts, Folder):
            return self._folder(facts.path)[0]
        return self.stray(facts.seen.path)

    def message(self, id: str) -> Message:
        """What has this name where it belongs."""
        bucket, blind, found = ids.directory(id), False, []
        for place in (*check.STATES, "mess"):
            if self._is_closed(place, bucket):
                blind = True
                continue
            try:
                found.append((place, self._entry(f"queue/{place}/{bucket}/{id}", place)))
            except OSError:
                blind = True
        entries = [entry for place, entry in found if entry and place != "mess"]
        body = found[-1][1] if found and found[-1][0] == "mess" else None
        aside = body is not None and not entries and store.is_set_aside(id)
        return Message(id, tuple(entries), body, aside, blind)

    def stray(self, path: str) -> Entry | None:
        """Something that is not where it belongs; None when it is gone."""
        place = path.split("/")[1]
        try:
            return self._entry(path, place if path.count("/") > 1 else "")
        except OSError:
            return None

    def _top(self) -> Iterator[Facts]:
        """``queue``, the places in it, and what else lies there."""
        seen = see("queue")
        if seen is not None and seen.form == check.DIRECTORY:   # it may be a link to another disk
            yield Folder("queue", seen)
        names = [name for name in os.listdir("queue") if name not in _TOP]
        for name in names:
            if name != "lost+found":
                yield from self._strays(f"queue/{name}")
        yield self._folder(BAD)[0]
        for place in check.PLACES:
            folder, names = self._folder(f"queue/{place}")
            yield folder
            for name in names:
                if name not in BUCKETS:
                    yield from self._strays(f"queue/{place}/{name}")

    def _bucket(self, bucket: str) -> Iterator[Facts]:
        """What is in ``XX`` of all places. Records first: what comes meanwhile is a body without one."""
        known: set[str] = set()
        for place in (*check.STATES, "mess"):
            if f"queue/{place}" in self._closed:
                continue
            path = f"queue/{place}/{bucket}"
            folder, names = self._folder(path)
            yield folder
            for name in names:
                if ids.is_id(name) and ids.directory(name) == bucket:
                    known.add(name)
                else:
                    yield from self._strays(f"{path}/{name}")
        for id in sorted(known):
            self.messages += 1
            yield self.message(id)

    def _folder(self, path: str) -> tuple[Folder, list[str]]:
        """A directory, and the names in it."""
        self._closed.discard(path)
        seen = see(path)
        if seen is None or seen.form != check.DIRECTORY:
            if seen is not None or path.count("/") == 1:    # a bucket that is missing is empty
                self._closed.add(path)
            return Folder(path, seen), []
        try:
            return Folder(path, _steady(seen)), os.listdir(path)
        except OSError as error:
            self._closed.add(path)
            return Folder(path, _steady(seen), error.strerror or str(error)), []

    def _is_closed(self, place: str, bucket: str) -> bool:
        return f"queue/{place}" in self._closed or f"queue/{place}/{bucket}" in self._closed

    def _strays(self, path: str) -> Iterator[Facts]:
        entry = self.stray(path)
        if entry is not None:
            yield entry

    def _entry(self, path: str, place: str) -> Entry | None:
        """OSError when its directory does not let us see it."""
        seen = see(path)
        if seen is None:
            return None
        if seen.form != check.FILE:
            return Entry(seen)
        if place == "mess":
            return Entry(seen, None, self._home_of_body(path))
        if place not in check.STATES:
            return Entry(seen)
        text = read(path)
        if text is None:
            return None
        original = original_of(path) if path.endswith(paths.COPY) and place == "wait" else None
        return Entry(seen, text, self._home_of_record(place, path, text), original)

    def _home_of_body(self, path: str) -> str:
        name = path.rpartition("/")[2]
        if not ids.is_id(name):
            return ""
        home = check.path_of("mess", name)
        is_free = home != path and self._is_open("mess", name) and not os.path.lexists(home)
        return home if is_free else ""

    def _home_of_record(self, place: str, path: str, text: Text) -> str:
        if not text.complete:
            return ""
        home = check.path_of(place, text.id)
        if home == path or not all([self._is_open(p, text.id) for p in check.PLACES]):
            return ""
        if any([os.path.lexists(check.path_of(state, text.id)) for state in check.STATES]):
            return ""
        body = see(check.path_of("mess", text.id))
        return home if body and body.form == check.FILE and body.size == text.size else ""

    def _is_open(self, place: str, id: str) -> bool:
        """Whether we may look for *id* there: the walk may not have come to this directory yet."""
        if f"queue/{place}" in self._closed:
            return False
        seen = see(f"queue/{place}/{ids.directory(id)}")
        return seen is None or seen.form == check.DIRECTORY


def see(path: str) -> Seen | None:
    """What is at *path*; None: nothing. OSError when it cannot be known."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    form = _FORMS.get(S_IFMT(found.st_mode), check.SPECIAL)
    return Seen(path, form, found.st_uid, S_IMODE(found.st_mode), found.st_size, found.st_mtime,
                (found.st_dev, found.st_ino))


def original_of(path: str) -> str | None:
    """The record that the copy at *path* (``wait/XX/ID.copy``) is the beginning of, or all of; "" when
    there is none; None when this is the name of no copy."""
    id = path.rpartition("/")[2].removesuffix(paths.COPY)
    if not ids.is_id(id) or path != check.path_of("wait", id) + paths.COPY:
        return None
    for state in check.STATES:
        original = check.path_of(state, id)
        if is_beginning(path, original):
            return original
    return ""


def is_beginning(path: str, original: str) -> bool:
    """Whether all that is in the file *path* is at the beginning of *original* too."""
    try:
        with open(os.open(path, _READ), "rb") as short, open(os.open(original, _READ), "rb") as long:
            data = read_fd_bounded(short.fileno(), path, record.LONGEST)
            return read_fd_bounded(long.fileno(), original, record.LONGEST).startswith(data)
    except (OSError, BadFile):
        return False


def _steady(seen: Seen) -> Seen:
    """Without what changes in a directory whenever files come and go."""
    return Seen(seen.path, seen.form, seen.uid, seen.mode, 0, 0.0, seen.identity)


def read(path: str) -> Text | None:
    """What a record's file says; None when it is gone."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Text(error=error.strerror or str(error), unread=True)
    try:
        return check.understand(read_fd_bounded(fd, path, record.LONGEST))
    except BadFile as error:
        return Text(error=error.text.removeprefix(f"{path}: "))
    except OSError as error:
        return Text(error=error.strerror or str(error), unread=True)
    finally:
        os.close(fd)
