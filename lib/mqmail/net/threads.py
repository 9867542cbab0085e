"""What takes a while (fsync, unlink, reading a large file), in threads: it never holds up the loop."""

from __future__ import annotations

import queue
import threading

from mqmail.base import log
from mqmail.base.waiter import Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    Work = tuple[Waiter, Callable[..., Any], tuple[Any, ...]]

THREADS = 4


class Threads:
    """``do(function, *arguments)`` gives a Waiter for the function's value, or the exception it raised.

    Threads are started as they are needed. Results go back to the loop in bunches: one wake-up for all
    that are ready. Where the system allows no thread at all, the function is called at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._results: list[tuple[Waiter, Any, Exception | None]] = []
        self._threads = 0
        self._busy = 0

    def do(self, function: Callable[..., Any], *arguments: Any) -> Waiter:
        """Call *function* in a thread."""
        done = Waiter()
        self._busy += 1
        if self._threads < min(THREADS, self._busy):
            self._start()
        if self._threads:
            self._work.put((done, function, arguments))
        else:
            self._carry_out(done, function, arguments)
        return done

    def _start(self) -> None:
        """One more thread, unless there are too many processes (RLIMIT_NPROC)."""
        try:
            threading.Thread(target=self._run, daemon=True).start()
            self._threads += 1
        except RuntimeError as error:
            log.event("fork_failed", error=str(error))

    def _run(self) -> None:
        while True:
            self._carry_out(*self._work.get())

    def _carry_out(self, done: Waiter, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        value, error = None, None
        try:
            value = function(*arguments)
        except Exception as raised:  # noqa: BLE001  handed to whoever waits
            error = raised
        with self._lock:
            self._results.append((done, value, error))
            first = len(self._results) == 1
        if first:
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            results, self._results = self._results, []
        for done, value, error in results:
            self._busy -= 1
            if error is None:
                done.set(value)
            else:
                done.fail(error)
