"""What all daemons do alike: the command line, the home, the loop, signals, worker processes.

A daemon's main is: ``begun = start(name, __doc__, argv)``, which makes its sockets, read control files,
then ``run_loop`` in one process or ``Workers`` for several forked from it.
TERM and INT stop it cleanly, HUP re-reads control files (all or nothing).
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import time
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl
from math import inf

from mqmail.base import homes, lock, log, program, unix
from mqmail.base.failure import Failure, Usage
from mqmail.base.value import value
from mqmail.control import loglevels, reader, rights
from mqmail.net.lifeline import die_with_parent, set_name
from mqmail.net.owner import become_program, give_up_root, import_late, system_accounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from _socket import socket
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.control.rights import Accounts

GRACE = 20.0            # seconds a worker has to end after TERM
YOUNG = 10000           # objects that the collector leaves alone: sessions leave next to no cycles
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_TO_ANSWER = 0.02       # seconds that a worker without work has to take a call


def arguments(usage: str, argv: list[str]) -> tuple[str, int | None, dict[str, object]]:
    """(home, ready descriptor or None, docopt's dictionary) of a daemon whose docopt text has
    ``--home`` and ``--ready-fd``. What mq-start says is read without docopt: that saves memory."""
    if len(argv) == 4 and argv[::2] == ["--home", "--ready-fd"]:
        found: dict[str, Any] = {"--home": argv[1], "--ready-fd": argv[3]}
    else:
        from docopt import docopt
        found = docopt(usage, argv, True, None, True)
    home = homes.chosen(found["--home"])
    text = found.get("--ready-fd")
    if text is not None and not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise Usage(f"--ready-fd {text}: say the number of an open descriptor")
    return home, None if text is None else int(text), found


@value
class Begun:
    """A daemon that has begun: where to say that it is *ready*, its listening *sockets* by their paths,
    the *accounts* of a system home."""

    ready: int | None
    sockets: dict[str, unix.socket]
    accounts: Accounts | None

    def callers(self, path: str) -> frozenset[int] | None:
        """The uids that are believed at the socket *path*; None: control/injectors knows."""
        return None if self.accounts is None else self.accounts.callers(path)


def start(name: str, usage: str, argv: list[str]) -> Begun:
    """The beginning of a daemon that needs no root: from the command line to its sockets and the lock,
    which it holds until its process ends. Raises Usage, Temporary, OSError."""
    home, ready, _ = arguments(usage, argv)
    enter(home)
    become(name)
    accounts = system_accounts(name)
    if accounts is None:
        give_up_root(name)
    lock.hold(f"run/{name}.lock", name)
    sockets = listen(name, accounts)
    if accounts is not None:
        import_late()
        become_program(name, accounts)
    os.umask(0o027 if accounts is None else 0o007)      # of a system's queue, the group has its share
    return Begun(ready, sockets, accounts)


def listen(name: str, accounts: Accounts | None) -> dict[str, unix.socket]:
    """The listening sockets of *name*, by their paths. *accounts*: of a system home."""
    sockets = {}
    for one in rights.sockets_of(name):
        kind = unix.SOCK_DGRAM if one.datagram else unix.SOCK_STREAM
        if accounts is None:
            sockets[one.path] = unix.listen(one.path, mode=one.own_mode, kind=kind)
        else:
            owner = accounts.of(one.owner).uid, accounts.of(one.group).gid
            sockets[one.path] = unix.listen(one.path, mode=one.mode, kind=kind, owner=owner)
    return sockets


def enter(home: str) -> None:
    """Work in the home. A session is a descriptor: take all we may. No cores: mail and secrets would be
    in them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    homes.enter(home)


def become(name: str) -> None:
    """Name this process in ps(1) and in its log lines."""
    log.set_program(name)
    set_name(name)


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop: three times the sessions of asyncio's own."""
    import uvloop
    return uvloop.new_event_loop()


def run_loop(loop: asyncio.AbstractEventLoop, stop: Callable[[Callable[[], None]], None],
             reload: Callable[[], None] | None = None,
             others: dict[str, Callable[[], None]] | None = None) -> None:
    """Run until TERM or INT; *stop* is called once with what to call when all has ended. *others*:
    what to call on further signals, by their names."""
    stopping: list[bool] = []
    loglevels.obey()

    def terminate() -> None:
        if not stopping:
            stopping.append(True)
            stop(loop.stop)

    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)        # until the loop runs they would be lost
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminate)
    loop.add_signal_handler(signal.SIGHUP, lambda: reloaded(reload) if reload else None)
    for name, action in (others or {}).items():
        loop.add_signal_handler(getattr(signal, name), action)
    loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, wanted)
    loop.set_exception_handler(lambda _loop, context: _loop_bug(context))
    log.batch(loop.call_soon)
    gc.set_threshold(YOUNG)
    try:
        loop.run_forever()
    finally:
        log.batch(None)
        loop.close()


def reloaded(reload: Callable[[], None]) -> None:
    """Re-read control files; on any error the old values stay in force. control/loglevels stands by
    itself: a mistake there is none of the others'."""
    loglevels.obey()
    try:
        reload()
        log.event("reloaded")
    except (Failure, OSError) as error:
        log.event("reload_failed", error=str(error))


def _loop_bug(context: dict[str, object]) -> None:
    error = context.get("exception")
    if isinstance(error, BaseException):
        program.bug(error)
    else:
        log.event("bug", error=str(context.get("message"))[:500])


