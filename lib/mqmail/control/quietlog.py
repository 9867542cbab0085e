"""quietlog: which events are not logged."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

NEVER_QUIET = frozenset(("bug", "reload_failed"))
_EVENT = frozenset("abcdefghijklmnopqrstuvwxyz_")
_PROGRAM = frozenset("abcdefghijklmnopqrstuvwxyz-")


def parse_quietlog(lines: Lines, _me: str) -> frozenset[str]:
    """Lines ``event`` or ``program:event``."""
    found = set()
    for line in lines:
        program, _, event = line.rpartition(":")
        if not event or not _EVENT.issuperset(event) or not _PROGRAM.issuperset(program):
            raise ValueError(f"{line[:60]!a}: write the name of an event in mq-log(5), or PROGRAM:EVENT")
        if event in NEVER_QUIET:
            raise ValueError(f"{event} is always logged: remove the line")
        found.add(line)
    return frozenset(found)
