"""xmtpd as processes: with a real mq-queue, and mq-resolve or, for answers that one seldom gives,
support/tiny_resolver.py."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from support.daemons import (
    BIN,
    Client,
    make_home,
    queue_files,
    records,
    start,
    start_listener,
    start_tiny_resolver,
)
from support.home import ME, SECONDS, wait_until
from support.programs import need

pytestmark = pytest.mark.e2e
ALICE = f"alice@{ME}"
FAR = "bob@far.example"
TEXT = b"Subject: x\r\n\r\nhello\r\n"
PATH = {"PATH": os.environ["PATH"]}
REMOTE = {"PROTO": "TCP", "TCPREMOTEIP": "192.0.2.7"}
LINE = b"x" * 78 + b"\r\n"
MIB = LINE * 13107
BIG = b"Subject: x\r\n\r\n" + MIB


class System:
    """A home and the daemons that a test wants of it."""

    def __init__(self, path, **control):
        self.home = make_home(path, **control)
        self._daemons = {}

    def start(self, *names):
        """queue, resolve, tiny; or listener, which is returned."""
        starters = {"queue": lambda: start("mq-queue", self.home),
                    "resolve": lambda: start("mq-resolve", self.home),
                    "tiny": lambda: start_tiny_resolver(self.home),
                    "listener": lambda: start_listener(self.home)}
        for name in names:
            self._daemons[name] = starters[name]()
        return self._daemons[names[-1]] if names else None

    def kill(self, name):
        self._daemons.pop(name).kill()

    @property
    def port(self):
        return self._daemons["listener"].port

    def connect(self):
        return Client(self.port)

    def session(self, text, *arguments, **environ):
        """One session on pipes, with the environment *environ* alone; its replies."""
        done = self.run(text, *arguments, **environ)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().split("\r\n")[:-1]

    def run(self, text, *arguments, **environ):
        data = text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode()
        return subprocess.run([BIN / "xmtpd", "--home", self.home, *arguments], input=data,
                              capture_output=True, check=False, timeout=SECONDS, env={**PATH, **environ})

    def records(self, sender):
        return records(self.home, sender)

    def end(self):
        for daemon in self._daemons.values():
            daemon.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A system for tests that break nothing; they tell their messages by the sender."""
    system = System(tmp_path_factory.mktemp("xmtpd") / "home", smtpgreeting=f"{ME} at your service")
    system.start("queue", "resolve", "listener")
    yield system
    system.end()


@pytest.fixture
def new(tmp_path):
    """A function that makes a system of the test's own."""
    systems = []

    def make(*names, **control):
        systems.append(System(tmp_path / "home", **control))
        systems[-1].start(*names)
        return systems[-1]

    yield make
    for system in systems:
        system.end()


def dialogue(sender, *recipients, body="Subject: x\n\nhello\n", hello="EHLO client.example"):
    """A whole session in one burst."""
    return "".join([f"{hello}\nMAIL FROM:<{sender}>\n", *[f"RCPT TO:<{one}>\n" for one in recipients],
                    f"DATA\n{body}.\nQUIT\n"])


# --- one session on descriptors 0 and 1 ---

def test_one_session_under_tcpserver(shared):
    process = subprocess.Popen([need("tcpserver"), "-1HRl0", "127.0.0.1", "0", BIN / "xmtpd"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**PATH, "MQMAIL_HOME": str(shared.home)})
    try:
        with Client(int(process.stdout.readline())) as client:
            assert client.greeting == f"220 {ME} at your service ESMTP"
            assert client.begin("tcpserver@x.example", ALICE) == ["250 2.1.5 recipient ok"]
            answer = client.data(TEXT)
            assert client.say("QUIT") == "221 2.0.0 goodbye"
            assert client.read() == ""
    finally:
        process.terminate()
        log = process.communicate(timeout=SECONDS)[1].decode()
    record, = shared.records("tcpserver@x.example")
    assert answer == f"250 2.0.0 ok {record['id']}"
    assert record["body"] == TEXT
    assert record["to"] == [f"1 new {ALICE}"]
    assert record["via"].startswith("proto=esmtp ip=127.0.0.1 helo=client.example session=")
    session = record["via"].rpartition("=")[2]
    lines = [line for line in log.splitlines()
             if f"session={session}" in line and "event=header_marked" not in line]
    assert [line.split()[0] for line in lines] == ["event=connect", "event=accepted", "event=disconnect"]
    assert f"id={record['id']} sender=tcpserver@x.example recipients=1 size={len(TEXT)} ms=" in lines[1]


