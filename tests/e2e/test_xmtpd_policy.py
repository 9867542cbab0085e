"""Throttles, pressure, header rules and hooks, as clients of an xmtpd with two processes feel them."""

import os
import signal
import socket

import pytest

from support.certificates import make_authority
from support.daemons import Client, make_home, records, start, start_listener
from support.home import ME, SECONDS, free_port, wait_until

pytestmark = pytest.mark.e2e
ALICE = f"alice@{ME}"
TEXT = (b"From: a@x.example\r\nDate: Sun, 22 Nov 2026 08:20:00 +0100\r\nMessage-ID: <1@x.example>\r\n"
        b"\r\nhello\r\n")


class System:
    """A home with xmtpd, mq-resolve and mq-queue, and these control files."""

    def __init__(self, path, **control):
        self.home = make_home(path, **control)
        self.daemons = [start("mq-queue", self.home), start("mq-resolve", self.home)]

    def listen(self, *arguments):
        self.listener = start_listener(self.home, *arguments)
        self.daemons.append(self.listener)
        return self

    def control(self, name, text):
        """Write a control file for xmtpd to read."""
        (self.home / "control" / name).write_text(text)
        return self

    def connect(self):
        return Client(self.listener.port)

    def greetings(self, number):
        """Of so many clients that stay."""
        clients = [self.connect() for _ in range(number)]
        return clients, [client.greeting for client in clients]

    def end(self):
        for daemon in self.daemons:
            daemon.kill()


@pytest.fixture
def system(tmp_path):
    made = System(tmp_path / "home")
    yield made
    made.end()


def close(clients):
    for client in clients:
        client.close()


BUSY = "421 4.7.0 too many sessions of the client, come back later"


def test_a_clients_sessions_are_counted_over_all_processes(system):
    system.control("throttles", "* sessions=4\n").listen()
    clients, said = system.greetings(12)
    assert [line[:3] for line in said].count("220") == 4
    assert {line for line in said if line[:3] != "220"} == {BUSY}
    open_ones = [client for client, line in zip(clients, said, strict=True) if line[:3] == "220"]
    assert all([client.say("QUIT")[:3] == "221" for client in open_ones])
    close(clients)
    wait_until(lambda: greets(system), "room for a client")


def wait_for_both(system, *words):
    """Until each of the two processes has logged a line with all *words*."""
    found = system.listener.wait_for(*words)
    system.listener.lines.remove(found)
    system.listener.wait_for(*words)


def greets(system):
    with system.connect() as client:
        return client.greeting[:3] == "220" and client.say("QUIT")[:3] == "221"


def test_a_process_that_is_killed_gives_its_sessions_back(system):
    system.control("throttles", "* sessions=3\n").listen()
    clients, said = system.greetings(3)
    assert [line[:3] for line in said] == ["220"] * 3
    for pid in system.listener.workers():
        os.kill(int(pid), signal.SIGKILL)
    wait_for_both(system, "event=worker_died")
    wait_until(lambda: greets(system), "a session")
    close(clients)


def test_a_share_is_of_the_processes_there_are(system):
    """Their number stays when control files are read again."""
    system.control("concurrencyincoming", "8\n").control("processesincoming", "1\n").listen()
    system.control("processesincoming", "8\n")
    os.kill(system.listener.pid, signal.SIGHUP)
    system.listener.wait_for("event=reloaded")
    wait_until(lambda: greets(system), "a client")
    clients, said = system.greetings(8)
    assert [line[:3] for line in said] == ["220"] * 8
    close(clients)


