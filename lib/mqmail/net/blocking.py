"""A connection without an event loop: the same interface as net/stream.py, over descriptors.

For one session on fd 0/1 and for programs that do one thing. ``read`` and ``drain`` are ``async``
only so that the same application code runs here: they never suspend (base/waiter.run drives it).
"""

from __future__ import annotations

import os
import select

from mqmail.base import unix
from mqmail.base.files import write_all
from mqmail.net.expired import Expired

READ_SIZE = 65536


class BlockingStream:
    """Reads *read_fd*, writes *write_fd*; with *sock*, a Unix socket, descriptors pass too."""

    def __init__(self, read_fd: int, write_fd: int, sock: unix.socket | None = None) -> None:
        self._read = read_fd
        self._write = write_fd
        self.sock = sock
        self._fds: list[int] = []
        self._seconds = 0.0
        self.closed = False

    async def read(self) -> bytes:
        """The next octets; b"" at the end or when the connection broke. Raises Expired."""
        if self.closed:
            return b""
        if self._seconds and not self._wait():
            raise Expired
        try:
            if self.sock is None:
                return os.read(self._read, READ_SIZE)
            data, fds = unix.receive(self.sock, READ_SIZE)
        except OSError:
            return b""
        self._fds += fds
        return data

    def _wait(self) -> bool:
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        return bool(poll.poll(self._seconds * 1000))

    def has_input(self) -> bool:
        """Whether octets, or the end, can be read now."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        return bool(poll.poll(0))

    def take_fds(self) -> list[int]:
        """Descriptors that came with what was read; the caller owns them."""
        fds, self._fds = self._fds, []
        return fds

    def expire_after(self, seconds: float) -> None:
        """Every later read waits at most this long (0: for ever)."""
        self._seconds = seconds

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Write everything; a peer that is gone shows at the next read."""
        if self.closed or not data:
            return
        try:
            if fds and self.sock is not None:
                data = data[unix.send(self.sock, data, fds):]
            write_all(self._write, data)
        except OSError:
            self.closed = True

    async def drain(self) -> None:
        """Nothing is ever left to send."""

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
