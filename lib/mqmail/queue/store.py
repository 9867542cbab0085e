"""The queue's files: the only code that knows the paths below ``queue/``.

Paths are relative: the process works in the home. mq-queue creates (Incoming, commit), mq-send does all
the rest and is alone in it. Functions raise OSError as the system gives it unless they say otherwise.
"""

from __future__ import annotations

import os

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.base.files import is_regular, read_fd_bounded, sync_directory, write_all
from mqmail.queue import ids, record
from mqmail.queue.together import at_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATES = ("new", "wait", "hold")   # where a record can be, in the order it gets there
BODY_MODE, RECORD_MODE, DIRECTORY_MODE = 0o640, 0o660, 0o770    # less the umask: a home's owner has
                                   # all to himself, in a system home mq-send is of mq-queue's group
STALE = 36 * 3600.0                # seconds after which what nobody acknowledged is removed
COPY = ".copy"                     # ends the name of a record in wait that take_over has not completed

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_BUCKETS = tuple([f"{n:02x}" for n in range(256)])


def _path(place: str, id: str) -> str:
    """The path of a message's body (*place* "mess") or record. ValueError when *id* is none."""
    if not ids.is_id(id):
        raise ValueError(f"no queue id: {id[:40]!a}")
    return f"queue/{place}/{ids.directory(id)}/{id}"


def _create(path: str, mode: int) -> int:
    """Create *path*, which must not exist; its directory is made when it is missing."""
    try:
        return os.open(path, _CREATE, mode)
    except FileNotFoundError:
        _make_parent(path)
        return os.open(path, _CREATE, mode)


def _make_parent(path: str) -> None:
    """Make the directory of *path*, durably. Another process may be doing the same."""
    directory = os.path.dirname(path)
    try:
        os.mkdir(directory, DIRECTORY_MODE)
    except FileExistsError:
        pass
    sync_directory(os.path.dirname(directory))


class Incoming:
    """A message on its way in. ``begin`` it, ``write`` its body, then ``commit`` it or ``abort``."""

    __slots__ = ("_fd", "_made", "id", "size")

    def __init__(self, id: str) -> None:
        self._fd = _create(_path("mess", id), BODY_MODE)
        self._made = [_path("mess", id)]
        self.id = id
        self.size = 0

    @classmethod
    def begin(cls, microseconds: int, process: int) -> Incoming:
        """Create the body file, of a later microsecond's id when that one is taken."""
        for later in range(1000):
            try:
                return cls(ids.make(microseconds + later, process))
            except FileExistsError:
                continue
        raise FileExistsError(f"no free queue id from {microseconds} on")

    def write(self, data: bytes) -> None:
        """Add to the body."""
        write_all(self._fd, data)
        self.size += len(data)

    def abort(self) -> None:
        """Leave nothing behind: no record, then no body. Never raises; does nothing once committed."""
        _attempt(self._close)
        while self._made:
            _discard(self._made.pop())

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _sync_body(self) -> None:
        os.fsync(self._fd)
        if os.fstat(self._fd).st_nlink == 0:
            raise FileNotFoundError(f"the body of {self.id} has been removed")
        self._close()

    def _write_record(self, data: bytes) -> None:
        path = _path("new", self.id)
        self._fd = _create(path, RECORD_MODE)
        self._made.append(path)
        write_all(self._fd, data)

    def _sync_record(self) -> None:
        os.fsync(self._fd)
        self._close()

    def _keep(self) -> None:
        self._made.clear()


def commit(batch: list[tuple[Incoming, bytes]]) -> dict[Incoming, OSError | None]:
    """Make messages durable, each with its record (``lines.head``), and say of each how it went.

    A record is written after its body and the body's name are durable, so a record with ``ok`` never
    stands without its body. Directories are synced once for all, and all syncs of a step at the same
    time. What fails leaves nothing behind, and a failed fsync is never tried again: the kernel may have
    dropped the data and say nothing the next time.
    """
    results: dict[Incoming, OSError | None] = dict.fromkeys([message for message, _ in batch])
    _sync(results, Incoming._sync_body, "mess")
    for message, data in batch:
        if results[message] is None:
            results[message] = _attempt(message._write_record, data)
    _sync(results, Incoming._sync_record, "new")
    for message, error in results.items():
        if error is None:
            message._keep()
        else:
            message.abort()
    return results


def _attempt(step: Callable[..., None], *args: object) -> OSError | None:
    try:
        step(*args)
    except OSError as error:
        return error
    return None


