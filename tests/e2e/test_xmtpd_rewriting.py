"""Rewriting by connection: envelope and header of what real clients hand in; and mq-rewrite."""

import os
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import pytest

from support.daemons import Client, make_home, records, start
from support.home import ME, SECONDS, free_port, run
from support.programs import need

pytestmark = pytest.mark.e2e
TABLE = f"""\
From:joe@inner.example    joe.doe@{ME}
To:joe.doe@{ME}           alice@{ME}
To:old@{ME}               x@far.example
To:new@far.example        alice@{ME}
From:root@                =
.inner.example            {ME}
"""
SETS = """\
inside relay=yes rewrite=all
outside rewrite=envelope_recipient
headers relay=yes rewrite=header_recipient
users tls=may rewrite=envelope_sender,header_sender
"""
ACCESS = f"To:old@{ME} RELAY\nTo:late@{ME} set:inside"
PLACES = {"inside": "set=inside", "plain": "", "outside": "set=outside", "headers": "set=headers",
          "users": "role=submission set=users xclient=127.0.0.1"}


class Site:
    """A home with a listener of each kind."""

    def __init__(self, path):
        self.ports = {name: free_port() for name in PLACES}
        listeners = [f"127.0.0.1:{self.ports[name]} {words}" for name, words in PLACES.items()]
        self.home = make_home(path, processesincoming="1", listeners="\n".join(listeners), rewrite=TABLE,
                              optionsets=SETS, access=ACCESS, logins="joe: joe@inner.example",
                              aliases="late: alice")
        self.daemons = [start(name, self.home) for name in ("mq-queue", "mq-resolve", "mq-auth")]
        self.xmtpd = start("xmtpd", self.home, "--listen")

    def client(self, name):
        return Client(self.ports[name])

    def close(self):
        for daemon in (*self.daemons, self.xmtpd):
            daemon.kill()


@pytest.fixture(scope="module")
def site():
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)      # SQLite goes there by the whole path
        one = Site(Path(directory, "home"))
        yield one
        one.close()


def swaks(site, name, *arguments):
    """A message by a client that people use."""
    command = [need("swaks"), "--server", "127.0.0.1", "--port", str(site.ports[name]),
               "--ehlo", "pc.inner.example", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
                          check=False)
    assert done.returncode == 0, done.stdout


MESSAGE = ["--header", "Subject: to joe@inner.example", "--header", "From: Joe <joe@inner.example>",
           "--header", "Cc: Zoe <zoe@pc.inner.example>", "--body", "To: joe@inner.example"]


def test_envelope_and_header_where_it_is_switched_on(site):
    swaks(site, "inside", "--from", "joe@inner.example", "--to", f"joe.doe@{ME}", *MESSAGE)
    (found,) = records(site.home, f"joe.doe@{ME}")
    assert found["to"] == [f"1 new alice@{ME} orcpt=rfc822;joe.doe@{ME}"]
    header, _, body = found["body"].decode().partition("\r\n\r\n")
    assert f"From: Joe <joe.doe@{ME}>" in header.split("\r\n")
    assert f"To: alice@{ME}" in header.split("\r\n")
    assert f"Cc: Zoe <zoe@{ME}>" in header.split("\r\n")
    assert "Subject: to joe@inner.example" in header.split("\r\n")
    assert body.strip() == "To: joe@inner.example"
    site.xmtpd.wait_for("event=rewritten", "what=sender", "old=joe@inner.example", f"new=joe.doe@{ME}")
    site.xmtpd.wait_for("event=rewritten", "what=recipient", f"old=joe.doe@{ME}", f"new=alice@{ME}")


def test_nothing_where_it_is_not(site):
    swaks(site, "plain", "--from", "joe@inner.example", "--to", f"alice@{ME}", *MESSAGE)
    (found,) = records(site.home, "joe@inner.example")
    assert found["to"] == [f"1 new alice@{ME}"]
    assert b"From: Joe <joe@inner.example>\r\n" in found["body"]


def test_only_the_classes_that_are_named(site):
    with site.client("headers") as client:
        assert client.begin("joe@inner.example", "new@far.example")[0][:3] == "250"
        client.data(b"From: joe@inner.example\r\nCc: new@far.example\r\n\r\n")
    found = records(site.home, "joe@inner.example")[-1]
    assert found["to"] == ["1 new new@far.example"]
    assert found["body"] == f"From: joe@inner.example\r\nCc: alice@{ME}\r\n\r\n".encode()


def test_a_recipient_is_judged_as_what_it_has_become(site):
    """Even if what it was may be relayed to."""
    with site.client("outside") as client:
        refused, taken = client.begin("eve@example.com", f"old@{ME}", "new@far.example")
    assert refused.startswith("550 5.7.1 relaying denied")
    assert taken[:3] == "250"
    with site.client("plain") as client:
        assert client.begin("eve@example.com", "new@far.example")[0][:3] == "550"
        assert client.say("RCPT TO:<x@far.example>")[:3] == "550"


def test_a_set_of_a_recipient_counts_for_the_header(site):
    with site.client("plain") as client:
        assert client.begin("joe@inner.example", f"late@{ME}")[0][:3] == "250"
        client.data(b"From: joe@inner.example\r\n\r\n")
    found = records(site.home, "joe@inner.example")[-1]
    assert found["body"] == f"From: joe.doe@{ME}\r\n\r\n".encode()


