"""How much waits in the queue. mq-queue counts it every second and writes it down; xmtpd, which sees
nothing of the queue, reads it there."""

from __future__ import annotations

import os

from mqmail.base.failure import BadFile
from mqmail.base.files import make_directory, read_bounded

LOOKS = 16              # of the 256 directories, each time others; messages fill them evenly
EVERY = 1.0             # seconds between two looks
DIRECTORY = "run/queue"
PATH = f"{DIRECTORY}/waiting"
_DIGITS = 12            # always as many, so that nobody reads half of a number


class Count:
    """mq-queue's. The home is the current directory."""

    def __init__(self) -> None:
        self._next = 0
        self._told = -1

    def waiting(self) -> int:
        """About how many messages no attempt has been finished for: of a few it sees none or many, of
        thousands it is some per cent off. OSError when the queue cannot be looked into."""
        buckets = range(self._next, 256, 256 // LOOKS)
        self._next = (self._next + 1) % (256 // LOOKS)
        return sum([_names(f"queue/new/{bucket:02x}") for bucket in buckets]) * 256 // LOOKS

    def tell(self) -> None:
        """Write it down, if it is not what was written last. OSError."""
        waiting = self.waiting()
        if waiting == self._told:
            return
        make_directory(DIRECTORY, 0o700)        # an older home has none
        fd = os.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            os.pwrite(fd, b"%0*d\n" % (_DIGITS, waiting), 0)
        finally:
            os.close(fd)
        self._told = waiting


def told() -> int:
    """What mq-queue has written last; 0 if it never has. OSError, BadFile."""
    try:
        text = read_bounded(PATH, 100)
    except FileNotFoundError:
        return 0
    if len(text) != _DIGITS + 1 or not text[:-1].isdigit():
        raise BadFile(f"{PATH}: no number of {_DIGITS} digits")
    return int(text)


def _names(path: str) -> int:
    try:
        return len(os.listdir(path))
    except FileNotFoundError:       # made when it is needed
        return 0
