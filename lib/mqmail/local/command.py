"""A program of the user's gets the message: ``/bin/sh -c COMMAND`` in the home (qmail-command(8)).

Descriptor 0 is a private copy of the message with LF line ends and no fields of ours. It is a file,
because programs written for qmail seek in it.
"""

from __future__ import annotations

import os
import time

from mqmail.base import child
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

_GRACE = 5.0            # seconds between SIGTERM and SIGKILL


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
        program = _start(command, home, {"PATH": PATH, **environment}, message)
    finally:
        os.close(message)
    ended = False
    try:
        output = program.stdout.fileno()  # type: ignore[union-attr]
        said, ended = child.listen(program, {output: MOST_OUTPUT}, time.monotonic() + timeout)
        return Outcome(program.wait() if ended else None, printable(said[output]))
    finally:
        if not ended:
            child.end(program, _GRACE)
        program.stdout.close()  # type: ignore[union-attr]


def _start(command: str, home: str, environment: dict[str, str], message: int) -> Popen[bytes]:
    """SIGPIPE and SIGXFSZ are as a program expects them, descriptors above 2 closed."""
    import subprocess  # 8 ms that only users with programs pay, once per worker
    return subprocess.Popen(
        ["/bin/sh", "-c", command], cwd=home, env=environment, bufsize=0, umask=0o077,
        stdin=message, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        close_fds=True, restore_signals=True, start_new_session=True)


def printable(raw: bytes) -> str:
    """One line without control characters."""
    text = raw.decode("utf-8", "replace")
    return " ".join("".join([c if c.isprintable() else " " for c in text]).split())
