"""Who talks to mq-queue's socket, and what one account may cost the others."""

import contextlib
import os
import socket
import tempfile
from pathlib import Path

import pytest

from mqmail.prog import mq_queue
from support.daemons import make_home, queue_files, start
from support.home import ME, SECONDS

pytestmark = [pytest.mark.e2e,
              pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")]
NOBODY = 65534


@pytest.fixture
def queue(tmp_path):
    os.chmod(tmp_path, 0o755)
    for above in tmp_path.parents:
        if Path(tempfile.gettempdir()) in above.parents:
            os.chmod(above, 0o755)
    home = make_home(tmp_path / "home", concurrencyqueue="1")
    daemon = start("mq-queue", home)
    yield home
    daemon.stop()


@pytest.fixture
def connect():
    """A function that makes a connection of account *uid*: (socket, reader, greeting)."""
    with contextlib.ExitStack() as open_ones:
        def one(path, uid=NOBODY):
            sock = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(SECONDS)
            os.seteuid(uid)
            try:
                sock.connect(str(path))
            finally:
                os.seteuid(0)
            file = open_ones.enter_context(sock.makefile("rb"))
            return sock, file, file.readline()

        yield one


def test_one_account_does_not_take_all_sessions(queue, connect):
    path = queue / "run/queue.sock"
    many = [connect(path) for _ in range(mq_queue.MOST_OF_A_USER + 1)]
    assert {greeting[:3] for _, _, greeting in many[:-1]} == {b"220"}
    assert many[-1][2].startswith(b"421 4.3.2 ")
    assert many[-1][1].read() == b""                    # it is not kept open
    assert connect(path, 0)[2].startswith(b"220 ")      # ours go on
    many[0][1].close()
    many[0][0].close()
    assert connect(path, 0)[2].startswith(b"220 ")      # by now that one's end has been seen
    assert connect(path)[2].startswith(b"220 ")


@pytest.mark.parametrize("body", [b"BDAT 8 LAST\r\nSubject:", b"BDAT 0 LAST\r\n"])
def test_an_envelope_without_end_is_refused_for_all(queue, connect, body):
    sock, file, _ = connect(queue / "run/queue.sock")
    long = b"ORCPT=rfc822;" + b"x" * 480
    count = mq_queue.ENVELOPE_OF_A_USER // 580 + 1
    lines = [b"RCPT TO:<%d@%s> %s\r\n" % (n, ME.encode(), long) for n in range(count)]
    sock.sendall(b"EHLO here.example\r\nMAIL FROM:<>\r\n")
    while not file.readline().startswith(b"250 2.1.0"):
        pass
    for at in range(0, count, 100):
        part = lines[at:at + 100]
        sock.sendall(b"".join(part))
        answers = [file.readline() for _ in part]
    assert answers[-1].startswith(b"452 4.5.3 ")
    sock.sendall(body)
    assert file.readline().startswith(b"452 4.5.3 ")
    assert queue_files(queue) == []
    sock.sendall(b"MAIL FROM:<>\r\nRCPT TO:<alice@" + ME.encode() + b">\r\nBDAT 2 LAST\r\n\r\n")
    assert [file.readline()[:3] for _ in range(3)] == [b"250"] * 3


def test_a_message_that_was_written_at_once_is_for_all_or_for_nobody(queue, connect):
    sock, file, _ = connect(queue / "run/queue.sock")
    sock.sendall(b"HELO here.example\r\n")
    begin = b"MAIL FROM:<>\r\nRCPT TO:<alice@%b>\r\n" % ME.encode()
    file.readline()

    def heard(commands, answers):
        sock.sendall(begin + commands)
        return [file.readline()[:3] for _ in range(answers)]

    refused = b"RCPT TO:<no address>\r\n"
    assert heard(refused + b"BDAT 2 LAST\r\n\r\n", 4) == [b"250", b"250", b"501", b"451"]
    assert heard(refused + b"BDAT 2\r\n\r\nBDAT 0 LAST\r\n", 5)[3:] == [b"451", b"503"]
    sock.sendall(b"RSET\r\n")
    assert file.readline()[:3] == b"250"
    assert queue_files(queue) == []
    assert heard(b"BDAT 2 LAST\r\n\r\n", 3) == [b"250"] * 3
    assert heard(refused + b"DATA\r\n\r\n.\r\n", 5)[3:] == [b"354", b"250"]


@pytest.mark.parametrize(("daemon", "name"), [
    ("mq-queue", "queue"), ("mq-resolve", "resolve"), ("mq-bounce", "bounce"), ("mq-rspawn", "remote"),
    ("mq-auth", "auth")])
def test_strangers_are_not_kept(queue, connect, daemon, name):
    (queue / "control/injectors").write_text("* none\n")
    if daemon == "mq-queue":
        (queue / "run/mq-queue.lock").unlink()          # the fixture's has read the other file
    running = start(daemon, queue)
    try:
        _sock, file, greeting = connect(queue / f"run/{name}.sock")
        assert greeting.startswith(b"554 5.7.1 ")
        assert file.read() == b""
    finally:
        running.stop()
