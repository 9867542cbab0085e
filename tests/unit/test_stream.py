"""Streams under the event loop."""

from _socket import AF_UNIX, SOCK_STREAM, socketpair
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from select import select

import pytest

from mqmail.base.waiter import Running
from mqmail.net.daemon import new_loop
from mqmail.net.stream import READ_SIZE, Deadlines, Stream


@pytest.fixture
def loop():
    loop = new_loop()
    yield loop
    loop.close()


def read_all(loop, stream):
    """What comes until the end."""
    found = []

    async def reading():
        while True:
            data = await stream.read()
            if not data:
                return b"".join(found)
            found.append(data)

    ended = []
    running = Running(reading(), lambda result, error: (ended.append((result, error)), loop.stop()))
    loop.call_later(20, loop.stop)
    loop.run_forever()
    running.cancel()
    (result, error), = ended
    assert error is None
    return result


def test_a_peer_that_closes_without_reading_our_words_is_read_to_its_end(loop):
    """The socket has an error then, and libuv calls its reader once only."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    stream = Stream(loop, ours, Deadlines(loop))
    stream.write(b"never read")
    sent = b"x" * (READ_SIZE * 2 + 100)
    theirs.sendall(sent)
    theirs.close()
    assert read_all(loop, stream) == sent
    stream.close()


def test_a_descriptor_that_cannot_wait_leaves_nothing_behind(loop):
    """No descriptors are left while the peer does not read: write() says so, the stream is as before."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    stream, bugs = Stream(loop, ours, Deadlines(loop)), []
    loop.set_exception_handler(lambda _loop, context: bugs.append(context))
    with pytest.raises(BlockingIOError):
        while True:
            ours.send(b"x" * READ_SIZE)
    limits = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            stream.write(b"XFD 1\r\n", (0,))
    finally:
        setrlimit(RLIMIT_NOFILE, limits)
    with pytest.raises(BlockingIOError):
        while True:
            theirs.recv(READ_SIZE)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert bugs == []
    stream.write(b"more")
    assert theirs.recv(READ_SIZE) == b"more"
    stream.close()
    theirs.close()


def test_a_peer_is_there_until_it_closes(loop):
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    stream = Stream(loop, ours, Deadlines(loop))
    assert stream.is_there()
    theirs.sendall(b"x")
    assert stream.is_there()
    assert stream.read_now() == b"x"
    theirs.close()
    assert not stream.is_there()
    stream.close()
    assert not stream.is_there()


def test_what_came_while_this_process_was_held_up_is_read_though_it_is_late(loop):
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    stream = Stream(loop, ours, Deadlines(loop))
    stream.expire_after(0.01)

    def hold_up():
        """To behind the time when deadlines are looked at."""
        select([], [], [], 1.1)
        theirs.sendall(b"here")
        theirs.close()

    loop.call_soon(loop.call_soon, hold_up)
    assert read_all(loop, stream) == b"here"
    stream.close()
