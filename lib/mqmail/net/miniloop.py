"""An event loop for a program that has none: it runs only while somebody waits for an answer.

It has what net/dns.py and net/stream.py ask of a loop, and is started 60 ms sooner than asyncio.
"""

from __future__ import annotations

import select
from heapq import heappop, heappush
from time import monotonic

from mqmail.base.waiter import Running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    Call = Callable[[], object]


class Timer:
    """A call that is to come."""

    __slots__ = ("_number", "_when", "call")

    def __init__(self, when: float, number: int, call: Call) -> None:
        self._when = when
        self._number = number
        self.call: Call | None = call

    def __lt__(self, other: Timer) -> bool:
        return (self._when, self._number) < (other._when, other._number)

    @property
    def left(self) -> float:
        """Seconds until it is due."""
        return self._when - monotonic()

    def cancel(self) -> None:
        """It does not come."""
        self.call = None


class MiniLoop:
    """Callbacks for descriptors and times; ``complete`` runs them."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._readers: dict[int, Call] = {}
        self._writers: dict[int, Call] = {}
        self._timers: list[Timer] = []
        self._made = 0

    def time(self) -> float:
        """Seconds of the monotonic clock."""
        return monotonic()

    def call_later(self, seconds: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        """Call it once, unless the timer is cancelled."""
        self._made += 1
        timer = Timer(monotonic() + seconds, self._made, lambda: callback(*arguments))
        heappush(self._timers, timer)
        return timer

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> Timer:
        """Call it in the next turn."""
        return self.call_later(0.0, callback, *arguments)

    def add_reader(self, fd: int, callback: Call) -> None:
        """Call it whenever *fd* can be read."""
        self._readers[fd] = callback
        self._watch(fd)

    def remove_reader(self, fd: int) -> None:
        """No more."""
        self._readers.pop(fd, None)
        self._watch(fd)

    def add_writer(self, fd: int, callback: Call) -> None:
        """Call it whenever *fd* can be written."""
        self._writers[fd] = callback
        self._watch(fd)

    def remove_writer(self, fd: int) -> None:
        """No more."""
        self._writers.pop(fd, None)
        self._watch(fd)

    def _watch(self, fd: int) -> None:
        events = select.POLLIN if fd in self._readers else 0
        events |= select.POLLOUT if fd in self._writers else 0
        if events:
            self._poll.register(fd, events)
        else:
            try:
                self._poll.unregister(fd)
            except KeyError:
                pass

    def complete(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* to its end; its value, or its exception."""
        ended: list[tuple[Any, BaseException | None]] = []
        Running(coroutine, lambda result, error: ended.append((result, error)))
        while not ended:
            self._turn()
        result, error = ended[0]
        if error is not None:
            raise error
        return result

    def _turn(self) -> None:
        """Wait for something, and call whoever waits for it."""
        milliseconds = max(0.0, self._timers[0].left) * 1000 + 1 if self._timers else None
        for fd, events in self._poll.poll(milliseconds):
            if events & ~select.POLLOUT and fd in self._readers:
                self._readers[fd]()
            if events & ~select.POLLIN and fd in self._writers:
                self._writers[fd]()
        while self._timers and self._timers[0].left <= 0:
            call = heappop(self._timers).call
            if call is not None:
                call()
