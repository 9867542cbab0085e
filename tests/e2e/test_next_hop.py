"""Mail to another host, which is Postfix's smtp-sink."""

import email
import email.policy
import os
import shutil
from pathlib import Path

import pytest

from support.home import ME, free_port, owner_name, wait_until
from support.programs import need

pytestmark = pytest.mark.e2e


@pytest.fixture
def port():
    """Where the host of far.example shall be."""
    return free_port()


@pytest.fixture
def home(new_home, port):
    """A running home that relays for us, with the mailboxes alice and bob."""
    home = new_home("alice", "bob")
    home.control(smtproutes=f"far.example:127.0.0.1:{port}\n", relayclients="127.0.0.1\n")
    return home.start()


@pytest.fixture
def sink(home, port, launch):
    """A function that starts the next hop with options of smtp-sink's."""
    directory = Path(home.top, "taken")
    directory.mkdir()
    user = owner_name(home.path)
    shutil.chown(directory, user)

    def start(*options):
        root = ["-u", user] if os.geteuid() == 0 else []
        return launch(need("smtp-sink"), *root, "-d", f"{directory}/m.", *options, f"127.0.0.1:{port}",
                      100).wait_for_port(port)
    return start


def taken(home):
    """What the next hop has accepted, once it has accepted something."""
    def found():
        texts = [path.read_bytes() for path in Path(home.top, "taken").iterdir()]
        return [text for text in texts if b"\nX-Rcpt-Args: " in text]
    return wait_until(found, "a message at the next hop")


def test_a_message_goes_to_the_next_hop(home, sink):
    sink()
    home.deliver("x@far.example", "y@far.example", text=b"Subject: out\r\n\r\n.dot\r\n\xfc\r\n")
    home.wait_until_empty()
    [text] = taken(home)
    assert b"X-Mail-Args: <sender@example.net>" in text
    assert b"X-Rcpt-Args: <x@far.example>" in text
    assert b"X-Rcpt-Args: <y@far.example>" in text
    assert text.endswith(b"Subject: out\n\n.dot\n\xfc\n\n")


@pytest.mark.parametrize("command", ["RCPT", "DATA", "."])
def test_what_the_next_hop_refuses_comes_back(home, sink, command):
    sink("-f", command, "-B", "550 5.7.0 we want none of this")
    home.deliver("x@far.example", sender=f"alice@{ME}", text=b"Subject: unwanted\r\n\r\nbody\r\n")
    [text] = home.wait_for("alice")
    home.wait_until_empty()
    message = email.message_from_bytes(text, policy=email.policy.default)
    assert (message["Return-Path"], message["To"]) == ("<>", f"alice@{ME}")
    assert message.get_content_type() == "multipart/report"
    _, one = message.get_payload(1).get_payload()
    assert one["Final-Recipient"] == "rfc822; x@far.example"
    assert (one["Action"], one["Status"]) == ("failed", "5.7.0")
    assert one["Diagnostic-Code"] == "smtp; 550 5.7.0 we want none of this"
    assert "127.0.0.1" in one["Remote-MTA"]
    assert b"\nSubject: unwanted\n" in text


def test_what_the_next_hop_puts_off_is_tried_again(home, sink):
    first = sink("-r", "RCPT")
    id = home.deliver("x@far.example")
    home.wait_for_log("event=deferred", f"id={id}", "status=4.3.0")
    first.stop()
    sink()
    home.run("sendmail", "-q")
    home.wait_until_empty()
    assert len(taken(home)) == 1


def test_a_next_hop_that_is_down_costs_nothing(home, sink):
    id = home.deliver("x@far.example", f"bob@{ME}")
    home.wait_for_log("event=deferred", f"id={id}", "status=4.4.1")
    home.wait_for("bob")
    sink()
    home.run("sendmail", "-q")
    home.wait_until_empty()
    assert len(taken(home)) == 1
    assert len(home.maildir("bob")) == 1
