"""Workers that are started when somebody calls."""

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
listener = unix.listen("sock", mode=0o600)

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


def test_a_call_that_came_while_the_only_worker_ended_is_answered(tmp_path):
    with subprocess.Popen([sys.executable, "-c", PARENT, ROOT / "lib", tmp_path],
                          stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout.readline() == b"ready\n"
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(SECONDS)
                client.connect(str(tmp_path / "sock"))
                assert client.recv(10) == b"here"
            assert (tmp_path / "called").exists()
        finally:
            parent.send_signal(signal.SIGTERM)
