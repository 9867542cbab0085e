"""How many sessions a process has, so that those of one listener leave room for the others'."""

from __future__ import annotations

from mqmail.control.throttles import most_of
from mqmail.policy.facts import SUBMISSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqmail.control.listeners import Listener
    from mqmail.control.optionsets import Options

OTHERS = "others"
_MOST_OF_OTHERS = 0, 90     # per cent: the rest is for who submits mail, where there is a place for it


def share_of(line: Listener, options: Options, lines: Iterable[Listener]) -> tuple[str, tuple[int, int]]:
    """(Under which name the sessions of *line* are counted, and how many of that name there may be).
    *lines*: all places. Those whose option sets do not say it are counted together."""
    if options.sessions is not None:
        return f"{line.role} {line.options}", options.sessions
    if line.role in SUBMISSION:
        return "", (0, 100)
    return OTHERS, _MOST_OF_OTHERS if any([one.role in SUBMISSION for one in lines]) else (0, 100)


class Shares:
    """Sessions of one of *processes*."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._all = 0
        self._named: dict[str, int] = {}

    def full(self, name: str, sessions: tuple[int, int], total: int) -> bool:
        """Whether one more is too many, of *total* for all processes or of *sessions* for *name*: a
        number for all processes, or a share of ours."""
        ours = -(-total // self._processes)
        number, share = sessions
        most = min(ours, most_of((-(-number // self._processes), share), ours))
        return self._all >= ours or self._named.get(name, 0) >= most

    def begin(self, name: str) -> None:
        """One more, refused or not."""
        self._all += 1
        self._named[name] = self._named.get(name, 0) + 1

    def end(self, name: str) -> None:
        """One less."""
        self._all -= 1
        self._named[name] -= 1
