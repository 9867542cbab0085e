"""destination= in control/listeners: all mail that comes there goes to one service first."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.daemons import BIN, Client
from support.home import ME, SECONDS, Home, free_port
from support.lmtpservice import LmtpService

pytestmark = pytest.mark.e2e


def judged(ask):
    """The service takes all, but for these."""
    return {"rejected": "550 5.7.1 not for us"}.get(ask.address.partition("@")[0], "250 2.0.0 taken")


def sent_on(argument):
    return f"551 5.1.6 <bob@{ME}>" if "moved" in argument else "250 2.1.5 ok"


@pytest.fixture(scope="module")
def home():
    """Mail at ``filtered`` and, by LMTP, at ``lmtp`` goes to ``service``."""
    made = Home("alice", "bob")
    path = Path(made.top, "filter.sock")
    made.filtered, made.lmtp = free_port(), free_port()
    made.control(destinations=f"filter:lmtp:unix:{path}\n",
                 aliases="moved: bob\nrejected: bob\n",
                 listeners=f"127.0.0.1:{made.port}\n127.0.0.1:{made.filtered} destination=filter\n"
                 f"127.0.0.1:{made.lmtp} role=lmtp destination=filter\n")
    try:
        with LmtpService(path, judged, on_rcpt=sent_on) as made.service:
            made.start()
            yield made
    finally:
        print(*made.log()[-40:], sep="\n")
        made.remove()


def send(home, port, *recipients, sender="a@example.net", hello="EHLO x"):
    """The replies to RCPT, and the last."""
    with Client(port) as client:
        found = client.begin(sender, *recipients, hello=hello)
        last = [client.data(b"Subject: x\r\n\r\nx\r\n")]
        if hello[0] == "L":
            last += [client.read() for said in found[1:] if said[:3] == "250"]
        return found, last


def test_its_mail_goes_to_the_service_and_other_mail_does_not(home):
    before = len(home.service.asked)
    home.deliver(f"alice@{ME}")
    _, [last] = send(home, home.filtered, f"alice@{ME}")
    home.wait_for_log("event=delivered", f"id={last.split()[-1]}", "destination=filter")
    home.wait_until_empty()
    assert [ask.address for ask in home.service.asked[before:]] == [f"alice@{ME}"]
    assert len(home.maildir("alice")) == 1


def test_recipients_are_looked_up_and_may_not_be_anywhere(home):
    with Client(home.filtered) as client:
        said = client.begin("a@example.net", f"nobody@{ME}", "x@far.example", f"alice@{ME}")
    assert [one[:9] for one in said] == ["550 5.1.1", "550 5.7.1", "250 2.1.5"]


def test_a_client_chooses_no_destination(home):
    """What it says is a source route (RFC 5321 section 4.1.1.3)."""
    for port, place in ((home.filtered, "filter"), (home.port, "mailbox")):
        [said], [last] = send(home, port, f"@local:alice@{ME}")
        assert said[:3] == "250"
        line = home.wait_for_log("event=replaced" if place == "mailbox" else "event=delivered",
                                 f"id={last.split()[-1]}", f"address=alice@{ME}")
        assert "destination=new" in line if place == "mailbox" else "destination=filter" in line


def test_the_service_sends_on_to_where_other_mail_goes(home):
    _, [last] = send(home, home.filtered, f"moved@{ME}")
    line = home.wait_for_log("event=replaced", f"id={last.split()[-1]}", "destination=filter")
    assert f"by=@new:bob@{ME}" in line.replace("+20", " ")
    assert len(home.wait_for("bob")) == 1


def test_what_the_service_refuses_is_reported_by_the_address_that_was_given(home):
    before = len(home.maildir("alice"))
    send(home, home.filtered, f"rejected@{ME}", f"alice@{ME}", sender=f"alice@{ME}")
    text = home.wait_for("alice", before + 1)[-1]
    assert f"Final-Recipient: rfc822; rejected@{ME}".encode() in text
    assert b"550 5.7.1 not for us" in text


def test_lmtp_has_an_answer_for_each(home):
    found, last = send(home, home.lmtp, f"alice@{ME}", f"nobody@{ME}", f"rejected@{ME}", hello="LHLO x")
    assert [one[:3] for one in found] == ["250", "550", "250"]
    assert [one[:3] for one in last] == ["250", "250"]
    home.wait_for_log("event=delivered", f"id={last[0].split()[-1]}", "destination=filter")


def test_one_session_has_it_by_an_option(home):
    lines = ("EHLO x", "MAIL FROM:<a@example.net>", f"RCPT TO:<alice@{ME}>", "BDAT 16 LAST",
             "Subject: one", "", "QUIT")
    done = subprocess.run([BIN / "xmtpd", "--home", home.path, "--destination", "filter"], check=True,
                          input="".join([f"{line}\r\n" for line in lines]).encode(), timeout=SECONDS,
                          capture_output=True, env={**os.environ, "PROTO": "TCP",
                                                    "TCPREMOTEIP": "192.0.2.9"})
    id = done.stdout.decode().splitlines()[-2].split()[-1]
    home.wait_for_log("event=delivered", f"id={id}", "destination=filter")


def test_a_destination_that_is_not_there_is_a_mistake(home):
    done = subprocess.run([BIN / "xmtpd", "--home", home.path, "--destination", "gone"], check=False,
                          input=b"", timeout=SECONDS, capture_output=True,
                          env={**os.environ, "PROTO": "TCP", "TCPREMOTEIP": "192.0.2.9"})
    assert done.returncode == 111
    assert b"--destination gone: there is no destination gone" in done.stderr
    before = home.path.joinpath("control/listeners").read_text()
    home.control(listeners=before + f"127.0.0.1:{free_port()} destination=gone\n")
    home.process.send_signal(signal.SIGHUP)
    line = home.wait_for_log("event=reload_failed", "prog=xmtpd")
    assert "control/listeners+20line+204:+20127.0.0.1:" in line.replace(" ", "+20")
    assert "there is no destination gone" in line.replace("+20", " ")
    _, [last] = send(home, home.filtered, f"alice@{ME}")
    assert last[:3] == "250"
