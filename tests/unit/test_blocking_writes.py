"""Descriptors 0 and 1 without a socket of ours: what is written waits for the peer, but not for ever."""

import os
import threading
from socket import socketpair

import pytest

from mqmail.base import waiter
from mqmail.net.blocking import BlockingStream
from mqmail.net.expired import Expired

MANY = bytes(range(256)) * 4000     # more than a pipe or a socket holds


@pytest.fixture(params=["pipe", "socket"])
def ends(request):
    """(Where the peer reads, where we write)."""
    if request.param == "pipe":
        found = os.pipe()
    else:
        found = tuple(sock.detach() for sock in socketpair())
    yield found
    for fd in found:
        os.close(fd)


def test_who_does_not_read_is_not_waited_for(ends):
    stream = BlockingStream(ends[1], ends[1])
    stream.expire_after(0.1)
    stream.write(MANY)
    with pytest.raises(Expired):
        waiter.run(stream.drain())
    with pytest.raises(Expired):
        waiter.run(stream.read())
    stream.write(b"421")
    assert stream.closed


def test_who_reads_gets_all(ends):
    found = bytearray()

    def read():
        while len(found) < len(MANY):
            found.extend(os.read(ends[0], 5000))

    thread = threading.Thread(target=read)
    thread.start()
    stream = BlockingStream(ends[1], ends[1])
    stream.expire_after(20)
    stream.write(MANY)
    thread.join(20)
    assert found == MANY
    waiter.run(stream.drain())


def test_what_can_be_said_at_once_is_said_behind_the_deadline(ends):
    stream = BlockingStream(ends[1], ends[1])
    stream.expire_after(-1)
    stream.write(b"421 4.4.2 timeout\r\n")
    assert os.read(ends[0], 100) == b"421 4.4.2 timeout\r\n"
