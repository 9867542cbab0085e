"""Asking a client's host who the client is (RFC 1413), and what is made of its answer."""

import socket
import threading

import pytest

from mqmail.net.daemon import new_loop
from mqmail.net.identd import MOST, Identd
from mqmail.net.stream import Deadlines
from mqmail.prog.xmtpd.peer import of_environment
from mqmail.xmtp import ident
from support.home import SECONDS, free_port


@pytest.mark.parametrize(("answer", "user"), [
    (b"6193, 23 : USERID : UNIX : stjohns\r\n", "stjohns"),
    (b"6193 , 23:USERID:UNIX,US-ASCII:stjohns\n", "stjohns"),
    (b"6193,23 : USERID : OTHER : a:b\r\n", "a:b"),
    (b"6193, 23 : USERID : UNIX : st johns\r\n", ""),
    (b"6193, 23 : USERID : UNIX : \x1b[2J\r\n", ""),
    (b"6193, 23 : USERID : UNIX : \xfcber\r\n", ""),
    (b"6193, 23 : USERID : UNIX : " + b"x" * 64 + b"\r\n", "x" * 64),
    (b"6193, 23 : USERID : UNIX : " + b"x" * 65 + b"\r\n", ""),
    (b"6193, 24 : USERID : UNIX : stjohns\r\n", ""),
    (b"6193, 23 : ERROR : NO-USER\r\n", ""),
    (b"6193, 23 : USERID : UNIX : stjohns", ""),
    (b"6193, 23 : USERID : stjohns\r\n", ""),
    (b" " * 1000 + b"6193, 23 : USERID : UNIX : stjohns\r\n", ""),
    (b"", ""), (b"\r\n", ""), (b":::\n", ""),
])
def test_an_answer(answer, user):
    assert ident.user_of(answer, 6193, 23) == user


def test_tcpserver_has_asked_already():
    environ = {"PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1", "TCPREMOTEINFO": "stjohns"}
    assert of_environment(environ, 0).ident == "stjohns"
    assert of_environment({**environ, "TCPREMOTEINFO": "a b\r\nX: y"}, 0).ident == ""


class Host:
    """An ident server on 127.0.0.1 that answers its first client with *answer*, with NUMBERS for the
    ports; None: nothing."""

    def __init__(self, answer):
        self.port = free_port()
        self.asked = b""
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._clients = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        try:
            client = self._listener.accept()[0]
        except OSError:
            return
        self._clients.append(client)
        self.asked = client.recv(100)
        if self._answer is not None:
            client.sendall(self._answer.replace(b"NUMBERS", self.asked.strip()))

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(SECONDS)
        for client in self._clients:
            client.close()


@pytest.fixture
def host():
    made = []

    def make(answer):
        made.append(Host(answer))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def connection():
    """A TCP connection: the client's end and ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener, \
            socket.create_connection(listener.getsockname()) as theirs:
        ours = listener.accept()[0]
        with ours:
            yield theirs, ours


def said(port, sock, seconds):
    """What is said within *seconds*."""
    loop, found = new_loop(), []
    waiter = Identd(loop, Deadlines(loop), port).ask(sock, seconds)

    def done():
        found.append(waiter.result())
        loop.stop()

    loop.call_later(SECONDS, loop.stop)
    loop.call_soon(waiter.when_done, done)
    loop.run_forever()
    loop.close()
    return found


def test_the_host_is_asked_for_both_ports(host, connection):
    theirs, ours = connection
    there = host(b"NUMBERS : USERID : UNIX : stjohns\r\n")
    assert said(there.port, ours, SECONDS) == ["stjohns"]
    assert there.asked == f"{theirs.getsockname()[1]} , {ours.getsockname()[1]}\r\n".encode()


@pytest.mark.parametrize("answer", [None, b"x" * 70000])
def test_who_says_nothing_or_too_much_says_nothing(host, connection, answer):
    assert said(host(answer).port, connection[1], 0.2) == [""]


def test_where_nobody_listens(connection):
    assert said(free_port(), connection[1], SECONDS) == [""]


def test_so_many_are_asked_at_a_time_and_no_more(host, connection):
    there = host(None)
    loop = new_loop()
    identd = Identd(loop, Deadlines(loop), there.port)
    found = [identd.ask(connection[1], 0.2) for _ in range(MOST + 1)]
    assert [one is None for one in found] == [False] * MOST + [True]
    found[-2].when_done(loop.stop)
    loop.run_forever()
    assert identd.ask(connection[1], 0.2) is not None
    loop.close()
