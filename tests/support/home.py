"""A scratch home with everything running on it, as a user would set it up and start it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ME = "mail.example.org"
SECONDS = 30            # the longest that anything is waited for
PAUSE = 0.01


def wait_until(condition, what, seconds=SECONDS):
    """The first true value of *condition()*, asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(PAUSE)


def _ports():
    """All of 20000 to 31999, which the system hands out to nobody, in blocks: each is taken by a name
    that one socket of this host may have, and is ours until this process ends."""
    held = []
    for first in range(20000, 32000, 100):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.bind(f"\0mqmail-test-ports-{first}")
        except OSError:
            sock.close()
            continue
        held.append(sock)
        yield from range(first, first + 100)


_our_ports = _ports()


def is_free(address):
    """Whether nobody listens there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except OSError:
            return False
        return True


def free_port():
    """A loopback port that nobody listens on, another each time: nobody takes it before it is listened
    on, nor does a test in another process get it."""
    for port in _our_ports:
        if is_free(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is left")


def run(name, *arguments, root=ROOT, text=b"", check=True, **options):
    """Run a program of bin/ to its end; what it printed and how it ended."""
    done = subprocess.run([f"{root}/bin/{name}", *arguments], input=text, capture_output=True,
                          timeout=SECONDS, check=False, **options)
    if check:
        assert done.returncode == 0, f"{name}: {done.returncode} {done.stderr.decode()}"
    return done


def trigger(home, *words):
    """Send mq-send of the home at the path *home* hints: ids, ``*run``, ``*scan``. It may be just being
    started: then they are lost."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto("\n".join(words).encode(), str(home / "run/trigger"))
    except OSError:
        pass


def accepted(path):
    """Whether the file *path* is a record that says ok."""
    try:
        return b"\nok\n" in path.read_bytes()
    except FileNotFoundError:
        return False


def start_alone(name, home, log, **options):
    """One program of bin/ on the home at the path *home*, ready; its log goes to the file *log*."""
    ready, announce = os.pipe()
    process = subprocess.Popen([f"{ROOT}/bin/{name}", "--home", str(home), "--ready-fd", str(announce)],
                               stdin=subprocess.DEVNULL, stderr=log, pass_fds=[announce], **options)
    os.close(announce)
    with open(ready, "rb") as file:
        assert file.read(1) == b"\n", f"{name} is not ready"
    return process


