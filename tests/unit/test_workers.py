"""Workers that are started when somebody calls."""

import contextlib
import signal
import socket
import subprocess
import sys

from support.home import ROOT, SECONDS

# The first worker that is called ends a while later without an answer, the second answers.
PARENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from mqmail.base import unix
from mqmail.net.daemon import Workers
os.chdir(sys.argv[2])
listener = unix.socket(fileno=int(sys.argv[3])) if sys.argv[3:] else unix.listen("sock", mode=0o600)

def work(number):
    if not os.path.exists("called"):
        open("called", "w").close()
        time.sleep(0.3)
        return
    listener.setblocking(True)
    fd, _ = listener._accept()
    os.write(fd, b"here")

Workers("test", 1, work, wanted={0: listener}).run(lambda: print("ready", flush=True))
"""


@contextlib.contextmanager
def running(directory, *fds):
    """The parent there, with a listener of its own, or on the descriptor that it is given."""
    with subprocess.Popen([sys.executable, "-c", PARENT, ROOT / "lib", directory, *map(str, fds)],
                          stdout=subprocess.PIPE, pass_fds=fds) as parent:
        try:
            assert parent.stdout.readline() == b"ready\n"
            yield
        finally:
            parent.send_signal(signal.SIGTERM)


def test_a_call_that_came_while_the_only_worker_ended_is_answered(tmp_path):
    with running(tmp_path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(str(tmp_path / "sock"))
        assert client.recv(10) == b"here"
    assert (tmp_path / "called").exists()


def test_a_call_that_came_before_anybody_heard_of_calls_is_answered(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        client.settimeout(SECONDS)
        client.connect(str(tmp_path / "sock"))
        with running(tmp_path, listener.fileno()):
            assert client.recv(10) == b"here"
