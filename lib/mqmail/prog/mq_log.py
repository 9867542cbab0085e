"""mq-log: shows logs so that a person can read them; one message's story from all of them.

Usage:
  mq-log [ID] [LOG ...]
  mq-log --help

Options:
  --help          this text

ID is a queue id: what all programs have said of that message, of the session it came in, and of reports
on it, by time. Without one, everything. LOG is a file, a directory of multilog, s6-log or svlogd, or a
directory of such directories or of service directories; without one, standard input is read.
"""

from __future__ import annotations

import heapq
import os
import sys
import tempfile
import time

from docopt import docopt

from mqmail.base import files, xtext
from mqmail.base.failure import Temporary, Usage
from mqmail.base.program import complain
from mqmail.base.value import value
from mqmail.mail.shown import clean
from mqmail.queue import ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

_TAI = (1 << 62) + 10           # TAI64's second of the epoch, as tai64nlocal(8) counts
_LONGEST = 65536                # of a line; the rest is another one
_MOST = 100000                  # lines of a story
NOT_FOUND = 1                   # exit code


def main(argv: list[str]) -> int:
    """Print; NOT_FOUND if no log knows the message."""
    found = docopt(__doc__, argv, True, None, False)
    id, places = found["ID"] or "", found["LOG"]
    if id and not ids.is_id(id):
        if not os.path.exists(id):
            raise Usage(f"{id!a} is neither a queue id nor a file")
        id, places = "", [id, *places]
    logs = [log for place in places for log in _logs(place)]
    if id:
        logs = logs or [_copy_of_input()]
        lines = _story(id, logs)
        for line in lines:
            _print(line, id)
        if not lines:
            complain("mq-log", f"no line of these logs is about {id}")
        return 0 if lines else NOT_FOUND
    for line in _merged(logs or [lambda: _lines(sys.stdin.buffer)]):
        _print(line, "")
    return 0


# --- where lines come from ---

def _logs(place: str) -> list[Callable[[], Iterator[bytes]]]:
    """The logs at *place*, each a function that reads it from its beginning."""
    names = _files(place) if os.path.isdir(place) else [place]
    if not names:
        raise Temporary(f"{place} has no logs")
    return [lambda name=name: _read(open(name, "rb")) for name in names]    # type: ignore[misc]


def _files(directory: str) -> list[str]:
    """Old files first: @TIME by their names, then current."""
    names = sorted(os.listdir(directory))
    if "current" in names:
        old = [name for name in names if name[0] == "@"]
        return [f"{directory}/{name}" for name in [*old, "current"]]
    below = [f"{directory}/{name}" for name in names]
    return [file for path in below if os.path.isdir(path) for file in _files(_main(path))]


def _main(service: str) -> str:
    return f"{service}/log/main" if os.path.isdir(f"{service}/log/main") else service


def _copy_of_input() -> Callable[[], Iterator[bytes]]:
    """It is read twice."""
    copy = tempfile.TemporaryFile()
    while piece := sys.stdin.buffer.read(_LONGEST):
        copy.write(piece)

    def read() -> Iterator[bytes]:
        copy.seek(0)
        return _lines(copy)

    return read


