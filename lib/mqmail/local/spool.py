"""A message in a file without a name: in memory up to 1 MiB, above that in a directory of the user's,
where the user's quota counts it."""

from __future__ import annotations

import errno
import os
import time

from mqmail.base.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

IN_MEMORY = 1 << 20
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


def spool(pieces: Iterable[bytes], directory: str) -> tuple[int, int]:
    """(descriptor at its start, size) of a file with *pieces*; it vanishes with its last descriptor."""
    fd, size = os.memfd_create("message"), 0
    try:
        for piece in pieces:
            if size <= IN_MEMORY < size + len(piece):
                _move(fd, size, directory)
            write_all(fd, piece)
            size += len(piece)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd, size


def _move(fd: int, size: int, directory: str) -> None:
    """Put *fd*'s *size* bytes into *directory*; *fd* goes on there."""
    file = _nameless(directory)
    try:
        done = 0
        while done < size:
            done += os.sendfile(file, fd, done, size - done)
        os.dup2(file, fd, inheritable=False)
    finally:
        os.close(file)


def _nameless(directory: str) -> int:
    """A new file in *directory* that nobody finds."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:    # NFS cannot do it
            raise
    name = f"{directory}/.mqmail.{os.getpid()}.{time.time_ns()}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(name)
    return fd
