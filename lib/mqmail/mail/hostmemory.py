"""Which next hops could not be reached, and when each may be tried again, for all messages.

A next hop has its own schedule, that of qmail's messages (mail/retry.py), counted from its first
failure, so that new mail for a host that has been down for long starts with the long intervals. When its
time has come one caller gets to try; the others are told that it is down until that attempt has ended.
Times are seconds since the epoch, and the clock may jump: a host is never down for longer than LONGEST.
"""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.base.value import value
from mqmail.mail.reason import is_status
from mqmail.mail.retry import FUZZ, next_attempt

LONGEST = 3600.0        # between two attempts, fuzz included
PROBE = 120.0           # how long others wait for the one attempt; about as long as connecting takes
FORGET = 86400.0        # a failure that nobody tried again for so long says nothing any more
MOST_SAID = 400         # characters that are kept of the peer's words, and of the host's name
MOST_OCTETS = 4 << 20   # of a dump


@value
class Down:
    """A next hop not to be tried before *until*; *status* (4.x.x), *host* and *said* as in a verdict."""

    until: float
    status: str
    host: str
    said: str


class _Entry:
    """*first* failure, last time *tried*, not before *until*; *probing*: somebody is trying now."""

    __slots__ = ("first", "tried", "until", "probing", "status", "host", "said")

    def __init__(self, first: float, tried: float, until: float) -> None:
        self.first = first
        self.tried = tried
        self.until = until
        self.probing = False
        self.describe("4.4.1", "", "")

    def describe(self, status: str, host: str, said: str) -> None:
        self.status = status
        self.host = host[:MOST_SAID]
        self.said = said[:MOST_SAID]

    def correct(self, now: float) -> None:
        """Undo what a clock set back, or a bad file, has done."""
        self.tried = min(self.tried, now)
        self.first = min(self.first, self.tried)
        self.until = min(self.until, now + LONGEST)

    def line(self, key: str) -> str:
        facts = xtext.facts({"status": self.status, "host": self.host, "said": self.said})
        return f"{xtext.encode(key)} {self.first:.3f} {self.tried:.3f} {self.until:.3f} {facts}\n"


class HostMemory:
    """At most *most* next hops; the one that was asked for the longest ago makes room. Keys are any
    text that is not empty."""

    def __init__(self, most: int = 10000) -> None:
        self._most = most
        self._entries: dict[str, _Entry] = {}       # the last used last

    def __len__(self) -> int:
        return len(self._entries)

    def down(self, key: str, now: float, fuzz: float, status: str, host: str, said: str) -> float:
        """No session could be had; the time of the next attempt. *fuzz* in [0, 1) is a random number
        that lengthens the interval by up to a tenth. Of several attempts at a time the first to fail
        sets that time."""
        entry = self._find(key, now)
        if entry is None:
            entry = _Entry(now, now, now)
            self._keep(key, entry)
        if entry.probing or entry.until <= now:
            interval = min(next_attempt(entry.first, now) - now, LONGEST / (1 + FUZZ))
            entry.until = now + interval * (1 + FUZZ * fuzz)
        entry.probing = False
        entry.tried = now
        entry.describe(status, host, said)
        return entry.until

    def not_tried(self, key: str, now: float) -> None:
        """The attempt that known() allowed was not made: the next one who asks may try."""
        entry = self._find(key, now)
        if entry is not None and entry.probing:
            entry.probing = False
            entry.until = now

    def up(self, key: str) -> None:
        """A session could be had: nothing is known against it."""
        self._entries.pop(key, None)

    def known(self, key: str, now: float, force: float = 0.0) -> Down | None:
        """None: the caller may try, and says how it went by up() or down(). Otherwise it is known to be
        down. *force*: when somebody asked for an attempt before its time, if none was made since."""
        entry = self._find(key, now)
        if entry is None:
            return None
        if entry.until <= now or entry.tried < min(force, now):
            entry.probing = True
            entry.tried = now
            entry.until = now + PROBE
            return None
        return Down(entry.until, entry.status, entry.host, entry.said)

    def until(self, key: str, now: float) -> float | None:
        """When it is tried again; None: nothing is known against it. Nobody gets to try by asking."""
        entry = self._find(key, now)
        return entry.until if entry is not None and entry.until > now else None

    def dump(self) -> bytes:
        """A line each: key, first failure, last attempt, next attempt, facts; the last used first, as
        many as MOST_OCTETS hold."""
        lines: list[bytes] = []
        left = MOST_OCTETS
        for key, entry in reversed(self._entries.items()):
            line = entry.line(key).encode()
            left -= len(line)
            if left < 0:
                break
            lines.append(line)
        return b"".join(lines)

    def load(self, data: bytes, now: float) -> int:
        """Remember what dump() gave, and nothing else; returns how many lines were bad and left out:
        what follows the last line end, or the first *most* lines, counts as one."""
        found: dict[str, _Entry] = {}
        *lines, rest = data[:MOST_OCTETS].split(b"\n", self._most)
        for line in lines:
            read = _read(line)
            if read and read[0] not in found:
                found[read[0]] = read[1]
        bad = len(lines) - len(found) + (rest != b"")
        self._entries = dict(reversed(found.items()))
        for key in list(self._entries):
            self._find(key, now)
        return bad

    def _find(self, key: str, now: float) -> _Entry | None:
        """What is known at *now*, which counts as use."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        entry.correct(now)
        if now - entry.until > FORGET:
            return None
        self._entries[key] = entry
        return entry

    def _keep(self, key: str, entry: _Entry) -> None:
        self._entries[key] = entry
        if len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]


def _read(line: bytes) -> tuple[str, _Entry] | None:
    """Key and entry of a dump's line; None when it is not one."""
    try:
        words = line.decode().split(" ")
        facts = xtext.parse_facts(words[4:])
        key, entry = xtext.decode(words[0]), _Entry(*[_time(word) for word in words[1:4]])
    except (ValueError, TypeError):
        return None
    status = facts.get("status", "")
    if not key or not status.startswith("4.") or not is_status(status):
        return None
    entry.describe(status, facts.get("host", ""), facts.get("said", ""))
    return key, entry


def _time(word: str) -> float:
    """Seconds since the epoch, with milliseconds. Raises ValueError."""
    whole, _, part = word.partition(".")
    digits = whole + part
    if len(word) > 16 or len(part) != 3 or not whole or not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"not a time: {word[:20]!a}")
    return float(word)
