"""Memory at rest, and of sessions in which nothing happens."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import procs
from forks import Trouble
from load import Target
from system import greeted

SESSIONS = 200
REST = 0.5          # seconds


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
