"""One at a time: an flock()ed file that names its holder."""

from __future__ import annotations

import fcntl
import os

from mqmail.base.failure import Temporary


def hold(path: str, who: str) -> int:
    """Lock *path* for as long as the returned descriptor is open; write our pid into it.

    Raises Temporary when another process holds it, naming that one.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise Temporary(f"{who} already runs here: process {holder or '?'} holds {path}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
