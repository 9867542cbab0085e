"""mq-send's way to a service that does not do its work."""

import asyncio
import contextlib
import os
import socket
import threading

import pytest

from mqmail.control.destinations import Destination
from mqmail.net.stream import Deadlines
from mqmail.prog.mq_send import outlet
from mqmail.prog.mq_send.job import Job
from mqmail.queue import ids
from mqmail.queue.record import Envelope, Recipient, State
from support.home import wait_until

SECONDS = 20
ID = ids.make(1732252800_000000, 7)
HEAD = Envelope(ID, 1732252800.0, 0, False, False, "a@example.org", "", "", {})


@pytest.fixture
def slow(tmp_path):
    """The path of a service that answers LHLO and then nothing."""
    path = str(tmp_path / "slow.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.settimeout(SECONDS)

    def serve():
        session, _ = listener.accept()
        with session:
            session.sendall(b"220 here LMTP\r\n")
            session.recv(100)
            session.sendall(b"250-here\r\n250 PIPELINING\r\n")
            over.wait(SECONDS)

    over = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    yield path
    over.set()
    thread.join()
    listener.close()


def first_answer(path, limit, *addresses):
    """Give an Outlet a message for each address; what is said first: (address, reply, why)."""
    loop, said = asyncio.new_event_loop(), []
    body = os.open(os.devnull, os.O_RDONLY)
    deadlines = Deadlines(loop)

    def answered(state, answer, why):
        said.append((state.recipient.address, answer, why))
        loop.stop()

    way = outlet.Outlet(loop, deadlines, "here", Destination("slow", path=path), limit, None)
    for address in addresses:
        state = State(Recipient("1", "slow", address), active=True)
        way.submit(Job(HEAD, "a@example.org", "slow", [state], answered, lambda: body))
    loop.call_later(SECONDS, loop.stop)
    if not said:
        loop.run_forever()
    found = said[:]
    for stream in list(deadlines.streams):
        stream.close()
    loop.close()
    os.close(body)
    return found


def test_messages_do_not_wait_for_a_service_that_gets_nothing_done(slow, monkeypatch):
    monkeypatch.setattr(outlet, "STALLED", 0.2)
    [(address, answer, why)] = first_answer(slow, 1, "first@example.org", "second@example.org")
    assert address == "second@example.org"          # the first one is with the service
    assert answer is None
    assert why.startswith("slow is busy")


def test_a_limit_of_none_holds(tmp_path):
    assert first_answer(str(tmp_path / "none"), 0, "first@example.org") == [
        ("first@example.org", None, "slow is held: its concurrency is 0")]


@pytest.fixture
def friendly(tmp_path):
    """The path of a service that greets everybody, and the sessions that are open."""
    path = str(tmp_path / "friendly.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    open_ones = []

    def serve(session):
        with session, contextlib.suppress(ConnectionError):
            session.sendall(b"220 here LMTP\r\n")
            while said := session.recv(1000):
                session.sendall(b"250 here\r\n" if said[:4] == b"LHLO" else b"550 5.1.1 no\r\n")
        open_ones.remove(session)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                open_ones.append(listener.accept()[0])
                threading.Thread(target=serve, args=open_ones[-1:], daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield path, open_ones
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_sessions_that_nobody_uses_are_closed(friendly, monkeypatch):
    monkeypatch.setattr(outlet, "REST", 0.1)
    path, open_ones = friendly
    loop = asyncio.new_event_loop()
    deadlines = Deadlines(loop)
    body = os.open(os.devnull, os.O_RDONLY)
    way = outlet.Outlet(loop, deadlines, "here", Destination("friendly", path=path), 3, None)
    state = State(Recipient("1", "friendly", "a@example.org"), active=True)
    done = way.submit(Job(HEAD, "a@example.org", "friendly", [state], lambda *_: None, lambda: body))

    def ended():
        loop.stop() if done.done and not deadlines.streams else loop.call_later(0.01, ended)

    ended()
    loop.call_later(SECONDS, loop.stop)
    loop.run_forever()
    assert done.done
    assert not deadlines.streams
    wait_until(lambda: not open_ones, "the service has seen the end")
    loop.close()
    os.close(body)
