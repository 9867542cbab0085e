"""Files, safely: bounded reads, full writes, and what makes a name durable."""

from __future__ import annotations

import os

from mqmail.base.failure import BadFile


def write_all(fd: int, data: bytes) -> None:
    """Write all of *data*: one write(2) may be short (disk full, RLIMIT_FSIZE, quota)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def sync_directory(path: str) -> None:
    """Make the names in directory *path* durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_bounded(path: str, limit: int) -> bytes:
    """The whole file, which must be a regular one of at most *limit* bytes (else BadFile).
    A fifo or device does not block us. OSError as open(2) gives it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return read_fd_bounded(fd, path, limit)
    finally:
        os.close(fd)


def read_fd_bounded(fd: int, path: str, limit: int) -> bytes:
    """As read_bounded, from an open descriptor; *path* is for the error's text."""
    if not is_regular(os.fstat(fd).st_mode):
        raise BadFile(f"{path}: not a regular file")
    pieces, size = [], 0
    while piece := os.read(fd, 65536):
        size += len(piece)
        if size > limit:
            raise BadFile(f"{path}: larger than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def is_regular(mode: int) -> bool:
    """Whether st_mode says: a regular file (without importing stat)."""
    return mode & 0o170000 == 0o100000


def make_directory(path: str, mode: int) -> None:
    """Make *path* unless it is there."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass


def replace_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write *path* anew so that a crash leaves the old or the new content, durable on return."""
    directory, _, name = path.rpartition("/")
    temporary = f"{directory or '.'}/.{name}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(directory or ".")
