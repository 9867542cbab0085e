"""Several waits for the disk at the same time.

An fsync waits for the disk and hardly uses the processor, and the file system makes durable in one go
what several ask for at once: ten fsyncs at the same time take little longer than one.
"""

from __future__ import annotations

import errno
import queue
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Step = tuple[Callable[..., Any], Any]

THREADS = 12            # per process, started when they are first of use


class _Round:
    """Steps that are taken together; the lock ``ended`` can be had when the last has been taken."""

    def __init__(self, count: int) -> None:
        self.outcomes: list[OSError | None] = [None] * count
        self.ended = threading.Lock()
        self.ended.acquire()
        self._left = list(range(count))

    def take(self, number: int, step: Step) -> None:
        """Take one; only who comes to the end of the list wakes whoever waits for them all."""
        self.outcomes[number] = _take(step)
        if self._left.pop() == 0:
            self.ended.release()


class _Threads:
    """Threads that take steps; made anew in a process that was forked."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[int, Step, _Round]] = queue.SimpleQueue()
        self._count = 0

    def run(self, steps: Sequence[Step]) -> list[OSError | None]:
        """Take all *steps*, the first in this thread; what each raised."""
        self._start(min(THREADS, len(steps) - 1))
        if not self._count:
            return [_take(step) for step in steps]
        this = _Round(len(steps))
        for number, step in enumerate(steps[1:], 1):
            self._work.put((number, step, this))
        this.take(0, steps[0])
        this.ended.acquire()
        return this.outcomes

    def _start(self, wanted: int) -> None:
        """As many threads as the system allows (RLIMIT_NPROC)."""
        while self._count < wanted:
            try:
                threading.Thread(target=self._serve, daemon=True).start()
            except (RuntimeError, MemoryError):
                return
            self._count += 1

    def _serve(self) -> None:
        while True:
            number, step, this = self._work.get()
            this.take(number, step)


_threads: list[_Threads] = []


def at_once(steps: Sequence[Step]) -> list[OSError | None]:
    """Call each ``function(argument)``, at the same time as far as threads go; the OSError that each
    raised, or None. Two are called one after the other: a file and its directory, whose names the
    journal has once it has the file."""
    if len(steps) <= 2:
        return [_take(step) for step in steps]
    if not _threads:
        _threads.append(_Threads())
    return _threads[0].run(steps)


def _take(step: Step) -> OSError | None:
    """A step that ends in an unknown way has failed, and whoever waits for it goes on."""
    function, argument = step
    try:
        function(argument)
    except OSError as error:
        return error
    except Exception as error:  # noqa: BLE001  a bug of ours, or no memory
        return OSError(errno.EIO, repr(error)[:200])
    return None
