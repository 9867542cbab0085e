"""Hosts that take all mail and count it: Postfix's smtp-sink(1)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

from forks import Trouble
from system import PAUSE, SECONDS

from mqmail.net.lifeline import die_with_parent

_LAST = 200     # bytes of the output's end that hold one whole line of counters
_BACKLOG = "1000"


def parse_counters(text: str) -> tuple[int, int]:
    """(messages, ended sessions) of the last whole line that smtp-sink -c wrote, each ended by a CR."""
    line = text.rpartition("\r")[0].rpartition("\r")[2]
    found = dict(word.split("=") for word in line.split())
    return int(found.get("mesg", 0)), int(found.get("sess", 0))


class Sink:
    """A running smtp-sink at *ip*; *where* is ``ip:port``. Its output goes to a file below *directory*,
    for a pipe that nobody reads would stop it."""

    def __init__(self, directory: str, ip: str = "127.0.0.2", port: int = 0) -> None:
        self.ip = ip
        self.port = port or free_port_at([ip])
        self.where = f"{ip}:{self.port}"
        self._output = f"{directory}/sink-{ip}-{self.port}"
        program = shutil.which("smtp-sink", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise Trouble("smtp-sink is not installed")
        parent = os.getpid()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [program, *user, "-c", "-m", "1000", self.where, _BACKLOG], stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.DEVNULL, start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent))
        self._wait()

    def _wait(self) -> None:
        """Until it listens. It must not see a connection, which it would count."""
        deadline = time.monotonic() + SECONDS
        address = f"{int.from_bytes(socket.inet_aton(self.ip), sys.byteorder):08X}:{self.port:04X}"
        while not _listens(address):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Trouble(f"smtp-sink does not listen at {self.where}")
            time.sleep(PAUSE)

    def counters(self) -> tuple[int, int]:
        """(messages, ended sessions) until now."""
        with open(self._output, "rb") as file:
            file.seek(max(0, os.path.getsize(self._output) - _LAST))
            return parse_counters(file.read().decode("ascii", "replace"))

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _listens(address: str) -> bool:
    """Whether a socket listens at *address*, as /proc/net/tcp writes it (proc(5))."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        return any(line.split()[1] == address and line.split()[3] == "0A" for line in file)


def free_port_at(ips: list[str]) -> int:
    """A port that nobody listens at, at all of *ips*."""
    while True:
        with ExitStack() as stack:
            try:
                port = 0
                for ip in ips:
                    sock = stack.enter_context(socket.socket())
                    sock.bind((ip, port))
                    port = int(sock.getsockname()[1])
            except OSError:
                continue
            return port