class Kept:
    """The control files *names* as they were when all of them could be read last, in *control*: what a
    parent has for workers that are started while one is wrong. Raises BadFile at first."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self.reload()

    def reload(self) -> None:
        """Read them again. Raises BadFile, and then nothing has changed."""
        self.control: Control = reader.load(".", self._names)


class Workers:
    """Processes forked from this one, each running ``work(number)``, restarted when they die.

    A worker that dies within a second of its start is restarted after a pause that doubles from 0.1 to
    30 s. HUP is passed on after *reload* has been called here without a Failure, and also to each worker
    that is started later: it reads what is new, and has what was good here if there is a mistake.
    ``run`` returns after TERM or INT, when all workers have ended (killed after GRACE seconds).

    *wanted*: workers that are started when a call at their socket is not taken by those that run, and
    that end by themselves when there are no more calls.
    """

    def __init__(self, name: str, count: int, work: Callable[[int], None],
                 reload: Callable[[], None] | None = None,
                 wanted: Mapping[int, socket] | None = None) -> None:
        self._name = name
        self._work = work
        self._reload = reload
        self._pids: dict[int, int] = {}
        self._started: dict[int, float] = {}
        self._pauses = dict.fromkeys(range(count), 0.0)
        self._wanted = wanted or {}
        self._due = {number: inf if number in self._wanted else 0.0 for number in range(count)}
        self._look_at = inf
        self._stopping = 0.0
        self._hung_up = False

    def run(self, started: Callable[[], None]) -> None:
        """Start all, call *started*, then look after them until told to stop."""
        gc.collect()
        gc.freeze()                 # pages that nobody's collector touches stay shared
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGIO)
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        for sock in set(self._wanted.values()):
            _signal_calls(sock)
        self._start_due()
        self._look_at = time.monotonic() + _TO_ANSWER       # of calls before this no signal tells
        started()
        while self._pids or not self._stopping:
            info = signal.sigtimedwait(wanted, self._wait())
            if info is not None and info.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif info is not None and info.si_signo == signal.SIGHUP:
                self._hung_up = True
                self._hang_up()
            elif info is not None and info.si_signo == signal.SIGIO:
                self._look_at = time.monotonic() + _TO_ANSWER
            self._reap()
            self._look()
            if self._stopping and time.monotonic() > self._stopping + GRACE:
                self._signal(signal.SIGKILL)
            self._start_due()
        for one in wanted:          # to be told twice is no reason to end badly
            signal.signal(one, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)

    def _hang_up(self) -> None:
        """Workers read again what their parent could read."""
        try:
            if self._reload is not None:
                self._reload()
        except (Failure, OSError) as error:
            log.event("reload_failed", error=str(error))
        else:
            self._signal(signal.SIGHUP)

    def _wait(self) -> float:
        """Seconds until something is to be done without a signal."""
        if self._stopping:
            return 0.5
        times = [due for number, due in self._due.items() if number not in self._pids.values()]
        return min(max(0.01, min(self._look_at, *times, inf) - time.monotonic()), 60.0)

    def _look(self) -> None:
        """Where a call has not been taken, one more worker is started, if there may be more."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = inf
        for sock in set(self._wanted.values()):
            free = [number for number, one in self._wanted.items()
                    if one is sock and self._due[number] == inf and number not in self._pids.values()]
            if free and select.select([sock], [], [], 0)[0]:
                self._due[free[0]] = 0.0
                self._look_at = now + _TO_ANSWER

    def _start_due(self) -> None:
        running = set(self._pids.values())
        for number, due in self._due.items():
            if number not in running and due <= time.monotonic() and not self._stopping:
                self._start(number)

    def _start(self, number: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            log.event("fork_failed", error=error.strerror)
            self._due[number] = time.monotonic() + 1.0
            return
        if pid == 0:
            self._child(number, parent)
        self._pids[pid] = number
        self._started[number] = time.monotonic()

    def _child(self, number: int, parent: int) -> None:
        """In the worker: default signals, the work, and out."""
        code = 111
        try:
            die_with_parent(parent)
            for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(one, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGHUP,))    # until run_loop can take it
            if self._hung_up:
                os.kill(os.getpid(), signal.SIGHUP)
            code = program.run(self._name, lambda _argv: self._work(number) or 0, [])
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._pids:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._pids.pop(pid, None)
            if number is not None and not self._stopping:
                self._died(number, pid, status)

    def _died(self, number: int, pid: int, status: int) -> None:
        now = time.monotonic()
        if not status and number in self._wanted:
            self._due[number] = inf
            self._look_at = now         # a call may have come while it ended
            return
        quick = now - self._started[number] < 1.0
        pause = self._pauses[number]
        self._pauses[number] = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * pause)) if quick else 0.0
        self._due[number] = now + self._pauses[number]
        log.event("worker_died", worker=number, pid=pid, status=os.waitstatus_to_exitcode(status),
                  pause=f"{self._pauses[number]:.1f}")

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = time.monotonic()
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for pid in self._pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def _signal_calls(sock: socket) -> None:
    """From now on this process gets SIGIO when somebody calls at *sock*."""
    fcntl(sock, F_SETOWN, os.getpid())
    fcntl(sock, F_SETFL, fcntl(sock, F_GETFL) | os.O_ASYNC)
