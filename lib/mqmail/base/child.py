"""A program that was started in a session of its own: hearing what it writes, and ending it."""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen

_SIGTERM, _SIGKILL = 15, 9
_PIPE = 65536            # all that a pipe holds


def listen(child: Popen[bytes], most: dict[int, int], deadline: float,
           strict: tuple[int, ...] = ()) -> tuple[dict[int, bytes], bool]:
    """(what *child* has written to the descriptors of *most*, so many bytes of each at the most;
    whether it ended before *deadline*, of time.monotonic). The rest is read and dropped; ValueError when
    one of *strict* has more.

    What a process that it leaves behind may write later is not waited for.
    """
    said = dict.fromkeys(most, b"")
    ending = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        for fd in (ending, *most):
            poll.register(fd, select.POLLIN)
        left = deadline
        while left > 0:             # also looked at behind the deadline: it may be we who were held up
            left = deadline - time.monotonic()
            ready = [fd for fd, _ in poll.poll(max(0.0, left) * 1000)]
            for fd in said.keys() & set(ready):
                piece = os.read(fd, _PIPE)
                if fd in strict and len(said[fd]) + len(piece) > most[fd]:
                    raise ValueError(f"wrote more than {most[fd]} bytes")
                said[fd] += piece[:most[fd] - len(said[fd])]
                if not piece:
                    poll.unregister(fd)
            if ending in ready:     # seen before the pipes were: they held all that it wrote
                return said, True
        return said, False
    finally:
        os.close(ending)


def end(child: Popen[bytes], grace: float) -> None:
    """End its process group: TERM, *grace* seconds to remove lock files and the like, then by force."""
    from subprocess import TimeoutExpired
    for number in (_SIGTERM, _SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(grace)
        except (OSError, TimeoutExpired):
            pass   # gone, or a set-uid program that is not ours to end
