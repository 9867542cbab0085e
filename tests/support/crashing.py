"""A whole system whose system calls are judged, what happens to be sent through it, and what must be
true afterwards, whatever was killed or refused on the way."""

import itertools
import os
import queue
import re
import select
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from mqmail.base.failure import Failure
from mqmail.net.submit import submit
from mqmail.queue import ids
from support.home import ME, PAUSE, Home, accepted
from support.tracing import CHANGES, KILL, Tracer

PROGRAMS = ("mq-queue", "mq-send", "mq-local", "mq-bounce")
NOT_NEEDED = ("xmtpd", "mq-rspawn")
SECONDS = 60                # within which everything must be well again
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_MARK = re.compile(rb"^Subject: (mark-\d+)\r?\n", re.MULTILINE)
_OLD = re.compile(r"\A[0-9]+\.M[0-9]+P[0-9]+Q[0-9]+V[0-9a-f]+I[0-9a-f]+\.[^,]+,S=([0-9]+)\Z")


class Scenario:
    """A message of *lines* lines from bob to *recipients*, and what must come of it: *outcome*, a set of
    (mailbox, kind), kind "mail" or "bounce". *later*: the mailbox "later" is made when the message
    waits. *without*: programs that are started only after it was accepted."""

    def __init__(self, name, recipients, outcome, lines=3, later=False, without=()):
        self.name = name
        self.recipients = [f"{one}@{ME}" for one in recipients]
        self.outcome = frozenset(outcome)
        self.lines = lines
        self.later = later
        self.without = without

    def __repr__(self):
        return self.name

    def text(self, mark):
        return f"Subject: {mark}\r\n\r\n" + f"{mark} line\r\n" * self.lines + f"end of {mark}\r\n"


ALICE, BOB, LATER, BOUNCE = ("alice", "mail"), ("bob", "mail"), ("later", "mail"), ("bob", "bounce")
SCENARIOS = (
    Scenario("one", ["alice"], [ALICE], lines=8000),
    Scenario("defers_and_fails", ["later", "closed"], [LATER, BOUNCE], later=True),
    Scenario("waits", ["later"], [LATER], later=True),
    Scenario("alias", ["team"], [ALICE, BOB]),
    Scenario("send_is_down", ["alice"], [ALICE], without=("mq-send",)),
)
BOUNCING = ("defers_and_fails",)        # the scenarios that mq-bounce has to do with


class System:
    """A home with one process of each kind, started anew in a moment by *launcher*. The mailbox "later"
    defers until it is opened; mail to "closed" fails."""

    def __init__(self, launcher, below=MEMORY, log=None):
        self._launcher = launcher
        self.home = Home("alice", "bob", "later", below=below)
        self.path = self.home.path
        self.log = log or self.path.parent / "log"
        aliases = (self.path / "control/aliases").read_text() + "team: alice, bob\nclosed: nobody-here\n"
        self.home.control(aliases=aliases, concurrencyqueue="1\n", concurrencylocal="1\n",
                          processesremote="1\n", listeners="\n")
        self._write("mail/later/.qmail", b"./Box/\n")
        for name in ("", "/cur", "/new"):
            self._mkdir(f"mail/later/Box{name}")
        self._process = None
        self.ids = set()
        self.judge = None
        self.tracer = None
        self.serial = 0

    def _own(self, path):
        owner = os.stat(self.path)
        os.chown(path, owner.st_uid, owner.st_gid)

    def _write(self, name, data):
        path = self.path / name
        path.write_bytes(data)
        path.chmod(0o600)
        self._own(path)

    def _mkdir(self, name):
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        self._own(path)

    # Starting and stopping

    def start(self, without=(), sync=False):
        """Start everything but *without*; returns when it is ready, or a judge has killed it all."""
        pid, listener, ready = self._launcher.start(self.path, self.log, [*NOT_NEEDED, *without])
        self._process = os.pidfd_open(pid)
        self.tracer = Tracer(listener, self.path, self._judge, sync)
        with open(ready, "rb", buffering=0) as file:
            assert select.select([file], [], [], SECONDS)[0], self.tail()
            assert file.read(1) == b"\n" or self.judge is not None, self.tail()

    def strike(self):
        """kill -9 of mq-start, with which the others die."""
        try:
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        except ProcessLookupError:
            pass                        # a judge was faster

    def kill(self):
        """kill -9 of everything; returns when all is gone."""
        if self._process is not None:
            self.strike()
            self.tracer.join(SECONDS)
            assert not self.tracer.is_alive()
            os.close(self._process)
            self._process = None
            assert self.tracer.error is None, self.tracer.error

    def restart(self, without=()):
        self.kill()
        self.start(without)

    def remove(self):
        self.kill()
        self.home.remove()

    def tail(self):
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-30:])

    def _judge(self, call):
        if call.kind == "create" and "/queue/new/" in call.path:
            self.ids.add(os.path.basename(call.path))
        return None if self.judge is None else self.judge(call)

    # Sending

    def mark(self):
        """A name for a new message."""
        self.serial += 1
        return f"mark-{self.serial}"

    def put(self, scenario, mark):
        """Send it; its id, or "" when it was not accepted."""
        try:
            return submit(str(self.path), f"bob@{ME}", scenario.recipients,
                          [scenario.text(mark).encode()], host=ME)
        except Failure:
            return ""

    def open_later(self):
        """From now on there is a mailbox for "later"."""
        self._mkdir("mail/later/Box/tmp")

    def close_later(self):
        """From now on there is none."""
        shutil.rmtree(self.path / "mail/later/Box/tmp", ignore_errors=True)

    # Looking

    def records(self, places=("new", "wait", "hold")):
        """The records that say ok, of messages that have been made since this object was."""
        found = []
        for id in sorted(self.ids):
            for place in places:
                path = self.path / "queue" / place / ids.directory(id) / id
                if accepted(path):
                    found.append(path)
        return found

    def arrived(self):
        """(mailbox, kind, mark) to number of copies, of all that is in the mailboxes."""
        files = {}
        for name in ("alice/Maildir", "bob/Maildir", "later/Box"):
            for path in (self.path / "mail" / name / "new").iterdir():
                files[f"mail/{name}/new/{path.name}"] = path.read_bytes()
        return copies(files)

    def reset(self):
        """Stop everything and forget what a failed test has left."""
        self.judge = None
        self.kill()
        self.lay({"mail/later/.qmail": b"./Box/\n"})
        self.ids.clear()

    def lay(self, files):
        """Have these files, path to bytes, below queue/ and mail/ and no others."""
        for top in ("queue", "mail"):
            for directory, _, names in os.walk(self.path / top):
                for name in names:
                    os.unlink(f"{directory}/{name}")
        self.close_later()
        for path, data in files.items():
            if path.startswith("mail/later/Box/tmp/"):
                self.open_later()
            self._write(path, data)
            if path.startswith("queue/"):
                self.ids.add(path[-16:])

    def empty_mailboxes(self):
        for name in ("alice/Maildir", "bob/Maildir", "later/Box"):
            for path in (self.path / "mail" / name / "new").iterdir():
                path.unlink()


