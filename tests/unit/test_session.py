"""A client's session against a server that says what it is told to."""

import ssl
import threading
from socket import socketpair

import pytest

from mqmail.base.waiter import run
from mqmail.net.blocking import over_socket
from mqmail.net.session import Session, Timeouts
from mqmail.net.tls import client_context
from mqmail.xmtp.client import EAGER, Transaction
from mqmail.xmtp.server import Limits, Server
from support.certificates import make_authority
from support.shells import Blocking, Looping

GREETED = b"220 mx.example\r\n", b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"


def transaction(*recipients):
    return Transaction("a@x.example", [(one, ()) for one in recipients or ("b@x.example",)], (), EAGER)


class Peer:
    """A session, and a server that greets it and then says the next of *answers* to what it reads."""

    def __init__(self, *answers):
        ours, self.sock = socketpair()
        self.session = Session(over_socket(ours), "smtp", "me.example", 5.0)
        self.heard = []
        self._thread = threading.Thread(target=self._talk, args=(answers,))

    def __enter__(self):
        self._thread.start()
        assert run(self.session.open())
        return self.session

    def __exit__(self, *_):
        self.session.close()
        self._thread.join()
        self.sock.close()

    def _talk(self, answers):
        for answer in (*GREETED, *answers):
            self.sock.sendall(answer)
            self.heard.append(self.sock.recv(65536))


def codes(one):
    return [verdict and verdict.code for verdict in one.verdicts]


def test_a_goodbye_behind_the_last_verdict_is_not_overlooked():
    one = transaction()
    with Peer(b"250 ok\r\n250 ok\r\n250 id=1\r\n421 closing down\r\n") as session:
        run(session.run(one, pieces=[b"x\r\n"]))
        assert codes(one) == [250]
        assert session.broken == "a reply to nothing"


def test_a_small_body_goes_in_one_burst():
    one = transaction()
    peer = Peer(b"250 ok\r\n250 ok\r\n250 id=1\r\n")
    with peer as session:
        session.begin(one)
        run(session.finish(one, b"x\r\n"))
        assert codes(one) == [250]
        assert not session.broken
    assert peer.heard[1] == (b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\n"
                             b"BDAT 3 LAST\r\nx\r\n")


def test_push_tells_when_the_rest_is_of_no_use():
    one = transaction()
    with Peer(b"250 ok\r\n250 ok\r\n" + b"452 4.3.1 full\r\n" * 20) as session:
        session.begin(one)
        pushed = 0
        while run(session.push(one, b"x\r\n")):
            pushed += 1
        assert pushed < 20
        assert one.refused.said() == "452 4.3.1 full"


def test_alive_is_who_neither_closed_nor_speaks_unasked():
    peer = Peer()
    with peer as session:
        assert session.alive()
        peer.sock.sendall(b"421 bye\r\n")
        assert not session.alive()
        session.stream.sock.recv(100)
        assert session.alive()
        peer.sock.shutdown(2)
        assert not session.alive()


def test_a_silent_peer_expires():
    ours, theirs = socketpair()
    with theirs:
        session = Session(over_socket(ours), "smtp", "me.example", 0.05)
        assert not run(session.open())
        assert session.expired
        assert session.broken == "no greeting within 0.05 s"
    ours.close()


@pytest.mark.parametrize("how", ["run", "push"])
def test_thousands_of_chunks_do_not_block_each_other(how):
    """A server that stops reading until its replies are read, as one does whose buffers are full."""
    ours, theirs = socketpair()
    session = Session(over_socket(ours), "smtp", "me.example", 5.0)
    taken = []
    thread = threading.Thread(target=serve, args=(theirs, taken))
    thread.start()
    one = transaction()
    run(session.open())
    if how == "run":
        run(session.run(one, pieces=[b"x" * 70 + b"\r\n"] * 20000))
    else:
        session.begin(one)
        for _ in range(19999):
            assert run(session.push(one, b"x" * 70 + b"\r\n"))
        run(session.finish(one, b"x" * 70 + b"\r\n"))
    session.close()
    thread.join(20)
    assert not thread.is_alive()
    theirs.close()
    assert codes(one) == [250]
    assert sum(taken) == 20000 * 72


def serve(sock, taken):
    """A real server core that accepts everything, over a blocking socket."""
    server = Server("smtp", "mx.example", ("PIPELINING", "CHUNKING"), Limits())
    server.greet()
    while not server.closed:
        event = server.next_event()
        if event is None:
            sock.sendall(server.take_output())
            data = sock.recv(65536)
            if not data:
                return
            server.feed(data)
        elif type(event).__name__ == "Body":
            taken.append(len(event.data))
        elif type(event).__name__ not in ("Reset", "Quit", "BodyFailed"):
            server.answer(event)


