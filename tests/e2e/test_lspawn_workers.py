"""mq-lspawn has as many processes as there are callers, within bounds."""

import os
import signal
import socket

import pytest

from mqmail.base import unix
from mqmail.control import reader
from mqmail.local import worker
from mqmail.prog.mq_lspawn import CONTROL, Mailboxes
from support import daemons
from support.home import wait_until

pytestmark = pytest.mark.e2e
SECONDS = 20


@pytest.fixture
def spawner(tmp_path):
    home = daemons.make_home(tmp_path, concurrencylocal="1\n")      # and two for others than mq-send
    daemon = daemons.start("mq-lspawn", home)
    yield daemon, home
    daemon.stop()


def greeted(home, seconds=SECONDS):
    """A connection, and whether it has been greeted."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(seconds)
    sock.connect(f"{home}/run/mailbox.sock")
    try:
        return sock, sock.recv(1000).startswith(b"220 ")
    except TimeoutError:
        return sock, False


def test_there_are_as_many_as_are_needed(spawner):
    """One more than that where a worker took a moment to answer."""
    daemon, home = spawner
    assert len(daemon.workers()) == 1
    calls = []
    for count in range(1, 4):
        calls.append(greeted(home))
        assert calls[-1][1]
        assert count <= len(daemon.workers()) <= 3
    late = greeted(home, 0.1)
    assert not late[1]
    assert len(daemon.workers()) == 3
    calls[0][0].close()
    late[0].settimeout(SECONDS)
    assert late[0].recv(1000).startswith(b"220 ")
    assert len(daemon.workers()) == 3
    for sock, _ in [*calls, late]:
        sock.close()


def test_one_that_has_ended_comes_back_when_it_is_wanted(spawner):
    daemon, home = spawner
    (first,) = daemon.workers()
    with greeted(home)[0], greeted(home)[0]:
        for other in set(daemon.workers()) - {first}:
            os.kill(int(other), signal.SIGTERM)
        wait_until(lambda: daemon.workers() == [first], "their end")
    with greeted(home)[0], greeted(home)[0]:
        assert len(daemon.workers()) >= 2
    os.kill(int(first), signal.SIGTERM)              # this one stays, and so does its place
    wait_until(lambda: first not in daemon.workers() and len(daemon.workers()) >= 2, "another first one")


def test_a_worker_that_need_not_stay_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "IDLE", 0.01)
    home = daemons.make_home(tmp_path)
    listener = unix.listen(f"{home}/run/mailbox.sock")
    pid = os.fork()
    if not pid:
        os.chdir(home)
        Mailboxes(reader.load(".", CONTROL), CONTROL).serve(listener, stays=False)
        os._exit(0)
    listener.close()
    assert os.waitpid(pid, 0)[1] == 0
