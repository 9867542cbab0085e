"""Many messages waiting for one host that is down: how often it is tried. strace(1) counts connect calls
to its port, of all processes; only those calls are traced (with seccomp)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import Any

import waiting
from forks import Trouble
from relay import AT_ONCE, write_control
from sink import free_port_at
from system import System, wait_for

STRACE = ("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", "trace=connect")
IP = "127.0.0.2"


def measure(directory: str, messages: int) -> dict[str, Any]:
    """On a home of its own below *directory*: all messages are due when the system is started. Each is
    put off by more than the measurement takes, so all attempts counted belong to one retry time."""
    if shutil.which("strace") is None:
        raise Trouble("strace is not installed")
    system, port = System(directory), free_port_at([IP])
    write_control(system.home, smtproutes=f":{IP}:{port}", concurrencyremote=str(AT_ONCE))
    waiting.fill(system.home, messages, due_in=-60.0, spread=0.0)
    began = time.time()
    out = f"{directory}/strace"
    try:
        system.start(*STRACE, "-o", out)
    except (Trouble, subprocess.SubprocessError) as error:
        raise Trouble(f"strace cannot trace here: {error}") from None
    with system:
        put_off = wait_for(lambda: later(system.home, began), messages)
        seconds = time.time() - began
    with open(out, encoding="utf-8", errors="replace") as file:
        attempts = count(file.read(), IP, port)
    return {"messages": messages, "put_off": put_off, "seconds": seconds, "attempts": attempts}


def count(text: str, ip: str, port: int) -> int:
    """Calls of connect to *ip* and *port* in what strace -f writes; a call that others interrupt is
    written in two lines, and the first has the address."""
    wanted = f'sin_port=htons({port}), sin_addr=inet_addr("{ip}")'
    return sum(wanted in line for line in text.splitlines())


def later(home: str, now: float) -> int:
    """How many records wait for a time after *now* (seconds since the epoch)."""
    found = 0
    for bucket in os.listdir(f"{home}/queue/wait"):
        with os.scandir(f"{home}/queue/wait/{bucket}") as entries:
            found += sum(_due(entry) > now for entry in entries)
    return found


def _due(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0
