"""Unix sockets: listening, connecting, the kernel's word on who calls, and passing descriptors.

``_socket`` instead of ``socket`` saves 9 to 12 ms of start-up (``enum``, ``selectors``) in the
programs that are started per use; it is the same class underneath.
"""

from __future__ import annotations

import os
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    SCM_RIGHTS,
    SO_PEERCRED,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from mqmail.base.value import value

MOST_FDS = 16
_ANCILLARY = CMSG_SPACE(MOST_FDS * 4)


@value
class Peer:
    """Who is at the other end of a Unix socket, by the kernel's word (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: socket) -> Peer:
    """The credentials of the process that connected (or made the socketpair)."""
    raw = sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
    return Peer(*(int.from_bytes(raw[i:i + 4], "little", signed=True) for i in (0, 4, 8)))


def listen(path: str, backlog: int = 1024, mode: int = 0o666, kind: int = SOCK_STREAM,
           owner: tuple[int, int] | None = None) -> socket:
    """A listening (or, with SOCK_DGRAM, bound) socket at *path*, replacing what a dead one left.
    *owner*: uid and gid that root gives it to.

    Made under a temporary name and renamed, so that callers find either the old or the new one and
    never one with the wrong mode. The caller holds the lock that says there is no second server.
    """
    sock = socket(AF_UNIX, kind | SOCK_CLOEXEC)
    temporary = f"{path}.{os.getpid()}"
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    before = os.umask(0o777 & ~mode)        # chmod would follow a link that others put in its place
    try:
        sock.bind(temporary)
    finally:
        os.umask(before)
    if owner is not None:
        os.chown(temporary, *owner, follow_symlinks=False)
    if kind == SOCK_STREAM:
        sock.listen(backlog)
    os.rename(temporary, path)
    return sock


def connect(path: str, kind: int = SOCK_STREAM, timeout: float | None = None) -> socket:
    """A connected blocking socket. OSError, with the path in it, when nobody answers."""
    sock = socket(AF_UNIX, kind | SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror or str(error), path) from None
    return sock


def send(sock: socket, data: bytes, fds: tuple[int, ...] = ()) -> int:
    """sendmsg(2), the descriptors riding on the first byte. Returns how many bytes went."""
    if not fds:
        return sock.send(data)
    packed = b"".join([fd.to_bytes(4, "little") for fd in fds])
    return sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, packed)])


def receive(sock: socket, size: int) -> tuple[bytes, list[int]]:
    """recvmsg(2): (bytes, descriptors). Descriptors come close-on-exec; the caller owns them.

    Raises OSError when the peer sent more than MOST_FDS descriptors at once (all are closed).
    """
    data, ancillary, flags, _ = sock.recvmsg(size, _ANCILLARY, MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, packed in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            fds.extend(int.from_bytes(packed[i:i + 4], "little")
                       for i in range(0, len(packed) // 4 * 4, 4))
    if flags & MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise OSError(90, "too many descriptors in one message")
    return data, fds


__all__ = ["AF_UNIX", "SOCK_DGRAM", "SOCK_STREAM", "Peer", "connect", "listen",
           "peer_of", "receive", "send", "socket"]
