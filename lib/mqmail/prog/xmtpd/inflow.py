"""What xmtpd's processes count together, and how each feels that the queue is behind."""

from __future__ import annotations

import os
import time

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.base.waiter import Waiter
from mqmail.net.shared import Shared
from mqmail.policy import inflow
from mqmail.policy.pressure import NAMES, Pressure
from mqmail.policy.throttle import Happenings, Sessions, Throttle
from mqmail.queue import load, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from mqmail.control.reader import Control

CONTROL = ("throttles", "pressure", "minfree", "okfree", "concurrencyincoming")
HAPPENINGS = 1 << 17        # names of which rates are known: 6 MB once so many have come


class Together:
    """To be made before the first fork: for *processes*, and names of sessions as *sessions* need."""

    def __init__(self, processes: int, sessions: int) -> None:
        self._processes = processes
        self._octets = Sessions.size(max(4096, 4 * sessions), processes)
        self._seed = os.urandom(16)
        self._shared = Shared(self._octets + Happenings.size(HAPPENINGS))

    def throttle(self, number: int) -> Throttle:
        """For process *number*, which nobody else has now."""
        shared = self._shared
        sessions = Sessions(shared.cells(0, self._octets), self._processes, number, self._seed)
        rates = Happenings(shared.cells(self._octets, Happenings.size(HAPPENINGS)), self._seed)
        throttle = Throttle(sessions, rates, shared)
        throttle.clear()
        return throttle


class Watch:
    """Looks every second at what waits and at the disk. *control* is replaced on reload."""

    def __init__(self, loop: asyncio.AbstractEventLoop, control: Control) -> None:
        self.control = control
        self.pressure = Pressure()
        self._loop = loop
        self._failed = False
        self._look()

    def _look(self) -> None:
        self._loop.call_later(load.EVERY, self._look)
        before = self.pressure.stage, self.pressure.low
        control = self.control
        try:
            waiting, free = load.told() if control.pressure.full else 0, paths.space()[0]
        except (OSError, BadFile) as error:
            if not self._failed:
                log.event("load_unknown", error=str(error))
            self._failed = True
            return
        self._failed = False
        self.pressure.feel_queue(waiting, control.pressure)
        self.pressure.feel_disk(free, control.minfree, control.okfree)
        if before != (self.pressure.stage, self.pressure.low):
            log.event("pressure", stage=NAMES[self.pressure.stage], waiting=waiting, free=free,
                      space="low" if self.pressure.low else "ok")


def make(together: Together, number: int, loop: asyncio.AbstractEventLoop,
         watch: Watch) -> inflow.Inflow:
    """The service of process *number*."""

    def pause(seconds: float) -> Waiter:
        waiter = Waiter()
        loop.call_later(seconds, waiter.set, None)
        return waiter

    return inflow.Inflow(together.throttle(number), watch.pressure, time.monotonic, pause)
