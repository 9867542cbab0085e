"""A long run: mail at a steady rate while programs are killed at random; each message is accounted for.

Two homes: messages go into mailboxes of the first, by SMTP and by mq-inject, come back as reports,
or go on to the second, whose programs are killed too. Set by the environment: SOAK_SECONDS, SOAK_RATE
(messages a second), SOAK_PAUSE (mean seconds between two kills), SOAK_SEED. SOAK_SYSTEM=1 (for root):
system homes, and mail for an account of the host too; processes are also stopped for a while, get HUP,
or run out of descriptors. Ends with 1 if a message was lost, torn or invented.
"""

import base64
import itertools
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from support.accounts import Accounts
from support.home import ME, ROOT, Home, free_port, reply
from support.programs import family
from support.systemhome import SystemHome

FAR = "far.example.net"
CONNECTIONS = 8
SETTLE = 180            # seconds that all may take to arrive after the last kill
LINES = 60
# who gets a message, by its number; "mailbox: report" stands for a report to bob
KINDS = ("alice", "alice", "far", "alice bob", "gone", "alice far", "alice", "alice")
ACCOUNT = ("account", "account alice", "account far")   # and these, when there is an account
INJECTED_EVERY = 25     # each so manieth message comes by mq-inject
LOGIN_EVERY = 3         # each so manieth client of a system home logs in
PASSWORD = "sesam"
_MARK = re.compile(rb"^Subject: soak-(\d+)\r?\n", re.MULTILINE)
_WHOLE_CRASH = 0.03     # the part of kills that hit mq-start, and so a whole home
_TERM = 0.2             # the part of kills that are TERM
_TROUBLE = 0.4          # the part that does not kill in a system home: STOP, HUP, no descriptors
_TROUBLED = 3.0         # seconds that such trouble lasts
SYSTEM = bool(os.environ.get("SOAK_SYSTEM"))


def setting(name, default):
    """A number from the environment."""
    return float(os.environ.get(name, default))


class Homes:
    """The two homes; the first routes FAR to the second. ``login``: the port where bob logs in, or 0."""

    def __init__(self, account=None):
        make = SystemHome if SYSTEM else Home
        self.account, self.login = account, 0
        self.near, self.far = make("alice", "bob", "gone"), make(f"dave@{FAR}")
        self.far.control(locals=f"{FAR}\n")
        self.near.control(relayclients="127.0.0.1\n", smtproutes=f"{FAR}:127.0.0.1:{self.far.port}\n")
        self.near.qmail("gone", "|echo nobody here; exit 100\n")
        self.both = (self.near, self.far)
        if account is not None:
            self._with_accounts(account)
        for home in self.both:
            home.start()

    def _with_accounts(self, account):
        """The near one delivers to *account*, and lets bob log in."""
        account.write(".qmail", "./Maildir/\n|cat >/dev/null\n")
        for name in ("", "tmp", "new", "cur"):
            path = account.home / "Maildir" / name
            path.mkdir()
            os.chown(path, account.uid, account.gid)
        self.login = free_port()
        with (self.near.path / "control/listeners").open("a") as listeners:
            listeners.write(f"127.0.0.1:{self.login} role=submission\n")
        self.near.control(localusers="passwd\n",
                          accountlimits="* messages=0 recipients=0 refused=0 surge=0\n",
                          optionsets="submission tls=none auth=plain authplain=yes\n")
        self.near.run("mq-passwd", f"bob@{ME}", text=f"{PASSWORD}\n".encode())
        for home in self.both:
            home.run("mq-setup", "--repair")

    def connect(self, logs_in):
        """A session of SMTP that is ready for MAIL, as socket and file."""
        sock = socket.create_connection(("127.0.0.1", self.login) if logs_in else self.near.address, 60)
        file = sock.makefile("rwb")
        reply(file)
        reply(file, b"EHLO soak.example\r\n")
        if logs_in:
            reply(file, b"AUTH PLAIN " + base64.b64encode(f"\0bob@{ME}\0{PASSWORD}".encode()) + b"\r\n")
        return sock, file

    def address_of(self, word):
        """The address that a word of KINDS stands for."""
        if word == "account":
            return f"{self.account.name}@{ME}"
        return f"dave@{FAR}" if word == "far" else f"{word}@{ME}"

    def mailboxes(self):
        """Word of KINDS to the directory where such mail arrives; reports on ``gone`` come to bob."""
        near, far = self.near.path / "mail", self.far.path / "mail"
        found = {"alice": near / "alice", "bob": near / "bob", "far": next(far.glob("dave*"))}
        return found | ({"account": self.account.home} if self.account is not None else {})

    def left(self):
        """The acknowledged messages in both queues."""
        return sum([len(home.accepted()) for home in self.both])

    def run_all(self):
        """Have everything tried now."""
        for home in self.both:
            home.trigger("*scan", "*run")


