"""run/trigger: how mq-queue tells mq-send about new messages, and others ask it to look.

A datagram holds ids, one a line, or a word that starts with ``*`` (``*run``: try everything now;
``*scan``: look for records you do not know). It is a hint and nothing more: mq-send looks through
``queue/new`` when it starts and every few minutes. What cannot be sent now (the socket's queue is
full, mq-send is down) is kept and sent with the next; when too much is kept, it becomes one ``*scan``.

run/etrn: how xmtpd asks that mail which waits for a domain be tried. A datagram holds domains, one a
line, with a dot in front for all below; nothing else is listened to there.
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, socket

PATH = "run/trigger"
ETRN = "run/etrn"
LONGEST = 65536         # of a datagram
_MOST_KEPT = 2000       # ids
_SCAN = "*scan"


def tell(path: str, words: list[str]) -> bool:
    """Send *words* now, or not at all: whether they were taken."""
    sock = _socket()
    try:
        sock.sendto("\n".join(words).encode("ascii"), path)
    except OSError:
        return False
    finally:
        sock.close()
    return True


def _socket() -> socket:
    sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    sock.setblocking(False)
    return sock


class Trigger:
    """The sending side. ``send`` never blocks and never raises."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._sock = _socket()
        self._kept: list[str] = []

    @property
    def kept(self) -> int:
        """How many words wait to be sent."""
        return len(self._kept)

    def send(self, words: list[str]) -> bool:
        """Send *words* and what is kept; False when they had to be kept."""
        self._kept += words
        if len(self._kept) > _MOST_KEPT:
            self._kept = [_SCAN]
        if not self._kept:
            return True
        try:
            self._sock.sendto("\n".join(self._kept).encode("ascii"), self._path)
        except OSError:
            return False
        self._kept = []
        return True
