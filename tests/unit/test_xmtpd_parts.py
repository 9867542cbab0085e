"""xmtpd's parts: the command line, who the client is, what it is told, asking mq-resolve."""

import tracemalloc
from socket import AF_UNIX, SOCK_STREAM, socket, socketpair

import pytest

from mqmail.base.failure import Temporary, Usage
from mqmail.base.waiter import Running
from mqmail.control.certificates import Certificates
from mqmail.control.listeners import Listener
from mqmail.control.optionsets import OptionSets
from mqmail.control.reader import Control
from mqmail.net.daemon import new_loop
from mqmail.net.stream import Deadlines, connect_unix
from mqmail.prog.xmtpd import Options, parse, peer, resolver
from mqmail.prog.xmtpd.client import Client
from mqmail.prog.xmtpd.dialogue import Dialogue, SessionIds
from mqmail.prog.xmtpd.message import HELD
from mqmail.prog.xmtpd.peer import Peer
from mqmail.prog.xmtpd.settings import Settings
from mqmail.xmtp.client import ASK, Transaction

# --- the command line ---


def test_options(monkeypatch):
    monkeypatch.delenv("MQMAIL_HOME", raising=False)
    assert parse([]) == Options("/var/mqmail", "", "", "", False, False, (), (), None)
    assert parse(["--home=/h", "--local"]) == Options("/h", "", "", "", True, False, (), (), None)
    assert parse(["--listen", "--ready-fd", "3", "--lmtp", "--home", "/h"]) == Options(
        "/h", "lmtp", "", "", False, True, ("",), (), 3)
    assert parse(["--role=submission", "--set", "x", "--destination", "filter"]) == Options(
        "/var/mqmail", "submission", "x", "filter", False, False, (), (), None)
    assert parse(["--listen", "127.0.0.1:0", "--listen=[::1]:25", "--listen-fd", "5"]) == Options(
        "/var/mqmail", "", "", "", False, True, ("127.0.0.1:0", "[::1]:25"), (5,), None)
    monkeypatch.setenv("MQMAIL_HOME", "/other")
    assert parse([]).home == "/other"


@pytest.mark.parametrize("argv", [
    ["--ready-fd", "x"], ["--ready-fd", "0"], ["--ready-fd", "+3"], ["--ready-fd"], ["--lmtp=1"], ["-x"],
    ["--role", "mta"], ["--set"], ["--destination", "a:b"], ["--destination", "error"],
    ["--local", "--destination", "filter"], ["--listen-fd="], ["--listen-fd", "1_0"]])
def test_bad_options(argv):
    with pytest.raises(Usage):
        parse(argv)


# --- who the client is ---

@pytest.mark.parametrize(("environ", "expected"), [
    ({"PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1", "TCPREMOTEHOST": "h.example"},
     Peer("192.0.2.1", "h.example")),
    ({"PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1", "TCP6REMOTEIP": "::ffff:192.0.2.1"},
     Peer("192.0.2.1")),
    ({"PROTO": "TCP6", "TCP6REMOTEIP": "2001:db8::1", "TCPREMOTEIP": "192.0.2.1"}, Peer("2001:db8::1")),
    ({"PROTO": "TCP6", "TCP6REMOTEIP": "fe80::1%eth0"}, Peer("fe80::1")),
    ({"PROTO": "SSL", "SSLREMOTEIP": "192.0.2.2"}, Peer("192.0.2.2")),
    ({"PROTO": "TCP", "TCPREMOTEIP": "nonsense"}, Peer()),
    ({"PROTO": "TCP", "RELAYCLIENT": ""}, Peer(relay=True)),
    ({"PROTO": "TCP", "RELAYCLIENT": "@gate", "DATABYTES": "0"},
     Peer(relay=True, suffix="@gate", databytes=0)),
    ({"PROTO": "UNIX", "UNIXREMOTEEUID": "7"}, Peer(local=True, uid="7", relay=True)),
    ({"PROTO": "IPC", "IPCREMOTEEUID": ""}, Peer(local=True, relay=True))])
def test_the_environment(environ, expected):
    assert peer.of_environment(environ, -1) == expected


@pytest.mark.parametrize("environ", [
    {"RELAYCLIENT": "a b"}, {"RELAYCLIENT": "\x85"}, {"DATABYTES": "-1"}, {"DATABYTES": "\u0661"},
    {"DATABYTES": "9" * 19}])
def test_an_environment_that_is_a_mistake(environ):
    with pytest.raises(Temporary):
        peer.of_environment({"PROTO": "TCP", **environ}, -1)


def test_the_kernel_knows_local_users():
    ours, theirs = socketpair()
    with ours, theirs:
        assert peer.of_environment({}, ours.fileno()) == peer.local_user()
        assert ours.fileno() >= 0
        ours.send(b"still open")


