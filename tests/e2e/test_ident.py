"""ident= of an option set: who the client is by its own host's word."""

import os
import re
import socket
import threading

import pytest

from support.daemons import Client
from support.home import ME, SECONDS, Home, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="listens at port 113")]
HOST = "127.9.8.7"


class From(Client):
    """A client at HOST."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), SECONDS, (HOST, 0))
        self._file = self.sock.makefile("rb")
        self.greeting = self.read()


@pytest.fixture(scope="module")
def home():
    made = Home("alice")
    made.asking = free_port()
    made.control(optionsets="asking ident=30\n", access=f"Connect:{HOST} OK\n",
                 listeners=f"127.0.0.1:{made.port}\n127.0.0.1:{made.asking} set=asking\n")
    try:
        yield made.start()
    finally:
        print(*made.log()[-40:], sep="\n")
        made.remove()


@pytest.fixture
def identd():
    """(the questions it was asked, an event: it answers when that is set)."""
    listener = socket.create_server((HOST, 113))
    asked, go = [], threading.Event()

    def serve():
        try:
            while True:
                client = listener.accept()[0]
                question = client.recv(100)
                asked.append(question)
                go.wait(SECONDS)
                client.sendall(question.strip() + b" : USERID : UNIX : eve(root)\r\n")
                client.close()
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield asked, go
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    go.set()
    thread.join(SECONDS)


def test_the_answer_is_shown_and_only_a_message_waits_for_it(home, identd):
    asked, go = identd
    with From(home.asking) as client:
        assert client.say("EHLO x")[:3] == "250"        # it has not answered yet
        go.set()
        assert client.begin("a@example.net", f"alice@{ME}")[0][:3] == "250"
        client.data(b"Subject: x\r\n\r\nx\r\n")
        ports = client.sock.getsockname()[1], home.asking
    assert asked == [f"{ports[0]} , {ports[1]}\r\n".encode()]
    assert "user=eve" in home.wait_for_log("event=ident ")
    text = home.wait_for("alice")[-1]
    received = re.search(rb"\nReceived: from client\.example \(\[127\.9\.8\.7\]\) \(ident ([^)]*)\)\n",
                         text)
    assert received[1] == b"eve+28root+29"


def test_without_the_option_nobody_is_asked(home, identd):
    asked, _ = identd
    before = len(home.log("event=ident "))
    with From(home.port) as client:
        assert client.begin("a@example.net", f"alice@{ME}")[0][:3] == "250"
    assert (asked, len(home.log("event=ident "))) == ([], before)
