"""One load: so many sessions sending messages, and what the mail system used for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Any, Protocol

import procs
from forks import Trouble
from system import wait_for

FEWEST = 300            # messages of a load: CPU is counted in steps of 10 ms
LENGTH = 4096           # bytes of a message
SETTLE = 0.2            # seconds in which a system finishes what comes after delivery
SHARE = 0.6             # of the wanted time, since a warm-up is slower than what follows it
OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "generator.py")


class Target(Protocol):
    """A running mail system: it takes mail for *recipient* at *port*, and *pid* is the parent of all its
    processes."""

    name: str
    port: int
    recipient: str
    pid: int

    def clear(self) -> None:
        """Forget what has arrived."""

    def arrived(self) -> int:
        """How many messages have come to where *recipient*'s mail goes, since it was cleared."""


class Generator:
    """smtp-source when it is installed, else our own; *own* takes that anyway. *source*: the address to
    send from, which only our own can choose. *sender*: MAIL's."""

    def __init__(self, own: bool, source: str = "", sender: str = "sender@client.example.net") -> None:
        found = None if own else shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
        self.words = [found, "-M", "client.example.net"] if found else [sys.executable, OWN]
        self.words += ["-b", source] if source else []
        self.name = "Postfix's smtp-source" if found else "bench/generator.py"
        self._sender = sender

    def send(self, target: Target, sessions: int, reuse: bool, messages: int) -> float:
        """Send; the seconds it took. Trouble when anything is refused."""
        command = [*self.words, "-s", str(sessions), "-m", str(messages), "-l", str(LENGTH),
                   "-f", self._sender, "-t", target.recipient, *(["-d"] * reuse),
                   f"127.0.0.1:{target.port}"]
        start = time.monotonic()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        if done.returncode:
            raise Trouble(f"{target.name}: {done.stderr.strip()[-300:]}")
        return time.monotonic() - start


def measure_for(generator: Generator, target: Target, sessions: int, reuse: bool,
                seconds: float) -> dict[str, Any]:
    """Figures of one load that takes about *seconds*, after a warm-up that says how many messages."""
    return measure(generator, target, sessions, reuse,
                   enough(generator, target, sessions, reuse, seconds))


def measure(generator: Generator, target: Target, sessions: int, reuse: bool,
            messages: int) -> dict[str, Any]:
    """Figures of one load."""
    time.sleep(SETTLE)
    before, idle_before = procs.look(target.pid), procs.idle()
    accepted, finished = send_all(generator, target, sessions, reuse, messages)
    idle_after = procs.idle()
    time.sleep(SETTLE)
    after = procs.look(target.pid)
    result = figures(messages, accepted, finished, before, after)
    result["idle"] = (idle_after[0] - idle_before[0]) / max(1, idle_after[1] - idle_before[1])
    return result


def enough(generator: Generator, target: Target, sessions: int, reuse: bool, seconds: float) -> int:
    """How many messages take about *seconds*, by a warm-up."""
    warm = max(50, 4 * sessions)
    started = time.monotonic()
    send_all(generator, target, sessions, reuse, warm)
    rate = warm / (time.monotonic() - started)
    return max(FEWEST, int(rate * seconds * SHARE) // 100 * 100)


def send_all(generator: Generator, target: Target, sessions: int, reuse: bool,
             messages: int) -> tuple[float, float]:
    """Seconds until all are accepted, and until all have arrived."""
    target.clear()
    start = time.monotonic()
    accepted = generator.send(target, sessions, reuse, messages)
    if target.arrived() < messages:
        found = wait_for(target.arrived, messages)
        if found < messages:
            raise Trouble(f"{target.name}: only {found} of {messages} messages arrived")
    return accepted, time.monotonic() - start


def figures(messages: int, accepted: float, finished: float, before: list[procs.Process],
            after: list[procs.Process]) -> dict[str, Any]:
    """What a load comes to: rates per second, CPU in ms per message, shares of one CPU. *accepted*,
    *finished*: seconds."""
    def per_message(seconds: float) -> float:
        return seconds / messages * 1000

    spent = procs.spent(before, after)
    user = sum(times.user for times in spent.values())
    system = sum(times.system for times in spent.values())
    name, most = procs.busiest(before, after)
    return {
        "messages": messages,
        "accepted_per_s": messages / accepted,
        "delivered_per_s": messages / finished,
        "cpu_ms": per_message(user + system),
        "user_ms": per_message(user),
        "system_ms": per_message(system),
        "cpu_share": (user + system) / finished,
        "busiest": name,
        "busiest_share": most / finished,
        "by_program": {name: {"user_ms": per_message(times.user), "system_ms": per_message(times.system)}
                       for name, times in spent.items()},
    }
