"""Work in several processes at once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from mqmail.net.lifeline import die_with_parent


class Trouble(Exception):
    """Something that cannot be measured, and why."""


def parallel(work: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
    """``work(argument)`` for each argument, each in a process of its own; the results in their order
    (what JSON can carry). Trouble when one fails."""
    pipes = [_fork(work, argument) for argument in arguments]
    texts = []
    for pid, reading in pipes:
        with open(reading, "rb") as pipe:
            texts.append((pid, pipe.read()))
    if any([os.waitpid(pid, 0)[1] for pid, _ in texts]):
        raise Trouble(f"{work.__name__} failed in one of {len(pipes)} processes")
    return [json.loads(text) for _, text in texts]


def _fork(work: Callable[[Any], Any], argument: Any) -> tuple[int, int]:
    parent = os.getpid()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        die_with_parent(parent)
        os.write(writing, json.dumps(work(argument)).encode())
        code = 0
    except (OSError, ValueError) as error:
        os.write(2, f"bench: {work.__name__}: {error}\n".encode())
    finally:
        os._exit(code)
