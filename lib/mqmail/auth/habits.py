"""run/auth/accounts: what accounts do, so that after a restart everybody's usual is no surge, and nobody
who guesses keeps out those who come from where they always do. Its loss is harmless.

A line is ``LOGIN USUAL [NETWORK ...]``: the login in xtext, the recipients of its busiest hour, and
where it has logged in from, the last one last.
"""

from __future__ import annotations

import time

from mqmail.base import files, log, xtext
from mqmail.base.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from mqmail.auth.guard import Guard
    from mqmail.auth.ledger import Ledger

DIRECTORY = "run/auth"
PATH = f"{DIRECTORY}/accounts"
EVERY = 900.0           # seconds
_LARGEST = 64 << 20
_OF_NETWORKS = frozenset("0123456789abcdef.:/")


class Habits:
    """Reads *ledger*'s and *guard*'s from PATH, and writes them now and then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger, guard: Guard) -> None:
        self._loop = loop
        self._ledger = ledger
        self._guard = guard
        self._written = b""
        self._read()
        loop.call_later(EVERY, self._again)

    def _read(self) -> None:
        """Bad lines are passed over."""
        try:
            self._written = files.read_bounded(PATH, _LARGEST)
        except FileNotFoundError:
            return
        except (Failure, OSError) as error:
            log.event("accounts_not_read", error=str(error))
            return
        now = time.time()
        for line in self._written.decode("utf-8", "replace").split("\n"):
            coded, number, *networks = [*line.split(" "), ""]
            if number.isascii() and number.isdigit() and len(number) < 10:
                try:
                    self._take(xtext.decode(coded), int(number), networks, now)
                except ValueError:
                    continue

    def _take(self, login: str, usual: int, networks: list[str], now: float) -> None:
        if usual:
            self._ledger.remember(login, usual, now)
        for network in networks:
            if network and _OF_NETWORKS.issuperset(network) and len(network) < 50:
                self._guard.success(network, login)

    def _again(self) -> None:
        self._loop.call_later(EVERY, self._again)
        self.save()

    def save(self) -> None:
        """Write what has changed."""
        usual, known = dict(self._ledger.usual(time.time())), self._guard.known()
        lines = [" ".join([xtext.encode(login), str(usual.get(login, 0)), *known.get(login, ())])
                 for login in {**usual, **known}]
        data = "".join([f"{line}\n" for line in lines]).encode("utf-8")
        if data == self._written:
            return
        try:
            files.make_directory(DIRECTORY, 0o700)      # an older home has none
            files.replace_file(PATH, data, 0o600)
            self._written = data
        except OSError as error:
            log.event("accounts_not_written", error=error.strerror)
