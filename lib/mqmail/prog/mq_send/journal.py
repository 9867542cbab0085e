"""Appending to records with fsync, in threads: the disk never holds up the event loop."""

from __future__ import annotations

import queue
import threading

from mqmail.base.failure import BadFile
from mqmail.base.waiter import Waiter
from mqmail.queue import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

THREADS = 4


class Journal:
    """``append`` gives a Waiter for the record's new length; an OSError or BadFile comes through it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: queue.SimpleQueue[tuple[str, str, int, bytes, Waiter]] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0

    def append(self, state: str, id: str, length: int, lines: bytes) -> Waiter:
        """Write *lines* after *length* octets of the record, durably."""
        done = Waiter()
        self._busy += 1
        if self._threads < min(THREADS, self._busy):
            self._threads += 1
            threading.Thread(target=self._run, daemon=True).start()
        self._work.put((state, id, length, lines, done))
        return done

    def _run(self) -> None:
        while True:
            state, id, length, lines, done = self._work.get()
            try:
                result: int | Exception = store.append(state, id, length, lines, sync=True)
            except (OSError, BadFile) as error:
                result = error
            self._loop.call_soon_threadsafe(self._finish, done, result)

    def _finish(self, done: Waiter, result: int | Exception) -> None:
        self._busy -= 1
        if isinstance(result, Exception):
            done.fail(result)
        else:
            done.set(result)
