"""A connection without an event loop: the same interface as net/stream.py, over descriptors.

For one session on fd 0/1 and for programs that do one thing. ``read`` and ``drain`` are ``async``
only so that the same application code runs here: they never suspend (base/waiter.run drives it).
``write`` waits for the peer, no longer than to the deadline.
"""

from __future__ import annotations

import os
import select
from _socket import MSG_DONTWAIT
from time import monotonic

from mqmail.base import unix
from mqmail.base.files import write_all
from mqmail.net.expired import Expired

READ_SIZE = 65536
WRITE_SIZE = select.PIPE_BUF    # so many octets never wait once poll says that there is room


class BlockingStream:
    """Reads *read_fd*, writes *write_fd*; with *sock*, a Unix socket, descriptors pass too."""

    def __init__(self, read_fd: int, write_fd: int, sock: unix.socket | None = None) -> None:
        self._read = read_fd
        self._write = write_fd
        self.sock = sock
        self._fds: list[int] = []
        self._expires = 0.0
        self._late = False          # a write met the deadline
        self._unread = b""
        self.closed = False

    async def read(self) -> bytes:
        """The next octets; b"" at the end or when the connection broke. Raises Expired."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        if self._late:
            raise Expired
        if self.closed:
            return b""
        if self._expires and not self._wait(self._read, select.POLLIN):
            raise Expired
        try:
            if self.sock is None:
                return os.read(self._read, READ_SIZE)
            data, fds = unix.receive(self.sock, READ_SIZE)
        except OSError:
            return b""
        self._fds += fds
        return data

    def unread(self, data: bytes) -> None:
        """Put octets back: the next read gives them."""
        self._unread = data + self._unread

    def _wait(self, fd: int, event: int) -> bool:
        """Whether *event* comes before the deadline."""
        return self._poll(fd, event, max(0.0, self._expires - monotonic()))

    def _poll(self, fd: int, event: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(fd, event)
        return bool(poll.poll(seconds * 1000))

    def has_input(self) -> bool:
        """Whether octets, or the end, can be read now."""
        return bool(self._unread) or self._poll(self._read, select.POLLIN, 0)

    def read_now(self) -> bytes | None:
        """What can be read without waiting (b"": the end); None: nothing yet. Descriptors are lost."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        try:
            return os.read(self._read, READ_SIZE) if self.has_input() else None
        except OSError:
            return b""

    def take_fds(self) -> list[int]:
        """Descriptors that came with what was read; the caller owns them."""
        fds, self._fds = self._fds, []
        return fds

    def expire_after(self, seconds: float) -> None:
        """From now, a read, write or drain that waits longer than this raises Expired, a write at the
        read or drain that follows. 0: wait for ever."""
        self._expires = monotonic() + seconds if seconds else 0.0

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Write everything; a peer that is gone shows at the next read."""
        if self.closed or not data:
            return
        try:
            if fds and self.sock is not None:
                data = data[unix.send(self.sock, data, fds):]
            if self._expires:
                self._send(memoryview(data))
            else:
                write_all(self._write, data)
        except OSError:
            self.closed = True

    def _send(self, data: memoryview) -> None:
        """All of *data* before the deadline, or the stream is of no more use."""
        while data:
            sent = self._send_now(data)
            data = data[sent:]
            if not sent and not self._wait(self._write, select.POLLOUT):
                self.closed = self._late = True
                return

    def _send_now(self, data: memoryview) -> int:
        """How many octets could be sent without waiting."""
        if self.sock is not None:
            try:
                return self.sock.send(data, MSG_DONTWAIT)
            except BlockingIOError:
                return 0
        room = self._poll(self._write, select.POLLOUT, 0)
        return os.write(self._write, data[:WRITE_SIZE]) if room else 0

    async def drain(self) -> None:
        """Nothing is ever left to send. Raises Expired if that took too long."""
        if self._late:
            raise Expired

    def close(self) -> None:
        """Close the socket, if there is one, and descriptors nobody took."""
        self.closed = True
        for fd in self.take_fds():
            os.close(fd)
        if self.sock is not None:
            self.sock.close()


def over_socket(sock: unix.socket) -> BlockingStream:
    """A BlockingStream over a connected blocking Unix socket."""
    return BlockingStream(sock.fileno(), sock.fileno(), sock)
