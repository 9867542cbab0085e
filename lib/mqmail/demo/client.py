"""A mail client of one page: the SMTP that anybody can type."""

from __future__ import annotations

import socket

from mqmail.base.failure import Temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

PORT = 2525
SECONDS = 30


def free_port(first: int = PORT) -> int:
    """*first*, or the next one that nobody listens on."""
    for port in range(first, first + 1000):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Temporary(f"no port from {first} to {first + 999} is free")


def send(port: int, sender: str, recipient: str, text: str, show: Callable[[str], None]) -> None:
    """Send one message (CRLF, no line that starts with a dot); each line of the dialogue is shown."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock, sock.makefile("rb") as file:
        _reply(file, show)
        for command in ("EHLO client.example.net", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>",
                        "DATA", text + ".", "QUIT"):
            show("\n".join([f"C: {line}" for line in command.split("\r\n")]))
            sock.sendall(f"{command}\r\n".encode())
            _reply(file, show)


def _reply(file: BinaryIO, show: Callable[[str], None]) -> None:
    """Show one reply; Temporary when it refuses."""
    while True:
        line = file.readline(1000).decode("utf-8", "replace").rstrip("\r\n")
        show(f"S: {line}")
        if line[3:4] != "-":
            break
    if line[:1] not in ("2", "3"):
        raise Temporary(f"refused: {line}")
