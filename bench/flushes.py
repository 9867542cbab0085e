"""How often a message makes the system flush to disk: fsync calls, counted by strace(1).

Only those calls are traced (with seccomp), so the rest runs at its usual speed and as many messages
share a flush as without strace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import Any

import procs
from forks import Trouble
from load import SETTLE, Generator, send_all
from system import System

CALLS = "fsync,fdatasync,sync_file_range,syncfs,msync"
STRACE = ("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", f"trace={CALLS}")
LOADS = ((1, True), (10, True), (50, True), (50, False))
MOST = 300      # messages of a load


def count(text: str, names: dict[int, str]) -> dict[str, int]:
    """Calls by program in what strace -f writes: a line "PID call(arguments) = result" for each, or two
    when others come between; then the first counts. *names*: the programs by thread; calls of others
    are under "(other)"."""
    calls: dict[str, int] = {}
    for line in text.splitlines():
        pid, _, call = line.partition(" ")
        if call.lstrip().partition("(")[0] in CALLS.split(","):
            name = names.get(int(pid), "(other)")
            calls[name] = calls.get(name, 0) + 1
    return calls


def measure(directory: str, generator: Generator) -> list[dict[str, Any]]:
    """Flushes per message under each load, by program; on a home of its own below *directory*."""
    if shutil.which("strace") is None:
        raise Trouble("strace is not installed")
    out = f"{directory}/strace"
    results = []
    with System(directory) as system:
        try:
            system.start(*STRACE, "-o", out)
        except (Trouble, subprocess.SubprocessError) as error:
            raise Trouble(f"strace cannot trace here: {error}") from None
        for sessions, reuse in LOADS:
            messages = MOST if sessions > 1 else MOST // 3
            before = os.path.getsize(out)
            send_all(generator, system, sessions, reuse, messages)
            time.sleep(SETTLE)
            calls = count(_read_from(out, before), procs.threads(system.pid))
            results.append({"sessions": sessions, "reuse": reuse, "messages": messages,
                            "by_program": {name: number / messages for name, number in calls.items()}})
    return results


def _read_from(path: str, offset: int) -> str:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", "replace")
