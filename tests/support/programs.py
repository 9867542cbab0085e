"""Other people's programs that tests try mqmail with."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from support.home import ROOT, SECONDS, owner_name, wait_until

ALSO = f"/usr/sbin:/usr/lib/git-core:{ROOT}/build/exim/usr/sbin"


def need(*names):
    """The paths of programs *names* (one: its path). Without one of them the test is skipped, but on
    CI, which has installed them all, it fails."""
    found = [shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{ALSO}") for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        text = f"not installed: {', '.join(missing)} (.ci/run installs it)"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found[0] if len(found) == 1 else found


def family(pid):
    """*pid* and all its descendants; empty when it is gone."""
    try:
        found = [pid]
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found


def runs(pid):
    """Whether process *pid* exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def answers(port, ip="127.0.0.1"):
    """Whether somebody accepts connections at *port* of *ip*."""
    try:
        socket.create_connection((ip, port), SECONDS).close()
    except OSError:
        return False
    return True


class Program:
    """One of them, running; its output goes to the file *log*."""

    def __init__(self, *command, log, **options):
        self.path = Path(log)
        with open(log, "ab") as output:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=output, **options)

    def wait_for_port(self, port, ip="127.0.0.1"):
        """Until it accepts connections there."""
        def accepts():
            assert self.process.poll() is None, self.log()
            return answers(port, ip)
        wait_until(accepts, f"port {port}")
        return self

    def log(self):
        """What it has printed."""
        return self.path.read_text("utf-8", "surrogateescape")

    def stop(self, ask=None):
        """End it: *ask*() or TERM. Whoever of its family stays is killed, and is the test's failure."""
        pids = family(self.process.pid)
        if self.process.poll() is None:
            (ask or self.process.terminate)()
        try:
            self.process.wait(SECONDS)
            wait_until(lambda: not any([runs(pid) for pid in pids]), f"the end of {self.process.args}")
        except BaseException:
            for pid in filter(runs, pids):
                os.kill(pid, signal.SIGKILL)
            self.process.wait(SECONDS)
            raise


def run_as_owner(home, changer):
    """What stands before a command to run it as the owner of *home*: nothing, unless we are root.
    *changer* is setuidgid or s6-setuidgid. Nothing also where only root can run our programs, whose
    interpreter may lie in root's own directory: then root starts them."""
    if os.geteuid() != 0:
        return []
    prefix = [need(changer), owner_name(home.path)]
    tried = subprocess.run([*prefix, ROOT / "bin/mq-send", "--help"], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else []
