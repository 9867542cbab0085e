"""Delivery into an mbox, format mboxrd: every line that is ``From `` after any number of ``>`` gets
one ``>`` more, and a blank line ends a message.

Locks: fcntl (lockf), then PATH.lock, in that order, as Debian's policy asks and as mutt, Dovecot,
procmail and liblockfile do. Both are tried without waiting and dropped together, so two orders
never deadlock. Where the directory does not let the user make PATH.lock, fcntl alone must do.
A PATH.lock says who made it: whoever holds the fcntl lock knows that a mq-local of this host that made
one, and would hold both, has been killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from mqmail.base.failure import Temporary
from mqmail.base.files import is_regular, sync_directory, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.local.body import Body

PATIENCE = 30.0
_PAUSE = 0.1
_STALE = 300    # seconds after which nobody holds a PATH.lock any more (liblockfile's figure)
_UNLOCKABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def deliver(path: str, head: bytes, body: Body, patience: float = PATIENCE) -> None:
    """Append a message to mbox *path*, made when it is missing; durable on return.

    *head* starts with the ``From `` line and ends with fields, LF line ends; *patience* is how many
    seconds to wait for the locks. OSError as the system gives it, Temporary for a lock not got;
    the file is then as long as it was.
    """
    fd = _open_locked(path, time.monotonic() + patience)
    try:
        new = _append(fd, head, body)
    finally:
        _remove(path + ".lock")
        os.close(fd)
    if new:
        sync_directory(path.rpartition("/")[0] or ".")


def _open_locked(path: str, deadline: float) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            if not is_regular(os.fstat(fd).st_mode):
                raise Temporary("the mailbox is not a regular file", "4.2.1")
            if _lock(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if time.monotonic() >= deadline:
            raise Temporary("the mailbox is locked by another program", "4.2.1")
        time.sleep(_PAUSE)


def _lock(fd: int, path: str) -> bool:
    """Take both locks at once, or neither."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return _is_still(fd, path) and _dotlock(path + ".lock")


def _is_still(fd: int, path: str) -> bool:
    """Whether nobody replaced the file before it was ours."""
    mine = os.fstat(fd)
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)


def _dotlock(lock: str) -> bool:
    try:
        fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        _remove_stale(lock)
        return False
    except OSError as error:
        if error.errno in _UNLOCKABLE:
            return True
        raise
    try:
        os.write(fd, b"%d\n" % os.getpid() + _mark())
    except BaseException:
        _remove(lock)
        raise
    finally:
        os.close(fd)
    return True


def _mark() -> bytes:
    """The second line of our PATH.lock; other programs read the first."""
    return f"mq-local {os.uname().nodename}\n".encode("utf-8", "surrogateescape")


def _remove_stale(lock: str) -> None:
    """Remove one that nobody holds any more. We hold the fcntl lock."""
    try:
        age = time.time() - os.stat(lock).st_mtime
    except OSError:
        return
    if age > _STALE or _is_ours(lock):
        _remove(lock)


def _is_ours(lock: str) -> bool:
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, 1024).partition(b"\n")[2] == _mark()
    except OSError:
        return False
    finally:
        os.close(fd)


def _remove(lock: str) -> None:
    try:
        os.unlink(lock)
    except OSError:
        pass


def _append(fd: int, head: bytes, body: Body) -> bool:
    """Returns whether the file was empty before."""
    end = os.fstat(fd).st_size
    try:
        write_all(fd, _gap(fd, end) + head)
        for piece in quoted(body.pieces()):
            write_all(fd, piece)
        os.fsync(fd)
    except BaseException:
        os.ftruncate(fd, end)
        raise
    return end == 0


def _gap(fd: int, end: int) -> bytes:
    """What is missing of the blank line before us: a crash may have torn the last message."""
    tail = os.pread(fd, 2, max(0, end - 2))
    if end == 0 or tail == b"\n\n":
        return b""
    return b"\n" if tail[-1:] == b"\n" else b"\n\n"


def quoted(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A message with LF line ends as it stands in an mbox, its last line complete and a blank one
    after it. Pieces may be cut anywhere; four bytes at the most are held back."""
    held, at_start, last = b"", True, b"\n"
    for piece in pieces:
        text, held, at_start = _quote(held + piece, at_start)
        last = text[-1:] or last
        yield text
    last = held[-1:] or last
    yield held + (b"\n" if last == b"\n" else b"\n\n")


def _quote(text: bytes, at_start: bool) -> tuple[bytes, bytes, bool]:
    """(quoted text, what may be the start of ``From ``, whether the last line is only ``>`` so far).
    *at_start* says the same of the line that *text* goes on with."""
    first, *lines = text.split(b"\n")
    done = [_quote_line(first) if at_start else first] + [_quote_line(line) for line in lines]
    last = lines[-1] if lines else first
    rest = last.lstrip(b">")
    if not (at_start or lines) or len(rest) >= 5 or not b"From ".startswith(rest):
        return b"\n".join(done), b"", False
    done[-1] = last[:len(last) - len(rest)]
    return b"\n".join(done), rest, True


def _quote_line(line: bytes) -> bytes:
    return b">" + line if line.lstrip(b">").startswith(b"From ") else line
