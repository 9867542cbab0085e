"""Accounts that are stopped for what is refused to them, now and later; From is of the login."""

import base64
import os

import pytest

from mqmail.auth import hashes
from mqmail.control import passwd
from support.certificates import make_authority
from support.daemons import Client
from support.home import ME, Home, free_port, run, wait_until

pytestmark = pytest.mark.e2e

LOGINS = ("probe", "burst", "pipe", "bounced", "silent", "alice", "author")
PLAIN = {name: base64.b64encode(f"\0{name}@{ME}\0sesam".encode()).decode() for name in LOGINS}
STOPPED = "is stopped: too many of its recipients were refused within an hour; try again later, or"


@pytest.fixture(scope="module")
def home():
    made = Home("alice", "bob")
    entry = hashes.make("sesam", scram=False)
    made.strict, made.free, made.tls = free_port(), free_port(), free_port()
    tls = made.path / "tls"
    tls.mkdir()
    pair = make_authority(tls).certificate([ME], tls)
    owner = os.stat(made.path)
    for path in (tls, *tls.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    made.control(
        tlscertificates=f"* {pair[0]} {pair[1]}\n",
        passwd="".join([f"{passwd.encode(f'{name}@{ME}', entry)}\n" for name in PLAIN]),
        listeners=f"127.0.0.1:{made.port}\n127.0.0.1:{made.strict} role=submission\n"
                  f"127.0.0.1:{made.free} role=submission set=free\n"
                  f"127.0.0.1:{made.tls} role=submission set=tls\n",
        optionsets="submission tls=none auth=plain authplain=yes\nfree checkfrom=no\ntls tls=may\n",
        logins=f"author@{ME}: post@b\u00fccher.example, @alice.example\n",
        accountlimits="".join([f"{name}@{ME} refused=3\n" for name in ("probe", "burst", "pipe")])
        + f"bounced@{ME} refused=1\nsilent@{ME} refused=1\n")
    os.chmod(made.path / "control/passwd", 0o600)
    refuses = made.path / "mail/bob/.qmail"
    refuses.write_text("|exit 100\n")
    owner = os.stat(made.path / "mail/bob")
    os.chown(refuses, owner.st_uid, owner.st_gid)
    made.start()
    yield made
    made.remove()


def logged_in(home, name, port=0):
    client = Client(port or home.strict)
    assert client.say("EHLO client.example")[:3] == "250"
    assert client.say(f"AUTH PLAIN {PLAIN[name]}")[:3] == "235"
    return client


def tried(client, sender, *recipients, words=""):
    """The answers to RCPT."""
    assert client.say(f"MAIL FROM:<{sender}>{words}")[:3] == "250"
    return [client.say(f"RCPT TO:<{one}>") for one in recipients]


def is_stopped(home, name):
    """Whether mail to somebody good is put off, and an alarm was logged, for what was refused."""
    line = home.wait_for_log("event=account_stopped", f"login={name}@{ME}")
    with logged_in(home, name) as client:
        [said] = tried(client, f"{name}@{ME}", f"alice@{ME}")
    return said.startswith(f"450 4.7.1 {name}@{ME} {STOPPED}") and "why=refused" in line


def test_who_collects_refusals_is_stopped(home):
    nobody = [f"nobody{number}@{ME}" for number in range(3)]
    with logged_in(home, "probe") as client:
        said = tried(client, f"probe@{ME}", *nobody, f"alice@{ME}")
    assert [one[:9] for one in said] == ["550 5.1.1"] * 3 + ["450 4.7.1"]
    assert "refused=3" in home.wait_for_log("event=account_stopped", f"login=probe@{ME}")
    assert is_stopped(home, "probe")


def test_a_sender_of_somebody_else_is_refused_and_logged(home):
    with logged_in(home, "author") as client:
        assert client.say("MAIL FROM:<eve@alice.org>")[:9] == "553 5.7.1"
    line = home.wait_for_log("event=sender_refused", f"login=author@{ME}")
    assert " ip=127.0.0.1 " in line
    assert " sender=eve@alice.org said=553+20" in line
    assert " check=senders " in line


BURST = "".join([f"RCPT TO:<nobody{number}@{ME}>\r\n" for number in range(3)]) + "QUIT\r\n"


def test_what_is_refused_last_counts_when_the_session_has_ended(home):
    with logged_in(home, "burst") as client:
        client.send(f"MAIL FROM:<burst@{ME}>\r\n{BURST}")
        assert [client.read()[:3] for _ in range(5)] == ["250", "550", "550", "550", "221"]
    assert is_stopped(home, "burst")


def test_starttls_makes_none_of_it_forgotten(home):
    with logged_in(home, "alice", home.tls) as client:
        assert "STARTTLS" not in client.say("EHLO client.example")
        assert client.say("STARTTLS")[:3] == "502"
    with Client(home.tls) as client:
        assert "STARTTLS" in client.say("EHLO client.example")


def test_so_it_does_of_one_session_on_descriptors(home):
    text = f"EHLO x\r\nAUTH PLAIN {PLAIN['pipe']}\r\nMAIL FROM:<pipe@{ME}>\r\n{BURST}"
    done = run("xmtpd", "--home", str(home.path), "--role", "submission", text=text.encode())
    assert done.stdout.count(b"\r\n550 5.1.1 ") == 3
    assert is_stopped(home, "pipe")


@pytest.mark.parametrize(("name", "notify", "reports"), [
    ("bounced", "", 1), ("silent", " NOTIFY=NEVER", 0)])
def test_what_is_refused_later_counts_too(home, name, notify, reports):
    """Also when nobody is to be told."""
    with logged_in(home, name) as client:
        assert client.say(f"MAIL FROM:<{name}@{ME}>")[:3] == "250"
        assert client.say(f"RCPT TO:<bob@{ME}>{notify}")[:3] == "250"
        assert client.data(f"From: {name}@{ME}\r\n\r\nhello\r\n".encode())[:3] == "250"
    assert is_stopped(home, name)
    home.wait_until_empty()
    if reports:
        home.wait_for_log("event=bounced", f"to={name}@")
    assert len(home.log("event=bounced", f"to={name}@")) == reports


@pytest.mark.parametrize(("name", "header", "good"), [
    ("alice", f"From: Alice <ALICE@{ME}>", True),
    ("alice", f"From: Alice <boss@{ME}>", False),
    ("alice", f"From: \"alice@{ME}\" <boss@{ME}>", False),
    ("alice", f"From: alice@{ME}, boss@{ME}", False),
    ("alice", f"From: boss@{ME}\r\nSender: alice@{ME}", True),
    ("author", "From: <post@xn--bcher-kva.example>", True),
    ("author", "From: Writers: post@b\u00fccher.example, a@alice.example;", True),
    ("author", "From: <post@b\u00fcccher.example>", False),
    ("author", f"From: <author@{ME}>", False),
])
def test_from_is_of_the_login(home, name, header, good):
    sender = "post@xn--bcher-kva.example" if name == "author" else f"alice@{ME}"
    text = f"{header}\r\nDate: Sun, 22 Nov 2026 08:20:00 +0100\r\nMessage-ID: <1@x.example>\r\n\r\nx\r\n"
    for port, taken in ((home.strict, good), (home.free, True)):
        with logged_in(home, name, port) as client:
            assert tried(client, sender, f"alice@{ME}", words=" SMTPUTF8")[0][:3] == "250"
            said = client.data(text.encode())
        assert said[:9] == ("250 2.0.0" if taken else "550 5.7.1")


def test_who_has_not_logged_in_may_write_as_anybody(home):
    text = f"From: boss@{ME}\r\nSubject: by a stranger\r\n\r\nx\r\n".encode()
    home.deliver(f"alice@{ME}", text=text)
    home.run("mq-inject", "-f", f"carol@{ME}", f"alice@{ME}", text=text.replace(b"stranger", b"user"))
    wait_until(lambda: all([any([word in one for one in home.wait_for("alice")])
                            for word in (b"by a stranger", b"by a user")]), "both messages")
