"""Sockets to listen on, made before root is given up."""

from __future__ import annotations

import errno
import os
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SHUT_RDWR,
    SO_ACCEPTCONN,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from mqmail.base import unix
from mqmail.base.failure import Temporary
from mqmail.net.owner import as_owner, owner_of

BACKLOG = 1024
_WHAT_TO_DO = {
    errno.EADDRINUSE: "stop what listens there (see ss -ltnp), or change control/listeners",
    errno.EADDRNOTAVAIL: "this host has no such address: change control/listeners",
    errno.EACCES: "ports below 1024 are opened by root, at the start: start it again as root, or change"
                  " control/listeners",
}


def listen(address: str, port: int, path: str = "") -> socket:
    """A listening socket at *address* (IPv4 or IPv6, as text), or at *path*. Raises Temporary, saying
    what to do."""
    if path:
        return _listen_unix(path)
    family = AF_INET6 if ":" in address else AF_INET
    try:
        sock = socket(family, SOCK_STREAM | SOCK_CLOEXEC)
        sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if family == AF_INET6:
            sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)       # IPv4 has lines of its own
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        shown = f"[{address}]:{port}" if family == AF_INET6 else f"{address}:{port}"
        number = error.errno or errno.EIO
        what = _WHAT_TO_DO.get(number, "see control/listeners")
        raise Temporary(f"{shown}: {os.strerror(number)}: {what}") from None
    return sock


def _listen_unix(path: str) -> socket:
    """Whoever may search its directory may connect. Made with the rights of the home's owner, whose
    control file names the place."""
    try:
        with as_owner(owner_of(".")):
            return unix.listen(path, BACKLOG)
    except OSError as error:
        raise Temporary(f"unix:{path}: {error.strerror}: see control/listeners") from None


def listens(sock: socket) -> bool:
    """Whether *sock* still does."""
    return sock.getsockopt(SOL_SOCKET, SO_ACCEPTCONN) != 0


def silence(sock: socket) -> None:
    """Listen no more, in no process that has this socket, and close it here."""
    try:
        sock.shutdown(SHUT_RDWR)
    except OSError:
        pass
    sock.close()
