"""Queue ids: 16 characters that sort by time, and the directory each one lives in.

11 characters of base32hex (RFC 4648 section 7, lower case) hold the microseconds since the epoch, 5 the
process that made the id.
"""

from __future__ import annotations

LENGTH = 16

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_ALPHABET = frozenset(_DIGITS)
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_HEX = tuple([f"{n:02x}" for n in range(256)])
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
    """``XX``, in hex: bits 14 to 21 of the id's microseconds plus 67 times the process, modulo 256. The
    id must be one (is_id).

    A directory changes every 16 ms and is another for each process: the messages that one process
    makes durable together share one (and its fsync), and nobody else works in it meanwhile.
    """
    return _HEX[(int(id[6:9], 32) >> 4) + 67 * int(id[14:], 32) & 255]


def microseconds(id: str) -> int:
    """When the id was made, in microseconds since the epoch. The id must be one (is_id)."""
    return int(id[:11], 32)