def _sync(results: dict[Incoming, OSError | None], step: Callable[[Incoming], None], place: str) -> None:
    """Take *step* for all good messages and sync their directories below *place*; a directory that
    fails fails all messages in it."""
    groups: dict[str, list[Incoming]] = {}
    for message, error in results.items():
        if error is None:
            groups.setdefault(f"queue/{place}/{ids.directory(message.id)}", []).append(message)
    messages = [message for group in groups.values() for message in group]
    steps = [(step, message) for message in messages] + [(sync_directory, path) for path in groups]
    outcomes = at_once(steps)
    for directory, failed in zip(groups, outcomes[len(messages):], strict=True):
        if failed is not None:
            results.update(dict.fromkeys(groups[directory], failed))
    for message, failed in zip(messages, outcomes, strict=False):
        results[message] = results[message] or failed


def _discard(path: str) -> None:
    """Unlink what may not be there; what cannot be unlinked is logged and left to remove_orphans."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.event("queue_left_behind", path=path, error=error.strerror)


def space(path: str = "queue") -> tuple[int, int]:
    """(bytes, inodes) that are free for us on the queue's file system."""
    free = os.statvfs(path)
    return free.f_bavail * free.f_frsize, free.f_favail


def scan_names(state: str, stat: bool = True) -> Iterator[tuple[str, float]]:
    """(id, mtime in seconds since the epoch; 0 without *stat*) of every record in *state*,
    without opening any. What is no record is logged and left alone; what vanishes is left out."""
    for bucket in _BUCKETS:
        for entry in _entries(f"queue/{state}/{bucket}"):
            try:
                yield entry.name, entry.stat(follow_symlinks=False).st_mtime if stat else 0.0
            except FileNotFoundError:
                continue


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    """The regular files in a bucket whose names are ids that belong there."""
    bucket = directory[-2:]
    try:
        found = os.scandir(directory)
    except FileNotFoundError:
        return
    with found:
        for entry in found:
            name = entry.name
            ours = ids.is_id(name) and ids.directory(name) == bucket
            if ours and entry.is_file(follow_symlinks=False):
                yield entry
            elif not name.endswith(COPY):
                log.event("queue_odd_file", path=f"{directory}/{name}")


def read(state: str, id: str, limit: int = record.LONGEST) -> bytes:
    """The bytes of a record. BadFile when it is larger than *limit* or no regular file."""
    path = _path(state, id)
    fd = os.open(path, _READ)
    try:
        return read_fd_bounded(fd, path, limit)
    finally:
        os.close(fd)


def append(state: str, id: str, good_length: int, lines: bytes, sync: bool) -> int:
    """Write *lines* after the record's *good_length* bytes (a torn last line is cut), with fsync if
    *sync*. Returns the new length. When it raises, the lines are not there."""
    path = _path(state, id)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        if size < good_length:
            raise BadFile(f"{path}: {size} bytes, but had {good_length}")
        if size > good_length:
            os.ftruncate(fd, good_length)
        os.lseek(fd, good_length, os.SEEK_SET)
        try:
            write_all(fd, lines)
            if sync:
                os.fsync(fd)
        except OSError:
            os.ftruncate(fd, good_length)
            raise
    finally:
        os.close(fd)
    return good_length + len(lines)


def move(id: str, source: str, target: str, sync: bool = False) -> None:
    """Rename a record from one state to another; durable on return if *sync*."""
    old, new = _path(source, id), _path(target, id)
    try:
        os.rename(old, new)
    except FileNotFoundError:
        _make_parent(new)
        os.rename(old, new)
    if sync:
        sync_directory(os.path.dirname(new))
        sync_directory(os.path.dirname(old))


def set_due(state: str, id: str, time: float) -> None:
    """Note when the next attempt is due (seconds since the epoch): the record's mtime."""
    os.utime(_path(state, id), (time, time), follow_symlinks=False)


def take_over(id: str, state: str, due: float) -> None:
    """For a record whose time we cannot set, because it is another account's: put a copy that is ours,
    due at *due*, into ``wait``, durably, and remove it where it was. A crash may leave it in both."""
    target = _path("wait", id)
    copy = target + COPY
    data = read(state, id)
    _discard(copy)
    try:
        fd = _create(copy, RECORD_MODE)
        try:
            write_all(fd, data)
            os.utime(fd, (due, due))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(copy, target)
    except OSError:
        _discard(copy)
        raise
    sync_directory(os.path.dirname(target))
    if state != "wait":
        os.unlink(_path(state, id))


