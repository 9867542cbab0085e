"""A program of the user's gets the message: ``/bin/sh -c COMMAND`` in the home (qmail-command(8)).

Descriptor 0 is a private copy of the message with LF line ends and no fields of ours. It is a file,
because programs written for qmail seek in it.
"""

from __future__ import annotations

import os
import select
import time

from mqmail.base.value import value
from mqmail.local.spool import spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen

    from mqmail.local.body import Body

TIMEOUT = 540.0         # seconds for all programs of a delivery: mq-send waits 600 for its answer
MOST_OUTPUT = 1000
DONE, DONE_STOP = 0, 99
HARD = frozenset((64, 65, 70, 76, 77, 78, 100, 112))
PATH = "/usr/local/bin:/usr/bin:/bin"

_SIGTERM, _SIGKILL = 15, 9
_GRACE = 5.0     # seconds between the two


@value
class Outcome:
    """How a program ended. *code* is its exit code, minus the signal that killed it, or None when it
    ran out of time; *text* is the start of what it wrote, one printable line."""

    code: int | None
    text: str


def run(command: str, home: str, environment: dict[str, str], body: Body,
        timeout: float = TIMEOUT) -> Outcome:
    """Run *command* in *home* with exactly *environment* and PATH, in a session of its own; after
    *timeout* seconds its process group is ended. OSError when it cannot be started."""
    message, _ = spool(body.pieces(), home)
    try:
        child = _start(command, home, {"PATH": PATH, **environment}, message)
    finally:
        os.close(message)
    ended = False
    try:
        said, ended = _listen(child, time.monotonic() + timeout)
        return Outcome(child.wait() if ended else None, printable(said))
    finally:
        if not ended:
            _end(child)
        child.stdout.close()  # type: ignore[union-attr]


def _start(command: str, home: str, environment: dict[str, str], message: int) -> Popen[bytes]:
    """SIGPIPE and SIGXFSZ are as a program expects them, descriptors above 2 closed."""
    import subprocess  # 8 ms that only users with programs pay, once per worker
    return subprocess.Popen(
        ["/bin/sh", "-c", command], cwd=home, env=environment, bufsize=0, umask=0o077,
        stdin=message, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        close_fds=True, restore_signals=True, start_new_session=True)


def _listen(child: Popen[bytes], deadline: float) -> tuple[bytes, bool]:
    """(the first MOST_OUTPUT bytes it wrote, whether it ended in time). The rest is read and dropped.

    What a process that it leaves behind may write later is not waited for.
    """
    said, output = b"", child.stdout.fileno()  # type: ignore[union-attr]
    ending = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        poll.register(ending, select.POLLIN)
        poll.register(output, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = [fd for fd, _ in poll.poll(left * 1000)]
            if output in ready:
                piece = os.read(output, 65536)     # all that a pipe holds
                said += piece[:MOST_OUTPUT - len(said)]
                if not piece:
                    poll.unregister(output)
            if ending in ready:
                return said, True
        return said, False
    finally:
        os.close(ending)


def _end(child: Popen[bytes]) -> None:
    """End its process group: a moment to remove lock files and the like, then by force."""
    from subprocess import TimeoutExpired
    for number in (_SIGTERM, _SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(_GRACE)
        except (OSError, TimeoutExpired):
            pass   # gone, or a set-uid program that is not ours to end


def printable(raw: bytes) -> str:
    """One line without control characters."""
    text = raw.decode("utf-8", "replace")
    return " ".join("".join([c if c.isprintable() else " " for c in text]).split())