def test_a_burst_is_answered_in_order(shared):
    replies = shared.session(dialogue("burst@x.example", ALICE, f"nobody@{ME}", FAR), **REMOTE)
    assert replies[0] == f"220 {ME} at your service ESMTP"
    assert replies[1] == f"250-{ME}"
    words = {line[4:].split(" ")[0] for line in replies[2:10]}
    assert words == {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN",
                     "ENHANCEDSTATUSCODES", "PRDR"}
    assert [line[:9] for line in replies[10:14]] == ["250 2.1.0", "250 2.1.5", "550 5.1.1", "550 5.7.1"]
    assert replies[14] == "354 go ahead"
    record, = shared.records("burst@x.example")
    assert replies[15:] == [f"250 2.0.0 ok {record['id']}", "221 2.0.0 goodbye"]


def test_relayclient_may_relay_and_its_value_is_appended(shared):
    assert rcpt(shared, FAR, **REMOTE)[:3] == "550"
    assert rcpt(shared, FAR, RELAYCLIENT="", **REMOTE)[:3] == "250"
    shared.session(dialogue("suffix@x.example", FAR), RELAYCLIENT=".gate.example", **REMOTE)
    assert shared.records("suffix@x.example")[0]["to"] == [f"1 new {FAR}.gate.example"]
    assert "relay=1" in shared.records("suffix@x.example")[0]["via"]


def rcpt(system, address, *arguments, **environ):
    """The reply to a RCPT."""
    text = f"HELO x.example\nMAIL FROM:<>\nRCPT TO:<{address}>\n"
    return system.session(text, *arguments, **environ)[-1]


def test_databytes_is_overridden(shared):
    replies = shared.session("EHLO x.example\nMAIL FROM:<> SIZE=11\n", DATABYTES="10", **REMOTE)
    assert "250-SIZE 10" in replies
    assert replies[-1] == "552 5.3.4 message too large"


@pytest.mark.parametrize(("value", "answer"), [
    ("-go away", "553 5.7.1 go away"), ("come back", "451 4.7.1 come back"),
    ("", "250 2.1.5 recipient ok")])
def test_rblsmtpd_refuses_every_recipient(shared, value, answer):
    replies = shared.session(dialogue("", ALICE), RBLSMTPD=value, **REMOTE)
    assert replies[10] == "250 2.1.0 sender ok"
    assert replies[11] == answer
    assert replies[12] == ("354 go ahead" if answer[0] == "2" else "554 5.5.1 no valid recipients")


def test_a_variable_that_cannot_be_used_is_temporary(shared):
    done = shared.run("QUIT\n", DATABYTES="1_000", **REMOTE)
    assert done.returncode == 111
    assert done.stdout == b"421 4.3.0 internal trouble, try again later\r\n"
    assert b"DATABYTES '1_000'" in done.stderr


def test_a_home_that_is_none_is_temporary(shared):
    done = shared.run("QUIT\n", "--home", "/nonexistent", **REMOTE)
    assert (done.returncode, done.stdout[:4]) == (111, b"421 ")
    assert b"/nonexistent" in done.stderr


def test_a_client_without_a_usable_address_may_not_relay(shared):
    """To mq-resolve a message without ip comes from a program of this host."""
    assert rcpt(shared, FAR, PROTO="TCP")[:9] == "550 5.7.1"
    assert rcpt(shared, FAR, PROTO="TCP", TCPREMOTEIP="127.0.0.1x")[:9] == "550 5.7.1"


