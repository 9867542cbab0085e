"""HUP and the processes of mq-lspawn."""

import os
import signal
from pathlib import Path

import pytest

from support.home import ME, wait_until

pytestmark = pytest.mark.e2e


def blocked(pid):
    """The signals that a process has blocked, as bits."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16)


def test_a_mailbox_that_has_moved_is_found_after_hup(new_home):
    home = new_home("alice", "bob").start()
    home.deliver(f"alice@{ME}")
    home.wait_for("alice")
    home.control(users=f"bob@{ME}\nalice@{ME}:bob\n")
    spawner = home.daemons()["mq-lspawn"]
    os.kill(spawner, signal.SIGHUP)

    def moved():
        home.deliver(f"alice@{ME}")
        home.wait_until_empty()
        return home.maildir("bob")

    wait_until(moved, "a message in the new place")


def test_an_address_is_not_refused_because_of_a_mistake_in_a_file(new_home):
    home = new_home("alice", "carol")
    home.control(concurrencylocal="1\n", users=f"alice@{ME}\n")
    home.start()
    home.control(users=f"alice@{ME}\ncarol@{ME}\n")
    os.kill(home.daemons()["mq-resolve"], signal.SIGHUP)
    home.wait_for_log("event=reloaded", "prog=mq-resolve")
    home.control(users=f"alice@{ME}\ncarol@{ME}\n..\n")
    id = home.deliver(f"carol@{ME}", sender=f"alice@{ME}")
    home.wait_for_log("event=deferred", id, "4.3.5")
    home.wait_for_log("event=reload_failed", "prog=mq-local", "control/users+20line+203")
    home.control(users=f"alice@{ME}\ncarol@{ME}\n")
    home.trigger("*run")
    home.wait_for("carol")
    home.wait_until_empty()
    assert home.maildir("alice") == []      # no report


def test_programs_get_no_blocked_signals(new_home):
    home = new_home("alice").start()
    spawner = home.daemons()["mq-lspawn"]
    workers = Path(f"/proc/{spawner}/task/{spawner}/children").read_text().split()
    assert workers
    for pid in workers:
        wait_until(lambda pid=pid: blocked(pid) == 0, "a worker without blocked signals")
