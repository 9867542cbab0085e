"""Processes of accounts that die, hang or answer; and where TERM ends a process."""

import os
import signal

import pytest

from mqmail.base import waiter
from mqmail.local import warm
from mqmail.local.service import make_server
from mqmail.local.warm import Warm
from mqmail.local.worker import Gate, Stop
from mqmail.net.blocking import over_socket
from mqmail.net.converse import converse
from mqmail.xmtp import events
from mqmail.xmtp.client import FILE, Transaction
from mqmail.xmtp.reply import reply


class Answers:
    """Says its process id to every recipient; hangs for ``hangs``, dies for ``dies``."""

    def __init__(self, server, stream):
        self._server = server
        self._stream = stream

    async def settle(self):
        pass

    def handle(self, event):
        if type(event) is not events.BodyFile:
            return None if type(event) in (events.Reset, events.Quit) else self._server.answer(event)
        for number, rcpt in enumerate(list(self._server.accepted)):
            if rcpt.address.startswith("hangs@"):
                signal.pause()
            if rcpt.address.startswith("dies@"):
                os._exit(9)
            said = reply(250, "2.0.0", f"{os.getpid()} {os.pread(event.fd, event.size, 0).decode()}")
            self._server.answer_recipient(number, said)
            self._stream.write(self._server.take_output())
        return os.close(event.fd)


def become(account, sock):
    if account == "fails":
        raise OSError(5, "no such account any more")
    if account == "mute":
        signal.pause()
    stream, server = over_socket(sock), make_server("mail.example.org")
    waiter.run(converse(stream, server, Answers(server, stream)))


@pytest.fixture
def processes():
    made = Warm("mail.example.org", become, timeout=30.0)
    yield made
    made.end_all()


def deliver(processes, account, *locals, body=b"body"):
    """(why it broke off, the verdicts)."""
    fd = os.memfd_create("body")
    os.write(fd, body)
    recipients = [(f"@local:{one}@mail.example.org", ()) for one in locals]
    transaction = Transaction("a@example.net", recipients, (), FILE)
    came = []
    broken = processes.run(account, transaction, fd, len(body), came.append)
    os.close(fd)
    assert came == [n for n, verdict in enumerate(transaction.verdicts) if verdict is not None]
    return broken, [verdict and verdict.text.partition(" ")[2] for verdict in transaction.verdicts]


def pid_of(text):
    return int(text.split()[0])


def gone(pid):
    """Whether *pid* has ended; it may not have been waited for."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_process_is_used_again(processes):
    broken, first = deliver(processes, "ann", "one", "two")
    assert broken == "" and [text.split()[1] for text in first] == ["body", "body"]
    _, second = deliver(processes, "ann", "one", body=b"more")
    assert second == [f"{pid_of(first[0])} more"]
    assert deliver(processes, "bob", "one")[1] != first[:1]


def test_one_that_dies_is_replaced(processes):
    broken, verdicts = deliver(processes, "ann", "one", "dies", "two")
    assert "connection closed" in broken
    assert verdicts[0].endswith(" body") and verdicts[1:] == [None, None]
    assert deliver(processes, "ann", "one")[0] == ""


def test_one_that_hangs_is_killed_and_nobody_waits_for_it(processes):
    _, (said,) = deliver(processes, "ann", "one")
    processes._processes["ann"].session._timeouts = 0.5
    broken, verdicts = deliver(processes, "ann", "hangs")
    assert broken == "no answer to MAIL within 0.5 s" and verdicts == [None]
    os.waitid(os.P_PID, pid_of(said), os.WEXITED | os.WNOWAIT)
    assert gone(pid_of(said))
    assert deliver(processes, "ann", "one")[0] == ""


@pytest.mark.parametrize(("account", "why"),
                         [("fails", "connection closed"), ("mute", "no greeting within")])
def test_one_that_does_not_start(processes, account, why):
    processes._timeout = 0.5 if account == "mute" else 30.0
    broken, verdicts = deliver(processes, account, "one")
    assert broken.startswith("it did not start: ") and why in broken
    assert verdicts == [None]


def test_only_so_many_are_kept(processes):
    pids = [pid_of(deliver(processes, f"user{n}", "one")[1][0]) for n in range(warm.MOST + 1)]
    os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)
    assert [gone(pid) for pid in pids] == [True] + [False] * warm.MOST
    processes.end_all()
    with pytest.raises(ChildProcessError):      # and waited for
        os.waitpid(-1, os.WNOHANG)


def test_term_ends_a_process_where_it_waits():
    gate = Gate()
    before = signal.signal(signal.SIGTERM, gate.terminate)
    try:
        gate.check()
        with pytest.raises(Stop), gate:
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stop):
            gate.check()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_term_is_noted_elsewhere():
    gate = Gate()
    before = signal.signal(signal.SIGTERM, gate.terminate)
    try:
        with gate:
            pass
        signal.raise_signal(signal.SIGTERM)     # in a delivery
        with pytest.raises(Stop), gate:
            raise AssertionError("it must not wait")
    finally:
        signal.signal(signal.SIGTERM, before)
