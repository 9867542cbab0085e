"""How many sessions at a time one host gets: slow start, and fewer when it refuses.

As TCP does (RFC 5681 section 3.1): one more for each transaction that succeeds; half as many after a
session was refused or cut; from there on one more only after as many successes as there are sessions,
so that a host with a limit of its own is not pushed over it again and again.
"""

from __future__ import annotations

ROUND = 1.0             # seconds within which several failures count as one
IDLE = 300.0            # seconds without a session after which all is forgotten


class Pace:
    """The limit of one host, from *start* up to *most*, never below 1. Times: seconds of any clock."""

    def __init__(self, start: int, most: int) -> None:
        self._most = max(most, 1)
        self._start = min(max(start, 1), self._most)
        self._used: float | None = None
        self._reset()

    def _reset(self) -> None:
        self.limit = self._start
        self._fast = self._most             # below this each success counts in full
        self._successes = 0                 # of the present round, above it
        self._halved: float | None = None

    def may_begin(self, running: int, now: float) -> bool:
        """Whether one more session may begin while *running* are under way."""
        if running == 0 and self._used is not None and now - self._used > IDLE:
            self._reset()
        self._used = now
        return running < self.limit

    def success(self, now: float) -> None:
        """A transaction came to its end, whatever became of its recipients."""
        self._used = now
        self._successes += 1
        if self.limit < self._fast or self._successes >= self.limit:
            self.limit = min(self.limit + 1, self._most)
            self._successes = 0

    def capped(self, running: int) -> None:
        """The host refused one more than *running*."""
        self.limit = self._fast = max(min(self.limit, running), 1)
        self._successes = 0

    def failure(self, now: float) -> None:
        """The host refused a session (4xx as greeting, 421, no connection) or cut one."""
        self._used = now
        if self._halved is not None and 0 <= now - self._halved < ROUND:
            return
        self._halved = now
        self.limit = self._fast = max(self.limit // 2, 1)
        self._successes = 0