# --- TLS, AUTH, probes, hops; under both shells ---


@pytest.fixture(params=[Blocking, Looping])
def shell(request):
    made = request.param()
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    return make_authority(directory).certificate(["mx.example"], directory)


OFFER = b"250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-XOLD\r\n250 STARTTLS\r\n"


class Scripted:
    """A session in *shell*, and a server that greets it and then says the next of *answers* to whatever
    it hears. ``heard`` is what came."""

    def __init__(self, shell, *answers, timeouts=20.0):
        self._shell = shell
        ours, self._sock = socketpair()
        self._sock.settimeout(20)
        self.session = Session(shell.stream(ours), "smtp", "me.example", timeouts)
        self.heard = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk, args=((b"220 hi\r\n", OFFER, *answers),))

    def _talk(self, answers):
        for answer in answers:
            self._sock.sendall(answer)
            self.heard.append(self._sock.recv(65536))
        self._ended.wait(20)
        self._sock.close()

    def __enter__(self):
        self._thread.start()
        assert self._shell.run(self.session.open())
        return self.session

    def __exit__(self, *_):
        self.session.close()
        self._ended.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def under_tls(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    return context


NEW = b"250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 XNEW\r\n"


class UnderTls(Scripted):
    """As Scripted; after STARTTLS, a handshake with *context*, and then *answers*."""

    def _talk(self, answers):
        greeting, offer, go, context, *rest = answers
        for answer in (greeting, offer):
            self._sock.sendall(answer)
            self.heard.append(self._sock.recv(65536))
        self._sock.sendall(go)
        try:
            self._sock = context.wrap_socket(self._sock, server_side=True)
            for answer in rest:
                self.heard.append(self._sock.recv(65536))
                self._sock.sendall(answer)
            self.heard.append(self._sock.recv(65536))
        except OSError:     # the client has given up
            pass
        self._sock.close()


def test_starttls(shell, pair):
    one = transaction()
    peer = UnderTls(shell, b"220 go\r\n", under_tls(pair), NEW, b"250 ok\r\n250 ok\r\n250 id=1\r\n")
    with peer as session:
        assert "XOLD" in session.features
        assert shell.run(session.start_tls(client_context(False, "", ""), "mx.example")) == ""
        assert session.stream.version == "TLSv1.3"
        assert "XNEW" in session.features and "XOLD" not in session.features
        assert session.alive()
        shell.run(session.run(one, pieces=[b"x\r\n"]))
        assert codes(one) == [250]
        assert session.alive()
    verbs = [octets.split()[0] for octets in peer.heard]
    assert verbs == [b"EHLO", b"STARTTLS", b"EHLO", b"MAIL", b"QUIT"]


@pytest.mark.parametrize("go", [b"220 go\r\n250-mx\r\n250 AUTH PLAIN\r\n", b"220 go\r\n250-m"])
def test_what_is_injected_behind_the_220_ends_the_session(shell, pair, go):
    with UnderTls(shell, go, under_tls(pair), NEW) as session:
        why = shell.run(session.start_tls(client_context(False, "", ""), "mx.example"))
        assert why == session.broken != ""
        assert not session.alive()
        assert session.stream.closed


def test_a_refused_starttls(shell):
    with Scripted(shell, b"454 4.7.0 not now\r\n", b"250 ok\r\n") as session:
        assert shell.run(session.start_tls(client_context(False, "", ""), "")) == "454 4.7.0 not now"
        assert shell.run(session.probe())


def test_a_handshake_that_fails_ends_the_session(shell, pair):
    context, why = under_tls(pair), "TLS: tlsv1 alert protocol version"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with UnderTls(shell, b"220 go\r\n", context) as session:
        assert shell.run(session.start_tls(client_context(False, "1.3", ""), "mx.example")) == why
        assert session.broken == why
        assert shell.run(session.start_tls(client_context(False, "", ""), "")) == why


def test_a_server_that_refuses_us_after_the_handshake(shell, pair):
    with UnderTls(shell, b"220 go\r\n", under_tls(pair), b"421 4.3.2 not you\r\n") as session:
        assert shell.run(session.start_tls(client_context(False, "", ""), "")) == "421 4.3.2 not you"
        assert session.refusal.code == 421


class Password:
    mechanism = "PLAIN"

    def __init__(self, doubt=""):
        self.finish = lambda: doubt

    def first(self):
        return b"\0me\0secret"

    def step(self, challenge):
        raise ValueError("PLAIN has no challenges")


def test_authenticate(shell):
    peer = Scripted(shell, b"535 5.7.8 who?\r\n", b"334 eA==\r\n", b"501 5.7.0 well\r\n", b"235 ok\r\n")
    with peer as session:
        failed = shell.run(session.authenticate(Password()))
        assert failed.reply.code == 535
        assert failed.why == "535 5.7.8 who?"
        failed = shell.run(session.authenticate(Password()))
        assert failed.reply is None
        assert failed.why == "bad challenge: PLAIN has no challenges"
        assert shell.run(session.authenticate(Password())) is None
        assert session.alive()
    auth = b"AUTH PLAIN AG1lAHNlY3JldA==\r\n"
    assert peer.heard[1:] == [auth, auth, b"*\r\n", auth, b"QUIT\r\n"]


@pytest.mark.parametrize(("answer", "doubt", "why"), [
    (b"235 ok\r\n", "it has no proof", "it has no proof"),
    (b"421 bye\r\n", "", "421 bye"),
    (b"235 ok\r\n421 bye\r\n", "", "a reply to nothing"),
])
def test_authenticating_with_somebody_else(shell, answer, doubt, why):
    with Scripted(shell, answer) as session:
        failed = shell.run(session.authenticate(Password(doubt)))
        assert failed.why == why
        assert session.broken.endswith(why)
        assert shell.run(session.authenticate(Password())).why == session.broken


def test_probes(shell):
    peer = Scripted(shell, b"250 ok\r\n", b"250 ok\r\n421 bye\r\n")
    with peer as session:
        assert shell.run(session.probe())
        assert not shell.run(session.probe())
        assert not shell.run(session.probe())
    assert peer.heard[1:] == [b"RSET\r\n", b"RSET\r\n", b""]


def test_hops(shell):
    peer = Scripted(shell, b"250 2.0.0 host=mx\r\n", b"451 4.4.1 host=mx said=no\r\n", b"421 bye\r\n")
    with peer as session:
        assert shell.run(session.hop("host=mx port=25")).code == 250
        assert shell.run(session.hop("host=mx port=26")).text == "host=mx said=no"
        assert shell.run(session.hop("host=mx port=27")) is None
        assert session.refusal.code == 421
        assert shell.run(session.hop("host=mx port=28")) is None
    assert peer.heard[1] == b"XHOP host=mx port=25\r\n"


# --- time ---


def test_each_reply_has_its_own_time():
    times = Timeouts(rcpt=7.0, end=900.0)
    assert (times.of("greeting"), times.of("RCPT"), times.of("BDAT")) == (300.0, 7.0, 180.0)
    assert times.of("message") == times.of("XHOP") == 600.0
    assert Timeouts(most=30.0).of("message") == Timeouts(most=30.0).of("hello") == 30.0
    kinds = ("greeting", "hello", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "block", "message",
             "XFD", "RSET", "QUIT")
    wanted = [300, 300, 120, 120, 300, 7, 120, 180, 180, 600, 600, 20, 5]
    assert [times.of(kind) for kind in kinds] == wanted


def test_it_says_what_did_not_come(shell):
    with Scripted(shell, b"250 ok\r\n", timeouts=Timeouts(rcpt=0.1)) as session:
        shell.run(session.run(transaction(), pieces=[b"x\r\n"]))
        assert session.broken == "no answer to RCPT within 0.1 s"
        assert session.expired


def test_a_reply_that_drips_gets_no_more_time(shell):
    ours, theirs = socketpair()
    session = Session(shell.stream(ours), "smtp", "me.example", Timeouts(greeting=0.3))
    enough = threading.Event()

    def drip():
        for octet in b"220-" + b"x" * 400:
            if enough.wait(0.05):
                return
            theirs.send(bytes([octet]))

    thread = threading.Thread(target=drip)
    thread.start()
    assert not shell.run(session.open())
    assert thread.is_alive()
    enough.set()
    thread.join()
    theirs.close()
    assert session.broken == "no greeting within 0.3 s"


def test_a_peer_that_takes_no_body(shell):
    with Scripted(shell, b"250 ok\r\n250 ok\r\n", timeouts=Timeouts(block=0.1)) as session:
        one = transaction()
        shell.run(session.run(one, pieces=[bytes(65536)] * 1000))
        assert session.broken == "the body was not taken within 0.1 s"
        assert codes(one) == [None]