def _read(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        yield from _lines(file)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(_LONGEST):
        yield line.rstrip(b"\n")


# --- what they say ---

@value
class Line:
    """*at*: seconds since the epoch, None without a time; *text*: what is behind it; *facts*: its words
    ``name=value``, decoded; *before*: what another logger has put in front of them."""

    at: float | None
    text: str
    facts: dict[str, str]
    before: str = ""


def parse(raw: bytes) -> Line:
    """A line with the time of multilog t (or s6-log t, svlogd -t), s6-log T, svlogd -tt or -ttt before
    it, or none, or with what syslog and journalctl write there."""
    text = raw.decode("utf-8", "surrogateescape")
    at, rest = _time(text)
    before, event, behind = rest.partition(" event=")
    if event and at is None and rest[:6] != "event=":
        rest = event[1:] + behind
    else:
        before = ""
    facts = {}
    for word in rest.split(" ") if rest[:6] == "event=" else ():
        name, equals, found = word.partition("=")
        if equals:
            facts[name] = xtext.decode(found)
    return Line(at, rest, facts, before)


def _time(text: str) -> tuple[float | None, str]:
    try:
        if text[:1] == "@":
            at = int(text[1:17], 16) - _TAI + int(text[17:25], 16) / 1e9
            return at, text[25:].lstrip(" ")
        if text[4:5] == text[7:8] == "-" and text[10:11] in (" ", "_", "T"):
            digits, _, rest = text[11:].partition(" ")
            whole, _, part = digits.removesuffix("Z").partition(".")
            # s6-log gives local time, svlogd and make run UTC
            zone = time.mktime if text[10] == " " else _seconds
            at = zone(time.strptime(f"{text[:10]} {whole}", "%Y-%m-%d %H:%M:%S"))
            return at + float(f"0.{part or 0}"), rest.lstrip(" ")
    except (ValueError, OverflowError):
        pass
    return None, text


def _seconds(utc: time.struct_time) -> float:
    import calendar
    return float(calendar.timegm(utc))


def _merged(logs: list[Callable[[], Iterator[bytes]]]) -> Iterator[Line]:
    """All lines of all logs by their times; those without one stay behind the line before them."""
    def timed(number: int, log: Iterator[bytes]) -> Iterator[tuple[float, int, Line]]:
        last = 0.0
        for raw in log:
            line = parse(raw)
            last = last if line.at is None else max(last, line.at)
            yield last, number, line

    every = [timed(number, log()) for number, log in enumerate(logs)]
    return (line for _, _, line in heapq.merge(*every, key=lambda one: one[:2]))


def _story(id: str, logs: list[Callable[[], Iterator[bytes]]]) -> list[Line]:
    """The lines about message *id*, by their times; those without one stay where they are."""
    sessions = {line.facts["session"] for line in _with(logs, [id]) if _is_about(line, id)
                and "session" in line.facts}
    found: list[tuple[float, int, Line]] = []
    last = 0.0
    for number, line in enumerate(_with(logs, [id, *[f"session={name}" for name in sessions]])):
        last = last if line.at is None else line.at
        theirs = line.facts.get("id", id)       # another message of the session is another story
        if _is_about(line, id) or line.facts.get("session") in sessions and theirs == id:
            found.append((last, number, line))
            if len(found) > _MOST:
                raise Temporary(f"more than {_MOST} lines about {id}")
    return [line for _, _, line in sorted(found, key=lambda one: one[:2])]


def _with(logs: list[Callable[[], Iterator[bytes]]], words: list[str]) -> Iterator[Line]:
    """The lines that hold one of *words*."""
    needles = [word.encode() for word in words]
    for log in logs:
        for raw in log():
            if any([needle in raw for needle in needles]):
                yield parse(raw)


def _is_about(line: Line, id: str) -> bool:
    return id in (line.facts.get("id"), line.facts.get("of"), line.facts.get("report"))


def _print(line: Line, id: str) -> None:
    """``2026-11-22 11:41:16.225 mq-queue queued size=162 …``, in local time, without *id*."""
    words = [_shown_time(line.at)] if line.at is not None else []
    words += [clean(line.before, wide=True, longest=_LONGEST)] if line.before else []
    if line.facts:
        facts = dict(line.facts)
        words += [clean(facts.pop(name, "-"), wide=True) for name in ("prog", "event")]
        words += [f"{clean(name, wide=True)}={_quoted(text)}" for name, text in facts.items()
                  if (name, text) != ("id", id)]
    else:
        words.append(clean(line.text, wide=True, longest=_LONGEST))
    files.write_all(1, (" ".join(words) + "\n").encode("utf-8", "surrogateescape"))


def _shown_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"


def _quoted(text: str) -> str:
    shown = clean(text, wide=True, longest=_LONGEST)
    return f'"{shown}"' if " " in shown or not shown else shown
