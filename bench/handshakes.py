"""New TLS sessions per second of CPU: xmtpd's, and those of servers that know nothing but Python's ssl
and say the same words, with the same certificate and settings; with and without resumption."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import procs
from clients import AT_ONCE, NAME, Secure, ask, client_context, connect, start_tls
from forks import Beside, parallel
from load import SETTLE
from system import free_port

from mqmail.net.lifeline import die_with_parent

Shake = Callable[[int, ssl.SSLContext, "ssl.SSLSession | None"], ssl.SSLSocket]
FEWEST = 400            # sessions of a run: CPU is counted in steps of 10 ms
PROCESSES = 2           # of a bare server, as xmtpd has
BARE, OURS = "ssl alone", "xmtpd"


def measure(directory: str, seconds: float, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each kind of session in turn, first as many as tell how many there can be in *seconds*."""
    found = []
    with Secure(directory, 100) as system:
        system.start()
        for how, shake, port in (("TLS at once", shake_first, system.tls_port),
                                 ("STARTTLS", shake_later, system.port)):
            bare_port = free_port()
            with Beside(serve, bare_port, system.certificate, system.key, shake is shake_later) as bare:
                bare.wait()
                for resume in (False, True):
                    for name, pid, place in ((BARE, bare.pid, bare_port), (OURS, system.pid, port)):
                        progress(f"{name}, {how}{', resumed' * resume}")
                        figures = _run(pid, shake, place, resume, seconds)
                        found.append({"server": name, "how": how, "resume": resume, **figures})
    _compare(found)
    return found


def _compare(found: list[dict[str, Any]]) -> None:
    """*ratio*: to the bare server under the same sessions, which comes before."""
    bare = 0.0
    for one in found:
        bare = one["per_cpu_s"] if one["server"] == BARE else bare
        one["ratio"] = one["per_cpu_s"] / bare


def _run(pid: int, shake: Shake, port: int, resume: bool, seconds: float) -> dict[str, Any]:
    began = time.monotonic()
    _sessions(shake, port, resume, FEWEST // 4)
    count = max(FEWEST, int(FEWEST / 4 * seconds / (time.monotonic() - began)))
    before = procs.look(pid)
    began = time.monotonic()
    made, reused = _sessions(shake, port, resume, count)
    taken = time.monotonic() - began
    time.sleep(SETTLE)
    cpu = sum(times.total for times in procs.spent(before, procs.look(pid)).values())
    return {"sessions": made, "reused": reused, "per_s": made / taken, "cpu_ms": cpu / made * 1000,
            "per_cpu_s": made / max(cpu, 1 / procs.TICKS)}


def _sessions(shake: Shake, port: int, resume: bool, count: int) -> tuple[int, int]:
    """(sessions, those of them that were resumed), by AT_ONCE processes that each have one at a time."""
    def some(number: int) -> list[int]:
        return list(_one_by_one(shake, port, resume, number))

    found = parallel(some, [count // AT_ONCE] * AT_ONCE)
    return sum(made for made, _ in found), sum(reused for _, reused in found)


def _one_by_one(shake: Shake, port: int, resume: bool, count: int) -> tuple[int, int]:
    context = client_context()
    session, reused = None, 0
    for _ in range(count):
        with shake(port, context, session) as tls:
            reused += bool(tls.session_reused)
            session = tls.session if resume else None
    return count, reused


def shake_first(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    """A session with TLS from the first octet, which ends at once."""
    tls = context.wrap_socket(connect(port), session=session)
    ask(tls, b"", b"220")
    ask(tls, b"QUIT", b"221")
    return tls


def shake_later(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    """A session that says EHLO, STARTTLS, EHLO and QUIT."""
    tls = start_tls(port, context, session)
    ask(tls, b"EHLO " + NAME, b"250")
    ask(tls, b"QUIT", b"221")
    return tls


def serve(ready: Callable[[], None], port: int, certificate: str, key: str, later: bool) -> None:
    """A bare server: a handshake at once, or *later*, with replies that are always the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", port), backlog=100) as listener:
        parent = os.getpid()
        for _ in range(1, PROCESSES):
            if os.getpid() == parent and os.fork() == 0:
                die_with_parent(parent)
        if os.getpid() == parent:
            ready()
        while True:
            _serve(listener.accept()[0], context, later)


def _serve(sock: socket.socket, context: ssl.SSLContext, later: bool) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if later:
        _say(sock, b"220 ", b"250 ", b"220 ")
    with context.wrap_socket(sock, server_side=True) as tls:
        if later:
            tls.recv(4096)
        _say(tls, b"250 " if later else b"220 ", b"221 ")


def _say(sock: socket.socket, *replies: bytes) -> None:
    """One after the other, each but the first when something has come."""
    for number, text in enumerate(replies):
        if number:
            sock.recv(4096)
        sock.send(text + b"bare\r\n")
