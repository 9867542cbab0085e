"""A warm process that forks mq-start under a filter for a Tracer, in a few milliseconds each.

Over its descriptor 0, a Unix socket, come lines ``HOME``, each with two descriptors: for the log and to
be ready on. It answers with the pid; the new process sends its filter's descriptor over the same socket.
``HOME without mq-send``: all but these programs are started.
"""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Launcher:
    """The warm process."""

    def __init__(self):
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join([str(ROOT / "lib"), str(ROOT / "tests")])
        self._process = subprocess.Popen([sys.executable, __file__], stdin=theirs,
                                         env={**os.environ, "PYTHONPATH": path})
        theirs.close()
        self._lock = threading.Lock()

    def start(self, home, log, without=()):
        """Start mq-start on *home*, but for the programs *without*; its log is appended to the file
        *log*. Returns (pid, the filter's descriptor, a descriptor where readiness comes)."""
        ready, announce = os.pipe()
        with self._lock, open(log, "ab") as file:
            line = " ".join([str(home), *without]).encode()
            socket.send_fds(self._sock, [line], [file.fileno(), announce])
            os.close(announce)
            data, [listener], _, _ = socket.recv_fds(self._sock, 100, 1)
        return int(data), listener, ready

    def close(self):
        """End it, and all that it has started."""
        self._sock.close()
        self._process.wait()


def _serve(sock):
    from mqmail.prog import mq_start
    from support import tracing
    mq_start._import_all()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    while True:
        _reap()
        data, fds, _, _ = socket.recv_fds(sock, 4096, 2)
        if not data:
            return
        parent = os.getpid()
        if os.fork() == 0:
            _run(mq_start, tracing, sock, data.decode().split(" "), fds, parent)
        for fd in fds:
            os.close(fd)


def _reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _run(mq_start, tracing, sock, words, fds, parent):
    try:
        from mqmail.net.lifeline import die_with_parent
        home, *without = words
        os.setsid()
        die_with_parent(parent)
        log, ready = fds
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(sock.fileno(), tracing.CONTROL)
        sock.close()
        mq_start.STAGES = tuple([tuple([name for name in stage if name not in without])
                                 for stage in mq_start.STAGES])
        listener = tracing.install()
        with socket.socket(fileno=tracing.CONTROL) as control:
            socket.send_fds(control, [str(os.getpid()).encode()], [listener])
        os.close(listener)
        os.close(log)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        mq_start.main(["--home", home, "--ready-fd", str(ready)])
    except BaseException:  # noqa: BLE001  it is in the log, and the process ends
        traceback.print_exc()
    finally:
        os._exit(111)


if __name__ == "__main__":
    _serve(socket.socket(fileno=os.dup(0)))
