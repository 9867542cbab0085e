"""xmtpd with a session on descriptors 0 and 1: under tcpserver and inetd, for SMTP and LMTP."""

import os
import pwd
import re
import socket
import subprocess
import threading

import pytest

from support.daemons import Client
from support.home import ME, ROOT, SECONDS, free_port
from support.programs import need, run_as_owner

pytestmark = pytest.mark.e2e
FROM_CLIENT = rb"\nReceived: from client\.example \([^)]*127\.0\.0\.1"


@pytest.fixture
def serve(launch):
    """A function that has tcpserver run xmtpd for a home; the port."""
    def start(home, *arguments, environ=None):
        account = run_as_owner(home, "setuidgid")
        owner = pwd.getpwnam(account[1]) if account else None
        who = ["-u", owner.pw_uid, "-g", owner.pw_gid] if owner else []
        port = free_port()
        launch(need("tcpserver"), "-v", "-R", "-H", "-l", "0", *who, "127.0.0.1", port,
               ROOT / "bin/xmtpd", "--home", home.path, *arguments,
               env={**os.environ, **(environ or {})}).wait_for_port(port)
        return port
    return start


def test_tcpserver_runs_a_session_for_each_client(home, serve):
    home.port = serve(home)
    clients = [Client(home.port) for _ in range(3)]
    for client in clients:
        assert client.begin("a@example.net", f"alice@{ME}")[0][:3] == "250"
    for number, client in enumerate(clients):
        assert client.data(b"Subject: s%d\r\n\r\nx\r\n" % number)[:3] == "250"
        assert client.say("QUIT")[:3] == "221"
        client.close()
    texts = home.wait_for("alice", 3)
    assert {re.search(rb"Subject: (.*)\n", text)[1] for text in texts} == {b"s0", b"s1", b"s2"}
    assert all([re.search(FROM_CLIENT, text) for text in texts])


def test_relayclient_opens_the_door(home, serve):
    with Client(serve(home)) as client:
        assert client.begin("a@example.net", "bob@far.example")[0][:9] == "550 5.7.1"
    with Client(serve(home, environ={"RELAYCLIENT": ""})) as client:
        assert client.begin("a@example.net", "bob@far.example")[0][:3] == "250"


def test_lmtp_answers_for_each_recipient(home, serve):
    with Client(serve(home, "--lmtp")) as client:
        assert client.greeting[:3] == "220"
        found = client.begin("a@example.net", f"alice@{ME}", f"nobody@{ME}", f"bob@{ME}", hello="LHLO x")
        assert [answer[:3] for answer in found] == ["250", "550", "250"]
        assert client.data(b"Subject: both\r\n\r\nx\r\n")[:3] == "250"
        assert client.read()[:3] == "250"
        assert client.say("QUIT")[:3] == "221"
    assert b"Subject: both\n" in home.wait_for("alice")[0]
    assert b"Subject: both\n" in home.wait_for("bob")[0]


def test_inetd_gives_the_socket_as_all_three_descriptors(home):
    """No variables say who the client is, and a line of log would be a line of SMTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = []

        def inetd():
            client, _ = listener.accept()
            with client:
                command = [*run_as_owner(home, "setuidgid"), ROOT / "bin/xmtpd", "--home", home.path]
                ended.append(subprocess.Popen(command, stdin=client, stdout=client, stderr=client))
        thread = threading.Thread(target=inetd)
        thread.start()
        with Client(listener.getsockname()[1]) as client:
            assert client.begin("a@example.net", f"alice@{ME}")[0][:3] == "250"
            assert client.data(b"Subject: inetd\r\n\r\nx\r\n")[:3] == "250"
            assert client.say("NONSENSE")[:3] == "500"
            assert client.say("QUIT")[:3] == "221"
            assert client.read() == ""
        thread.join(SECONDS)
    assert ended[0].wait(SECONDS) == 0
    [text] = home.wait_for("alice")
    assert re.search(FROM_CLIENT, text)
