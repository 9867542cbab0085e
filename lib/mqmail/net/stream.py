"""A connection under the event loop: ``await read()``, ``write()``, deadlines, descriptors.

One class for TCP and Unix sockets. Reading stops by itself when nobody awaits octets, so a slow
consumer stops its producer; what is written is bounded by awaiting ``drain()``. The read wakes the
coroutine in the socket's own callback (base/waiter.py): no task, no trip through the loop.
"""

from __future__ import annotations

import errno
import os
from _socket import AF_UNIX, MSG_PEEK, SHUT_WR, SO_ERROR, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

from mqmail.base import unix
from mqmail.base.waiter import Waiter
from mqmail.net.expired import Expired
from mqmail.net.tcp import tcp_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

READ_SIZE = 65536
MOST_UNSENT = 262144
_AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)


class Stream:
    """A connected non-blocking socket in *loop*. ``read`` gives b"" at the end or on an error."""

    __slots__ = ("_deadlines", "_drained", "_fd", "_fds", "_loop", "_out", "_out_fds", "_paused",
                 "_unread", "_unsent", "_waiter", "_watcher", "closed", "expires", "sock", "unix")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket, deadlines: Deadlines) -> None:
        self._loop = loop
        self.sock = sock
        self.unix = sock.family == AF_UNIX
        self._fd = sock.fileno()
        self._fds: list[int] = []
        self._waiter: Waiter | None = None
        self._drained: Waiter | None = None
        self._out: list[bytes] = []
        self._out_fds: tuple[int, ...] = ()
        self._unsent = 0
        self._unread = b""
        self._paused = True
        self._watcher: Callable[[], None] | None = None
        self._deadlines = deadlines
        self.closed = False
        self.expires = 0.0
        deadlines.streams.add(self)

    # --- reading ---

    async def read(self) -> bytes:
        """The next octets; b"" when the peer has closed or broken. Raises Expired at the deadline."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        if self.closed:
            return b""
        waiter = self._waiter = Waiter()
        if self._paused:
            self._paused = False
            self._loop.add_reader(self._fd, self._readable)
        return await waiter  # type: ignore[no-any-return]

    def unread(self, data: bytes) -> None:
        """Put octets back: the next read gives them."""
        self._unread = data + self._unread

    def _readable(self) -> None:
        waiter = self._waiter
        if waiter is None:
            self._paused = True
            self._loop.remove_reader(self._fd)
            watcher, self._watcher = self._watcher, None
            return watcher() if watcher is not None else None
        try:
            if self.unix:
                data, fds = unix.receive(self.sock, READ_SIZE)
                self._fds += fds
            else:
                data = self.sock.recv(READ_SIZE)
        except OSError as error:
            if error.errno in _AGAIN:
                return
            data = b""
        self._deadlines.active.add(self)
        self._waiter = None
        waiter.set(data)

    def watch(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* once, as soon as there is something to read, or the end, while nobody reads;
        None: no more."""
        self._watcher = callback
        if callback is not None and self._paused and not self.closed:
            self._paused = False
            self._loop.add_reader(self._fd, self._readable)

    def probe(self) -> None:
        """Read without being told to. libuv forgets a socket after one call when it has an error (the
        peer reset it, or closed it without having read all of ours), with octets of the peer's left."""
        waiter = self._waiter
        if waiter is not None and not self._paused:
            self._readable()
            if self._waiter is not waiter:      # there was something: and behind it?
                self._loop.call_soon(self.probe)

    def has_input(self) -> bool:
        """Whether octets, or the end, can be read now (asked of an idle connection)."""
        if self._unread:
            return True
        try:
            self.sock.recv(1, MSG_PEEK)
        except OSError as error:
            return error.errno not in _AGAIN
        return True

    def is_there(self) -> bool:
        """Whether the peer may still want to hear from us: it has not closed."""
        try:
            return self.sock.recv(1, MSG_PEEK) != b""
        except OSError as error:
            return error.errno in _AGAIN

    def read_now(self) -> bytes | None:
        """What can be read without waiting (b"": the end); None: nothing yet. Descriptors are lost."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        try:
            return self.sock.recv(READ_SIZE)
        except OSError as error:
            return None if error.errno in _AGAIN else b""

    def take_fds(self) -> list[int]:
        """Descriptors that came with what was read; the caller owns them."""
        fds, self._fds = self._fds, []
        return fds

    def expire_after(self, seconds: float) -> None:
        """From now, a read or drain that waits longer than this raises Expired (checked once a
        second). 0: wait for ever."""
        self.expires = self._loop.time() + seconds if seconds else 0.0

    def expire(self) -> None:
        """The deadline has passed: wake whoever waits."""
        self.expires = 0.0
        waiting = self._waiter, self._drained
        self._waiter = self._drained = None     # who reads on after this misses nothing
        for waiter in waiting:
            if waiter is not None:
                waiter.fail(Expired())

    # --- writing ---

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send now what the kernel takes, keep the rest. *fds* ride on the first octet; they are
        duplicated if they have to wait."""
        if self.closed or not data:
            return
        if not self._out:
            try:
                sent = unix.send(self.sock, data, fds)
            except OSError as error:
                if error.errno not in _AGAIN:
                    return self._broken()
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            fds = () if sent else fds
        if fds:
            self._keep_fds(fds)     # may raise: then nothing has been begun
        if not self._out:
            self._loop.add_writer(self._fd, self._writable)
        self._out.append(data)
        self._unsent += len(data)

    def _keep_fds(self, fds: tuple[int, ...]) -> None:
        """Descriptors that wait go with the first octets that leave: XFD's server only wants them
        no later than its command."""
        self._out_fds += tuple([os.dup(fd) for fd in fds])

    def _writable(self) -> None:
        data = b"".join(self._out) if len(self._out) > 1 else self._out[0]
        try:
            sent = unix.send(self.sock, data[:MOST_UNSENT], self._out_fds)
        except OSError as error:
            if error.errno not in _AGAIN:
                self._broken()
            return
        self._close_out_fds()
        self._unsent -= sent
        self._out = [data[sent:]] if sent < len(data) else []
        if not self._out:
            self._loop.remove_writer(self._fd)
        if self._unsent < MOST_UNSENT // 2 and self._drained is not None:
            drained, self._drained = self._drained, None
            drained.set()

    def _close_out_fds(self) -> None:
        for fd in self._out_fds:
            os.close(fd)
        self._out_fds = ()

    async def drain(self) -> None:
        """Wait until little is left to send. Raises Expired at the deadline."""
        if self._unsent >= MOST_UNSENT and not self.closed:
            self._drained = Waiter()
            await self._drained

    def _broken(self) -> None:
        """The kernel refused octets (the peer is gone, or there is no memory): nothing may follow the
        gap, and a peer that is still there learns at once that this is the end."""
        try:
            self.sock.shutdown(SHUT_WR)
        except OSError:
            pass                    # it is gone
        self._lost()

    def _lost(self) -> None:
        """Nothing more can be sent; a reader learns it by b""."""
        if self._out:
            self._loop.remove_writer(self._fd)
        self._out, self._unsent = [], 0
        self._close_out_fds()
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.set()

    # --- the end ---

    def close(self) -> None:
        """Close now; what the kernel has not taken is lost. Whoever reads gets b""."""
        if self.closed:
            return
        self.closed = True
        self._deadlines.streams.discard(self)
        self._deadlines.active.discard(self)
        self._loop.remove_reader(self._fd)
        self._lost()
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self.sock.close()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.set(b"")


