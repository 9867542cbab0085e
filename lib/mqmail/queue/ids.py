"""Queue ids: 16 characters that sort by time, and the directory each one lives in.

11 characters of base32hex (RFC 4648 section 7, lower case) hold the microseconds since the epoch, 5 the
process that made the id.
"""

from __future__ import annotations

LENGTH = 16

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_ALPHABET = frozenset(_DIGITS)
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_FOLD = (1 << 25) - 1
_LATEST = 1 << 55


def make(microseconds: int, process: int) -> str:
    """The id for a time (microseconds since the epoch) and a process: any number, folded to 25 bits;
    numbers below 2^25 - 1, and so all process ids, stay different. ValueError before 1970 and
    after 3111."""
    if not 0 <= microseconds < _LATEST:
        raise ValueError(f"no time for a queue id: {microseconds}")
    n = microseconds << 25 | process % _FOLD
    pairs = _PAIRS
    return (pairs[n >> 70] + pairs[n >> 60 & 1023] + pairs[n >> 50 & 1023] + pairs[n >> 40 & 1023]
            + pairs[n >> 30 & 1023] + pairs[n >> 20 & 1023] + pairs[n >> 10 & 1023] + pairs[n & 1023])


def is_id(text: str) -> bool:
    """Whether *text* is an id, and so safe as a file name."""
    return len(text) == LENGTH and _ALPHABET.issuperset(text)


def directory(id: str) -> str:
    """``XX``: bits 22 to 29 of the id's microseconds, in hex. The id must be one (is_id)."""
    return f"{int(id[5:7], 32) >> 2:02x}"


def microseconds(id: str) -> int:
    """When the id was made, in microseconds since the epoch. The id must be one (is_id)."""
    return int(id[:11], 32)