@pytest.mark.parametrize(("environ", "ip"), [
    ({"PROTO": "TCP6", "TCP6REMOTEIP": "2001:db8::7"}, "2001:db8::7"),
    ({"PROTO": "TCP6", "TCP6REMOTEIP": "::ffff:192.0.2.9", "TCPREMOTEIP": "192.0.2.9"}, "192.0.2.9"),
    ({"PROTO": "TCP", "TCPREMOTEIP": "2001:db8::8"}, "2001:db8::8")])
def test_ipv6_clients(shared, environ, ip):
    sender = f"v6@{ip.replace(':', '-').replace('.', '-')}.example"
    shared.session(dialogue(sender, ALICE, hello="HELO x.example"), **environ)
    assert f"proto=smtp ip={ip} helo=x.example" in shared.records(sender)[0]["via"]


def test_under_inetd_the_kernel_names_the_client_who_gets_no_log(shared):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), SECONDS)
        accepted = listener.accept()[0]
    with client, accepted:
        client.sendall(dialogue("inetd@x.example", ALICE, FAR).replace("\n", "\r\n").encode())
        subprocess.run([BIN / "xmtpd", "--home", shared.home], stdin=accepted, stdout=accepted,
                       stderr=accepted, env=PATH, check=True, timeout=SECONDS)
        accepted.close()
        replies = client.makefile("rb").read().decode().split("\r\n")
    assert "ip=127.0.0.1" in shared.records("inetd@x.example")[0]["via"]
    assert any(line.startswith("550 5.7.1") for line in replies)
    assert all(line[:3].isdigit() for line in replies[:-1])


def test_a_local_user_relays_and_sees_no_log(shared):
    for number, arguments in enumerate([("--local",), ()]):
        sender = f"local{number}@x.example"
        done = shared.run(dialogue(sender, FAR), *arguments)
        assert b"\r\n250 2.0.0 ok " in done.stdout
        assert (b"event=accepted" in done.stderr) == (not arguments)
        assert shared.records(sender)[0]["via"].startswith(f"proto=local uid={os.getuid()} ")
    assert shared.run("QUIT\n", "--local").stderr == b""


def test_lmtp_answers_for_each_recipient(shared):
    text = dialogue("lmtp@x.example", ALICE, f"nobody@{ME}", f"postmaster@{ME}", hello="LHLO x.example")
    replies = shared.session(text, "--lmtp", **REMOTE)
    record, = shared.records("lmtp@x.example")
    assert replies[0] == f"220 {ME} at your service LMTP"
    assert replies[-3:] == [*[f"250 2.0.0 ok {record['id']}"] * 2, "221 2.0.0 goodbye"]
    assert record["via"].startswith("proto=lmtp ip=192.0.2.7 ")
    failing = shared.session(text.replace("hello", "bare\x0d"), "--lmtp", **REMOTE)
    assert [line[:10] for line in failing[-3:]] == ["550 5.6.11"] * 2 + ["221 2.0.0 "]
    assert shared.session("EHLO x.example\n", "--lmtp", **REMOTE)[-1] == "500 5.5.1 this is LMTP"


def test_a_single_session_imports_little(shared):
    done = subprocess.run(["python3", "-IS", "-X", "importtime", BIN / "xmtpd", "--home", shared.home],
                          input=dialogue("import@x.example", ALICE).replace("\n", "\r\n").encode(),
                          capture_output=True, check=True, timeout=SECONDS, env={**PATH, **REMOTE})
    imported = {line.rpartition(b"|")[2].strip().decode() for line in done.stderr.splitlines()}
    assert "mqmail.prog.xmtpd.single" in imported
    assert not imported & {"asyncio", "socket", "re", "ssl", "docopt", "enum", "signal", "typing",
                           "uvloop", "dataclasses", "json", "mqmail.prog.xmtpd.listener"}


def test_a_single_session_whose_key_cannot_be_read_goes_on_in_plain(shared):
    control = shared.home / "control"
    (control / "tlscertificates").write_text("* /nowhere/cert.pem /nowhere/key.pem\n")
    try:
        replies = shared.session("EHLO client.example\nSTARTTLS\nNOOP\nQUIT\n", **REMOTE)
        assert [line[:3] for line in replies[-4:]] == ["250", "454", "250", "221"]
        done = shared.run("EHLO client.example\n", "--role", "submissions", **REMOTE)
    finally:
        (control / "tlscertificates").unlink()
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"event=tls_refused" in done.stderr
    assert b"event=bug" not in done.stderr


