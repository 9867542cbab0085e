"""Work in other processes: several at once, or one beside us until we have done."""

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
    def do(argument: Any) -> Callable[[int], object]:
        return lambda pipe: os.write(pipe, json.dumps(work(argument)).encode())

    pipes = [_fork(work.__name__, do(argument)) for argument in arguments]
    texts = []
    for pid, reading in pipes:
        with open(reading, "rb") as pipe:
            texts.append((pid, pipe.read()))
    if any([os.waitpid(pid, 0)[1] for pid, _ in texts]):
        raise Trouble(f"{work.__name__} failed in one of {len(pipes)} processes")
    return [json.loads(text) for _, text in texts]


class Beside:
    """``work(ready, *arguments)`` in a process of its own, which is killed at the end. It calls ready()
    when it is; what it uses is nobody's but its own."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        def do(pipe: int) -> None:
            work(lambda: os.write(pipe, b" "), *arguments)

        self._what = work.__name__
        self.pid, self._reading = _fork(self._what, do)

    def wait(self) -> None:
        """Until it is ready; Trouble when it ends before."""
        if not os.read(self._reading, 1):
            raise Trouble(f"{self._what} failed")

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._reading)


def _fork(name: str, do: Callable[[int], object]) -> tuple[int, int]:
    """(pid, where to read what it writes) of a process that does ``do(where to write)``."""
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
        do(writing)
        code = 0
    except (OSError, ValueError) as error:
        os.write(2, f"bench: {name}: {error}\n".encode())
    finally:
        os._exit(code)
