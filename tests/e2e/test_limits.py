"""Each program without descriptors, memory or processes: mail waits, nobody ends, and all goes on by
itself when there is room again."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from support.home import ME, Home, reply, wait_until
from support.programs import family, need, runs

pytestmark = pytest.mark.e2e

FAR = "far.example.net"
PROGRAMS = ("mq-queue", "mq-resolve", "mq-bounce", "mq-lspawn", "mq-rspawn", "mq-send", "xmtpd")
CLIENTS = 12
EACH = 3            # messages of a client
SHORT = 3.0         # seconds that a client waits for an answer while there is no room
WORDS = ("alice", "prog", f"dave@{FAR}", "gone")
BODY = ("x" * 70 + "\r\n").encode() * 3000       # 216 KB


@pytest.fixture(scope="module")
def homes():
    """A home with everything in it, and one that its mail to FAR goes to."""
    near, far = Home("alice", "bob", "gone", "prog"), Home(f"dave@{FAR}")
    far.control(locals=f"{FAR}\n")
    near.control(relayclients="127.0.0.1\n", smtproutes=f"{FAR}:127.0.0.1:{far.port}\n",
                 concurrencylocal="3\n")
    for name, text in (("gone", "|exit 100\n"), ("prog", "|true\n./Maildir/\n")):
        near.qmail(name, text)
    for home in (near, far):
        home.start()
    yield near, far
    for home in (near, far):
        home.remove()


def owner_of(path):
    found = os.stat(path)
    return found.st_uid, found.st_gid


def descriptors(pid):
    """Room for one more: the limit is on their numbers."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used) + 1


def memory(pid):
    """What it has, and a little."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nVmData:")[2].split()[0]) * 1024 + 65536


LIMITS = {"NOFILE": descriptors, "DATA": memory, "NPROC": lambda _pid: 1}


class Tight:
    """``with Tight(home, program, kind):`` the processes of *program* have next to no room."""

    def __init__(self, home, program, kind):
        self._kind = f"--{kind.lower()}"
        self._pid = home.daemons()[program]
        self._room = LIMITS[kind]

    def __enter__(self):
        self._before = self._prlimit(self._pid, "--raw", "--noheadings", "--output", "SOFT", self._kind)
        self._limit(self._room)

    def __exit__(self, *_error):
        self._limit(lambda _pid: self._before)      # also those that have been started meanwhile

    def _limit(self, room):
        for pid in [self._pid, *family(self._pid)[1:]]:
            try:
                self._prlimit(pid, f"{self._kind}={room(pid)}:")
            except (OSError, subprocess.CalledProcessError):
                assert pid != self._pid and not runs(pid)

    @staticmethod
    def _prlimit(pid, *words):
        """As the account of process *pid*: root may lack the capability to change another's limits."""
        uid, gid = owner_of(f"/proc/{pid}")
        change = {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}
        return subprocess.check_output([need("prlimit"), "--pid", str(pid), *words], text=True,
                                       **change).strip()


class Clients:
    """CLIENTS at a time, each of which tries EACH messages once, or until they are taken if they are
    *patient*. ``accepted``: (number, word) of those taken; ``final``: replies that say never."""

    def __init__(self, home, label, patient=False):
        self._home, self._label, self._patient = home, label, patient
        self.accepted, self.final = set(), []
        self._all_here = threading.Barrier(CLIENTS, timeout=60)
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CLIENTS)]

    def run(self):
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def _run(self, client):
        for number in range(client * EACH, (client + 1) * EACH):
            if self._patient:
                wait_until(lambda number=number: self._try(number), f"{number} accepted")
            else:
                self._try(number, together=number == client * EACH)

    def _try(self, number, together=False):
        """Whether the message was taken. *together*: all clients are connected at that moment."""
        try:
            with self._home.connect() as sock, sock.makefile("rwb") as file:
                if not self._patient:
                    sock.settimeout(SHORT)
                reply(file)
                if together:
                    self._all_here.wait()
                self._send(file, number)
                return True
        except AssertionError as error:
            if ": '5" in str(error):
                self.final.append(str(error))
        except (OSError, threading.BrokenBarrierError):
            self._all_here.abort()
        return False

    def _send(self, file, number):
        word = WORDS[number % len(WORDS)]
        to = word if "@" in word else f"{word}@{ME}"
        for command in ("EHLO client.example", f"MAIL FROM:<bob@{ME}>", f"RCPT TO:<{to}>", "DATA"):
            reply(file, f"{command}\r\n".encode())
        reply(file, f"Subject: {self._label}-{number}.\r\n\r\n".encode() + BODY + b".\r\n")
        self.accepted.add((number, word))


def empty_the_queues(*homes):
    """Have all tried that waits, once a second: a service that had no room says when to come again."""
    tried = 0.0

    def are_empty():
        nonlocal tried
        if time.monotonic() > tried + 1.0:
            tried = time.monotonic()
            for home in homes:
                home.trigger("*run")
        return not any([home.queued() for home in homes])

    wait_until(are_empty, "empty queues", 60)


def arrived(near, far, label):
    """(number, word) to how often."""
    found = Counter()
    mail = near.path / "mail"
    places = {"alice": mail / "alice", "prog": mail / "prog", "gone": mail / "bob",
              f"dave@{FAR}": next((far.path / "mail").glob("dave*"))}
    for word, directory in places.items():
        for path in (directory / "Maildir/new").iterdir():
            number = path.read_bytes().partition(f"Subject: {label}-".encode())[2].partition(b".")[0]
            if number:
                found[int(number), word] += 1
    return found


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_out_of(homes, program, kind):
    near, far = homes
    label = f"{program}-{kind}"
    parents = near.daemons()
    clients = Clients(near, label)
    with Tight(near, program, kind):
        clients.run()
        assert near.daemons() == parents        # nobody has ended
    assert clients.final == []
    again = Clients(near, f"again-{label}", patient=True)
    again.run()                                 # now there is room
    assert len(again.accepted) == CLIENTS * EACH
    empty_the_queues(near, far)
    assert near.daemons() == parents
    for one, name in ((clients, label), (again, f"again-{label}")):
        found = arrived(near, far, name)
        assert one.accepted - set(found) == set()
        assert [times for times in found.values() if times > 1] == []
    assert near.log("event=bug") + far.log("event=bug") == []


def test_xmtpd_says_so(homes):
    near, _ = homes
    before = len(near.log("event=accept_failed", "prog=xmtpd"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(Tight(near, "xmtpd", "NOFILE"))

        def one_more():
            stack.enter_context(near.connect())
            return len(near.log("event=accept_failed", "prog=xmtpd")) > before

        wait_until(one_more, "event=accept_failed")


def test_mq_send_does_without_threads(new_home):
    """It starts them with the first work that they are for."""
    home = new_home("alice", "bob").start()
    home.control(aliases="team: alice, gone\n")
    os.kill(home.daemons()["mq-resolve"], signal.SIGHUP)
    home.wait_for_log("event=reloaded", "prog=mq-resolve")
    with Tight(home, "mq-send", "NPROC"):
        home.deliver(f"team@{ME}", sender=f"bob@{ME}")
        home.wait_for("alice")
        home.wait_for("bob")
        home.wait_until_empty()
        home.wait_for_log("event=fork_failed", "prog=mq-send")
