"""Keeps daemons running: forked from one warm parent, restarted when they die, stopped in order.

The parent imports everything once, so that the daemons share those pages. Each daemon is a session
of its own (Ctrl-C reaches the parent alone) and is killed by the kernel if the parent dies.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time

from mqmail.base import log, program
from mqmail.base.value import value
from mqmail.net import daemon
from mqmail.net.lifeline import die_with_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0      # seconds before a restart
LASTING = 10.0          # a daemon that ran so long is restarted after FIRST_PAUSE again
GRACE = daemon.GRACE + 5.0      # for the daemons of one stage, which give their workers less
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@value
class Daemon:
    """What to run. ``prepare()`` is called in the child, then ``main([*arguments, "--ready-fd", N])``.
    All daemons of a stage have ended before those of the next are told to."""

    name: str
    main: Callable[[list[str]], int]
    arguments: tuple[str, ...]
    stage: int
    prepare: Callable[[], None]


class _Child:
    """A daemon and the process that runs it now."""

    def __init__(self, one: Daemon) -> None:
        self.daemon = one
        self.pid = 0
        self.ready = False      # it has announced itself once
        self.pipe = -1          # where it will
        self.since = 0.0
        self.pause = 0.0
        self.due = 0.0          # when to start it next

    def signal(self, number: int) -> None:
        """Not reaped yet, so the pid is still its own."""
        if self.pid:
            os.kill(self.pid, number)

    def close_pipe(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


class Supervisor:
    """Runs *daemons*; run() returns after TERM or INT, when all have ended."""

    def __init__(self, daemons: list[Daemon]) -> None:
        self._children = [_Child(one) for one in daemons]
        self._stage: int | None = None      # the one that is being stopped
        self._deadline = 0.0
        self._wake = -1

    def run(self, started: Callable[[], None]) -> None:
        """Start all, call *started* once all are ready, then look after them."""
        gc.collect()
        gc.freeze()             # pages that nobody's collector touches stay shared
        self._catch_signals()
        announced = False
        while not self._ended():
            self._start_due()
            self._wait()
            self._reap()
            if not announced and self._stage is None and all([child.ready for child in self._children]):
                announced = True
                started()

    def _catch_signals(self) -> None:
        self._wake, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda _number, _frame: None)

    # Starting

    def _start_due(self) -> None:
        if self._stage is None:
            for child in self._children:
                if not child.pid and child.due <= time.monotonic():
                    self._start(child)

    def _start(self, child: _Child) -> None:
        parent = os.getpid()
        child.pipe, announce = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._run_child(child.daemon, parent, announce)
            child.pid, child.since = pid, time.monotonic()
        except OSError as error:
            log.event("fork_failed", daemon=child.daemon.name, error=error.strerror)
            child.due = time.monotonic() + 1.0
            child.close_pipe()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(announce)

    def _run_child(self, one: Daemon, parent: int, announce: int) -> None:
        """In the child: default signals, nothing of the parent's, the daemon, and out."""
        code = 111
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            daemon.become(one.name)         # afterwards it may be unable to name itself
            code = program.run(one.name, lambda _argv: self._become(one, parent, announce), [])
        finally:
            os._exit(code)

    def _become(self, one: Daemon, parent: int, announce: int) -> int:
        os.close(self._wake)
        for child in self._children:
            child.close_pipe()
        os.environ.pop("NOTIFY_SOCKET", None)       # systemd hears from the parent alone
        die_with_parent(parent)
        one.prepare()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return one.main([*one.arguments, "--ready-fd", str(announce)])

    # Looking after them

    def _wait(self) -> None:
        """Until a signal, an announcement, or the next thing to do."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        pipes = {child.pipe: child for child in self._children if child.pipe >= 0}
        for pipe in pipes:
            poll.register(pipe, select.POLLIN)
        for fd, _ in poll.poll(self._pause() * 1000):
            if fd == self._wake:
                self._signalled(os.read(fd, 4096))
            else:
                child = pipes[fd]
                child.ready |= os.read(fd, 1) == b"\n"
                child.close_pipe()

    def _pause(self) -> float:
        """Seconds until something is to be done without being woken."""
        now = time.monotonic()
        if self._stage is None:
            times = [child.due for child in self._children if not child.pid]
        else:
            times = [self._deadline]
        return max(0.01, min(times, default=now + 60.0) - now)

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGHUP in numbers:
            for child in self._children:
                child.signal(signal.SIGHUP)
        if self._stage is None and (signal.SIGTERM in numbers or signal.SIGINT in numbers):
            log.event("stopping")
            self._stop_stage(min([child.daemon.stage for child in self._children], default=0))

    def _reap(self) -> None:
        for child in self._children:
            if child.pid:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._died(child, os.waitstatus_to_exitcode(status))

    def _died(self, child: _Child, status: int) -> None:
        pid, child.pid = child.pid, 0
        child.close_pipe()
        if self._stage is not None:
            if status:
                log.event("daemon_died", daemon=child.daemon.name, pid=pid, status=status)
            return
        now = time.monotonic()
        lasted = now - child.since >= LASTING
        child.pause = FIRST_PAUSE if lasted or not child.pause else min(2 * child.pause, LONGEST_PAUSE)
        child.due = now + child.pause
        log.event("daemon_died", daemon=child.daemon.name, pid=pid, status=status,
                  pause=f"{child.pause:.1f}")

    # Stopping

    def _stop_stage(self, stage: int) -> None:
        self._stage, self._deadline = stage, time.monotonic() + GRACE
        self._signal_stage(signal.SIGTERM)

    def _signal_stage(self, number: int) -> None:
        for child in self._children:
            if child.daemon.stage == self._stage:
                child.signal(number)

    def _ended(self) -> bool:
        """Whether all is over; goes on to the next stage when one has ended."""
        while self._stage is not None:
            left = [child for child in self._children if child.pid]
            if not left:
                return True
            if any([child.daemon.stage == self._stage for child in left]):
                self._kill_late()
                return False
            self._stop_stage(min([child.daemon.stage for child in left]))
        return False

    def _kill_late(self) -> None:
        if time.monotonic() > self._deadline:
            log.event("stop_too_slow", stage=self._stage)
            self._signal_stage(signal.SIGKILL)
            self._deadline = time.monotonic() + 1.0