VALUES = Control({"smtpgreeting": "mx.example ready", "databytes": 5, "maxrecipients": 10,
                  "optionsets": OptionSets({}), "tlscertificates": Certificates({})})


def test_databytes_of_the_environment_goes_first():
    for databytes, size in ((None, "250-SIZE 5\r\n"), (0, "250-SIZE\r\n"), (7, "250-SIZE 7\r\n")):
        client = Client(Settings(VALUES), Listener(), Peer(databytes=databytes), "s")
        client.server.feed(b"EHLO x.example\r\n")
        client.server.answer(client.server.next_event())
        assert size in client.server.take_output().decode()


def test_a_body_in_tiny_pieces_takes_no_more_memory():
    dialogue = Dialogue(Settings(VALUES), Listener(), Peer(), "s", None, None)
    tracemalloc.start()
    try:
        for number in range(32767):
            assert dialogue.body(b"%02d" % (number % 100)) is None
        assert tracemalloc.get_traced_memory()[0] < 2 * HELD
    finally:
        tracemalloc.stop()
    assert dialogue.taken == HELD - 2


def test_session_ids_differ_and_sort():
    ids = SessionIds()
    made = [ids.make() for _ in range(1000)]
    assert sorted(set(made)) == made


# --- asking ---

@pytest.fixture
def loop():
    loop = new_loop()
    yield loop
    loop.close()


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A listening Unix socket."""
    monkeypatch.chdir(tmp_path)
    with socket(AF_UNIX, SOCK_STREAM) as sock:
        sock.bind("s")
        sock.listen(5)
        sock.settimeout(20)
        yield sock


def shared(loop):
    deadlines = Deadlines(loop)
    return resolver.SharedResolver(loop, lambda: connect_unix(loop, deadlines, "s"), "me.example")


def ask(loop, asked, count):
    """Start *count* questions; their answers come into the list that is returned."""
    answers = []

    def finished(answer, error):
        assert error is None
        answers.append(answer)
        if len(answers) == count:
            loop.stop()

    transactions = [Transaction("", [(f"r{n}@x.example", ())], (), ASK) for n in range(count)]
    for one in transactions:
        Running(asked.ask(one), finished)
    return transactions, answers


def accepted(service):
    sock, _ = service.accept()
    sock.settimeout(20)
    return sock


def test_questions_of_all_sessions_go_in_one_write(loop, service):
    asked = shared(loop)
    transactions, answers = ask(loop, asked, 3)
    with accepted(service) as answering:
        def answer():
            """What comes, and each of it answered in one write."""
            burst = answering.recv(65536)
            bursts.append(burst)
            said = [b"250-x\r\n250 PIPELINING\r\n"] if burst[:4] == b"LHLO" else [
                b"250 ok\r\n551 5.1.6 <r%d@y.example>\r\n250 ok\r\n" % n for n in range(3)]
            answering.sendall(b"".join(said))

        bursts = []
        loop.add_reader(answering.fileno(), answer)
        answering.sendall(b"220 x\r\n")
        loop.call_later(10, loop.stop)
        loop.run_forever()
        transactions2, answers2 = ask(loop, asked, 3)
        loop.run_forever()
        loop.remove_reader(answering.fileno())
    assert bursts[0] == b"LHLO me.example\r\n"
    for burst in bursts[1:]:
        assert [burst.count(word) for word in (b"MAIL", b"RCPT", b"RSET")] == [3, 3, 3]
    assert len(bursts) == 3
    transactions += transactions2
    answers += answers2
    assert answers == [None] * 6
    assert [one.verdicts[0].text for one in transactions] == [
        f"<r{n}@y.example>" for n in (0, 1, 2, 0, 1, 2)]
    asked.close()


def test_a_resolver_that_is_silent_or_ends_is_temporary(loop, service, monkeypatch):
    monkeypatch.setattr(resolver, "TIMEOUT", 0.1)
    asked = shared(loop)
    for end, status in ((False, "4.4.1"), (True, "4.3.2")):
        asked._not_before = 0.0
        _, answers = ask(loop, asked, 2)
        answering = accepted(service)
        if end:
            answering.close()
        loop.call_later(10, loop.stop)
        loop.run_forever()
        answering.close()
        assert [(answer.code, answer.status) for answer in answers] == [(451, status)] * 2
    asked.close()


def test_nobody_is_asked_again_at_once_after_a_session_of_no_use(loop, service):
    asked = shared(loop)
    _, answers = ask(loop, asked, 1)
    accepted(service).close()
    loop.run_forever()
    _, answers = ask(loop, asked, 1)
    assert [answer.status for answer in answers] == ["4.3.2"]
    service.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        service.accept()