class Load:
    """CONNECTIONS clients that share the schedule: message n is due n/rate seconds after the start.
    ``accepted``: the numbers that were acknowledged; ``refused``: how many were not."""

    def __init__(self, homes, rate, seconds):
        self._homes, self._rate, self._seconds = homes, rate, seconds
        self._numbers = itertools.count()
        self._begin = time.monotonic()
        self.accepted, self.refused = set(), 0
        self._threads = [threading.Thread(target=self._run, args=(client,))
                         for client in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def join(self):
        """Until all has been sent."""
        for thread in self._threads:
            thread.join()

    def _run(self, client):
        logs_in = self._homes.login and client % LOGIN_EVERY == 0
        sock = file = None
        while (number := self._next()) is not None:
            try:
                if number % INJECTED_EVERY == 0:
                    self._inject(number)
                else:
                    if sock is None:
                        sock, file = self._homes.connect(logs_in)
                    self._send(file, number)
                self.accepted.add(number)
            except (AssertionError, OSError, subprocess.SubprocessError):
                self.refused += 1
                if sock is not None:
                    sock.close()
                sock = None
        if sock is not None:
            sock.close()

    def _next(self):
        """The next message's number, when it is due; None at the end."""
        number = next(self._numbers)
        due = number / self._rate
        if due >= self._seconds:
            return None
        time.sleep(max(0.0, self._begin + due - time.monotonic()))
        return number

    def _send(self, file, number):
        recipients = [f"RCPT TO:<{self._homes.address_of(word)}>" for word in words_of(number)]
        for command in (f"MAIL FROM:<bob@{ME}>", *recipients, "DATA"):
            reply(file, f"{command}\r\n".encode())
        reply(file, message(number).replace(b"\n", b"\r\n") + b".\r\n")

    def _inject(self, number):
        recipients = [self._homes.address_of(word) for word in words_of(number)]
        subprocess.run([ROOT / "bin/mq-inject", "--home", self._homes.near.path, "-a", f"-fbob@{ME}",
                        *recipients], input=message(number), check=True, capture_output=True, timeout=60)


def words_of(number):
    """Who gets message *number*."""
    kinds = KINDS + ACCOUNT if SYSTEM else KINDS
    return kinds[number % len(kinds)].split()


def message(number):
    """The text, LF line ends; each line shows whose it is, so what is torn or mixed is seen."""
    return f"Subject: soak-{number}\n\n".encode() + body(number)


def body(number):
    return f"line of soak-{number}\n".encode() * LINES + f"end of soak-{number}\n".encode()


class Killer(threading.Thread):
    """Kills processes of both homes until told to stop; ``counts`` says how often which program."""

    def __init__(self, homes, seed, pause):
        super().__init__()
        self._homes, self._random, self._mean = homes, random.Random(seed), pause
        self._stopping = threading.Event()
        self.counts = Counter()

    def run(self):
        while not self._stopping.wait(self._random.expovariate(1 / self._mean)):
            home = self._random.choice(self._homes.both)
            if self._random.random() < _WHOLE_CRASH:
                self._crash(home)
            else:
                self._kill(home)

    def stop(self):
        """No more of it."""
        self._stopping.set()
        self.join()

    def _kill(self, home):
        """One process, each program as likely as the others."""
        by_name = {}
        for pid in family(home.process.pid)[1:]:
            try:
                by_name.setdefault(Path(f"/proc/{pid}/comm").read_text().strip(), []).append(pid)
            except (FileNotFoundError, ProcessLookupError):
                pass
        if by_name:
            name = self._random.choice(sorted(by_name))
            pid = self._random.choice(by_name[name])
            try:
                if SYSTEM and self._random.random() < _TROUBLE:
                    what = self._trouble(pid)
                else:
                    number = signal.SIGTERM if self._random.random() < _TERM else signal.SIGKILL
                    os.kill(pid, number)
                    what = number.name
                self.counts[f"{name} {what}"] += 1
            except ProcessLookupError:
                pass

    def _trouble(self, pid):
        """What does not kill: HUP, a stop for a while, no descriptors for a while."""
        what = self._random.choice(("SIGHUP", "SIGSTOP", "EMFILE"))
        if what == "SIGHUP":
            os.kill(pid, signal.SIGHUP)
        elif what == "SIGSTOP":
            os.kill(pid, signal.SIGSTOP)
            later(os.kill, pid, signal.SIGCONT)
        else:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)        # as they have it from us
            allow_files(pid, self._random.randrange(3, 20))
            later(allow_files, pid, soft)
        return what

    def _crash(self, home):
        home.crash()
        self.counts["all SIGKILL"] += 1


