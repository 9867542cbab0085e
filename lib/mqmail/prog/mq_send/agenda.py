"""Which message comes next: new ones first, waiting ones when they are due, neither starves.

Holds ids and times only. The record's file says the truth: a stale entry costs a look at a file.
"""

from __future__ import annotations

import heapq
from collections import deque

FRESH_PER_DUE = 5       # under load, so many new messages are begun for one that waited (SPEC 004.048)


class Agenda:
    """Ids that wait for their turn. ``next`` gives (id, place, force)."""

    def __init__(self) -> None:
        self._fresh: deque[str] = deque()
        self._known: set[str] = set()       # in _fresh, or active
        self._due: list[tuple[float, str]] = []
        self._forced: deque[str] = deque()
        self._turn = 0

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

    def force_all(self) -> None:
        """All waiting ones are due now, whatever their records say, oldest first."""
        self._forced.extend(sorted([id for _, id in self._due]))
        self._due = []

    def next(self, now: float) -> tuple[str, str, bool] | None:
        """The next message to begin, or None. It counts as active until ``finished``."""
        if not self._fresh or self._turn >= FRESH_PER_DUE:
            self._turn = 0
            found = self._next_due(now)
            if found is not None:
                return found
        if not self._fresh:
            return None
        self._turn += 1
        return self._fresh.popleft(), "new", False

    def _next_due(self, now: float) -> tuple[str, str, bool] | None:
        while self._forced or self._due and self._due[0][0] <= now:
            force = bool(self._forced)
            id = self._forced.popleft() if force else heapq.heappop(self._due)[1]
            if id not in self._known:       # else it is active or will be: its end says when it is due
                self._known.add(id)
                return id, "wait", force
        return None

    def finished(self, id: str) -> None:
        """The message is no longer active."""
        self._known.discard(id)

    def wake_at(self) -> float | None:
        """When the next waiting one is due."""
        return self._due[0][0] if self._due else None
