"""How much more is taken while the queue does not keep up, or its disk fills. Pure.

What a stage begins at and what it ends at differ, so that nothing flutters: it ends when a tenth less
is waiting; acceptance that stopped below *least* free octets goes on above *enough*.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.pressure import Marks

CALM, SLOW, FEWER, REFUSE = range(4)
NAMES = ("calm", "slow", "fewer", "refuse")
SHORTEST, LONGEST = 0.5, 5.0        # seconds that an answer waits
FEWEST = 0.1                        # of the sessions, before none is taken
_ENDS = 0.9                         # of what it begins at


class Floor:
    """Whether a disk is too full: below *least* free octets, until there are *enough*."""

    def __init__(self) -> None:
        self.low = False

    def feel(self, free: int, least: int, enough: int) -> bool:
        """Whether it is now, with *free* octets."""
        self.low = free < (max(least, enough) if self.low else least)
        return self.low


class Pressure:
    """*stage*: one of CALM to REFUSE. *pause*: seconds to wait with an answer. *share*: of the sessions
    that there may be. *low*: the disk is too full to take mail."""

    def __init__(self) -> None:
        self.stage = CALM
        self.pause = 0.0
        self.share = 1.0
        self._floor = Floor()

    @property
    def low(self) -> bool:
        return self._floor.low

    def feel_disk(self, free: int, least: int, enough: int) -> None:
        """So many octets are free."""
        self._floor.feel(free, least, enough)

    def feel_queue(self, waiting: int, marks: Marks) -> None:
        """So many messages wait for their first attempt."""
        level = 100.0 * waiting / marks.full if marks.full else 0.0
        begins = (marks.slow, marks.fewer, marks.refuse)
        reached = sum([level >= mark for mark in begins])
        kept = sum([level >= mark * _ENDS for mark in begins])
        self.stage = min(max(self.stage, reached), kept)
        self.pause = 0.0
        if self.stage >= SLOW:
            self.pause = SHORTEST + (LONGEST - SHORTEST) * _way(level, marks.slow, marks.fewer)
        self.share = 1.0
        if self.stage >= FEWER:
            self.share = 1.0 - (1.0 - FEWEST) * _way(level, marks.fewer, marks.refuse)


def _way(level: float, begin: int, end: int) -> float:
    """How far *level* is from *begin* to *end*, from 0 to 1."""
    if end <= begin:
        return 1.0
    return min(1.0, max(0.0, (level - begin) / (end - begin)))
