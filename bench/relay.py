"""Mail for other hosts: rates and CPU when all that comes in goes out again, to hosts that take all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import load
from forks import Trouble
from postfix import Postfix
from sink import Sink
from system import System

SESSIONS = (1, 10, 50)
AT_ONCE = 50            # deliveries to other hosts
RECIPIENT = "bob@away.example.net"


class Relay:
    """A running mail system that sends all to a sink: a Target of loads. *reuse*: over sessions that
    carry many messages."""

    recipient = RECIPIENT

    def __init__(self, system: System | Postfix, sink: Sink, reuse: bool) -> None:
        self.name, self.port, self.pid = system.name, system.port, system.pid
        self.reuse = reuse
        self._sink = sink
        self._before = 0

    def clear(self) -> None:
        """Count from now on."""
        self._before = self._sink.counters()[0]

    def arrived(self) -> int:
        """How many messages the sink has taken since then."""
        return self._sink.counters()[0] - self._before


def start_mqmail(stack: ExitStack, directory: str, reuse: bool) -> Relay:
    """mqmail on a home below *directory*, which sends all to a sink; until *stack* ends."""
    sink = stack.enter_context(Sink(directory))
    system = System(directory)
    write_control(system.home, relayclients="127.0.0.1", smtproutes=f":{sink.where}",
                  concurrencyremote=str(AT_ONCE),
                  remotesessions=f"most {AT_ONCE}" + "\nidle 0" * (not reuse))
    return Relay(stack.enter_context(system).start(), sink, reuse)


def start_postfix(stack: ExitStack, directory: str, reuse: bool) -> Relay:
    """The same with Postfix."""
    sink = stack.enter_context(Sink(directory))
    postfix = stack.enter_context(Postfix(directory, f"[{sink.ip}]:{sink.port}", reuse))
    return Relay(postfix.start(), sink, reuse)


def write_control(home: str, **files: str) -> None:
    """Control files of a home that is not running."""
    for name, text in files.items():
        with open(f"{home}/control/{name}", "w", encoding="ascii") as file:
            file.write(text + "\n")
        os.chmod(f"{home}/control/{name}", 0o644)


def measure(targets: list[Relay], generator: load.Generator, seconds: float,
            progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each load on each target in turn, so that all meet the same machine. Senders use their sessions
    again; *reuse* in the figures is about the sessions to the sink."""
    results = []
    for sessions in SESSIONS:
        for target in targets:
            progress(f"{target.name}, relay, {sessions} sessions{', reused' * target.reuse}")
            try:
                found = load.measure_for(generator, target, sessions, True, seconds)
            except Trouble as error:
                found = {"trouble": str(error)}
            results.append({"system": target.name, "sessions": sessions, "reuse": target.reuse, **found})
    return results
