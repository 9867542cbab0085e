"""What processes used: read from /proc, added up by program.

A process counts its ended children (cutime, cstime) once it has waited for them, so the sum over a
tree of processes forgets nobody, whoever died or was restarted in between.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")
ENDED = "(ended)"       # the programs of processes that died are not known any more


@dataclass(frozen=True)
class Process:
    """One process at one moment; times in seconds. *ended_…* belongs to children it has waited for."""

    pid: int
    started: int        # ticks since boot: pids are used again
    parent: int
    name: str
    user: float
    system: float
    ended_user: float
    ended_system: float


@dataclass(frozen=True)
class Times:
    """Seconds of CPU."""

    user: float = 0.0
    system: float = 0.0

    def plus(self, user: float, system: float) -> Times:
        """With some more."""
        return Times(self.user + user, self.system + system)

    @property
    def total(self) -> float:
        """User and system."""
        return self.user + self.system


def parse_stat(text: str, ticks: int = TICKS) -> Process:
    """A process from its /proc/PID/stat (proc(5)); the name may hold anything, even ")"."""
    start, _, rest = text.rpartition(")")
    pid, _, name = start.partition("(")
    fields = rest.split()
    times = [int(field) / ticks for field in fields[11:15]]
    return Process(int(pid), int(fields[19]), int(fields[1]), name, *times)


def parse_pss(text: str) -> int:
    """KiB of the line Pss: in /proc/PID/smaps_rollup; 0 when there is none."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def parse_idle(text: str) -> tuple[int, int]:
    """(idle, all) ticks since boot, over all CPUs, from /proc/stat. Waiting for the disk is idle."""
    ticks = [int(word) for word in text.split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def select_tree(processes: list[Process], root: int) -> list[Process]:
    """*root* and all that descend from it."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found = [process for process in processes if process.pid == root]
    for process in found:
        found.extend(children.get(process.pid, ()))
    return found


def spent(before: list[Process], after: list[Process]) -> dict[str, Times]:
    """CPU between two looks at a tree, by program. What processes used that ended in between is under
    ENDED."""
    old = {(one.pid, one.started): one for one in before}
    totals: dict[str, Times] = {}
    ended = Times()
    for one in after:
        was = old.pop((one.pid, one.started), None)
        user, system = (was.user, was.system) if was else (0.0, 0.0)
        totals[one.name] = totals.get(one.name, Times()).plus(one.user - user, one.system - system)
        user, system = (was.ended_user, was.ended_system) if was else (0.0, 0.0)
        ended = ended.plus(one.ended_user - user, one.ended_system - system)
    for gone in old.values():       # all of their lives has been added above
        ended = ended.plus(-gone.user - gone.ended_user, -gone.system - gone.ended_system)
    if ended.total >= 1.5 / TICKS:
        totals[ENDED] = ended
    return totals


def busiest(before: list[Process], after: list[Process]) -> tuple[str, float]:
    """(program, seconds of CPU) of the one process that used most between two looks."""
    old = {(one.pid, one.started): one.user + one.system for one in before}
    return max(((one.name, one.user + one.system - old.get((one.pid, one.started), 0.0))
                for one in after), key=lambda pair: pair[1], default=("", 0.0))


def look(root: int) -> list[Process]:
    """The tree below process *root*, and itself, now."""
    return select_tree([parse_stat(text) for text in _each("stat")], root)


def threads(root: int) -> dict[int, str]:
    """The program of each thread in the tree of *root*."""
    found = {}
    for one in look(root):
        try:
            found.update({int(thread): one.name for thread in os.listdir(f"/proc/{one.pid}/task")})
        except FileNotFoundError:
            continue
    return found


def memory(root: int) -> dict[str, int]:
    """KiB of PSS in the tree of *root*, by program. A process that may not be looked at counts 0."""
    totals: dict[str, int] = {}
    for one in look(root):
        size = parse_pss(_read(f"/proc/{one.pid}/smaps_rollup"))
        totals[one.name] = totals.get(one.name, 0) + size
    return totals


def idle() -> tuple[int, int]:
    """parse_idle of now."""
    return parse_idle(_read("/proc/stat"))


def _each(name: str) -> list[str]:
    texts = [_read(f"/proc/{pid}/{name}") for pid in os.listdir("/proc") if pid.isdigit()]
    return [text for text in texts if text]


def _read(path: str) -> str:
    """The text of a file that may vanish or be forbidden; then ""."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
