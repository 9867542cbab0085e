"""Which message comes next: new ones first, waiting ones when they are due, neither starves.

Holds ids and times only. The record's file says the truth: a stale entry costs a look at a file.
"""

from __future__ import annotations

import heapq
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

FRESH_PER_DUE = 5       # under load, so many new messages are begun for one that waited
ALL = ("*",)


class Wanted(frozenset[str]):
    """Recipients that somebody wants to be tried: hosts that are down are asked all the same, if they
    have not been since *at* (seconds since the epoch)."""

    at = 0.0


class Agenda:
    """Ids that wait for their turn. ``next`` gives (id, place, force): *force* are the recipients that
    are due whatever the record says, ALL: all of them."""

    def __init__(self) -> None:
        self._fresh: deque[str] = deque()
        self._known: set[str] = set()       # in _fresh, or active
        self._due: list[tuple[float, str]] = []
        self._forced: deque[str] = deque()
        self._brought: deque[tuple[str, Collection[str]]] = deque()
        self._moved: dict[str, float] = {}  # ids that were brought forward: which entry in _due counts
        self._turn = 0
        self._brought_last = False

    def __len__(self) -> int:
        return len(self._fresh) + len(self._due) + len(self._forced)

    def add_fresh(self, id: str) -> None:
        """A record in ``new``; does nothing when it is known."""
        if id not in self._known:
            self._known.add(id)
            self._fresh.append(id)

    def add_due(self, id: str, at: float) -> None:
        """A record in ``wait``, to be looked at *at* (seconds since the epoch)."""
        heapq.heappush(self._due, (at, id))
        if id in self._moved:
            self._moved[id] = at

    def bring(self, messages: Iterable[tuple[str, Collection[str]]]) -> None:
        """Some recipients of waiting messages are due now, before their time."""
        for id, seqs in messages:
            if id not in self._known:       # else it is active, and may see for itself
                self._brought.append((id, seqs))

    def force_all(self) -> None:
        """All waiting ones are due now, whatever their records say, oldest first."""
        self._forced.extend(sorted({id for _, id in self._due}))
        self._due = []
        self._moved = {}

    def shift(self, seconds: float) -> None:
        """What is due at a time is due so much later (or, below 0, earlier) by a clock that was set."""
        self._due = [(at + seconds, id) for at, id in self._due]
        self._moved = {id: at and at + seconds for id, at in self._moved.items()}

    def next(self, now: float) -> tuple[str, str, Collection[str]] | None:
        """The next message to begin, or None. It counts as active until ``finished``."""
        if not self._fresh or self._turn >= FRESH_PER_DUE:
            self._turn = 0
            found = self._next_due(now)
            if found is not None:
                return found
        if not self._fresh:
            return None
        self._turn += 1
        return self._fresh.popleft(), "new", ()

    def _next_due(self, now: float) -> tuple[str, str, Collection[str]] | None:
        while (found := self._pop(now)) is not None:
            id, force = found
            if id not in self._known:       # else it is active or will be: its end says when it is due
                self._known.add(id)
                return id, "wait", force
        return None

    def _pop(self, now: float) -> tuple[str, Collection[str]] | None:
        """Forced ones, then those brought forward and those that are due in turn."""
        if self._forced:
            return self._forced.popleft(), ALL
        self._brought_last = bool(self._brought) and not self._brought_last
        if self._brought_last:
            return self._pop_brought()
        while self._due and self._due[0][0] <= now:
            at, id = heapq.heappop(self._due)
            if self._moved.get(id, at) == at:
                return id, ()
        return self._pop_brought() if self._brought else None

    def _pop_brought(self) -> tuple[str, Collection[str]]:
        """Its entry in _due counts no more; the end of the attempt makes another."""
        found = self._brought.popleft()
        self._moved[found[0]] = 0.0
        return found

    def finished(self, id: str, gone: bool = False) -> None:
        """The message is no longer active; *gone*: it is not in the queue either."""
        self._known.discard(id)
        if gone:
            self._moved.pop(id, None)

    def wake_at(self) -> float | None:
        """When the next waiting one is due."""
        return self._due[0][0] if self._due else None
