"""Clients that take their time, in both shells: each limit, and who must not be cut by it.

All sessions go on at once; each test looks at one. Where the machine has been held up for so long that
who was quick came late, all of it is done again.
"""

import os
import selectors
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.certificates import make_authority
from support.home import ME, ROOT, SECONDS, Home

pytestmark = pytest.mark.e2e

COMMAND, SESSION, RATE = 1, 2, 1000     # the control files
LONG = 3                                # seconds of what is slow and taken all the same
HELD_UP = 0.4                           # seconds that must not be missing between two moments
TRIES = 8
PAUSE = 0.1
HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<s@example.net>\r\nRCPT TO:<alice@%s>\r\nDATA\r\n" % ME.encode()
TIMEOUT = "421 4.4.2 timeout"
SLOW = f"421 4.4.2 no message within {SESSION} s of waiting for you"


class Client:
    """A session, which *began* before it was connected, and all that it hears."""

    def __init__(self, sock, began):
        self.sock = sock
        self.heard = b""
        self._began = began

    def say(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass                    # it has been closed

    def hear(self, seconds):
        """For so long. False: that was the end."""
        if not getattr(self.sock, "pending", int)():
            with selectors.DefaultSelector() as selector:
                selector.register(self.sock, selectors.EVENT_READ)
                if not selector.select(seconds):
                    return True
        try:
            data = self.sock.recv(65536)
        except (ssl.SSLWantReadError, TimeoutError):
            return True
        except OSError:
            data = b""
        self.heard += data
        return bool(data)

    def hear_code(self, code):
        """Until a line with that code has come."""
        size = len(self.heard)
        while b"\n%s " % code not in b"\n" + self.heard[size:]:
            assert self.hear(SECONDS), self.heard

    def drip(self, pieces, pause=PAUSE):
        """One after another, until the server has enough."""
        for piece in pieces:
            self.say(piece)
            until = time.monotonic() + pause
            while (left := until - time.monotonic()) > 0:
                if not self.hear(left):
                    return
        while self.hear(SECONDS):
            pass

    def last(self):
        """The last thing heard, and after how many seconds."""
        return self.heard.decode().splitlines()[-1], time.monotonic() - self._began

    def start_tls(self, context):
        self.say(HELLO + b"STARTTLS\r\n")
        self.hear_code(b"220")
        self.sock.settimeout(SECONDS)
        self.sock = context.wrap_socket(self.sock, server_hostname=ME)


def silent(client):
    client.drip([HELLO])


def a_command_in_drops(client):
    client.drip([bytes([octet]) for octet in HELLO + MAIL * 10])


def commands_and_no_message(client):
    client.drip([HELLO, *[b"NOOP\r\n"] * 90])


def a_body_in_drops(client):
    client.drip([HELLO, MAIL, *[b"x\r\n"] * 90])


def a_refused_body(client):
    client.drip([HELLO, b"BDAT 100000000 LAST\r\n", *[bytes(2 * RATE)] * 90])


def a_body_in_drops_under_tls(client, context):
    client.start_tls(context)
    a_body_in_drops(client)


def a_long_body(client):
    """Twice as fast as it has to be."""
    line = b"x" * (2 * RATE // 10 - 2) + b"\r\n"
    client.drip([HELLO, MAIL, *[line] * (LONG * 10), b".\r\n", b"QUIT\r\n"])


def many_messages(client):
    client.drip([HELLO] + [MAIL, b"Subject: x\r\n\r\nx\r\n.\r\n"] * (LONG * 5) + [b"QUIT\r\n"])


TALKS = (silent, a_command_in_drops, commands_and_no_message, a_body_in_drops, a_refused_body,
         a_long_body, many_messages)


class Watch(threading.Thread):
    """``with Watch() as watch:`` ``longest``: the longest time that nothing could be done in."""

    def __init__(self):
        super().__init__()
        self._ended = threading.Event()
        self.longest = 0.0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self._ended.set()
        self.join()

    def run(self):
        before = time.monotonic()
        while not self._ended.wait(PAUSE / 10):
            before, last = time.monotonic(), before
            self.longest = max(self.longest, before - last)


class World:
    """A home with little patience. In *found*, by name of talk and shell, what each heard."""

    def __init__(self):
        self.home = Home("alice")
        directory = self.home.path / "tls"
        directory.mkdir()
        authority = make_authority(directory)
        pair = authority.certificate([ME], directory)
        owner = os.stat(self.home.path)
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        self.context = ssl.create_default_context(cafile=authority.file)
        self.home.control(timeoutsmtpd=f"{COMMAND}\n", timeoutsession=f"{SESSION}\n",
                          minrate=f"{RATE}\n", tlscertificates=f"* {pair[0]} {pair[1]}\n")
        self.home.start()
        self.found, self.logs = {}, {}

    def many(self, talk, *more):
        began = time.monotonic()
        with self.home.connect() as sock:
            self._run(Client(sock, began), "many", talk, *more)

    def one(self, talk, *more):
        began = time.monotonic()
        ours, theirs = socket.socketpair()
        program = [ROOT / "bin/xmtpd", "--home", self.home.path]
        environ = {"PATH": os.environ["PATH"], "PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1"}
        with ours, subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
                                    env=environ) as process:
            theirs.close()
            ours.settimeout(SECONDS)
            self._run(Client(ours, began), "one", talk, *more)
            self.logs[talk] = process.stderr.read().decode()

    def _run(self, client, shell, talk, *more):
        client.hear_code(b"220")
        try:
            talk(client, *more)
        finally:
            client.sock.close()
        self.found[talk, shell] = client.last()

    def run(self):
        for _ in range(TRIES):
            with Watch() as watch:
                self._run_all()
            if watch.longest < HELD_UP:
                return

    def _run_all(self):
        calls = [(shell, talk) for talk in TALKS for shell in (self.many, self.one)]
        calls += [(shell, a_body_in_drops_under_tls, self.context) for shell in (self.many, self.one)]
        with ThreadPoolExecutor(len(calls)) as pool:
            for made in [pool.submit(*call) for call in calls]:
                made.result()


@pytest.fixture(scope="module")
def world():
    made = World()
    try:
        made.run()
        yield made
    finally:
        made.home.remove()


@pytest.mark.parametrize("shell", ["many", "one"])
@pytest.mark.parametrize(("talk", "said", "seconds"), [
    (silent, TIMEOUT, COMMAND), (a_command_in_drops, TIMEOUT, COMMAND),
    (commands_and_no_message, SLOW, SESSION), (a_body_in_drops, SLOW, SESSION),
    (a_refused_body, SLOW, SESSION), (a_body_in_drops_under_tls, SLOW, SESSION)])
def test_who_is_too_slow_is_told_so(world, talk, said, seconds, shell):
    found, after = world.found[talk, shell]
    assert found == said
    assert after >= seconds


@pytest.mark.parametrize("shell", ["many", "one"])
@pytest.mark.parametrize("talk", [a_long_body, many_messages])
def test_who_makes_progress_is_served(world, talk, shell):
    found, after = world.found[talk, shell]
    assert found == "221 2.0.0 goodbye"
    assert after > LONG


def test_the_log_has_the_reason(world):
    assert "event=disconnect" in world.logs[silent]
    assert "why=timeout" in world.logs[silent]
    assert "why=slow" in world.logs[a_body_in_drops]
    assert "why=quit" in world.logs[many_messages]
    for why, count in (("timeout", 2), ("slow", 4)):
        world.home.wait_for_log("event=disconnect", f"why={why} ", count=count)
