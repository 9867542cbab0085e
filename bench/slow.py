"""Mail while many clients say one octet a second: how many messages are accepted, with and without them,
in turns."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from statistics import median
from typing import Any

import load
from clients import NAME, Secure, ask, client_context, connect
from forks import Beside

SLOW = 500
SESSIONS = 10           # of the load
PAIRS = 4               # of turns without them and with them
STEPS = 20              # of a second, in which the clients take turns


def measure(directory: str, generator: load.Generator, seconds: float,
            progress: Callable[[str], None]) -> dict[str, Any]:
    """Rates of both kinds of turns."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    with Secure(directory, 2 * SLOW) as system:
        system.start()
        few = load.enough(generator, system, SESSIONS, False, seconds)
        messages = max(few, int(seconds * _turn(generator, system, few, crawling=False)))
        for turn in range(2 * PAIRS):
            crawling = turn % 4 in (1, 2)       # what drifts weighs nothing
            progress(f"{SLOW} slow clients: turn {turn + 1} of {2 * PAIRS}")
            rates[crawling].append(_turn(generator, system, messages, crawling))
    change = median([slowed / free - 1 for slowed, free in zip(rates[True], rates[False], strict=True)])
    return {"slow": SLOW, "sessions": SESSIONS, "messages": messages, "without_per_s": rates[False],
            "with_per_s": rates[True], "change": change,
            "noise": (max(rates[False]) - min(rates[False])) / median(rates[False])}


def _turn(generator: load.Generator, system: Secure, messages: int, crawling: bool) -> float:
    """Messages accepted in a second."""
    with ExitStack() as stack:
        if crawling:
            stack.enter_context(Beside(crawl, system.port, system.recipient)).wait()
        return messages / load.send_all(generator, system, SESSIONS, False, messages)[0]


def crawl(ready: Callable[[], None], port: int, recipient: str) -> None:
    """SLOW clients, for ever; whom the server sends away comes back."""
    kinds = cycle((in_command, in_body, in_handshake))
    clients = [Slow(next(kinds), port, recipient) for _ in range(SLOW)]
    ready()
    due = time.monotonic()
    for step in cycle(range(STEPS)):
        time.sleep(max(0.0, due - time.monotonic()))
        due += 1 / STEPS
        for client in clients[step::STEPS]:
            client.say()


class Slow:
    """One. *begin* opens its session and gives what it says then, octet by octet."""

    def __init__(self, begin: Callable[[socket.socket, str], bytes], port: int, recipient: str) -> None:
        self._begin = begin
        self._port = port
        self._recipient = recipient
        self._open()

    def _open(self) -> None:
        self._sock = connect(self._port)
        ask(self._sock, b"", b"220")
        self._text: Iterator[int] = cycle(self._begin(self._sock, self._recipient))

    def say(self) -> None:
        """The next octet; a session that is over begins anew."""
        try:
            self._sock.send(bytes([next(self._text)]))
        except OSError:
            self.close()
            self._open()

    def close(self) -> None:
        """Say no more."""
        self._sock.close()


def in_command(_sock: socket.socket, _recipient: str) -> bytes:
    """A word that does not end."""
    return b"x"


def in_body(sock: socket.socket, recipient: str) -> bytes:
    """Lines of a message."""
    for command, code in ((b"HELO " + NAME, b"250"), (b"MAIL FROM:<sender@" + NAME + b">", b"250"),
                          (b"RCPT TO:<" + recipient.encode() + b">", b"250"), (b"DATA", b"354")):
        ask(sock, command, code)
    return b"x" * 40 + b"\r\n"


def in_handshake(sock: socket.socket, _recipient: str) -> bytes:
    """A ClientHello, of which the server does not want to wait for the end."""
    ask(sock, b"EHLO " + NAME, b"250")
    ask(sock, b"STARTTLS", b"220")
    hello = ssl.MemoryBIO()
    try:
        client_context().wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return hello.read()
