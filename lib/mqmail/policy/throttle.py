"""Counting what clients do, in memory that several processes share. Pure: time and memory are arguments.

``Sessions`` counts what goes on at the moment, with a column for each process: whoever takes the place
of one that has died clears its column. ``Happenings`` counts what has happened within some seconds.
Both are tables of a fixed number of slots, in groups: a name's hash gives its group, and the 8 slots
there are for whoever needs them. When all are taken, ``Happenings`` forgets whom it has not seen for
longest; ``Sessions`` forgets nobody, and does not count the newcomer.

``Throttle`` holds both and asks them under a lock.
"""

from __future__ import annotations

from _blake2 import blake2b

from mqmail.control.throttles import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mqmail.control.throttles import Limits, Rate

    Cells = memoryview[int]                     # of 32 bits, "I"; zeros at the start
    Rules = list[tuple[str, Limits]]            # of Throttles.of()

CELL = 4            # octets
GROUP = 8           # slots
PARTS = 8           # of a rate's time: what is older than that is forgotten part by part
ALL = "all"         # under this name all sessions are counted
_HAPPENING = 4 + PARTS      # cells: mark, when used, number of the newest part, PARTS + 1 counters
_MOST = 0xFFFFFFFF
_MOST_PLACES = 1000


class _Slots:
    """A table of slots of *width* cells in *cells*; the first cell of a slot is the mark of who has it,
    or 0. *seed* keeps others from choosing names of one group."""

    def __init__(self, cells: Cells, width: int, seed: bytes) -> None:
        self.cells = cells
        self.width = width
        self._groups = len(cells) // (width * GROUP)
        self._seed = seed
        self._places: dict[str, tuple[int, range]] = {}     # of names of late: a session wants one often

    def place(self, name: str) -> tuple[int, range]:
        """The mark of *name*, and where the slots of its group begin."""
        found = self._places.get(name)
        if found is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            found = self._places[name] = self._find_place(name)
        return found

    def _find_place(self, name: str) -> tuple[int, range]:
        hashed = blake2b(name.encode(), digest_size=12, key=self._seed).digest()
        cells = GROUP * self.width
        first = int.from_bytes(hashed[4:], "big") % self._groups * cells
        return int.from_bytes(hashed[:4], "big") or 1, range(first, first + cells, self.width)

    def find(self, name: str) -> int:
        """Where its slot begins; -1: it has none."""
        mark, slots = self.place(name)
        for slot in slots:
            if self.cells[slot] == mark:
                return slot
        return -1

    def take(self, mark: int, slot: int) -> int:
        """Give a slot to *mark*, empty."""
        for cell in range(slot + self.width - 1, slot, -1):
            self.cells[cell] = 0
        self.cells[slot] = mark
        return slot


