"""Messages that are in the queue: what mq-send does with them, and it alone.

Functions raise OSError as the system gives it unless they say otherwise.
"""

from __future__ import annotations

import os

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.base.files import is_regular, read_fd_bounded, sync_directory, write_all
from mqmail.queue import paths, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def scan_names(state: str, stat: bool = True) -> Iterator[tuple[str, float]]:
    """(id, mtime in seconds since the epoch; 0 without *stat*) of every record in *state*,
    without opening any. What is no record is logged and left alone; what vanishes is left out."""
    for bucket in paths.BUCKETS:
        for entry in paths.entries(f"queue/{state}/{bucket}"):
            try:
                yield entry.name, entry.stat(follow_symlinks=False).st_mtime if stat else 0.0
            except FileNotFoundError:
                continue


def read(state: str, id: str, limit: int = record.LONGEST) -> bytes:
    """The bytes of a record. BadFile when it is larger than *limit* or no regular file."""
    path = paths.path(state, id)
    fd = os.open(path, _READ)
    try:
        return read_fd_bounded(fd, path, limit)
    finally:
        os.close(fd)


def append(state: str, id: str, good_length: int, lines: bytes, sync: bool) -> int:
    """Write *lines* after the record's *good_length* bytes (a torn last line is cut), with fsync if
    *sync*. Returns the new length. When it raises, the lines are not there."""
    path = paths.path(state, id)
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
    old, new = paths.path(source, id), paths.path(target, id)
    try:
        os.rename(old, new)
    except FileNotFoundError:
        paths.make_parent(new)
        os.rename(old, new)
    if sync:
        sync_directory(os.path.dirname(new))
        sync_directory(os.path.dirname(old))


def set_due(state: str, id: str, time: float) -> None:
    """Note when the next attempt is due (seconds since the epoch): the record's mtime."""
    os.utime(paths.path(state, id), (time, time), follow_symlinks=False)


def take_over(id: str, state: str, due: float) -> None:
    """For a record whose time we cannot set, because it is another account's: put a copy that is ours,
    due at *due*, into ``wait``, durably, and remove it where it was. A crash may leave it in both."""
    target = paths.path("wait", id)
    copy = target + paths.COPY
    data = read(state, id)
    paths.discard(copy)
    try:
        fd = paths.create(copy, paths.RECORD_MODE)
        try:
            write_all(fd, data)
            os.utime(fd, (due, due))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(copy, target)
    except OSError:
        paths.discard(copy)
        raise
    sync_directory(os.path.dirname(target))
    if state != "wait":
        os.unlink(paths.path(state, id))


def is_taken_over(id: str) -> bool:
    """Whether ``wait`` has a copy of a record in ``new``. It counts, and the other is removed, once the
    copy is sure to stay."""
    path = paths.path("wait", id)
    if not os.path.lexists(path):
        return False
    sync_directory(os.path.dirname(path))
    paths.discard(paths.path("new", id))
    return True


def open_body(id: str, size: int | None = None) -> int:
    """A descriptor to read the body. BadFile when it is no regular file or not *size* bytes long."""
    path = paths.path("mess", id)
    fd = os.open(path, _READ)
    found = os.fstat(fd)
    if not is_regular(found.st_mode) or size not in (None, found.st_size):
        os.close(fd)
        raise BadFile(f"{path}: not a file of {size} bytes")
    return fd


def remove(state: str, id: str) -> None:
    """Remove a message that is finished: the record first, so that no record stands without its body.
    A body that is missing or cannot be removed is logged."""
    os.unlink(paths.path(state, id))
    path = paths.path("mess", id)
    try:
        os.unlink(path)
    except OSError as error:
        log.event("queue_body_not_removed", id=id, path=path, error=error.strerror)


def set_aside(state: str, id: str) -> str:
    """Move a record that cannot be read to ``queue/bad/``, durably and over no other; its body stays.
    Returns the new path."""
    old = paths.path(state, id)
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


def is_set_aside(id: str) -> bool:
    """Whether ``queue/bad`` has a record of *id*: mq-send's, or one that mq-fsck found in a state."""
    names = (id, *[f"{id}.{state}" for state in paths.STATES])
    return any(os.path.lexists(f"queue/bad/{name}") for name in names)
