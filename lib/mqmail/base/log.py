"""The log: one line per event on descriptor 2, ``name=value`` words, no time (the logger stamps it).

``event=`` comes first and ``prog=`` second; the rest is what the caller gives, in that order.
Values are xtext, so no value holds a space, ``=``, a control character or a line end, and a line is
cut at 4,000 bytes (s6-log splits at 8,192). mq-log(5) lists all events.
"""

from __future__ import annotations

import os

from mqmail.base import xtext

LONGEST = 4000
_prog = "mqmail"


def set_program(name: str) -> None:
    """Name this process in its log lines."""
    global _prog  # noqa: PLW0603  the one piece of state: who speaks
    _prog = name


def program() -> str:
    """The name given to set_program()."""
    return _prog


def event(kind: str, /, **facts: object) -> None:
    """Write one line. Never raises: a full disk or a closed descriptor must not stop mail."""
    line = f"event={kind} prog={_prog} {xtext.facts(facts)}".rstrip(" ")
    raw = line.encode("utf-8", "surrogateescape")
    if len(raw) > LONGEST:
        raw = raw[:LONGEST - 3] + b"..."
    try:
        os.write(2, raw + b"\n")
    except OSError:
        pass
