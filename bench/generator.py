"""A load of SMTP sessions, for hosts without Postfix's smtp-source(1), which has the same options.

Usage: generator.py [-d] [-b ADDRESS] -s SESSIONS -m MESSAGES -l LENGTH -f FROM -t TO HOST:PORT

-d keeps a session for many messages; without it each message has a session of its own. -b (which
smtp-source does not have) is the address that they come from. A * in FROM is another number each time.
"""

from __future__ import annotations

import getopt
import selectors
import socket
import sys
from collections.abc import Iterator

SECONDS = 60            # the longest that a reply is waited for


class Plan:
    """What is to be sent, and how much of it is left."""

    def __init__(self, messages: int, length: int, sender: str, recipient: str, reuse: bool) -> None:
        self.left = messages
        self.reuse = reuse
        self._sender = sender
        self._rest = [(f"RCPT TO:<{recipient}>\r\n".encode(), b"250"), (b"DATA\r\n", b"354"),
                      (make_message(length, sender, recipient) + b".\r\n", b"250")]

    def dialogue(self) -> Iterator[tuple[bytes, bytes]]:
        """One session: what to send, and the reply code that must come."""
        yield b"", b"220"
        yield b"HELO client.example.net\r\n", b"250"
        yield from self._transaction()
        while self.reuse and self.left > 0:
            yield from self._transaction()
        yield b"QUIT\r\n", b"221"

    def _transaction(self) -> Iterator[tuple[bytes, bytes]]:
        self.left -= 1
        yield f"MAIL FROM:<{self._sender.replace('*', str(self.left))}>\r\n".encode(), b"250"
        yield from self._rest


def make_message(length: int, sender: str, recipient: str) -> bytes:
    """A message of *length* bytes, or a little more, with CRLF line ends."""
    head = (f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: a message for measuring\r\n"
            "Date: Sun, 22 Nov 2026 08:20:00 +0000\r\nMessage-ID: <m@client.example.net>\r\n"
            "\r\n").encode()
    line = b"X" * 78 + b"\r\n"
    return head + line * max(1, -(-(length - len(head)) // len(line)))


def complete(reply: bytes) -> bool:
    """Whether the last line of a reply is there (RFC 5321 section 4.2.1)."""
    if not reply.endswith(b"\r\n"):
        return False
    last = reply[:-2].rpartition(b"\n")[2]
    return last[3:4] != b"-"


class Session:
    """A connection and where it is in its dialogue."""

    def __init__(self, address: tuple[str, int], source: str, plan: Plan) -> None:
        self.socket = socket.create_connection(address, SECONDS, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._steps = plan.dialogue()
        self._expected = next(self._steps)[1]
        self._reply = b""

    def advance(self) -> bool:
        """Read; go on when the reply is complete. False when the session is over."""
        data = self.socket.recv(4096)
        if not data:
            raise ConnectionError(f"the server closed the connection; it had said {self._reply!r}")
        self._reply += data
        if not complete(self._reply):
            return True
        if not self._reply.startswith(self._expected):
            raise ConnectionError(f"expected {self._expected.decode()}, got {self._reply!r}")
        self._reply = b""
        command, self._expected = next(self._steps, (b"", b""))
        if command:
            self.socket.sendall(command)
        return bool(command)


def run(address: tuple[str, int], source: str, sessions: int, plan: Plan) -> None:
    """Send all, in at most so many sessions at once. OSError when anything is refused."""
    with selectors.DefaultSelector() as selector:
        def begin() -> None:
            if plan.left > 0:
                session = Session(address, source, plan)
                selector.register(session.socket, selectors.EVENT_READ, session)

        for _ in range(sessions):
            begin()
        while selector.get_map():
            ready = selector.select(SECONDS)
            if not ready:
                raise TimeoutError(f"no reply in {SECONDS} seconds")
            for key, _ in ready:
                if not key.data.advance():
                    selector.unregister(key.data.socket)
                    key.data.socket.close()
                    begin()


def main(arguments: list[str]) -> int:
    """0, or 1 when something was refused or the command line is wrong."""
    try:
        pairs, where = getopt.getopt(arguments, "db:s:m:l:f:t:")
        options = dict(pairs)
        host, _, port = where[0].rpartition(":")
        plan = Plan(int(options["-m"]), int(options["-l"]), options["-f"], options["-t"],
                    "-d" in options)
        sessions, address = int(options["-s"]), (host, int(port))
    except (getopt.error, KeyError, IndexError, ValueError):
        print(__doc__, file=sys.stderr)
        return 1
    try:
        run(address, options.get("-b", ""), sessions, plan)
    except OSError as error:
        print(f"generator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
