"""TCP sockets, and connecting without an event loop. (With one: net/stream.py.)"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_STREAM, TCP_NODELAY, socket

from mqmail.net.blocking import BlockingStream, over_socket
from mqmail.net.expired import Expired


def tcp_socket(ip: str, source: str = "") -> socket:
    """A socket of the family of *ip*, bound to our address *source* if there is one. OSError when
    that is not ours."""
    sock = socket(AF_INET6 if ":" in ip else AF_INET, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        if source:
            sock.bind((source, 0))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror or str(error), source) from None
    return sock


def connect_blocking(ip: str, port: int, timeout: float, source: str = "") -> BlockingStream:
    """A BlockingStream to *ip*:*port*; OSError when it cannot be reached, Expired after *timeout* s."""
    sock = tcp_socket(ip, source)
    try:
        sock.settimeout(timeout)
        sock.connect((ip, port))
        sock.settimeout(None)
    except OSError as error:
        sock.close()
        if error.errno is None:     # settimeout()'s, not the kernel's ETIMEDOUT
            raise Expired from None
        raise OSError(error.errno, error.strerror, f"{ip}:{port}") from None
    return over_socket(sock)
