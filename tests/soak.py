"""A long run: mail at a steady rate while programs are killed at random; each message is accounted for.

Two homes: messages go into mailboxes of the first, by SMTP and by mq-inject, come back as reports,
or go on to the second, whose programs are killed too. Set by the environment: SOAK_SECONDS, SOAK_RATE
(messages a second), SOAK_PAUSE (mean seconds between two kills), SOAK_SEED. Ends with 1 if a message
was lost, torn or invented.
"""

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from support.home import ME, ROOT, Home, reply
from support.programs import family

FAR = "far.example.net"
CONNECTIONS = 8
SETTLE = 180            # seconds that all may take to arrive after the last kill
LINES = 60
# who gets a message, by its number; "mailbox: report" stands for a report to bob
KINDS = ("alice", "alice", "far", "alice bob", "gone", "alice far", "alice", "alice")
INJECTED_EVERY = 25     # each so manieth message comes by mq-inject
_MARK = re.compile(rb"^Subject: soak-(\d+)\r?\n", re.MULTILINE)
_WHOLE_CRASH = 0.03     # the part of kills that hit mq-start, and so a whole home
_TERM = 0.2             # the part of kills that are TERM


def setting(name, default):
    """A number from the environment."""
    return float(os.environ.get(name, default))


class Homes:
    """The two homes; the first routes FAR to the second."""

    def __init__(self):
        self.near, self.far = Home("alice", "bob", "gone"), Home(f"dave@{FAR}")
        self.far.control(locals=f"{FAR}\n")
        self.near.control(relayclients="127.0.0.1\n", smtproutes=f"{FAR}:127.0.0.1:{self.far.port}\n")
        self.near.qmail("gone", "|echo nobody here; exit 100\n")
        self.both = (self.near, self.far)
        for home in self.both:
            home.start()

    def address_of(self, word):
        """The address that a word of KINDS stands for."""
        return f"dave@{FAR}" if word == "far" else f"{word}@{ME}"

    def mailboxes(self):
        """Word of KINDS to the directory where such mail arrives; reports on ``gone`` come to bob."""
        near, far = self.near.path / "mail", self.far.path / "mail"
        return {"alice": near / "alice", "bob": near / "bob", "far": next(far.glob("dave*"))}

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
        self._threads = [threading.Thread(target=self._run) for _ in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def join(self):
        """Until all has been sent."""
        for thread in self._threads:
            thread.join()

    def _run(self):
        sock = file = None
        while (number := self._next()) is not None:
            try:
                if number % INJECTED_EVERY == 0:
                    self._inject(number)
                else:
                    if sock is None:
                        sock = self._homes.near.connect()
                        file = sock.makefile("rwb")
                        reply(file)
                        reply(file, b"EHLO soak.example\r\n")
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
    return KINDS[number % len(KINDS)].split()


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
            number = signal.SIGTERM if self._random.random() < _TERM else signal.SIGKILL
            try:
                os.kill(self._random.choice(by_name[name]), number)
                self.counts[f"{name} {number.name}"] += 1
            except ProcessLookupError:
                pass

    def _crash(self, home):
        home.crash()
        self.counts["all SIGKILL"] += 1


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
    homes = Homes()
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