class Sessions:
    """How many there are of each name, over *columns* processes, of which we are *column*."""

    def __init__(self, cells: Cells, columns: int, column: int, seed: bytes) -> None:
        self._slots = _Slots(cells, 1 + columns, seed)
        self._column = 1 + column

    @staticmethod
    def size(names: int, columns: int) -> int:
        """Octets for so many names."""
        return -(-names // GROUP) * GROUP * (1 + columns) * CELL

    def count(self, name: str) -> int:
        """Those of all processes."""
        slot = self._slots.find(name)
        return 0 if slot < 0 else self._sum(slot)

    def _sum(self, slot: int) -> int:
        return sum(self._slots.cells[slot + 1:slot + self._slots.width])

    def begin(self, name: str) -> bool:
        """One more of ours. False: no room to count it."""
        slot = self._slots.find(name)
        if slot < 0:
            mark, slots = self._slots.place(name)
            slot = next((one for one in slots if not self._slots.cells[one] or not self._sum(one)), -1)
            if slot < 0:
                return False
            self._slots.take(mark, slot)
        self._slots.cells[slot + self._column] += 1
        return True

    def end(self, name: str) -> None:
        """One less of ours, that begin() has counted."""
        slot = self._slots.find(name)
        if slot >= 0 and self._slots.cells[slot + self._column]:
            self._slots.cells[slot + self._column] -= 1

    def clear(self) -> None:
        """None of ours."""
        cells = self._slots.cells
        for cell in range(self._column, len(cells), self._slots.width):
            if cells[cell]:
                cells[cell] = 0


class Happenings:
    """How often something of each name has happened. A *rate*'s seconds are counted in PARTS parts, and
    the one at hand comes on top: so never are there more than allowed within those seconds, and after
    them and one part more all is forgotten."""

    def __init__(self, cells: Cells, seed: bytes) -> None:
        self._slots = _Slots(cells, _HAPPENING, seed)

    @staticmethod
    def size(names: int) -> int:
        """Octets for so many names."""
        return -(-names // GROUP) * GROUP * _HAPPENING * CELL

    def allows(self, name: str, rate: Rate, now: float) -> bool:
        """Whether one more may happen *now* (seconds of a clock that never goes back)."""
        slot = self._slots.find(_with(name, rate))
        if slot < 0:
            return True
        cells = self._slots.cells
        newest = max(_part(rate, now), cells[slot + 2])     # who waited for the lock may come late
        kept = range(newest - cells[slot + 2], PARTS + 1)
        return sum([cells[slot + 3 + (newest - age) % (PARTS + 1)] for age in kept]) < rate.most

    def note(self, name: str, rate: Rate, now: float) -> None:
        """It has happened."""
        slot = self._slot(_with(name, rate))
        cells = self._slots.cells
        newest = max(_part(rate, now), cells[slot + 2])
        for age in range(min(newest - cells[slot + 2], PARTS + 1)):
            cells[slot + 3 + (newest - age) % (PARTS + 1)] = 0
        cells[slot + 1] = int(now) & _MOST
        cells[slot + 2] = newest
        cells[slot + 3 + newest % (PARTS + 1)] += 1

    def _slot(self, name: str) -> int:
        """That of *name*; a new one is that of its group which nobody has used for longest."""
        found = self._slots.find(name)
        if found >= 0:
            return found
        mark, slots = self._slots.place(name)
        cells = self._slots.cells
        oldest = min(slots, key=lambda slot: cells[slot + 1] if cells[slot] else -1)
        return self._slots.take(mark, oldest)


def _part(rate: Rate, now: float) -> int:
    """The number of the part of *rate*'s time that *now* is in."""
    return int(now * PARTS / rate.seconds) & _MOST


def _with(name: str, rate: Rate) -> str:
    """Under another time all is counted anew."""
    return f"{name} {rate.seconds}"


class Throttle:
    """What the sessions of one process begin and end, counted with those of all others. *lock* is held
    while any table is looked at."""

    def __init__(self, sessions: Sessions, happenings: Happenings,
                 lock: AbstractContextManager[object]) -> None:
        self._sessions = sessions
        self._happenings = happenings
        self._lock = lock
        self._begun: dict[str, list[str]] = {}

    def clear(self) -> None:
        """At the start of a process: what one before it in its place has left is over."""
        with self._lock:
            self._sessions.clear()

    def begin(self, session: str, rules: Rules, total: int, most: int, now: float) -> str:
        """A session begins, unless a rule is against it: returns "" or why. *most* of the *total*
        sessions there may be are allowed at the moment. A refused one is not counted. One that begins
        anew, as another client's (XCLIENT), ends first."""
        self.end(session)
        with self._lock:
            why = self._against(rules, total, most, now)
            if not why:
                names = [ALL, *[name for name, limits in rules if limits.sessions is not None]]
                self._begun[session] = [name for name in names if self._sessions.begin(name)]
                for name, limits in rules:
                    if limits.rate is not None:
                        self._happenings.note(f"rate {name}", limits.rate, now)
        return why

    def _against(self, rules: Rules, total: int, most: int, now: float) -> str:
        if self._sessions.count(ALL) >= most:
            return "sessions of all"
        for name, limits in rules:
            limit = limits.most_sessions(total)
            if limit is not None and self._sessions.count(name) >= limit:
                return f"sessions of {_kind(name)}"
            if limits.rate is not None and not self._happenings.allows(f"rate {name}", limits.rate, now):
                return f"new sessions of {_kind(name)}"
        return ""

    def end(self, session: str) -> None:
        """The session is over; nothing if it was refused."""
        names = self._begun.pop(session, None)
        if names is not None:
            with self._lock:
                for name in names:
                    self._sessions.end(name)

    def one_more(self, kind: str, rules: Rules, now: float) -> str:
        """A message or recipient (*kind*: ``messages``, ``recipients``), counted unless a rule is
        against it: returns "" or why."""
        rates = [(f"{kind} {name}", rate, name) for name, limits in rules
                 if (rate := getattr(limits, kind)) is not None]
        if not rates:
            return ""
        with self._lock:
            for key, rate, name in rates:
                if not self._happenings.allows(key, rate, now):
                    return f"{kind} of {_kind(name)}"
            for key, rate, _ in rates:
                self._happenings.note(key, rate, now)
        return ""


def _kind(name: str) -> str:
    """Whose limit it is."""
    if name == "*":
        return "everybody"
    if name == UNKNOWN:
        return "clients without an address"
    return "the client" if name[1] == ":" else "its network"
