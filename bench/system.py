"""A scratch home with the whole system running on it."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import subprocess
import time
from collections.abc import Callable

from forks import Trouble

from mqmail.net.lifeline import die_with_parent

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ME = "mx.example.com"
SECONDS = 60            # the longest that anything is waited for
PAUSE = 0.005


class System:
    """mq-start on a home below *directory*, which is made. To a load it is a mail server: *port*,
    *recipient*, the *maildir* where her mail goes, and *pid*, the parent of all its processes."""

    name = "mqmail"

    def __init__(self, directory: str) -> None:
        self.home = f"{directory}/home"
        self.port = free_port()
        self.recipient = f"alice@{ME}"
        self.maildir = f"{self.home}/mail/alice/Maildir"
        self.pid = 0
        self._log = f"{directory}/log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = -1
        done = subprocess.run(
            [f"{ROOT}/bin/mq-setup", "--home", self.home, "--me", ME, "--user", "alice", "--user", "bob",
             "--listen", f"127.0.0.1:{self.port}"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Trouble(f"mq-setup: {done.stderr.strip()}")

    def start(self, *tracer: str) -> System:
        """Start everything; mail is accepted on return. *tracer*: a command to run mq-start under,
        which must become it."""
        self.launch(*tracer)
        return self.wait_ready()

    def launch(self, *tracer: str) -> None:
        """Start everything, without waiting."""
        parent = os.getpid()
        self._ready, announce = os.pipe()
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*tracer, f"{ROOT}/bin/mq-start", "--home", self.home, "--ready-fd", str(announce)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[announce],
                start_new_session=True, preexec_fn=lambda: die_with_parent(parent))
        os.close(announce)
        self.pid = self._process.pid

    def wait_ready(self) -> System:
        """Until mq-start says that mail is accepted."""
        with open(self._ready, "rb") as pipe:
            if pipe.read(1) != b"\n":
                raise Trouble(f"mq-start ended: {self.log()[-600:]}")
        return self

    def log(self) -> str:
        """All that was logged."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def clear(self) -> None:
        """Empty the Maildir."""
        empty(self.maildir)

    def arrived(self) -> int:
        """How many messages are in the Maildir."""
        return delivered(self.maildir)

    def stop(self) -> None:
        """Stop everything; what does not end is killed."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> System:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def delivered(maildir: str) -> int:
    """How many messages are in a Maildir and have not been looked at."""
    try:
        return len(os.listdir(f"{maildir}/new"))
    except FileNotFoundError:
        return 0


def empty(maildir: str) -> None:
    """Remove them."""
    try:
        names = os.listdir(f"{maildir}/new")
    except FileNotFoundError:
        return
    for name in names:
        os.unlink(f"{maildir}/new/{name}")


def wait_for(arrived: Callable[[], int], count: int) -> int:
    """Wait until *count* have arrived; how many have, when for SECONDS none has come."""
    found, last = -1, time.monotonic()
    while True:
        now = arrived()
        if now != found:
            found, last = now, time.monotonic()
        if found >= count or time.monotonic() - last > SECONDS:
            return found
        time.sleep(PAUSE)


def greeted(port: int, seconds: float = SECONDS) -> smtplib.SMTP:
    """A session, as soon as the server greets; Trouble when it does not in so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return smtplib.SMTP("127.0.0.1", port, "client.example.net", timeout=SECONDS)
        except (OSError, smtplib.SMTPException) as error:
            if time.monotonic() > deadline:
                raise Trouble(f"no greeting on port {port}: {error}") from None
            time.sleep(PAUSE)
