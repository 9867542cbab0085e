"""mq-send and records that vanish or grow, and hints from a caller that means no good."""

import os
import signal
import socket
import stat

import pytest

from mqmail.queue import ids
from mqmail.queue import record as records
from support.badserver import BadServer
from support.home import ME, wait_until

pytestmark = pytest.mark.e2e


def path_of(home, id, place="wait"):
    return home.path / "queue" / place / ids.directory(id) / id


def test_a_record_that_is_removed_in_an_attempt_is_let_go(new_home):
    home = new_home("alice")

    def remove(_line):
        for path in home.path.glob("queue/new/*/*"):
            path.unlink()
        return b"451 4.2.0 later\r\n"

    with BadServer({"LHLO": b"250 here\r\n", "BODY": remove}) as server:
        home.control(destinations=f"mailbox:lmtp:tcp:127.0.0.1:{server.port}\n")
        id = home.start().deliver(f"alice@{ME}")
        assert "No+20such+20file" in home.wait_for_log("event=message_trouble", f"id={id}")


def test_a_record_does_not_grow_until_nobody_can_read_it(new_home):
    home = new_home("alice")
    home.control(concurrencylocal="0\n")
    id = home.start().deliver(f"alice@{ME}")
    path = wait_until(lambda: path_of(home, id).exists() and path_of(home, id), "a waiting record")
    line = b"wait 1 1732252802 4.4.1 until=1732253202 said=" + b"x" * (1 << 20) + b"\n"
    with path.open("ab") as file:
        file.write(line * (records.LONGEST // 2 // len(line) + 1))
    size = path.stat().st_size
    before = len(home.log("event=deferred", f"id={id}"))
    os.kill(home.daemons()["mq-send"], signal.SIGALRM)
    wait_until(lambda: len(home.log("event=deferred", f"id={id}")) > before, "another attempt")
    home.control(concurrencylocal="10\n")
    os.kill(home.daemons()["mq-send"], signal.SIGHUP)
    home.wait_for_log("event=reloaded", "prog=mq-send")
    assert path.stat().st_size == size
    os.kill(home.daemons()["mq-send"], signal.SIGALRM)
    home.wait_for("alice")
    home.wait_until_empty()


def test_only_programs_of_ours_give_hints_and_many_cost_no_more_than_one(home):
    path = home.path / "run/trigger"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for _ in range(5):
            sock.sendto(b"\n".join([b"*scan", b"*run"] * 5000), str(path))
    id = home.deliver(f"alice@{ME}")
    home.wait_for("alice")
    home.wait_for_log("event=finished", f"id={id}")
    assert len(home.log("event=run_all")) <= 5
