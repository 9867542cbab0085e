"""Messages on their way into the queue: what mq-queue does, and it alone creates.

Functions raise OSError as the system gives it unless they say otherwise.
"""

from __future__ import annotations

import os

from mqmail.base.files import sync_directory, write_all
from mqmail.queue import ids, paths
from mqmail.queue.together import at_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Incoming:
    """A message on its way in. ``begin`` it, ``write`` its body, then ``commit`` it or ``abort``."""

    __slots__ = ("_fd", "_made", "id", "size")

    def __init__(self, id: str) -> None:
        self._fd = paths.create(paths.path("mess", id), paths.BODY_MODE)
        self._made = [paths.path("mess", id)]
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
            paths.discard(self._made.pop())

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _end_body(self) -> None:
        if os.fstat(self._fd).st_nlink == 0:
            raise FileNotFoundError(f"the body of {self.id} has been removed")
        self._close()

    def _write_record(self, data: bytes) -> None:
        path = paths.path("new", self.id)
        self._fd = paths.create(path, paths.RECORD_MODE)
        self._made.append(path)
        write_all(self._fd, data)

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
    _sync(results, "mess", Incoming._end_body)
    for message, data in batch:
        if results[message] is None:
            results[message] = _attempt(message._write_record, data)
    _sync(results, "new", Incoming._close)
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


def _sync(results: dict[Incoming, OSError | None], place: str, end: Callable[[Incoming], None]) -> None:
    """Sync the files of all good messages and their directories below *place*, then *end* the files; a
    directory that fails fails all messages in it."""
    groups: dict[str, list[Incoming]] = {}
    for message, error in results.items():
        if error is None:
            groups.setdefault(f"queue/{place}/{ids.directory(message.id)}", []).append(message)
    messages = [message for group in groups.values() for message in group]
    outcomes = at_once([*[(os.fsync, message._fd) for message in messages],
                        *[(sync_directory, path) for path in groups]])
    for directory, failed in zip(groups, outcomes[len(messages):], strict=True):
        if failed is not None:
            results.update(dict.fromkeys(groups[directory], failed))
    for message, failed in zip(messages, outcomes, strict=False):
        results[message] = results[message] or failed or _attempt(end, message)
