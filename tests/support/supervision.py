"""A home under s6, daemontools or runit, by the service directories of mq-services."""

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

from support.daemons import Client
from support.home import ME, SECONDS, wait_until
from support.programs import answers, need

SOCKETS = {"mq-queue": "queue.sock", "mq-resolve": "resolve.sock", "mq-lspawn": "mailbox.sock",
           "mq-rspawn": "remote.sock", "mq-auth": "auth.sock", "mq-bounce": "bounce.sock",
           "mq-send": "trigger"}
DAEMONS = (*SOCKETS, "xmtpd")


class _Supervision:
    """*launch* starts the scanner. With *order* the services are started one by one, each when the one
    before it is up."""

    name = ""           # as mq-services knows it

    def __init__(self, home, launch, order=()):
        self.home = home
        self.services = Path(home.top, "services")
        self.services.mkdir()
        home.run("mq-services", self.name, self.services)
        for name in DAEMONS if order else ():
            (self.services / name / "down").touch()
        self._program = launch(*self._command())
        for name in order:
            self._start(name)
        for name in DAEMONS:
            self.wait_for(name)

    @staticmethod
    def _say(*command):
        subprocess.run([str(word) for word in command], check=True, timeout=SECONDS,
                       stdout=subprocess.DEVNULL)

    def wait_for(self, name):
        """Until it serves: somebody answers at its socket."""
        wait_until(lambda: self._answers(name), f"{name} answers")

    def _answers(self, name):
        if name == "xmtpd":
            return answers(self.home.port)
        kind = socket.SOCK_DGRAM if name == "mq-send" else socket.SOCK_STREAM
        with socket.socket(socket.AF_UNIX, kind) as sock:
            return sock.connect_ex(str(self.home.path / "run" / SOCKETS[name])) == 0

    def wait_for_another(self, name, before):
        """Until another process than *before* is the daemon, and serves."""
        wait_until(lambda: self.pid(name) not in (0, before), f"a new {name}")
        self.wait_for(name)

    def kill(self, name):
        """KILL, and wait until its successor serves."""
        before = self.pid(name)
        os.kill(before, signal.SIGKILL)
        self.wait_for_another(name, before)

    def log(self, name):
        """Its lines, as its logger keeps them."""
        path = self.services / name / "log/main/current"
        return path.read_text("utf-8", "surrogateescape") if path.exists() else ""


class S6(_Supervision):
    """Readiness by notification."""

    name = "s6"

    def _command(self):
        return need("s6-svscan"), self.services

    def _start(self, name):
        wait_until((self.services / name / "supervise/control").exists, f"supervision of {name}")
        self._say(need("s6-svc"), "-wU", "-T", SECONDS * 1000, "-u", self.services / name)

    def wait_for(self, name):
        """Until it says that it is ready."""
        wait_until((self.services / name / "supervise/control").exists, f"supervision of {name}")
        self._say(need("s6-svwait"), "-U", "-t", SECONDS * 1000, self.services / name)

    def pid(self, name):
        """Of the daemon that runs now; 0 without one."""
        told = int(subprocess.check_output([need("s6-svstat"), "-o", "pid", self.services / name]))
        return max(told, 0)

    def restart(self, name):
        """TERM, and wait until its successor is ready."""
        self._say(need("s6-svc"), "-wR", "-T", SECONDS * 1000, "-r", self.services / name)

    def stop(self):
        """Stop all services and the scanner; all ends as it should."""
        self._program.stop(lambda: self._say(need("s6-svscanctl"), "-t", self.services))
        assert self._program.process.returncode == 0


class Daemontools(_Supervision):
    """Readiness by asking."""

    name = "daemontools"

    def _command(self):
        return need("svscan"), self.services

    def pid(self, name):
        """Of the daemon that runs now; 0 without one."""
        told = (self.services / name / "supervise/status").read_bytes()
        return int.from_bytes(told[12:16], "little")

    def restart(self, name):
        """TERM, and wait until its successor answers."""
        before = self.pid(name)
        self._say(need("svc"), "-t", self.services / name)
        self.wait_for_another(name, before)

    def stop(self):
        """Stop the scanner and all services; all ends as it should."""
        found = [self.services / name for name in DAEMONS]
        self._program.stop(lambda: self._end(found))
        assert self._program.process.returncode == -signal.SIGTERM

    def _end(self, services):
        self._program.process.terminate()
        self._say(need("svc"), "-dx", *services)
        self._say(need("svc"), "-dx", *[path / "log" for path in services])


class Runit(_Supervision):
    """Readiness by asking."""

    name = "runit"

    def _command(self):
        return need("runsvdir"), self.services

    def pid(self, name):
        """Of the daemon that runs now; 0 without one."""
        return int((self.services / name / "supervise/pid").read_text() or 0)

    def restart(self, name):
        """TERM, and wait until its successor answers."""
        before = self.pid(name)
        self._say(need("sv"), "-w", SECONDS, "restart", self.services / name)
        self.wait_for_another(name, before)

    def stop(self):
        """Stop the scanner, which stops all services; all ends as it should."""
        self._program.stop(lambda: self._program.process.send_signal(signal.SIGHUP))
        assert self._program.process.returncode == 111


class Flow(threading.Thread):
    """Mail that keeps coming: one message after the other to *mailbox*, by a client that remembers what
    was accepted, and goes on after every trouble. ``with Flow(home, "alice") as flow: …``"""

    def __init__(self, home, mailbox):
        super().__init__()
        self._home = home
        self._mailbox = mailbox
        self._stopping = threading.Event()
        self._sent = 0
        self._greeted = None        # the client that has said EHLO
        self.accepted = []

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self._stopping.set()
        self.join(SECONDS)

    def run(self):
        while not self._stopping.is_set():
            try:
                with Client(self._home.port) as client:
                    while not self._stopping.is_set() and self._message(client):
                        pass
            except OSError:
                self._stopping.wait(0.01)

    def _message(self, client):
        """Whether the session can go on."""
        self._sent += 1
        text = f"Subject: flow-{self._sent}\r\n\r\nx\r\n"
        for line in ("RSET" if client is self._greeted else "EHLO flow.example",
                     "MAIL FROM:<flow@example.net>", f"RCPT TO:<{self._mailbox}@{ME}>", "DATA"):
            if client.say(line)[:1] not in ("2", "3"):
                return False
        self._greeted = client
        client.send(f"{text}.\r\n")
        if client.read()[:3] != "250":
            return False
        self.accepted.append(f"flow-{self._sent}")
        return True

    def wait_for_more(self, count=5):
        """Until *count* more messages have been accepted."""
        goal = len(self.accepted) + count
        wait_until(lambda: len(self.accepted) >= goal, f"{count} more messages accepted")