def copies(files):
    """(mailbox, kind, mark) to number of copies in *files*, path to bytes. Each must be whole."""
    found = {}
    for path, text in files.items():
        _, mailbox, _, folder, name = path.split("/")
        if folder != "new":
            continue
        size = _OLD.match(name)
        assert size and int(size[1]) == len(text), f"{path}: {len(text)} bytes"
        mark = _MARK.search(text, text.find(b"message/") if b"\nReturn-Path: <>" in b"\n" + text else 0)
        assert mark, text
        mark = mark[1].decode()
        kind = "bounce" if text.startswith(b"Return-Path: <>\n") else "mail"
        assert f"end of {mark}\n".encode() in text, f"{path}: half of {mark}"
        key = mailbox, kind, mark
        found[key] = found.get(key, 0) + 1
    return found


@contextmanager
def in_lanes(launcher, lanes, work, cases):
    """The futures of *work*(system, *case) for all *cases*, done at the same time in *lanes* homes."""
    systems = queue.SimpleQueue()
    made = [System(launcher) for _ in range(lanes)]
    for system in made:
        systems.put(system)

    def work_on(case):
        system = systems.get()
        try:
            return work(system, *case)
        finally:
            system.reset()
            systems.put(system)

    pool = ThreadPoolExecutor(lanes)
    try:
        yield [pool.submit(work_on, case) for case in cases]
    finally:
        pool.shutdown(cancel_futures=True)
        for system in made:
            system.remove()


class KillAt:
    """A judge that has *program* killed at its *number*-th call that changes something. *all*: with it,
    everything else."""

    def __init__(self, system, program, number, all=False):
        self._system, self._program, self._left, self._all = system, program, number, all
        self.hit = None

    def __call__(self, call):
        if call.program != self._program or call.kind not in CHANGES or self.hit is not None:
            return None
        self._left -= 1
        if self._left:
            return None
        self.hit = call
        if self._all:
            self._system.strike()
        return KILL


def settle(system, scenario, mark, accepted, stop=lambda: False):
    """Send what was not accepted again, open what is closed, have mq-send try all again, until all is as
    it must be, or *stop*(). Returns whether the message was accepted."""
    deadline = time.monotonic() + SECONDS
    turns = itertools.count(1)
    while not stop():
        accepted = accepted or system.put(scenario, mark)
        if scenario.later and accepted and system.records(("wait",)):
            system.open_later()
            system.home.trigger("*run")
        if accepted and is_settled(system, scenario, mark):
            break
        assert time.monotonic() < deadline, f"{system.records()} {system.arrived()}\n{system.tail()}"
        turn = next(turns)
        if turn % 15 == 0:
            system.home.trigger("*run", *["*scan"] * (turn % 45 == 15))
        time.sleep(PAUSE)
    return accepted


def is_settled(system, scenario, mark):
    known = len(system.ids)
    if system.records() or len(system.ids) > known:
        return False
    found = system.arrived()
    return all([(*one, mark) in found for one in scenario.outcome])


def check(system, scenario, mark, most):
    """The invariants: nothing lost, nothing invented, nothing set aside, each copy whole, and at most
    *most* of each thing (one process may have two windows open). Returns how many duplicates there
    are."""
    found = system.arrived()
    wanted = {(*one, mark) for one in scenario.outcome}
    assert set(found) == wanted, f"{found}\n{system.tail()}"
    for (_, kind, _), times in found.items():
        # a report made twice, of which the first was just being delivered, and is so twice
        allowed = most + (kind == "bounce" and most > 1)
        assert times <= allowed, f"{found}\n{system.tail()}"
    assert list((system.path / "queue/bad").iterdir()) == [], system.tail()
    assert "event=bug" not in system.tail(), system.tail()
    system.empty_mailboxes()
    return sum(found.values()) - len(found)
