"""How long a program takes from its start to its end, compared with the bare interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from typing import Any

from forks import Trouble
from system import ME, ROOT, System

RUNS = 30
QUIT = b"QUIT\r\n"
MAIL = b"To: bob\nSubject: small\n\nhello\n"


def interpreter() -> str:
    """The binary behind the programs in bin/: what .venv/bin/python executes, or else our own."""
    python = f"{ROOT}/.venv/bin/python"
    if not os.path.exists(python):
        return os.readlink("/proc/self/exe")
    told = subprocess.run([python, "-ISc", "import os; print(os.readlink('/proc/self/exe'))"],
                          capture_output=True, text=True, check=True)
    return told.stdout.strip()


def commands(python: str, home: str) -> dict[str, tuple[list[str], bytes]]:
    """What is compared: words, and what goes to standard input."""
    xmtpd = [f"{ROOT}/bin/xmtpd", "--home", home]
    inject = [f"{ROOT}/bin/mq-inject", "--home", home, "-f", f"alice@{ME}"]
    return {
        "python -I -S -c pass": ([python, "-I", "-S", "-c", "pass"], b""),
        "xmtpd": ([python, "-IS", *xmtpd], QUIT),
        "mq-inject": ([python, "-IS", *inject], MAIL),
        "bin/xmtpd (through sh)": (xmtpd, QUIT),
        "bin/mq-inject (through sh)": (inject, MAIL),
    }


def measure(system: System, runs: int = RUNS) -> dict[str, Any]:
    """Medians of wall ms, all commands in turn, and ratios to the first."""
    python = interpreter()
    environment = {"PATH": os.environ["PATH"], "TCPREMOTEIP": "127.0.0.1", "TCPLOCALIP": "127.0.0.1"}
    chosen = commands(python, system.home)
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(runs + 1):
        for name, (words, text) in chosen.items():
            took = _once(words, text, environment)
            if number:              # the first run fills caches
                times[name].append(took)
    return {"python": python, "runs": runs, "commands": compare(times)}


def compare(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, least, and the median's ratio to that of the first."""
    base = statistics.median(next(iter(times.values())))
    return {name: {"median_ms": statistics.median(values), "least_ms": min(values),
                   "ratio": statistics.median(values) / base} for name, values in times.items()}


def _once(words: list[str], text: bytes, environment: dict[str, str]) -> float:
    """Milliseconds of one run; the input is there before it begins."""
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    actions = [(os.POSIX_SPAWN_DUP2, reading, 0),
               (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
               (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
    start = time.perf_counter()
    pid = os.posix_spawn(words[0], words, environment, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - start
    os.close(reading)
    if status:
        raise Trouble(f"{' '.join(words)}: exit {os.waitstatus_to_exitcode(status)}")
    return took * 1000
