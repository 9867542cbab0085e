"""mq-send when something is wrong: with a recipient, a service, a record, a body."""

import email
import email.policy
import os
import signal
import socket

import pytest

from mqmail.queue import ids
from support.home import ME, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def failing(new_home):
    """A home where mail to team@ME reaches bob, and fails for somebody whom nobody knows."""
    home = new_home("alice", "bob")
    aliases = (home.path / "control/aliases").read_text()
    home.control(aliases=f"{aliases}team: bob@{ME}, nobody@{ME}\n")
    return home.start()


@pytest.fixture
def held(new_home):
    """A home whose mailboxes are closed for now."""
    home = new_home("alice", "bob")
    home.control(concurrencylocal="0\n")
    return home.start()


def signal_send(home, number):
    os.kill(home.daemons()["mq-send"], number)


def release(home):
    """Open the mailboxes, and try all that waits."""
    home.control(concurrencylocal="10\n")
    signal_send(home, signal.SIGHUP)
    home.wait_for_log("event=reloaded", "prog=mq-send")
    signal_send(home, signal.SIGALRM)


def hold(home, user="alice"):
    """A message that waits; its id."""
    id = home.deliver(f"{user}@{ME}")
    wait_until(lambda: [path for path in home.queued() if path == record(home, id)], "a waiting record")
    return id


def record(home, id, place="wait"):
    return home.path / "queue" / place / ids.directory(id) / id


def test_the_sender_is_told_of_a_failure_and_of_nothing_else(failing):
    id = failing.deliver(f"team@{ME}", sender=f"alice@{ME}")
    [report] = failing.wait_for("alice")
    failing.wait_until_empty()
    assert len(failing.wait_for("bob")) == 1
    report = email.message_from_bytes(report, policy=email.policy.default)
    assert report["Return-Path"] == "<>"
    _, one = report.get_payload(1).get_payload()
    assert one["Final-Recipient"] == f"rfc822; team@{ME}"
    assert (one["Action"], one["Status"]) == ("failed", "5.1.1")
    assert "nobody@" not in report.as_string()
    bounced = failing.wait_for_log("event=bounced", f"id={id}")
    told = failing.wait_for_log("event=told", f"id={id}", "action=failed")
    new = bounced.partition(" report=")[2].split(" ")[0]
    assert new in told
    failing.wait_for_log("event=queued", f"id={new}", "proto=bounce", f"of={id}")
    failing.wait_for_log("event=finished", f"id={new}")
    for event, one in (("bounced", id), ("told", id), ("delivered", new)):
        assert len(failing.log(f"event={event}", f"id={one}")) == 1


def test_a_failed_bounce_comes_to_the_postmaster(failing):
    failing.deliver(f"team@{ME}", sender="")
    [report] = failing.wait_for("alice")        # the first mailbox is the postmaster's
    assert b"Subject: Undeliverable bounce" in report
    failing.wait_until_empty()


def test_what_is_held_waits_and_comes(held):
    id = hold(held)
    assert held.wait_for_log("event=deferred", f"id={id}", "held")
    release(held)
    held.wait_for("alice")
    held.wait_until_empty()


def test_a_message_without_its_body_is_set_aside_and_others_go_on(held):
    lost, other = hold(held), hold(held, "bob")
    record(held, lost, "mess").unlink()
    release(held)
    held.wait_for("bob")
    assert held.wait_for_log("event=record_bad", f"id={lost}", "missing")
    wait_until(lambda: [p.name for p in held.queued()] == [lost], "a queue of one bad record")
    assert (held.path / "queue/bad" / lost).exists()
    assert held.wait_for_log("event=finished", f"id={other}")


def test_an_id_that_is_said_to_be_new_is_found_where_it_waits(held):
    id = hold(held)
    hidden = held.path / "queue" / "hidden"
    record(held, id).rename(hidden)
    release(held)                   # mq-send finds no record, and forgets the id
    held.wait_for_log("event=run_all")
    hidden.rename(record(held, id))
    held.trigger(id)
    held.wait_for("alice")


def test_what_the_system_refused_is_looked_at_again_soon(home):
    signal_send(home, signal.SIGSTOP)
    id = home.deliver(f"alice@{ME}")
    path = record(home, id, "new")
    path.chmod(0)
    signal_send(home, signal.SIGCONT)
    home.wait_for_log("event=message_trouble", f"id={id}", "Permission")
    path.chmod(0o600)
    home.wait_for("alice")          # nobody asks for it: it comes by itself


def test_a_flood_of_hints_does_not_stop_deliveries(home):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(str(home.path / "run/trigger"))
        sock.setblocking(False)
        id = home.deliver(f"alice@{ME}")
        made = "\n".join([ids.make(number, 1) for number in range(1000)]).encode()

        def flood():
            try:
                sock.send(made)
            except BlockingIOError:
                pass
            return home.log("event=finished", f"id={id}")

        wait_until(flood, "a delivery")