def allow_files(pid, count):
    """How many descriptors a process may have. Only those of its own account may say that."""
    try:
        owner = os.stat(f"/proc/{pid}/status")
    except FileNotFoundError:
        return
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={count}:"], user=owner.st_uid,
                   group=owner.st_gid, check=False, capture_output=True)


def later(function, *arguments):
    """Call *function* when the trouble is to end, if the process is still there."""
    def call():
        try:
            function(*arguments)
        except ProcessLookupError:
            pass

    threading.Timer(_TROUBLED, call).start()


def wait_for_the_queues(homes):
    """Until no acknowledged message is left; how long it took."""
    begin = time.monotonic()
    while homes.left() and time.monotonic() < begin + SETTLE:
        homes.run_all()
        time.sleep(0.5)
    return time.monotonic() - begin


def arrived(homes):
    """(word of KINDS, number) to how often it has arrived, and the paths of what is torn."""
    copies, torn = Counter(), []
    for word, directory in homes.mailboxes().items():
        for path in (directory / "Maildir/new").iterdir():
            text = path.read_bytes().replace(b"\r\n", b"\n")
            found = _MARK.search(text)
            number = int(found[1]) if found else -1
            is_report = b"\nContent-Type: multipart/report;" in text
            if number < 0 or body(number) not in text:
                torn.append(path)
            copies["gone" if is_report else word, number] += 1
    return copies, torn


def account(homes, load):
    """Print what has become of every message; whether all is well."""
    copies, torn = arrived(homes)
    wanted = {(word, number) for number in load.accepted for word in words_of(number)}
    known = {(word, number) for number in range(max(load.accepted, default=0) + CONNECTIONS + 1)
             for word in words_of(number)}
    lost, invented = wanted - set(copies), set(copies) - known
    again = sum(copies.values()) - len(copies)
    bad = [path for home in homes.both for path in (home.path / "queue/bad").iterdir()]
    bugs = [line for home in homes.both for line in home.log("event=bug")]
    print(f"{len(load.accepted)} messages accepted, {load.refused} not; {len(wanted)} copies due, "
          f"{len(copies)} arrived\nlost {len(lost)}, duplicates {again}, torn {len(torn)}, "
          f"invented {len(invented)}, left in the queues {homes.left()}, bad records {len(bad)}, "
          f"bugs {len(bugs)}")
    print(f"not accepted and arrived all the same: {len(set(copies) - wanted - invented)}")
    for text in (*sorted(lost)[:20], *torn[:20], *sorted(invented)[:20], *bad[:20], *bugs[:20]):
        print(" ", text)
    return not (lost or torn or invented or bad or bugs or homes.left()) and bool(wanted)


def main():
    """Run it; the exit code."""
    seconds, rate = setting("SOAK_SECONDS", 600), setting("SOAK_RATE", 40)
    pause, seed = setting("SOAK_PAUSE", 0.7), int(setting("SOAK_SEED", time.time()))
    print(f"{seconds:g} s, {rate:g} messages/s, a kill every {pause:g} s, SOAK_SEED={seed}", flush=True)
    with ExitStack() as stack:
        account = stack.enter_context(Accounts(1))[0] if SYSTEM else None
        return run(Homes(account), seconds, rate, pause, seed)


def run(homes, seconds, rate, pause, seed):
    """The same, on *homes*."""
    well = False
    try:
        killer = Killer(homes, seed, pause)
        killer.start()
        load = Load(homes, rate, seconds)
        load.join()
        killer.stop()
        print(f"{killer.counts.total()} kills: " + ", ".join(
            [f"{name} {count}" for name, count in sorted(killer.counts.items())]))
        print(f"the queues were empty after {wait_for_the_queues(homes):.1f} s")
        well = account(homes, load)
    finally:
        for home in homes.both:
            if well:
                home.remove()
            else:
                home.stop()
                print(f"kept: {home.top}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
