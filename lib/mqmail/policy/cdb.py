"""cdb: a constant database (https://cr.yp.to/cdb/cdb.txt). Reading one of any size costs two or three
small reads a key; nothing is mapped into memory, where a file cut short would kill us (SIGBUS).
"""

from __future__ import annotations

import os
from array import array
from struct import Struct

from mqmail.base.failure import BadFile
from mqmail.base.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST_VALUE = 8192        # octets
MOST_KNOWN = 4096           # keys that are remembered, most of them not there
LONGEST_KNOWN = 200         # characters of their values
_TABLES = 256
_HEADER = _TABLES * 8
_PAIR = Struct("<II")
_POINTERS = Struct(f"<{2 * _TABLES}I")
_MOST_SLOTS = 4096          # of one table that are looked at for a key: half of all slots are empty
_SLOTS_A_READ = 16
_PIECE = 1 << 20
_MOST = 1 << 32             # octets of a file


def hash_of(key: bytes) -> int:
    """32 bits."""
    found = 5381
    for octet in key:
        found = (found * 33 & 0xFFFFFFFF) ^ octet
    return found


class Cdb:
    """The file open at *fd*, which is ours then; *path* is for the texts of errors. Raises BadFile. What
    was asked for is remembered: a cdb file never changes, another takes its place."""

    def __init__(self, fd: int, path: str) -> None:
        self._known: dict[str, str | None] = {}
        self._fd = fd
        self._path = path
        try:
            self._tables = _POINTERS.unpack(self._read(0, _HEADER))
        except BadFile:
            os.close(fd)
            raise

    def get(self, key: str) -> str | None:
        """The value of *key*, None without one. Raises BadFile."""
        if key in self._known:
            return self._known[key]
        found = self._look_up(key)
        if found is None or len(found) <= LONGEST_KNOWN:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = found
        return found

    def _look_up(self, key: str) -> str | None:
        found = self._find(key.encode("utf-8", "surrogateescape"))
        try:
            return None if found is None else found.decode()
        except UnicodeDecodeError:
            raise self._bad(f"the value of {key[:80]!a} is not UTF-8") from None

    def _find(self, key: bytes) -> bytes | None:
        number = hash_of(key)
        place = 2 * (number & 0xFF)
        start, slots = self._tables[place], self._tables[place + 1]
        if not slots:
            return None
        first = (number >> 8) % slots
        looked_at = 0
        while looked_at < min(slots, _MOST_SLOTS):
            slot = (first + looked_at) % slots
            count = min(_SLOTS_A_READ, slots - slot)
            data = self._read(start + 8 * slot, 8 * count)
            for found, where in _PAIR.iter_unpack(data):
                if not where:
                    return None
                if found == number:
                    value = self._value(where, key)
                    if value is not None:
                        return value
            looked_at += count
        if looked_at >= slots:
            return None
        raise self._bad("too many keys in one place")

    def _value(self, where: int, key: bytes) -> bytes | None:
        """That of the record at *where*, if it has this key."""
        length, size = _PAIR.unpack(self._read(where, 8))
        if length != len(key) or self._read(where + 8, length) != key:
            return None
        if size > LARGEST_VALUE:
            raise self._bad(f"a value of {size} bytes")
        return self._read(where + 8 + length, size)

    def _read(self, where: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, where)
        except OSError as error:
            raise self._bad(error.strerror or str(error)) from None
        if len(data) < size:
            raise self._bad("it ends too early")
        return data

    def _bad(self, why: str) -> BadFile:
        return BadFile(f"{self._path}: no whole cdb file ({why}): make it anew with mq-makemap")

    def close(self) -> None:
        """No more questions."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def write(fd: int, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Write a cdb file of *pairs*, no key twice, to the empty file *fd*. Raises OSError, and ValueError
    when it would not fit into 4 GiB."""
    tables = [array("I") for _ in range(_TABLES)]       # hash, place, hash, place ...
    place, held = _HEADER, bytearray(_HEADER)
    for key, value in pairs:
        number = hash_of(key)
        if place + 8 + len(key) + len(value) >= _MOST:
            raise ValueError("more than a cdb file can hold: 4 GiB")
        tables[number & 0xFF].extend((number, place))
        held += _PAIR.pack(len(key), len(value)) + key + value
        place += 8 + len(key) + len(value)
        if len(held) > _PIECE:
            write_all(fd, bytes(held))
            held.clear()
    pointers = []
    for table in tables:
        slots = _slots(table)
        pointers += [place if slots else 0, len(slots) // 2]
        held += slots.tobytes()
        place += 4 * len(slots)
    if place >= _MOST:
        raise ValueError("more than a cdb file can hold: 4 GiB")
    write_all(fd, bytes(held))
    os.pwrite(fd, _POINTERS.pack(*pointers), 0)


def _slots(table: array[int]) -> array[int]:
    """A hash table, half of whose slots are empty; empty ones have place 0."""
    count = len(table)          # two numbers an entry: as many slots as twice the entries
    slots = array("I", bytes(8 * count))
    for at in range(0, count, 2):
        slot = (table[at] >> 8) % count
        while slots[2 * slot + 1]:
            slot = (slot + 1) % count
        slots[2 * slot], slots[2 * slot + 1] = table[at], table[at + 1]
    if _BIG_ENDIAN:
        slots.byteswap()
    return slots


_BIG_ENDIAN = array("I", [1]).tobytes()[0] == 0
