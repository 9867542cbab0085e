"""What there is below ``queue/``: directories, names and modes. Paths are relative: the process works in
the home. Functions raise OSError as the system gives it unless they say otherwise."""

from __future__ import annotations

import os

from mqmail.base import log
from mqmail.base.files import sync_directory
from mqmail.queue import ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STATES = ("new", "wait", "hold")   # where a record can be, in the order it gets there
BODY_MODE, RECORD_MODE, DIRECTORY_MODE = 0o640, 0o660, 0o770    # less the umask: a home's owner has
                                   # all to himself, in a system home mq-send is of mq-queue's group
COPY = ".copy"                     # ends the name of a record in wait that take_over has not completed
BUCKETS = tuple([f"{n:02x}" for n in range(256)])

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def path(place: str, id: str) -> str:
    """The path of a message's body (*place* "mess") or record. ValueError when *id* is none."""
    if not ids.is_id(id):
        raise ValueError(f"no queue id: {id[:40]!a}")
    return f"queue/{place}/{ids.directory(id)}/{id}"


def create(path: str, mode: int) -> int:
    """Create *path*, which must not exist; its directory is made when it is missing."""
    try:
        return os.open(path, _CREATE, mode)
    except FileNotFoundError:
        make_parent(path)
        return os.open(path, _CREATE, mode)


def make_parent(path: str) -> None:
    """Make the directory of *path*, durably. Another process may be doing the same."""
    directory = os.path.dirname(path)
    try:
        os.mkdir(directory, DIRECTORY_MODE)
    except FileExistsError:
        pass
    sync_directory(os.path.dirname(directory))


def discard(path: str) -> None:
    """Unlink what may not be there; what cannot be unlinked is logged and left to remove_orphans."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.event("queue_left_behind", path=path, error=error.strerror)


def entries(directory: str) -> Iterator[os.DirEntry[str]]:
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


def make_directories(home: str) -> None:
    """Make what is missing of the queue's directories below *home*, durably."""
    directories = [f"{home}/queue", f"{home}/queue/bad"]
    for place in ("mess", *STATES):
        directories.append(f"{home}/queue/{place}")
        directories += [f"{home}/queue/{place}/{bucket}" for bucket in BUCKETS]
    for directory in directories:
        try:
            os.mkdir(directory, DIRECTORY_MODE)
        except FileExistsError:
            continue
    for parent in ("queue/mess", *[f"queue/{state}" for state in STATES], "queue", ""):
        sync_directory(f"{home}/{parent}")


def space(path: str = "queue") -> tuple[int, int]:
    """(bytes, inodes) that are free for us on the queue's file system."""
    free = os.statvfs(path)
    return free.f_bavail * free.f_frsize, free.f_favail
