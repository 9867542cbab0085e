"""The log: one line per event on descriptor 2, ``name=value`` words, no time (the logger stamps it).

``event=`` comes first and ``prog=`` second; the rest is what the caller gives, in that order.
Values are xtext, so no value holds a space, ``=``, a control character or a line end, and a line is
cut at 4,000 bytes (s6-log splits at 8,192). mq-log(5) lists all events.

In a daemon the lines of one turn of the event loop are written together, in pieces that a pipe takes
whole, so that lines of several processes do not mix.
"""

from __future__ import annotations

import os

from mqmail.base import xtext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST = 4000
_WHOLE = 4096           # PIPE_BUF: bytes that one write(2) puts into a pipe without mixing
_prog = "mqmail"
_held: list[bytes] = []
_quiet: frozenset[str] = frozenset()        # events that this process does not log
_quiet_of: Mapping[str, frozenset[str]] = {}
_later: Callable[[Callable[[], None]], object] | None = None


def set_program(name: str) -> None:
    """Name this process in its log lines."""
    global _prog  # noqa: PLW0603  the one piece of state: who speaks
    _prog = name
    set_quiet(_quiet_of)


def set_quiet(events: Mapping[str, frozenset[str]]) -> None:
    """By program the events that it does not log; ``*``: the other programs."""
    global _quiet, _quiet_of  # noqa: PLW0603  what the administrator does not want to hear
    _quiet_of = events
    _quiet = events.get(_prog, events.get("*", frozenset()))


def program() -> str:
    """The name given to set_program()."""
    return _prog


def event(kind: str, /, **facts: object) -> None:
    """Write one line. Never raises: a full disk or a closed descriptor must not stop mail."""
    if kind in _quiet:
        return
    line = f"event={kind} prog={_prog} {xtext.facts(facts)}".rstrip(" ")
    raw = line.encode("utf-8", "surrogateescape")
    if len(raw) > LONGEST:
        raw = raw[:LONGEST - 3] + b"..."
    _held.append(raw + b"\n")
    if _later is None:
        flush()
    elif len(_held) == 1:
        _later(flush)


def batch(later: Callable[[Callable[[], None]], object] | None) -> None:
    """From now on hold lines until *later* (a loop's call_soon) calls us back; None: write at once."""
    global _later  # noqa: PLW0603  the other piece of state: when we speak
    flush()
    _later = later


def flush() -> None:
    """Write the lines that are held."""
    piece = b""
    while _held:
        piece += _held.pop(0)
        if not _held or len(piece) + len(_held[0]) > _WHOLE:
            try:
                os.write(2, piece)
            except OSError:
                pass
            piece = b""
