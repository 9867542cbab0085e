"""kill -9 of each program in turn, under load: what was acknowledged arrives, whole, at least once."""

import itertools
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from support.home import ME, Home, reply, wait_until

pytestmark = pytest.mark.e2e

MESSAGES = 200              # for each kill
THREADS = 4
KILLS = (30, 80, 130)       # acknowledged messages after which a process is killed
BACK_EVERY = 10             # each tenth message cannot be delivered and comes back to bob
SECONDS = 50
PARENTS = ("mq-queue", "mq-send", "mq-resolve", "mq-lspawn", "mq-bounce", "xmtpd")
WORKERS = ("xmtpd", "mq-queue", "mq-lspawn")
_MARK = re.compile(rb"^Subject: (crash-\S+)\n", re.MULTILINE)


@pytest.fixture(scope="module")
def home():
    """One home for all kills: each follows on what the one before has left."""
    home = Home("alice", "bob", "carol")
    home.qmail("carol", "|echo nobody here; exit 100\n")
    yield home.start()
    home.remove()


class Client:
    """Sends numbered messages over several connections until MESSAGES were answered with 250; these are
    ``acknowledged``. No number is used twice."""

    def __init__(self, home, name):
        self._home = home
        self._name = name
        self._numbers = itertools.count()
        self.acknowledged = set()
        self.change = threading.Condition()
        self.threads = [threading.Thread(target=self._run) for _ in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        deadline = time.monotonic() + SECONDS
        while not self._done() and time.monotonic() < deadline:
            try:
                with self._home.connect() as sock, sock.makefile("rwb") as file:
                    reply(file)
                    reply(file, b"EHLO client.example\r\n")
                    while not self._done():
                        self._send(file, next(self._numbers))
            except (AssertionError, OSError):
                pass                    # refused, or cut off: go on with the next message

    def _done(self):
        return len(self.acknowledged) >= MESSAGES

    def _send(self, file, number):
        mark = f"crash-{self._name}-{number}"
        to = "carol" if number % BACK_EVERY == 0 else "alice"
        for command in (f"MAIL FROM:<bob@{ME}>", f"RCPT TO:<{to}@{ME}>", "DATA"):
            reply(file, f"{command}\r\n".encode())
        body = f"{mark} line\r\n" * 100
        reply(file, f"Subject: {mark}\r\n\r\n{body}end of {mark}\r\n.\r\n".encode())
        with self.change:
            self.acknowledged.add(mark)
            self.change.notify_all()

    def wait_for(self, count):
        with self.change:
            self.change.wait_for(lambda: len(self.acknowledged) >= count or not self._sending(), SECONDS)

    def _sending(self):
        return any([thread.is_alive() for thread in self.threads])

    def join(self):
        for thread in self.threads:
            thread.join()
        return self.acknowledged


def victim(home, name, worker):
    """The process to be killed: a daemon, or one of its workers; None while there is none."""
    pid = home.daemons().get(name)
    if pid is None or not worker:
        return pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(children[next(_turn) % len(children)]) if children else None


_turn = itertools.count()


def kill(home, name, worker):
    pid = wait_until(lambda: victim(home, name, worker), f"{name} runs")
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def empty_the_queue(home):
    """Have mq-send try all again and again until no acknowledged message is left."""
    deadline = time.monotonic() + SECONDS
    run_at = 0.0

    def is_empty():
        nonlocal run_at
        if time.monotonic() >= run_at:
            run_at = time.monotonic() + 0.2
            home.trigger("*scan", "*run")
        return not home.accepted()

    wait_until(is_empty, "the acknowledged messages gone from the queue", deadline - time.monotonic())
    assert list((home.path / "queue/bad").iterdir()) == []


def arrived(home, name):
    """Mark to number of copies; each copy must be whole."""
    found = {}
    for mailbox in ("alice", "bob"):
        for path in home.maildir(mailbox):
            text = path.read_bytes()
            assert len(text) == int(path.name.rpartition("S=")[2])
            mark = _MARK.search(text)[1].decode()
            if mark.startswith(f"crash-{name}-"):
                whole = f"{mark} line\n" * 100 + f"end of {mark}\n"
                assert f"\n\n{whole}".encode() in text, path
                found[mark] = found.get(mark, 0) + 1
    return found


@pytest.mark.parametrize(("name", "worker"), [*((name, False) for name in PARENTS),
                                              *((name, True) for name in WORKERS)])
def test_nothing_acknowledged_is_lost(home, name, worker, record_property):
    label = f"{name}{'-worker' if worker else ''}"
    check(home, label, lambda: kill(home, name, worker), record_property)


def test_nothing_acknowledged_is_lost_when_all_are_killed(home, record_property):
    check(home, "all", home.crash, record_property)


def check(home, label, harm, record_property):
    """Do *harm* under load, then look at what has arrived."""
    client = Client(home, label)
    for count in KILLS:
        client.wait_for(count)
        harm()
    acknowledged = client.join()
    assert len(acknowledged) >= MESSAGES, home.log()[-20:]
    empty_the_queue(home)
    copies = arrived(home, label)
    assert acknowledged - set(copies) == set()
    duplicates = sum(copies.values()) - len(copies)
    record_property("duplicates", duplicates)
    print(f"{label}: {len(acknowledged)} acknowledged, {len(copies)} arrived, {duplicates} duplicates")
    assert duplicates <= 10 * len(KILLS)        # what one process can have under way
    assert not home.log("event=bug")
