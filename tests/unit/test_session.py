"""A client's session against a server that says what it is told to."""

import threading
from socket import socketpair

import pytest

from mqmail.base.waiter import run
from mqmail.net.blocking import over_socket
from mqmail.net.session import Session
from mqmail.xmtp.client import EAGER, Transaction
from mqmail.xmtp.server import Limits, Server

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
