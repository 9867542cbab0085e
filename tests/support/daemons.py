"""Single daemons on a home of their own, a client that says what it is told to, the queue's content."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from support.home import ME, ROOT, SECONDS, run

BIN = ROOT / "bin"


def make_home(path, **control):
    """A home at *path*, of ours or of the account mail if we are root; *control*: content of control
    files."""
    run("mq-setup", "--home", str(path), "--me", ME, "--user", "alice")
    for name, text in control.items():
        (path / "control" / name).write_text(f"{text}\n")
    return path


class Daemon:
    """A process that announces itself; its log is read as it comes, and kept in ``lines``."""

    def __init__(self, command, **options):
        reading, writing = os.pipe()
        self.lines = []
        self._more = threading.Condition()
        self.process = subprocess.Popen([*map(str, command), str(writing)], pass_fds=[writing],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
        os.close(writing)
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        with open(reading, "rb", buffering=0) as ready:
            if not select.select([ready], [], [], SECONDS)[0] or ready.read(1) != b"\n":
                self.kill()
                raise AssertionError(f"{command} is not ready: {self.lines}")

    @property
    def pid(self):
        return self.process.pid

    def workers(self):
        """The pids of its children."""
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()

    def wait_for(self, *words):
        """The first line of the log that holds all *words*."""
        def look():
            return next((line for line in self.lines if all(word in line for word in words)), None)

        with self._more:
            found = self._more.wait_for(look, SECONDS)
        assert found, f"no line with {words} in {self.lines}"
        return found

    def _read_log(self):
        """Until its end; who logs must not wait for us."""
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line.decode().rstrip("\n"))
                self._more.notify_all()

    def stop(self):
        """TERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self):
        """KILL; its workers die with it."""
        self.process.kill()
        self.wait()

    def wait(self):
        """The exit status; also of one that has ended already."""
        self._reader.join(SECONDS)
        for file in (self.process.stderr, self.process.stdout):
            if file is not None:
                file.close()
        return self.process.wait(SECONDS)


def start(name, home, *arguments, **options):
    """A program of bin/."""
    return Daemon([BIN / name, "--home", home, *arguments, "--ready-fd"], **options)


def start_tiny_resolver(home):
    """See tiny_resolver.py."""
    return Daemon([sys.executable, Path(__file__).with_name("tiny_resolver.py"), home],
                  env={**os.environ, "PYTHONPATH": str(ROOT / "lib")})


def start_listener(home, *arguments):
    """xmtpd at a free port, which is its attribute ``port``."""
    daemon = start("xmtpd", home, *arguments, "--listen", "127.0.0.1:0", stdout=subprocess.PIPE)
    daemon.port = int(daemon.process.stdout.readline().rpartition(b":")[2])
    return daemon


class Client:
    """A client of SMTP or LMTP."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._file = self.sock.makefile("rb")
        try:
            self.greeting = self.read()
        except OSError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Cut the connection."""
        self._file.close()
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def read(self):
        """One reply, all its lines; "" at the end."""
        lines = [self._file.readline().decode()]
        while lines[-1][3:4] == "-":
            lines.append(self._file.readline().decode())
        return "".join(lines).rstrip("\r\n")

    def say(self, line):
        """Send a line; the reply."""
        self.send(line + "\r\n")
        return self.read()

    def begin(self, sender, *recipients, hello="EHLO client.example"):
        """From EHLO to the last RCPT; the replies to RCPT."""
        assert self.say(hello)[:3] == "250"
        assert self.say(f"MAIL FROM:<{sender}>")[:3] == "250"
        return [self.say(f"RCPT TO:<{one}>") for one in recipients]

    def data(self, body):
        """DATA with *body*, which has its dots stuffed and ends in CRLF; the reply after the dot."""
        answer = self.say("DATA")
        assert answer[:3] == "354", answer
        self.send(body + b".\r\n")
        return self.read()


def records(home, sender):
    """The records that new messages of *sender* have, as {first word: rest of the line}, with ``to``
    a list, and with ``body``, the message without the Received field on top."""
    found = []
    for path in sorted(home.glob("queue/new/*/*"), key=lambda path: path.name):
        lines = [line.partition(" ")[::2] for line in path.read_text().splitlines()]
        facts = dict(lines)
        if facts["from"].split(" ")[0] == sender:
            body = (home / "queue" / "mess" / path.parent.name / path.name).read_bytes()
            facts |= {"to": [rest for word, rest in lines if word == "to"], "id": path.name,
                      "body": re.sub(rb"^Received: .*\r\n(?:[ \t].*\r\n)*", b"", body)}
            found.append(facts)
    return found


def queue_files(home):
    """The names of all files in the queue."""
    return sorted([path.name for path in home.glob("queue/*/*/*")])
