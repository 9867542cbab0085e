"""Clients of xmtpd's for measurements: sessions that stay open, and what they need."""

from __future__ import annotations

import os
import resource
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from forks import Beside, Trouble
from relay import write_control
from system import ME, SECONDS, System, free_port

NAME = b"client.example.net"
AT_ONCE = 4             # processes of clients


class Secure(System):
    """A home with a certificate (P-256, as most have them now), for at least *most* sessions at a time:
    STARTTLS is offered at *port*, at *tls_port* TLS begins at once. Its clients come from 127.0.0.1 and
    are counted like any others."""

    def __init__(self, directory: str, most: int) -> None:
        super().__init__(directory)
        self.tls_port = free_port()
        self.certificate, self.key = make_certificate(f"{directory}/home")
        # each of two processes has its half of the sessions, and the kernel does not deal evenly
        write_control(self.home, tlscertificates=f"* {self.certificate} {self.key}",
                      listeners=f"127.0.0.1:{self.port}\n127.0.0.1:{self.tls_port} set=tls",
                      optionsets="tls tls=implicit", concurrencyincoming=str(2 * most),
                      throttles=f"* sessions={2 * most} rate=1000000/60s", timeoutsmtpd="1200")


def make_certificate(home: str) -> tuple[str, str]:
    """(certificate, key), files that the owner of *home* may read. Trouble without openssl."""
    os.mkdir(f"{home}/tls")
    paths = certificate, key = f"{home}/tls/cert.pem", f"{home}/tls/key.pem"
    try:
        done = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "30", "-subj", f"/CN={ME}", "-keyout", key, "-out", certificate],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Trouble("openssl is not installed") from None
    if done.returncode:
        raise Trouble(f"openssl: {done.stderr.strip()[-300:]}")
    owner = os.stat(home)
    for path in (f"{home}/tls", *paths):
        os.chown(path, owner.st_uid, owner.st_gid)
    return paths


def client_context() -> ssl.SSLContext:
    """Trusts everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(port: int) -> socket.socket:
    """A connection, greeted by nobody yet."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)      # else late ACKs cost 40 ms
    return sock


def ask(sock: socket.socket, command: bytes, code: bytes) -> None:
    """Say *command* (b"": nothing) and hear a reply, which has to have *code*; else OSError."""
    if command:
        sock.sendall(command + b"\r\n")
    heard = b""
    while heard[-1:] != b"\n" or heard[:-2].rpartition(b"\n")[2][3:4] == b"-":
        piece = sock.recv(4096)
        if not piece:
            break
        heard += piece
    if heard[:3] != code:
        raise OSError(71, f"expected {code.decode()} to {command.decode()!r}, got {heard[:200]!r}")


def start_tls(port: int, context: ssl.SSLContext,
              session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """A session that has said STARTTLS and shaken hands."""
    sock = connect(port)
    ask(sock, b"", b"220")
    ask(sock, b"EHLO " + NAME, b"250")
    ask(sock, b"STARTTLS", b"220")
    return context.wrap_socket(sock, session=session)


def hold(ready: Callable[[], None], port: int, count: int, secure: bool) -> None:
    """Open so many sessions, say EHLO, and then nothing."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = client_context()
    held = []
    for _ in range(count):
        sock = start_tls(port, context) if secure else connect(port)
        if not secure:
            ask(sock, b"", b"220")
        ask(sock, b"EHLO " + NAME, b"250")
        held.append(sock)
    ready()
    while held:
        signal.pause()


@contextmanager
def crowd(port: int, count: int, secure: bool) -> Iterator[None]:
    """So many idle sessions, held by a few other processes."""
    with ExitStack() as stack:
        helpers = [stack.enter_context(Beside(hold, port, count // AT_ONCE, secure))
                   for _ in range(AT_ONCE)]
        for one in helpers:
            one.wait()
        yield