def test_usage(shared):
    for arguments, problem in (
            (["--nonsense"], b"unknown option --nonsense"), (["--home"], b"needs a value"),
            (["--listen", "--local"], b"--local is for"), (["x"], b"unknown option x"),
            (["--listen", "nowhere"], b"'nowhere' is not ADDRESS:PORT")):
        done = shared.run("", *arguments)
        assert done.returncode == 100
        assert problem in done.stderr
    assert b"Usage:\n  xmtpd" in shared.run("", "--help").stdout


# --- many sessions ---

def test_sessions_at_the_same_time(shared):
    clients = [shared.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        assert client.begin(f"many{number}@x.example", ALICE) == ["250 2.1.5 recipient ok"]
        assert client.say("DATA")[:3] == "354"
    for number, client in reversed(list(enumerate(clients))):
        client.send(b"Subject: %d\r\n\r\n.\r\n" % number)
    for number, client in enumerate(clients):
        answer = client.read()
        record, = shared.records(f"many{number}@x.example")
        assert answer == f"250 2.0.0 ok {record['id']}"
        assert record["body"] == b"Subject: %d\r\n\r\n" % number
        client.close()


def test_several_messages_in_a_session(shared):
    with shared.connect() as client:
        answers = []
        for _ in range(3):
            assert client.begin("again@x.example", ALICE)[0][:3] == "250"
            answers.append(client.data(TEXT))
        assert client.say("RSET")[:3] == "250"
    ids = [one["id"] for one in shared.records("again@x.example")]
    assert [answer.split()[-1] for answer in answers] == ids


def test_what_dsn_and_smtputf8_say_is_in_the_record(shared):
    with shared.connect() as client:
        client.say("EHLO x.example")
        client.say("MAIL FROM:<üser@x.example> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=a+2Bb SIZE=100")
        client.say(f"RCPT TO:<{ALICE}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Al+2Bice@x.example")
        client.say(f"RCPT TO:<postmaster@{ME}> NOTIFY=NEVER")
        assert client.data("Subject: ü\r\n\r\nü\r\n".encode())[:3] == "250"
    record, = shared.records("üser@x.example")
    assert record["from"] == "üser@x.example ret=hdrs envid=a+2Bb"
    assert record["body"] == "Subject: ü\r\n\r\nü\r\n".encode()
    assert record["to"] == [f"1 new {ALICE} notify=success,delay orcpt=rfc822;Al+2Bice@x.example",
                            f"2 new postmaster@{ME} notify=never"]


def test_vrfy_help_and_noop(shared):
    with shared.connect() as client:
        assert client.say("EHLO x.example")[:3] == "250"
        assert client.say("VRFY alice")[:3] == "252"
        assert client.say("HELP")[:3] == "214"
        assert client.say("NOOP")[:3] == "250"
        assert client.say("STARTTLS")[:3] == "502"


def test_answers_of_the_resolver(new):
    system = new("queue", "tiny", "listener")
    names = ("alice", "unknown", "later", "taken", "several", "refused")
    with system.connect() as client:
        client.say("EHLO x.example")
        rcpts = "".join([f"RCPT TO:<{one}@x.org>\r\n" for one in names])
        client.send("MAIL FROM:<a@x.example>\r\n" + rcpts)
        assert [client.read() for _ in range(7)] == [
            "250 2.1.0 sender ok", "250 2.1.5 recipient ok", "550 5.1.1 no such user",
            "451 4.7.1 greylisted", "250 2.1.5 recipient ok", "250 2.1.5 recipient ok",
            "551 5.7.1 go away"]
        assert client.data(TEXT)[:3] == "250"
        assert client.begin("b@x.example", "broken@x.org", "alice@x.org")[0] == (
            "451 4.3.2 unable to look up addresses now, try again later")
        assert client.say("RCPT TO:<bob@x.org>")[:3] == "250"
    record, = system.records("a@x.example")
    assert record["to"] == ["1 new alice@x.org", "2 new taken@x.org", "3 new several@x.org"]
    asked = (system.home / "asked").read_text().splitlines()[0].split("|")
    assert asked[0].startswith("proto=esmtp ip=127.0.0.1 helo=x.example session=")
    assert asked[1:] == ["a@x.example", *[f"{one}@x.org" for one in names]]


def test_limits(new):
    system = new("queue", "resolve", "listener", databytes="1000", maxrecipients="2",
                 concurrencyincoming="2", processesincoming="2")
    with system.connect() as client:
        assert [line[:9] for line in client.begin("a@x.example", ALICE, ALICE, ALICE)] == [
            "250 2.1.5", "250 2.1.5", "452 4.5.3"]
        assert client.data(LINE * 13) == "552 5.3.4 message too large"
        assert client.begin("a@x.example", ALICE)[0][:3] == "250"
        assert client.data(LINE * 12)[:3] == "250"
        others = [system.connect() for _ in range(2)]
        assert "421 4.3.2 too many sessions, come back later" in [other.greeting for other in others]
        for other in others:
            other.close()


def test_hup_is_for_new_sessions_and_a_mistake_changes_nothing(new):
    system = new("queue", "resolve", processesincoming="1")
    listener = system.start("listener")
    greeting = system.home / "control" / "smtpgreeting"
    greeting.write_text("new.example.org hello\n")
    listener.process.send_signal(signal.SIGHUP)
    listener.wait_for("event=reloaded")
    with system.connect() as client:
        assert client.greeting == "220 new.example.org hello ESMTP"
    greeting.write_text("nonsense\n")
    listener.process.send_signal(signal.SIGHUP)
    assert "control/smtpgreeting+20line+201" in listener.wait_for("event=reload_failed")
    with system.connect() as client:
        assert client.greeting == "220 new.example.org hello ESMTP"


def test_term_lets_a_message_come_in(new):
    system = new("queue", "resolve", processesincoming="1")
    listener = system.start("listener")
    with system.connect() as client, system.connect() as idle:
        client.begin("late@x.example", ALICE)
        client.say("DATA")
        listener.process.send_signal(signal.SIGTERM)
        assert idle.read() == "421 4.3.2 closing down, come back"
        client.send(TEXT + b".\r\n")
        assert client.read()[:3] == "250"
        assert client.read() == "421 4.3.2 closing down, come back"
    assert listener.wait() == 0
    assert len(system.records("late@x.example")) == 1


# --- when others fail ---

def test_without_queue_and_resolver_it_is_temporary(new):
    system = new("listener")
    with system.connect() as client:
        assert client.begin("a@x.example", ALICE) == [
            "451 4.3.2 unable to look up addresses now, try again later"]
        system.start("resolve")
        wait_until(lambda: client.say(f"RCPT TO:<{ALICE}>")[:3] == "250", "mq-resolve is asked again")
        assert client.data(TEXT) == "451 4.3.2 the queue does not answer, try again later"
        assert client.begin("a@x.example", ALICE)[0][:3] == "250"
        assert client.data(BIG) == "451 4.3.2 the queue does not answer, try again later"
        system.start("queue")
        assert client.begin("a@x.example", ALICE)[0][:3] == "250"
        assert client.data(BIG)[:3] == "250"
    assert [one["body"] for one in system.records("a@x.example")] == [BIG]
    replies = system.session(dialogue("b@x.example", ALICE), **REMOTE)
    assert replies[-2][:3] == "250"


def test_a_single_session_without_queue_and_resolver(new):
    system = new()
    assert rcpt(system, ALICE, **REMOTE)[:9] == "451 4.3.2"
    assert system.session(dialogue("a@x.example", ALICE), "--local")[-2][:9] == "451 4.3.2"


def test_restarts_between_messages_are_not_noticed(new):
    system = new("queue", "resolve", "listener", processesincoming="1")
    with system.connect() as client:
        for _ in range(3):
            assert client.begin("a@x.example", ALICE) == ["250 2.1.5 recipient ok"]
            assert client.data(TEXT)[:3] == "250"
            system.kill("queue")
            system.kill("resolve")
            system.start("queue", "resolve")
    assert len(system.records("a@x.example")) == 3


def test_a_queue_that_dies_amid_a_message_is_temporary(new):
    system = new("queue", "resolve", "listener")
    with system.connect() as client:
        client.begin("a@x.example", ALICE)
        client.send(b"BDAT %d\r\n" % len(BIG) + BIG)
        assert client.read()[:3] == "250"
        system.kill("queue")
        client.send(b"BDAT %d LAST\r\n" % len(MIB) + MIB)
        assert client.read()[:4] == "451 "
        system.start("queue")
        assert client.begin("a@x.example", ALICE)[0][:3] == "250"
        assert client.data(TEXT)[:3] == "250"
    assert [one["body"] for one in system.records("a@x.example")] == [TEXT]


def test_the_queues_refusal_is_passed_on(new):
    system = new("queue", "resolve", "listener", processesincoming="1")
    system.connect().close()        # its worker has read minfree, of which it makes a refusal of its own
    (system.home / "control" / "minfree").write_text("1000000G\n")
    system.kill("queue")
    system.start("queue")
    with system.connect() as client:
        for body in (TEXT, BIG):
            client.begin("a@x.example", ALICE)
            assert client.data(body) == "452 4.3.1 not enough disk space"
        client.begin("a@x.example", ALICE)
        (system.home / "control" / "minfree").write_text("0\n")
        system.kill("queue")
        system.start("queue")
        for padding in (b"", MIB * 4):
            client.begin("a@x.example", ALICE)
            assert client.data(b"Received: x\r\n" * 101 + b"\r\n" + padding)[:9] == "554 5.4.6"
    assert queue_files(system.home) == []


@pytest.mark.parametrize("size", [1, 10])
def test_a_client_that_vanishes_leaves_nothing(new, size):
    system = new("queue", "resolve")
    listener = system.start("listener")
    for command in ("DATA", "BDAT"):
        with system.connect() as client:
            client.begin("a@x.example", ALICE)
            if command == "DATA":
                assert client.say("DATA")[:3] == "354"
                client.send(BIG * size)
            else:
                client.send(b"BDAT %d\r\n" % (len(BIG) * size) + BIG * size)
                assert client.read()[:3] == "250"
        listener.wait_for("event=disconnect", "why=lost", "messages=0")
        listener.lines.clear()
    wait_until(lambda: not queue_files(system.home), "an empty queue")


def test_what_the_client_breaks_off_is_forgotten(new):
    system = new("queue", "resolve", "listener")
    with system.connect() as client:
        for ending in ("RSET", "EHLO x.example"):
            client.begin("a@x.example", ALICE)
            client.send(b"BDAT %d\r\n" % len(BIG) + BIG)
            assert client.read()[:3] == "250"
            assert client.say(ending)[:3] == "250"
        client.begin("a@x.example", ALICE)
        assert client.data(BIG + b"bare \n\r\n")[:10] == "550 5.6.11"
        client.begin("b@x.example", ALICE)
        last = client.data(TEXT).split()[-1]
    wait_until(lambda: queue_files(system.home) == [last, last], "one message in the queue")


# --- large and hostile ---

def peak(pid):
    """The most memory a process had, in KiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1])


@pytest.mark.parametrize("command", ["DATA", "BDAT"])
def test_a_large_message_passes_through_a_small_process(new, command):
    system = new("queue", "resolve", processesincoming="1")
    listener = system.start("listener")
    worker, = listener.workers()
    with system.connect() as client:
        client.begin("a@x.example", ALICE)
        assert client.data(TEXT)[:3] == "250"
        before = peak(worker)
        client.begin("big@x.example", ALICE)
        if command == "DATA":
            assert client.say("DATA")[:3] == "354"
            client.send(TEXT)
            for _ in range(50):
                client.send(MIB)
            client.send(b".\r\n")
        else:
            client.send(b"BDAT %d LAST\r\n" % (len(TEXT) + 50 * len(MIB)) + TEXT)
            for _ in range(50):
                client.send(MIB)
        assert client.read()[:3] == "250"
    assert peak(worker) - before < 4096
    assert system.records("big@x.example")[0]["body"] == TEXT + MIB * 50


def test_a_single_session_stays_small(shared):
    """Four times the body means no more memory."""
    most = []
    for size in (5, 20):
        text = (f"EHLO x.example\r\nMAIL FROM:<single@x.example>\r\nRCPT TO:<{ALICE}>\r\n"
                f"BDAT {size * len(BIG)} LAST\r\n").encode() + BIG * size
        process = subprocess.Popen([BIN / "xmtpd", "--home", shared.home], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   env={**PATH, **REMOTE})
        with process:
            process.stdin.write(text)
            process.stdin.flush()
            assert any(line.startswith(b"250 2.0.0 ok ") for line in process.stdout)
            most.append(peak(process.pid))
    assert most[1] - most[0] < 2048
    sizes = [len(one["body"]) for one in shared.records("single@x.example")]
    assert sizes == [5 * len(BIG), 20 * len(BIG)]


SMUGGLED = (f"MAIL FROM:<evil@x.example>\r\nRCPT TO:<{ALICE}>\r\n"
            "DATA\r\nSubject: evil\r\n\r\n").encode()
REFUSED = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r.\n", b"\n.\r",
           b"\r\n.\r\r\n", b"\n\r.\n\r", b"\r\x00\n.\r\n"]
TAKEN = [b"\r\n. \r\n", b"\r\n.\t\r\n", b"\r\n.\x0b\r\n", b"\r\n\x00.\r\n", b"\r\n.\x00\r\n",
         b"\r\n.\x85\r\n", "\r\n\u2028.\u2028\r\n".encode(), "\r\n\uff0e\r\n".encode(), b"\r\n\xae\r\n",
         b"\r\n\x8d\x8a.\x8d\x8a\r\n"]


@pytest.mark.parametrize("ending", REFUSED + TAKEN, ids=repr)
def test_nothing_but_crlf_dot_crlf_ends_a_message(shared, ending):
    sender = f"smuggler{(REFUSED + TAKEN).index(ending)}@x.example"
    with shared.connect() as client:
        client.begin(sender, ALICE)
        body = b"Subject: x\r\n\r\ntext" + ending + SMUGGLED
        answer = client.data(body)
        assert client.say("NOOP") == "250 2.0.0 ok"
    assert shared.records("evil@x.example") == []
    if ending in REFUSED:
        assert answer[:10] == "550 5.6.11"
        assert shared.records(sender) == []
    else:
        assert answer[:3] == "250"
        assert [one["body"] for one in shared.records(sender)] == [body.replace(b"\r\n.", b"\r\n")]


def test_in_a_chunk_no_dot_ends_anything(shared):
    body = b"Subject: x\r\n\r\n.\r\n" + SMUGGLED + b".\r\n"
    with shared.connect() as client:
        client.begin("chunk@x.example", ALICE)
        client.send(b"BDAT %d LAST\r\n" % len(body) + body)
        assert client.read()[:3] == "250"
        assert client.say("NOOP") == "250 2.0.0 ok"
    assert shared.records("evil@x.example") == []
    assert [one["body"] for one in shared.records("chunk@x.example")] == [body]


# --- other people's clients ---

def test_swaks(shared):
    done = subprocess.run([need("swaks"), "--server", "127.0.0.1", "--port", str(shared.port),
                           "--from", "swaks@x.example", "--to", f"{ALICE},{ALICE}", "--pipeline",
                           "--body", ".dot\nend"], capture_output=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stdout
    record, = shared.records("swaks@x.example")
    assert record["body"].endswith(b"\r\n\r\n.dot\r\nend\r\n\r\n\r\n")
    assert len(record["to"]) == 2


@pytest.mark.parametrize("reuse", [[], ["-d"]])
def test_smtp_source(shared, reuse):
    sender = f"source{len(reuse)}@x.example"
    subprocess.run([need("smtp-source"), "-s", "10", "-m", "100", "-l", "4096", *reuse, "-f", sender,
                    "-t", ALICE, f"127.0.0.1:{shared.port}"], check=True, timeout=SECONDS)
    assert len(shared.records(sender)) == 100
