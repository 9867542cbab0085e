"""What mq-send(8) says of queue/hold: an admin holds a message, lets it go, and removes one."""

import os
import signal

import pytest

from mqmail.queue import ids
from support.home import ME, trigger, wait_until

pytestmark = pytest.mark.e2e


def test_hold_let_go_and_remove(new_home):
    home = new_home("alice")
    home.control(concurrencylocal="0\n")
    home.start()
    held, removed = [home.deliver(f"alice@{ME}") for _ in range(2)]

    def path(id, place):
        return home.path / "queue" / place / ids.directory(id) / id

    for id in (held, removed):
        wait_until(path(id, "wait").exists, "a waiting record")
        path(id, "wait").rename(path(id, "hold"))
    assert home.run("mq-qread").stdout.count(b"  hold\n") == 2
    path(removed, "hold").unlink()
    path(removed, "mess").unlink()
    home.control(concurrencylocal="10\n")
    os.kill(home.daemons()["mq-send"], signal.SIGHUP)
    home.wait_for_log("event=reloaded", "prog=mq-send")
    os.kill(home.daemons()["mq-send"], signal.SIGALRM)
    home.wait_for_log("event=run_all")
    path(held, "hold").rename(path(held, "new"))
    trigger(home.path, "*scan")
    wait_until(path(held, "wait").exists, "the record where it was")
    os.kill(home.daemons()["mq-send"], signal.SIGALRM)
    home.wait_until_empty()
    assert len(home.maildir("alice")) == 1
    assert home.log("event=message_trouble") == home.log("event=record_bad") == []
    assert home.run("mq-fsck", "-q").stdout == b""
