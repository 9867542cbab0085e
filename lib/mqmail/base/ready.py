"""Readiness: s6's newline on a descriptor (notifywhenup) and systemd's READY=1 datagram."""

from __future__ import annotations

import os


def announce(descriptor: int | None) -> None:
    """Say once that this program serves. *descriptor* is that of ``--ready-fd``, or None."""
    if descriptor is not None:
        try:
            os.write(descriptor, b"\n")
            os.close(descriptor)
        except OSError:
            pass
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        _tell_systemd(address)


def _tell_systemd(address: str) -> None:
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, socket
    name = "\0" + address[1:] if address[0] == "@" else address
    sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        sock.sendto(b"READY=1", name)
    except OSError:
        pass
    finally:
        sock.close()
