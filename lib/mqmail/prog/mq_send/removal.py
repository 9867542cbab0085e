"""Removing finished messages in threads: those that are finished meanwhile go together, for each change
from one thread to another costs more than an unlink does."""

from __future__ import annotations

from mqmail.base.waiter import Waiter
from mqmail.queue import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.net.threads import Threads

AT_ONCE = 2         # threads that remove


class Removal:
    """``remove(place, id)`` gives a Waiter for None, or for what ``store.remove`` raises."""

    def __init__(self, disk: Threads) -> None:
        self._disk = disk
        self._waiting: list[tuple[str, str]] = []
        self._waiters: list[Waiter] = []
        self._busy = 0

    def remove(self, place: str, id: str) -> Waiter:
        """Remove the message whose record is in *place*."""
        self._waiting.append((place, id))
        self._waiters.append(Waiter())
        done = self._waiters[-1]
        self._begin()
        return done

    def _begin(self) -> None:
        if self._waiting and self._busy < AT_ONCE:
            self._busy += 1
            waiting, self._waiting = self._waiting, []
            waiters, self._waiters = self._waiters, []
            round = self._disk.do(_remove, waiting)
            round.when_done(lambda: self._ended(waiters, round.result()))

    def _ended(self, waiters: list[Waiter], results: list[Exception | None]) -> None:
        self._busy -= 1
        self._begin()
        for waiter, error in zip(waiters, results, strict=True):
            if error is None:
                waiter.set()
            else:
                waiter.fail(error)


def _remove(messages: list[tuple[str, str]]) -> list[Exception | None]:
    """The system frees the bodies' blocks now, which may take longer than anything else mq-send does."""
    results: list[Exception | None] = []
    for place, id in messages:
        try:
            store.remove(place, id)
            results.append(None)
        except Exception as error:  # noqa: BLE001  handed to whoever waits
            results.append(error)
    return results
