"""How much waits in the queue, without asking anybody: xmtpd looks every second."""

from __future__ import annotations

import os

from mqmail.queue import paths

LOOKS = 16              # of the 256 directories, each time others; messages fill them evenly


class Load:
    """The queue of the home, which is the current directory."""

    def __init__(self) -> None:
        self._next = 0

    def waiting(self) -> int:
        """About how many messages no attempt has been finished for: exact below a few, else within some
        per cent. OSError when the queue cannot be looked into."""
        buckets = range(self._next, 256, 256 // LOOKS)
        self._next = (self._next + 1) % (256 // LOOKS)
        return sum([_names(f"queue/new/{bucket:02x}") for bucket in buckets]) * 256 // LOOKS

    def free(self) -> int:
        """Octets on the queue's disk. OSError."""
        return paths.space()[0]


def _names(path: str) -> int:
    try:
        return len(os.listdir(path))
    except FileNotFoundError:       # made when it is needed
        return 0
