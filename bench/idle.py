"""Memory at rest, and of sessions in which nothing happens."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from typing import Any

import procs
from clients import Secure, crowd
from forks import Trouble
from load import Target
from system import greeted

SESSIONS = 200
REST = 0.5          # seconds
SPARE = 1000        # descriptors of a process besides its sessions


def measure(target: Target) -> dict[str, Any]:
    """KiB of PSS by program at rest, and what SESSIONS idle sessions add."""
    with greeted(target.port) as client:
        client.ehlo()
    time.sleep(REST)
    rest = procs.memory(target.pid)
    with ExitStack() as stack:
        for _ in range(SESSIONS):
            code, text = stack.enter_context(greeted(target.port)).ehlo()
            if code != 250:
                raise Trouble(f"{target.name}: {code} {text!r}")
        time.sleep(REST)
        busy = procs.memory(target.pid)
    return {"system": target.name, "rest_kib": sum(rest.values()), "by_program_kib": rest,
            "processes": len(procs.look(target.pid)), "sessions": SESSIONS,
            "added_kib": sum(busy.values()) - sum(rest.values())}


def crowded(directory: str, count: int, secure: bool) -> dict[str, Any]:
    """KiB of PSS of all of mqmail with *count* idle sessions, TLS or plain, on one listener. The clients
    are other processes, which do not count."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < count + SPARE:
        raise Trouble(f"{count} sessions need {count + SPARE} descriptors, and ulimit -Hn is {most}")
    with Secure(directory, count) as system:
        system.start()
        with greeted(system.port) as client:
            client.ehlo()
        time.sleep(REST)
        rest = procs.memory(system.pid)
        with crowd(system.port, count, secure):
            time.sleep(REST)
            busy = procs.memory(system.pid)
    total = sum(busy.values())
    return {"secure": secure, "sessions": count, "rest_kib": sum(rest.values()), "total_kib": total,
            "xmtpd_kib": busy["xmtpd"], "each_kib": (total - sum(rest.values())) / count}
