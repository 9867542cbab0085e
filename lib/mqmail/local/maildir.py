"""Delivery into a Maildir (cr.yp.to/proto/maildir.html): tmp, fsync, new, fsync of new.

The name is ``SECONDS.MmicrosecondsPpidQcountVdeviceIinode.HOST,S=size``. V and I make a rename as
safe as link and unlink, at half the cost: what is in new/ has another inode, so no name is there
already. Two flushes a message: the file and new/. tmp/ need not survive a crash.
"""

from __future__ import annotations

import itertools
import os
import time

from mqmail.base.files import sync_directory, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.local.body import Body

_deliveries = itertools.count(1)


def deliver(path: str, head: bytes, body: Body, create: bool = False) -> str:
    """Put *head* (fields, LF line ends) and *body* into Maildir *path*; durable on return. Returns
    the name in new/.

    *create*: make what is missing of the Maildir. OSError as the system gives it, Temporary as
    Body; then nothing of the message is left.
    """
    path = path.rstrip("/")
    try:
        return _deliver(path, head, body)
    except FileNotFoundError:
        if not create:
            raise
    make(path)
    return _deliver(path, head, body)


def _deliver(path: str, head: bytes, body: Body) -> str:
    unique, host = _unique(), _host()
    place = f"{path}/tmp/{unique}.{host}"
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size, device, inode = _fill(fd, head, body)
        name = f"{unique}V{device:x}I{inode:x}.{host},S={size}"
        os.rename(place, f"{path}/new/{name}")
        place = f"{path}/new/{name}"
        sync_directory(f"{path}/new")
    except BaseException:
        _remove(place)
        raise
    return name


def _fill(fd: int, head: bytes, body: Body) -> tuple[int, int, int]:
    """Write, flush and close; returns (size, device, inode)."""
    try:
        for piece in body.pieces():
            write_all(fd, head + piece)
            head = b""
        write_all(fd, head)
        os.fsync(fd)
        made = os.fstat(fd)
        return made.st_size, made.st_dev, made.st_ino
    finally:
        os.close(fd)


def _remove(place: str) -> None:
    try:
        os.unlink(place)
    except OSError:
        pass   # the error that brought us here is the one to report


def _unique() -> str:
    """Unlike any other name this host makes."""
    micros = time.time_ns() // 1000
    return f"{micros // 1000000}.M{micros % 1000000}P{os.getpid()}Q{next(_deliveries)}"


def _host() -> str:
    return os.uname().nodename.replace("/", "\\057").replace(":", "\\072")


def make(path: str) -> None:
    """Make Maildir *path*, or what is missing of it; its parent exists. Durable on return.

    tmp/ comes last: a delivery that finds it knows that the names of all the others are durable.
    """
    for directory in (path, f"{path}/cur", f"{path}/new"):
        _mkdir(directory)
    sync_directory(path)
    sync_directory(path.rpartition("/")[0] or ("/" if path[:1] == "/" else "."))
    _mkdir(f"{path}/tmp")


def _mkdir(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