def is_taken_over(id: str) -> bool:
    """Whether ``wait`` has a copy of a record in ``new``. It counts, and the other is removed, once the
    copy is sure to stay."""
    path = _path("wait", id)
    if not os.path.lexists(path):
        return False
    sync_directory(os.path.dirname(path))
    _discard(_path("new", id))
    return True


def open_body(id: str, size: int | None = None) -> int:
    """A descriptor to read the body. BadFile when it is no regular file or not *size* bytes long."""
    path = _path("mess", id)
    fd = os.open(path, _READ)
    found = os.fstat(fd)
    if not is_regular(found.st_mode) or size not in (None, found.st_size):
        os.close(fd)
        raise BadFile(f"{path}: not a file of {size} bytes")
    return fd


def remove(state: str, id: str) -> None:
    """Remove a message that is finished: the record first, so that no record stands without its body.
    A body that is missing or cannot be removed is logged."""
    os.unlink(_path(state, id))
    path = _path("mess", id)
    try:
        os.unlink(path)
    except OSError as error:
        log.event("queue_body_not_removed", id=id, path=path, error=error.strerror)


def set_aside(state: str, id: str) -> str:
    """Move a record that cannot be read to ``queue/bad/``, durably and over no other; its body stays.
    Returns the new path."""
    old = _path(state, id)
    for number in range(1000):
        new = f"queue/bad/{id}.{number}" if number else f"queue/bad/{id}"
        try:
            os.link(old, new, follow_symlinks=False)
            break
        except FileExistsError:
            continue
    else:
        raise FileExistsError(f"queue/bad/{id}: too many of them")
    sync_directory("queue/bad")
    os.unlink(old)
    return new


def remove_orphans(now: float, age: float = STALE) -> Iterator[str]:
    """Remove what was never acknowledged and is older than *age* seconds (its writer may live until
    then): records without ``ok``, and bodies that no record, not even a bad one, belongs to. A generator
    of small steps, so that others get their turn; each yields the path it removed or ""."""
    for bucket in _BUCKETS:
        for name in _older(f"queue/new/{bucket}", now - age):
            yield _remove_unacknowledged(name)
        for name in _older(f"queue/mess/{bucket}", now - age):
            yield "" if _has_record(name) else _remove_logged(_path("mess", name))
        for path in _copies(f"queue/wait/{bucket}", now - age):
            yield _remove_logged(path)
        yield ""


def _older(directory: str, before: float) -> list[str]:
    names = []
    for entry in _entries(directory):
        try:
            if entry.stat(follow_symlinks=False).st_mtime < before:
                names.append(entry.name)
        except FileNotFoundError:
            continue
    return names


def _copies(directory: str, before: float) -> list[str]:
    """What take_over left when it was killed; a complete one has the time of the next attempt."""
    try:
        found = [f"{directory}/{name}" for name in os.listdir(directory) if name.endswith(COPY)]
    except FileNotFoundError:
        return []
    return [path for path in found if os.lstat(path).st_mtime < before]


def _remove_unacknowledged(id: str) -> str:
    try:
        if record.parse(read("new", id)).complete:
            return ""
    except (OSError, BadFile):
        return ""
    return _remove_logged(_path("new", id))


def _has_record(id: str) -> bool:
    return any(os.path.lexists(_path(s, id)) for s in STATES) or is_set_aside(id)


def is_set_aside(id: str) -> bool:
    """Whether ``queue/bad`` has a record of *id*: mq-send's, or one that mq-fsck found in a state."""
    return any(os.path.lexists(f"queue/bad/{name}") for name in (id, *[f"{id}.{s}" for s in STATES]))


def _remove_logged(path: str) -> str:
    _discard(path)
    log.event("queue_orphan_removed", path=path)
    return path


def make_directories(home: str) -> None:
    """Make what is missing of the queue's directories below *home*, durably."""
    directories = [f"{home}/queue", f"{home}/queue/bad"]
    for place in ("mess", *STATES):
        directories.append(f"{home}/queue/{place}")
        directories += [f"{home}/queue/{place}/{bucket}" for bucket in _BUCKETS]
    for directory in directories:
        try:
            os.mkdir(directory, DIRECTORY_MODE)
        except FileExistsError:
            continue
    for parent in ("queue/mess", *[f"queue/{state}" for state in STATES], "queue", ""):
        sync_directory(f"{home}/{parent}")
