"""Mending what ``check`` has found: new place before old place, durably; nothing is overwritten, and
only what is finished, or has another name, is removed.

The process works in the home, with its owner's rights. All functions raise OSError and then have lost
nothing.
"""

from __future__ import annotations

import errno
import os
import time

from mqmail.base.files import sync_directory
from mqmail.base.xtext import encode
from mqmail.queue import check, look, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mqmail.queue.check import Repair

_MOST = 1000            # things of the same name in queue/bad
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def mend(repair: Repair) -> str:
    """Do it; in words, what was done."""
    return ACTIONS[repair.action](repair) or words(repair)


def words(repair: Repair) -> str:
    """What *repair* does."""
    number = repair.number
    return {"make": "make it",
            "mode": f"set mode {int(number):04o}",
            "own": f"give it to uid {int(number)}",
            "place": f"move to {encode(repair.target)}",
            "aside": f"move to {encode(repair.target)}",
            "drop": "remove this name of it",
            "discard": "remove the copy",
            "cut": f"cut to {int(number)} bytes",
            "due": f"set its time to {int(number)}" if number else "set its time to now",
            "finish": "remove record and body"}[repair.action]


def _make(repair: Repair) -> None:
    os.mkdir(repair.path, paths.DIRECTORY_MODE)
    sync_directory(os.path.dirname(repair.path))


def _mode(repair: Repair) -> None:
    os.chmod(repair.path, int(repair.number))
    _sync(repair.path)


def _own(repair: Repair) -> None:
    """Only root can: see ``give``."""
    raise PermissionError(errno.EPERM, "only root can do this")


def give(path: str, uid: int, gid: int) -> None:
    """As root, in a directory of somebody whom we do not trust: give a file with one name, or a
    directory, to *uid* and *gid*. No link is followed on the way."""
    fd = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for part in path.split("/"):
            inner = os.open(part, os.O_RDONLY | _OPEN, dir_fd=fd)
            os.close(fd)
            fd = inner
        found = os.fstat(fd)
        if found.st_nlink != 1 and not os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EMLINK, "it has other names too")
        os.fchown(fd, uid, gid)
        os.fsync(fd)
    finally:
        os.close(fd)


def _place(repair: Repair) -> None:
    _move(repair.path, repair.target)


def _aside(repair: Repair) -> str:
    """To ``queue/bad``, by another name when that one is taken."""
    for number in range(_MOST):
        target = f"{repair.target}.{number}" if number else repair.target
        try:
            _move(repair.path, target)
        except FileExistsError:
            continue
        return f"move to {encode(target)}"
    raise FileExistsError(errno.EEXIST, f"{_MOST} of this name", repair.target)


def _move(old: str, new: str) -> None:
    """Over nothing. A crash may leave both names; then the next time ends it."""
    try:
        os.link(old, new, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(os.lstat(old), os.lstat(new)):
            raise
    except PermissionError:             # a directory, or a file of others
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, "it exists", new) from None
        os.rename(old, new)
        sync_directory(os.path.dirname(new))
        return sync_directory(os.path.dirname(old))
    sync_directory(os.path.dirname(new))
    return _remove(old)


def _drop(repair: Repair) -> None:
    if not os.path.samestat(os.lstat(repair.path), os.lstat(repair.target)):
        raise OSError(errno.EBUSY, "it is no longer the same file")
    sync_directory(os.path.dirname(repair.target))
    _remove(repair.path)


def _discard(repair: Repair) -> None:
    if not look.is_beginning(repair.path, repair.target):
        raise OSError(errno.EBUSY, f"it is no longer the beginning of {repair.target}")
    _remove(repair.path)


def _cut(repair: Repair) -> None:
    """The file's time stays as it is: in ``wait`` it is the next attempt."""
    fd = os.open(repair.path, os.O_WRONLY | _OPEN)
    try:
        found = os.fstat(fd)
        os.ftruncate(fd, int(repair.number))
        os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.fsync(fd)
    finally:
        os.close(fd)


def _due(repair: Repair) -> None:
    at = repair.number or time.time()
    os.utime(repair.path, (at, at), follow_symlinks=False)
    _sync(repair.path)


def _finish(repair: Repair) -> None:
    """The record first, so that none stands without its body."""
    _remove(repair.path)
    try:
        _remove(check.path_of("mess", os.path.basename(repair.path)))
    except FileNotFoundError:
        pass


def _remove(path: str) -> None:
    os.unlink(path)
    sync_directory(os.path.dirname(path))


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | _OPEN)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


ACTIONS: dict[str, Callable[[Repair], str | None]] = {
    "make": _make, "mode": _mode, "own": _own, "place": _place, "aside": _aside, "drop": _drop,
    "discard": _discard, "cut": _cut, "due": _due, "finish": _finish}
