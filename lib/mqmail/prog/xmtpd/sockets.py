"""The sockets that xmtpd listens on: made by the parent, shared by its workers, changed by a reload.

New ones reach the workers that run as descriptors over a socket pair each, before HUP does; a worker
that is started later is forked with them.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_SEQPACKET, SOL_SOCKET, socket, socketpair

from mqmail.base import log, unix
from mqmail.base.failure import Temporary
from mqmail.control.listeners import Listener
from mqmail.net.listening import BACKLOG, listen, listens, silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SO_DOMAIN = 39


class Sockets:
    """Listeners and their sockets. *processes* workers share them."""

    def __init__(self, processes: int) -> None:
        self.open: dict[str, tuple[Listener, socket]] = {}      # by place
        kind = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK
        self._pairs = [socketpair(AF_UNIX, kind) for _ in range(processes)]

    # --- the parent ---

    def take(self, fds: Sequence[int], lines: Sequence[Listener], other: Listener) -> list[Listener]:
        """Sockets we were given: each is one of *lines*, or like *other*."""
        known = {line.place: line for line in lines}
        taken = []
        for fd in fds:
            sock = socket(fileno=fd)
            place = place_of(sock)
            if not listens(sock):
                sock.listen(BACKLOG)
            taken.append(self._add(known.get(place.place) or _like(other, place), sock))
        return taken

    def make(self, lines: Sequence[Listener]) -> list[Listener]:
        """Listen where we do not yet; a line with port 0 comes back with the one it has got. Raises
        Temporary, with nothing changed."""
        made: list[tuple[Listener, socket]] = []
        try:
            for line in lines:
                if line.place not in self.open:
                    made.append((line, listen(line.address, line.port, line.path)))
        except Temporary:
            for _, sock in made:
                sock.close()
            raise
        return [self._add(line if line.port or line.path else _like(line, place_of(sock)), sock)
                for line, sock in made]

    def _add(self, line: Listener, sock: socket) -> Listener:
        sock.setblocking(False)
        self.open[line.place] = line, sock
        log.event("listening", address=line.place, role=line.role)
        return line

    def change(self, lines: Sequence[Listener]) -> None:
        """After a reload: new ones are opened and given to the workers, what is gone is closed. What
        cannot be opened (its port is root's, who we are no longer) is passed over, and said."""
        for line in lines:
            if line.place not in self.open:
                self._try(line)
            else:
                self.open[line.place] = line, self.open[line.place][1]
        wanted = {line.place for line in lines}
        for place in [place for place in self.open if place not in wanted]:
            silence(self.open.pop(place)[1])
            log.event("listening_ended", address=place)

    def _try(self, line: Listener) -> None:
        try:
            self.make([line])
        except Temporary as error:
            log.event("listen_failed", address=line.place, error=str(error))
            return
        sock = self.open[line.place][1]
        for ours, _ in self._pairs:
            try:
                unix.send(ours, line.place.encode(), (sock.fileno(),))
            except OSError as error:
                log.event("listen_failed", address=line.place, error=str(error.strerror))

    # --- a worker ---

    def receive(self, number: int) -> None:
        """In the worker *number*: take what the parent has opened meanwhile."""
        _, theirs = self._pairs[number]
        while True:
            try:
                data, fds = unix.receive(theirs, 4096)
            except OSError:
                return
            if not fds:
                return
            place = data.decode("utf-8", "replace")
            for fd in fds:
                if place in self.open and listens(self.open[place][1]):
                    os.close(fd)
                else:
                    sock = socket(fileno=fd)
                    self.open[place] = Listener(), sock


def place_of(sock: socket) -> Listener:
    """Where *sock* listens. A Unix socket of ours was bound under another name (base/unix.listen)."""
    if sock.getsockopt(SOL_SOCKET, _SO_DOMAIN) == AF_UNIX:
        path, dot, pid = os.fsdecode(sock.getsockname()).rpartition(".")
        return Listener(path=path if pid.isdigit() else path + dot + pid)
    address, port = sock.getsockname()[:2]
    return Listener(address, port)


def _like(other: Listener, place: Listener) -> Listener:
    return other.at(place.address, place.port, place.path)