class Home:
    """A home in a directory of its own, with mailboxes for *users* at ME, at *port* of 127.0.0.1.
    Root's homes belong to the account mail. *root*: the checkout whose bin/ is used; *below*: where the
    home is made, instead of the directory for temporary files."""

    def __init__(self, *users, root=ROOT, owner=None, below=None):
        self.root = root
        self.port = free_port()
        self.top = tempfile.mkdtemp(prefix="mqmail-", dir=below)
        os.chmod(self.top, 0o755)       # the home's owner must get there
        self.path = Path(self.top, "home")
        self.process = None
        self.environment = None     # of mq-start, if it is not ours
        self._log = Path(self.top, "log")
        words = [word for user in users for word in ("--user", user)]
        words += ["--owner", owner] if owner else []
        words += self.prepare()
        self.run("mq-setup", "--me", ME, "--listen", f"127.0.0.1:{self.port}", *words)

    def prepare(self):
        """Before the home is made; further words for mq-setup."""
        return []

    @property
    def address(self):
        """Where SMTP is spoken."""
        return "127.0.0.1", self.port

    def run(self, name, *arguments, **options):
        """Run a program of bin/ on this home."""
        return run(name, "--home", str(self.path), *arguments, root=self.root, **options)

    def control(self, **files):
        """Write control files, owned as the home is."""
        owner = os.stat(self.path)
        for name, text in files.items():
            path = self.path / "control" / name
            path.write_text(text)
            os.chown(path, owner.st_uid, owner.st_gid)

    def qmail(self, user, text, name=".qmail"):
        """Write a .qmail file of a user's mailbox, owned as that is; its path."""
        path = self.path / "mail" / user / name
        path.write_text(text)
        owner = os.stat(path.parent)
        os.chown(path, owner.st_uid, owner.st_gid)
        path.chmod(0o600)
        return path

    def trigger(self, *words):
        """See trigger()."""
        trigger(self.path, *words)

    def accepted(self):
        """The records of acknowledged messages."""
        return [path for place in ("new", "wait", "hold")
                for path in (self.path / "queue" / place).glob("*/*") if accepted(path)]

    def start(self, wait=True):
        """Start everything; returns when mail is accepted."""
        ready, announce = os.pipe()
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [f"{self.root}/bin/mq-start", "--home", str(self.path), "--ready-fd", str(announce)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[announce],
                env=self.environment)
        os.close(announce)
        os.set_blocking(ready, False)
        if wait:
            wait_until(lambda: self._announced(ready), "mq-start ready")
        os.close(ready)
        return self

    def _announced(self, ready):
        assert self.process.poll() is None, f"mq-start ended: {self.log()}"
        try:
            return os.read(ready, 1) == b"\n"
        except BlockingIOError:
            return False

    def stop(self, number=signal.SIGTERM):
        """Stop everything; the exit code of mq-start."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(SECONDS * 2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process = None

    def crash(self):
        """As when the machine stops, but for the disk; and start again."""
        self.stop(signal.SIGKILL)
        wait_until(lambda: is_free(self.address), "all programs gone")
        self.start()

    def remove(self):
        """Stop it and remove the home."""
        self.stop()
        shutil.rmtree(self.top)

    def log(self, *parts):
        """The whole lines of the log that contain each of *parts*."""
        text = self._log.read_text("utf-8", "surrogateescape") if self._log.exists() else ""
        lines = text.rpartition("\n")[0].splitlines()
        return [line for line in lines if all(part in line for part in parts)]

    def wait_for_log(self, *parts, count=1):
        """The first line of the log that contains each of *parts*, once there are *count*. Programs
        write their lines a little after they have acted."""
        return wait_until(lambda: (found := self.log(*parts)) and len(found) >= count and found,
                          f"{count} log lines with {parts}")[0]

    def daemons(self):
        """Name to pid of the programs that mq-start has started."""
        pid, found = self.process.pid, {}
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            try:
                found[Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
            except (FileNotFoundError, ProcessLookupError):
                pass                # it has just ended
        return found

    def connect(self):
        """A connected SMTP socket."""
        return socket.create_connection(self.address, SECONDS)

    def deliver(self, *recipients, text=b"Subject: hello\r\n\r\nhello\r\n", sender="sender@example.net"):
        """Send a message (CRLF line ends) by SMTP; the queue's id. Any refusal fails the test."""
        with self.connect() as sock, sock.makefile("rwb") as file:
            replies = [reply(file)]
            stuffed = text.replace(b"\r\n.", b"\r\n..")
            for command in ("EHLO client.example.net", f"MAIL FROM:<{sender}>",
                            *[f"RCPT TO:<{one}>" for one in recipients], "DATA"):
                replies.append(reply(file, f"{command}\r\n".encode()))
            last = reply(file, stuffed + b".\r\n")
            reply(file, b"QUIT\r\n")
        assert last.startswith("250"), f"{replies}, {last}"
        return last.split()[-1]

    def maildir(self, mailbox, folder="new"):
        """The files in a mailbox, oldest first."""
        return sorted((self.path / "mail" / mailbox / "Maildir" / folder).iterdir(),
                      key=lambda path: path.stat().st_mtime_ns)

    def wait_for(self, mailbox, count=1):
        """Wait until *mailbox* has *count* messages; their texts (LF line ends), oldest first."""
        wait_until(lambda: len(self.maildir(mailbox)) >= count, f"{count} messages for {mailbox}")
        return [path.read_bytes() for path in self.maildir(mailbox)]

    def wait_until_empty(self):
        """Wait until the queue holds no message."""
        wait_until(lambda: not self.queued(), "an empty queue")

    def queued(self):
        """The files of the queue's messages."""
        return [path for path in (self.path / "queue").rglob("*") if path.is_file()]


def reply(file, command=b""):
    """Send *command* and read one reply, which must not be a refusal."""
    if command:
        file.write(command)
        file.flush()
    lines = [file.readline()]
    while lines[-1][3:4] == b"-":
        lines.append(file.readline())
    text = b"".join(lines).decode()
    assert text[:1] in ("2", "3"), f"{command[:100]!r}: {text!r}"
    return text.strip()


def owner_name(path):
    """The account that *path* belongs to."""
    return pwd.getpwuid(os.stat(path).st_uid).pw_name