class Deadlines:
    """All streams of a process, those that have read something in this second, and the one timer that
    looks at both."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.streams: set[Stream] = set()
        self.active: set[Stream] = set()
        self._tick()

    def _tick(self) -> None:
        now = self._loop.time()
        if any([0.0 < stream.expires < now for stream in self.streams]):
            # after a turn of the loop: we may have been held up, and what came meanwhile counts
            self._loop.call_soon(self._loop.call_soon, self._expire, now)
        active, self.active = self.active, set()
        for stream in active:
            stream.probe()
        self._loop.call_later(1.0, self._tick)

    def _expire(self, now: float) -> None:
        for stream in [s for s in self.streams if 0.0 < s.expires < now]:
            stream.expire()


async def connect_unix(loop: asyncio.AbstractEventLoop, deadlines: Deadlines, path: str) -> Stream:
    """A Stream to the Unix socket *path*; OSError with the path when nobody listens or the
    listener's queue is full."""
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror or str(error), path) from None
    return Stream(loop, sock, deadlines)


async def connect_tcp(loop: asyncio.AbstractEventLoop, deadlines: Deadlines, ip: str, port: int,
                      timeout: float, source: str = "") -> Stream:
    """A Stream to *ip*:*port*, from our address *source* if there is one; OSError when it cannot be
    reached, Expired after *timeout* s."""
    sock = tcp_socket(ip, source)
    sock.setblocking(False)
    stream = None
    try:
        try:
            sock.connect((ip, port))
        except BlockingIOError:
            pass
        stream = Stream(loop, sock, deadlines)
        stream.expire_after(timeout)
        stream._drained = waiter = Waiter()
        loop.add_writer(sock.fileno(), waiter.set)
        try:
            await waiter
        finally:
            stream._drained = None
            loop.remove_writer(sock.fileno())
        failed = sock.getsockopt(SOL_SOCKET, SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed), f"{ip}:{port}")
    except BaseException:
        stream.close() if stream is not None else sock.close()
        raise
    return stream
