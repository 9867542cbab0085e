"""One at a time: an flock()ed file that names its holder. Who holds it cannot write it any more once it
has given up its rights, because others signal the process that it names."""

from __future__ import annotations

import fcntl
import os

from mqmail.base.failure import Temporary


def hold(path: str, who: str) -> int:
    """Lock *path* for as long as the returned descriptor is open; write our pid into it.

    Raises Temporary when another process holds it, naming that one.
    """
    written = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(written, 0o600)       # whoever can read it can lock it
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise Temporary(f"{who} already runs here: process {holder or '?'} holds {path}") from None
        os.ftruncate(written, 0)
        os.pwrite(written, f"{os.getpid()}\n".encode(), 0)
        return fd
    finally:
        os.close(written)