@pytest.mark.parametrize(("most", "fits"), [(3, 3), (100, 20)])
def test_who_is_too_many_gets_no_handshake(system, most, fits):
    """Of all, and of one address."""
    authority = make_authority(system.home / "control")
    pair = authority.certificate([ME], system.home / "control")
    owner = os.stat(system.home)
    for path in (system.home / "control").iterdir():
        os.chown(path, owner.st_uid, owner.st_gid)
    places = " ".join([f"control/{path.name}" for path in pair])    # root alone searches our directory
    system.control("tlscertificates", f"* {places}\n").control("processesincoming", "1\n")
    system.control("concurrencyincoming", f"{most}\n").listen("--role", "submissions")
    stalled = [socket.create_connection(("127.0.0.1", system.listener.port), SECONDS)
               for _ in range(fits + 1)]
    assert stalled[fits].recv(1) == b""
    stalled[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        stalled[0].recv(1)
    assert system.listener.wait_for("event=disconnect", "why=busy")
    close(stalled)


def test_who_is_free_is_not_counted(system):
    system.control("throttles", "127.0.0.1 free\n* sessions=1\n").listen()
    clients, said = system.greetings(5)
    assert [line[:3] for line in said] == ["220"] * 5
    close(clients)


def test_rates_of_sessions_messages_and_recipients(system):
    system.control("throttles", "* rate=2/1h messages=2/1h recipients=3/1h\n").listen()
    with system.connect() as client:
        assert client.begin("a@x.example", ALICE, ALICE) == ["250 2.1.5 recipient ok"] * 2
        assert client.data(TEXT)[:3] == "250"
        assert client.begin("a@x.example", ALICE, ALICE)[1] == (
            "451 4.7.0 too many recipients of the client, try again later")
        client.say("RSET")
        assert client.begin("a@x.example", ALICE) in (
            ["451 4.7.0 too many messages of the client, try again later"],
            ["451 4.7.0 too many recipients of the client, try again later"])
    with system.connect() as client:
        assert client.greeting[:3] == "220"
    with system.connect() as client:
        assert client.greeting == "421 4.7.0 too many new sessions of the client, come back later"


@pytest.mark.parametrize("hello", ["EHLO a.example\r\n", "EHLO a.example\r\nNOOP\r\n"])
def test_who_does_not_wait_for_the_answer_to_ehlo(system, hello):
    port = free_port()
    system.control("listeners", f"127.0.0.1:{port} xclient=127.0.0.1\n")
    system.control("earlytalkers", "reject\n")
    system.daemons.append(start("xmtpd", system.home, "--listen"))
    with Client(port) as client:
        client.send("XCLIENT ADDR=192.0.2.7\r\n")
        client.read()
        client.send(hello)
        assert {client.read()[:3] for _ in range(hello.count("\n"))} == {"250"}
        client.say("MAIL FROM:<a@x.example>")
        assert client.say(f"RCPT TO:<{ALICE}>")[:9] == ("550 5.5.0" if "NOOP" in hello else "250 2.1.5")


def test_no_rule_lifts_a_limit(system):
    system.control("throttles", "* messages=1/1h\n").control("access", "To:postmaster@ OK\n")
    system.listen()
    with system.connect() as client:
        assert client.begin("a@x.example", f"postmaster@{ME}")[0][:3] == "250"
        client.say("RSET")
        assert client.begin("a@x.example", f"postmaster@{ME}") == [
            "451 4.7.0 too many messages of the client, try again later"]


def test_a_queue_that_is_behind_lets_nobody_in(system):
    system.control("throttles", "* rate=1000/1s\n").control("pressure", "full 1000\n").listen()
    with system.connect() as client:
        assert client.begin("a@x.example", ALICE) == ["250 2.1.5 recipient ok"]
        for bucket in range(256):
            directory = system.home / "queue/new" / f"{bucket:02x}"
            directory.mkdir(exist_ok=True)
            for number in range(4):
                (directory / f"{number:016}").touch()
        wait_for_both(system, "event=pressure", "stage=refuse")
        client.say("RSET")
        assert client.begin("a@x.example", ALICE) == ["451 4.3.2 too busy, try again later"]
    with system.connect() as client:
        assert client.greeting == "421 4.3.2 too busy, come back later"


def test_a_full_disk_is_said_before_the_message(system):
    system.control("minfree", "1000000G\n").listen()
    with system.connect() as client:
        assert client.begin("a@x.example", ALICE) == [
            "452 4.3.1 not enough disk space, try again later"]


def test_headers_are_judged_before_the_queue_has_them(system):
    system.control("headerchecks", "date defer\n").listen()
    with system.connect() as client:
        client.begin("a@x.example", ALICE)
        assert client.data(b"From: b@x.example\r\n" + TEXT) == (
            "550 5.6.0 the header has more than one From field (RFC 5322 section 3.6)")
        client.begin("a@x.example", ALICE)
        assert client.data(b"From: b@x.example\r\n\r\n" + TEXT * 2000)[:9] == "451 4.6.0"
        client.begin("a@x.example", ALICE)
        assert client.data(b"Subject: x\r\nSubject: y\r\n" + TEXT)[:3] == "250"
    assert system.listener.wait_for("event=header_marked", "rules=twice")
    assert len(records(system.home, "a@x.example")) == 1


LONG = b"X-Pad: " + b"x" * 92 + b"\r\n"


@pytest.mark.parametrize("octets", [0, 60000, 70000, 250000])
def test_all_of_a_long_header_is_judged(system, octets):
    system.control("headerchecks", "froms reject\n").listen()
    with system.connect() as client:
        for more, said in ((b"", "250"), (b"From: b@bank.example\r\n", "550")):
            client.begin("a@x.example", ALICE)
            padding = LONG * (octets // len(LONG))
            text = TEXT.replace(b"\r\n\r\n", b"\r\n" + padding + more + b"\r\n", 1)
            assert client.data(text + b"x\r\n" * 30000)[:3] == said


def test_a_header_without_end_is_refused(system):
    system.listen()
    with system.connect() as client:
        client.begin("a@x.example", ALICE)
        assert client.data(LONG * 4000) == "552 5.3.4 the header has more than 256 KiB"
        client.begin("a@x.example", ALICE)
        assert client.data(LONG * 4000 + TEXT)[:9] == "552 5.3.4"
        client.begin("a@x.example", ALICE)
        assert client.data(TEXT)[:3] == "250"


HOOKS = """
def connect(session):
    if session.ip != "127.0.0.1":
        return "421 4.7.0 go"

def helo(session):
    if session.helo == "bad.example":
        return "550 5.7.1 bad name"

def mail(session):
    if session.sender == "crash@x.example":
        return 1 // 0

def rcpt(session):
    if session.sender == "once@x.example" and session.recipients:
        return "452 4.5.3 one is enough"

def header(session):
    if session.fields("Subject") == ["make money"]:
        return "554 5.7.1 no thank you"

def body(session):
    if b"X-Late" in session.header:
        return "451 4.7.1 too late"
"""


def test_hooks_at_every_stage(system):
    system.control("hooks.py", HOOKS).listen()
    with system.connect() as client:
        assert client.begin("a@x.example", ALICE, hello="EHLO bad.example") == ["550 5.7.1 bad name"]
        assert client.begin("crash@x.example", ALICE) == ["451 4.3.0 internal trouble, try again later"]
        assert system.listener.wait_for("event=hook_failed", "hook=mail", "at=control/hooks.py:12 ")
        assert client.begin("once@x.example", ALICE, ALICE) == [
            "250 2.1.5 recipient ok", "452 4.5.3 one is enough"]
        assert client.data(b"Subject: make\r\n money\r\n" + TEXT) == "554 5.7.1 no thank you"
        client.begin("a@x.example", ALICE)
        assert client.data(b"X-Late: 1\r\n" + TEXT) == "451 4.7.1 too late"
        client.begin("a@x.example", ALICE)
        assert client.data(TEXT)[:3] == "250"
    assert len(records(system.home, "a@x.example")) == 1


def test_hooks_that_cannot_be_read_leave_the_old_ones(system):
    system.control("hooks.py", "def mail(s):\n    return '550 5.7.1 old'\n").listen()
    assert first(system) == "550 5.7.1 old"
    system.control("hooks.py", "def mail(s):\n    return oops oops\n")
    os.kill(system.listener.pid, signal.SIGHUP)
    failed = system.listener.wait_for("event=reload_failed")
    assert "control/hooks.py+20line+202:" in failed
    assert first(system) == "550 5.7.1 old"
    system.control("hooks.py", "def mail(s):\n    return '550 5.7.1 new'\n")
    os.kill(system.listener.pid, signal.SIGHUP)
    wait_until(lambda: {first(system) for _ in range(8)} == {"550 5.7.1 new"}, "the new hooks")


def first(system):
    with system.connect() as client:
        return client.begin("a@x.example", ALICE)[0]


def test_a_worker_that_is_started_anew_has_the_hooks_that_were_good(system):
    system.control("hooks.py", "def mail(s):\n    return '550 5.7.1 old'\n").listen()
    system.control("hooks.py", "oops oops\n")
    for pid in system.listener.workers():
        os.kill(int(pid), signal.SIGKILL)
    wait_for_both(system, "event=reload_failed", "hooks.py")
    assert {first(system) for _ in range(8)} == {"550 5.7.1 old"}


def test_a_verification_by_nobody_changes_nothing(system):
    system.listen().control("verify", "* nowhere\n")
    os.kill(system.listener.pid, signal.SIGHUP)
    system.listener.wait_for("event=reload_failed", "nowhere")
    for pid in system.listener.workers():
        os.kill(int(pid), signal.SIGKILL)
    wait_for_both(system, "event=reload_failed", "nowhere")
    assert first(system)[:3] == "250"


@pytest.mark.parametrize("mode", [0o666, 0o644])
def test_hooks_that_others_may_write_or_are_wrong_keep_it_from_starting(system, mode):
    system.control("hooks.py", HOOKS if mode == 0o666 else "oops oops\n")
    (system.home / "control/hooks.py").chmod(mode)
    with pytest.raises(AssertionError, match="is not ready"):
        system.listen()


def test_octets_above_127_are_right_with_smtputf8_alone(system):
    system.control("headerchecks", "eightbit reject\n").listen()
    text = "Subject: \u00fc\r\n".encode() + TEXT
    with system.connect() as client:
        client.begin("a@x.example", ALICE)
        assert client.data(text)[:9] == "550 5.6.0"
        assert client.say("MAIL FROM:<a@x.example> SMTPUTF8")[:3] == "250"
        assert client.say(f"RCPT TO:<{ALICE}>")[:3] == "250"
        assert client.data(text)[:3] == "250"