def test_one_session_on_descriptors_0_and_1(site):
    """As tcpserver starts it."""
    text = ("EHLO pc.inner.example\r\nMAIL FROM:<one@pc.inner.example>\r\n"
            f"RCPT TO:<joe.doe@{ME}>\r\nDATA\r\nFrom: one@pc.inner.example\r\n\r\n.\r\nQUIT\r\n")
    environment = {**os.environ, "PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1"}
    said = run("xmtpd", "--home", str(site.home), "--set", "inside", text=text.encode(), env=environment)
    assert b"250 2.0.0 ok" in said.stdout
    (found,) = records(site.home, f"one@{ME}")
    assert found["to"] == [f"1 new alice@{ME} orcpt=rfc822;joe.doe@{ME}"]
    assert found["body"] == f"From: one@{ME}\r\n\r\n".encode()


def test_the_login_is_held_to_what_it_said(site):
    with site.client("users") as client:
        client.say("EHLO filter.example")
        assert client.say("XCLIENT LOGIN=joe")[:3] == "220"
        client.say("EHLO pc.inner.example")
        for sender in (f"joe.doe@{ME}", "zoe@inner.example"):
            assert client.say(f"MAIL FROM:<{sender}>").startswith("553 5.7.1")
        assert client.begin("joe@inner.example", "bob@far.example")[0][:3] == "250"
        assert client.data(f"From: joe.doe@{ME}\r\n\r\n".encode())[:3] == "550"
        assert client.begin("joe@inner.example", "bob@far.example")[0][:3] == "250"
        assert client.data(b"Bcc: c@d.example\r\nFrom: joe@inner.example\r\nDate: x\r\n"
                           b"Message-ID: <x@inner.example>\r\n\r\n")[:3] == "250"
    found = records(site.home, f"joe.doe@{ME}")[-1]
    assert found["body"] == (f"From: joe.doe@{ME}\r\nDate: x\r\n"
                             "Message-ID: <x@inner.example>\r\n\r\n").encode()


def test_a_large_message_in_pieces(site):
    """The header does not end in the first piece that goes on to the queue."""
    filler = b"X-Filler: " + b"x" * 900 + b"\r\n"
    body = b"a line that stays\r\n" * 20000
    message = filler * 100 + b"To: zoe@pc.inner.example\r\n" + filler * 100 + b"\r\n" + body
    with site.client("inside") as client:
        client.begin("big@pc.inner.example", "bob@far.example")
        for place in range(0, len(message), 50001):
            piece = message[place:place + 50001]
            last = " LAST" if place + 50001 >= len(message) else ""
            client.send(f"BDAT {len(piece)}{last}\r\n".encode() + piece)
            assert client.read()[:3] == "250"
    (found,) = records(site.home, f"big@{ME}")
    assert found["body"] == message.replace(b"zoe@pc.inner.example", f"zoe@{ME}".encode())


def test_a_table_that_cannot_be_used_is_our_trouble(site):
    """At MAIL, at RCPT and at the end; nothing of the message stays."""
    path = site.home / "control/rewrite.sqlite"
    run("mq-makemap", "--home", str(site.home), "--sqlite", "rewrite", "-",
        text=b"From:bad@x.example y@z.example")
    trouble = "451 4.3.5 the rewrite table cannot be used now, try again later"
    try:
        with sqlite3.connect(path) as base:
            base.execute("UPDATE map SET value = 'no\nreplacement' WHERE key LIKE 'from:%'")
        base.close()
        with site.client("inside") as client:
            client.say("EHLO pc.inner.example")
            assert client.say("MAIL FROM:<bad@x.example>") == trouble
            client.begin("good@x.example", f"alice@{ME}")
            assert client.data(b"From: bad@x.example\r\n\r\n" + b"x\r\n" * 50000) == trouble
            path.write_bytes(b"no table")
            client.say("RSET")
            assert client.say("MAIL FROM:<>") == "250 2.1.0 sender ok"
            assert client.say(f"RCPT TO:<alice@{ME}>") == trouble
    finally:
        path.unlink()
    assert records(site.home, "good@x.example") == []
    site.xmtpd.wait_for("event=bad_table", "rewrite.sqlite")


def ask(site, *words, text=b""):
    return run("mq-rewrite", "--home", str(site.home), *words, text=text).stdout.decode()


def test_mq_rewrite_tells_what_xmtpd_does(site):
    assert ask(site, "joe+x@inner.example", "root@pc.inner.example", "a@b.example").splitlines() == [
        f"sender: joe.doe+x@{ME} (control/rewrite: from:joe@inner.example joe.doe@{ME})",
        "recipient: joe+x@inner.example (no entry)",
        "sender: root@pc.inner.example (control/rewrite: from:root@ =)",
        f"recipient: root@{ME} (control/rewrite: .inner.example @{ME})",
        "sender: a@b.example (no entry)",
        "recipient: a@b.example (no entry)"]
    assert ask(site, "--all", "a@b.example").splitlines()[:2] == [
        "sender: looked up from:a@b.example", "sender: looked up a@b.example"]
    message = b"From: J\xc3\xb6 <joe@inner.example>\nX: joe@inner.example\n\nFrom: joe@inner.example\n"
    assert ask(site, "--message", text=message).encode() == message.replace(
        b"joe@inner.example>", f"joe.doe@{ME}>".encode())


def test_mq_rewrite_wants_an_address(site):
    done = run("mq-rewrite", "--home", str(site.home), "joe", check=False)
    assert done.returncode == 100
    assert done.stderr.startswith(b"mq-rewrite: joe: an address has")
