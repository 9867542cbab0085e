"""ETRN, VRFY and EXPN: who is offered them, and what they do."""

import base64
import os
import subprocess

import pytest

from mqmail.auth import hashes
from mqmail.control import passwd
from support.badserver import BadServer
from support.daemons import BIN, Client
from support.home import ME, SECONDS, Home, free_port

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def home():
    """At ``customers`` ETRN is offered, at ``telling`` VRFY and EXPN; nobody listens at ``away``."""
    made = Home("alice", "bob")
    made.customers, made.telling, made.away = free_port(), free_port(), free_port()
    made.members, made.users = free_port(), free_port()
    made.control(passwd=passwd.encode("bob", hashes.make("sesam")) + "\n")
    (made.path / "control/passwd").chmod(0o600)
    made.control(
        smtproutes=f"late.example:127.0.0.1:{made.away}\n.late.example:127.0.0.1:{free_port()}\n",
        relayclients="127.0.0.1\n",
        aliases="team: alice, bob@late.example\nabroad: alice, \u00e9@late.example\n",
        rewrite=f"to:former@{ME} alice\n",
        access="Connect:192.0.2.66 REJECT\nHelo:mere.example set:mere\n",
        optionsets="customers etrn=late.example,.late.example\n"
        "telling vrfy=yes expn=yes rewrite=envelope_recipient\n"
        "member auth=plain authplain=yes loginset=known\nknown etrn=late.example\nmere databytes=9000\n"
        "users tls=none auth=plain authplain=yes vrfy=yes expn=yes\n",
        listeners=f"127.0.0.1:{made.port}\n127.0.0.1:{made.customers} set=customers xclient=127.0.0.1\n"
        f"127.0.0.1:{made.telling} set=telling\n127.0.0.1:{made.members} set=member\n"
        f"127.0.0.1:{made.users} role=submission set=users\n")
    try:
        yield made.start()
    finally:
        print(*made.log()[-40:], sep="\n")
        made.remove()


@pytest.fixture
def customer(home):
    with Client(home.customers) as client:
        assert "250-ETRN" in client.say("EHLO late.example")
        yield client


def test_it_is_for_clients_whose_option_set_has_it(home):
    with Client(home.port) as client:
        assert "ETRN" not in client.say("EHLO late.example")
        assert client.say("ETRN late.example")[:3] == "502"


def test_mail_that_waits_goes_out_before_its_time_though_its_host_was_down(home, customer):
    id = home.deliver("bob@late.example")
    line = home.wait_for_log("event=deferred", f"id={id}")
    assert int(line.partition(" retry=")[2].split()[0]) > SECONDS
    other = home.deliver("bob@x.late.example")
    home.wait_for_log("event=deferred", f"id={other}")
    with BadServer(port=home.away) as server:
        assert customer.say("ETRN LATE.example") == "250 2.0.0 OK, queuing for node LATE.example started"
        home.wait_for_log("event=finished", f"id={id}")
        assert len(server.bodies) == 1
    assert "nodes=late.example waiting=1" in home.wait_for_log("event=wanted ")
    assert not home.log("event=finished", f"id={other}")
    assert customer.say("ETRN @late.example") == "250 2.0.0 OK, queuing for node @late.example started"
    home.wait_for_log("event=deferred", f"id={other}", count=2)


def test_other_domains_are_not_its_to_ask_for(home, customer):
    for node in ("example", "late.example.org", "@example", ME, "@other.example"):
        assert customer.say(f"ETRN {node}") == f"459 4.7.1 Node {node} not allowed: not from here"
    assert customer.say("ETRN a.late.example")[:3] == "250"
    assert customer.say("ETRN")[:3] == "501"
    assert customer.say("ETRN #late")[:3] == "458"
    customer.say("MAIL FROM:<>")
    assert customer.say("ETRN late.example")[:3] == "503"


def test_who_is_not_welcome_is_not_heard(home, customer):
    assert customer.say("XCLIENT ADDR=192.0.2.66")[:3] == "220"
    customer.say("EHLO late.example")
    assert customer.say("ETRN late.example")[:3] == "459"


def test_a_login_may_bring_it_whatever_the_helo_name(home):
    login = base64.b64encode(b"\0bob\0sesam").decode()
    with Client(home.members) as client:
        assert "ETRN" not in client.say("EHLO x")
        assert client.say(f"AUTH PLAIN {login}")[:3] == "235"
        assert client.say("ETRN late.example")[:3] == "250"
        assert "ETRN" in client.say("EHLO x")
        assert "SIZE 9000" in client.say("EHLO mere.example")
        assert client.say("ETRN late.example")[:3] == "502"


def test_without_mq_send_nothing_is_started():
    alone = Home()
    try:
        alone.control(optionsets="mx etrn=late.example\n")
        done = subprocess.run([BIN / "xmtpd", "--home", alone.path], check=True, capture_output=True,
                              input=b"EHLO x\r\nETRN late.example\r\nQUIT\r\n", timeout=SECONDS,
                              env={**os.environ, "PROTO": "TCP", "TCPREMOTEIP": "192.0.2.9"})
    finally:
        alone.remove()
    assert b"\r\n458 4.3.2 Unable to queue messages for node late.example\r\n" in done.stdout


@pytest.mark.parametrize(("command", "said"), [
    ("VRFY alice", f"250 2.1.5 <alice@{ME}>"),
    (f"VRFY <team@{ME}>", f"250 2.1.5 <team@{ME}>"),
    ("VRFY nobody", "550 5.1.1 "),
    ("VRFY former", f"250 2.1.5 <former@{ME}>"),
    ("VRFY x@far.example", "252 2.5.2 "),
    ("VRFY a b", "553 5.1.3 "),
    ("EXPN team", f"250-2.1.5 <alice@{ME}>\r\n250 2.1.5 <bob@late.example>"),
    ("EXPN alice", f"250 2.1.5 <alice@{ME}>"),
    ("EXPN nobody", "550 5.1.1 "),
    ("EXPN abroad", "252 2.6.8 "),
    ("EXPN abroad SMTPUTF8", f"250-2.1.5 <alice@{ME}>\r\n250 2.1.5 <\u00e9@late.example>"),
])
def test_who_may_learn_what_we_know_does(home, command, said):
    with Client(home.telling) as client:
        hello = client.say("EHLO x")
        assert "250-VRFY" in hello
        assert "EXPN" in hello
        assert client.say(command).startswith(said)


def test_others_do_not(home):
    with Client(home.port) as client:
        assert "VRFY" not in client.say("EHLO x")
        assert client.say("VRFY nobody")[:3] == "252"
        assert client.say("EXPN team")[:3] == "502"


@pytest.mark.parametrize("command", ["VRFY alice", "EXPN team"])
def test_nobody_learns_it_before_what_must_come_before_mail(home, command):
    with Client(home.users) as client:
        assert "VRFY" in client.say("EHLO x")
        assert client.say(command)[:9] == "530 5.7.0"
        word = base64.b64encode(b"\0bob\0sesam").decode()
        assert client.say(f"AUTH PLAIN {word}")[:3] == "235"
        assert client.say(command)[:3] == "250"
