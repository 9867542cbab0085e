"""run/auth/accounts: the busiest hour of each account, so that a restart does not make everybody's
usual a surge. Its loss is harmless."""

from __future__ import annotations

import time

from mqmail.base import files, log, xtext
from mqmail.base.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from mqmail.auth.ledger import Ledger

DIRECTORY = "run/auth"
PATH = f"{DIRECTORY}/accounts"
EVERY = 900.0           # seconds
_LARGEST = 64 << 20


class Habits:
    """Reads *ledger*'s from PATH, and writes them now and then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger) -> None:
        self._loop = loop
        self._ledger = ledger
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
            coded, _, number = line.partition(" ")
            if number.isascii() and number.isdigit() and len(number) < 10:
                try:
                    self._ledger.remember(xtext.decode(coded), int(number), now)
                except ValueError:
                    continue

    def _again(self) -> None:
        self._loop.call_later(EVERY, self._again)
        self.save()

    def save(self) -> None:
        """Write what has changed."""
        lines = [f"{xtext.encode(login)} {usual}\n" for login, usual in self._ledger.usual(time.time())]
        data = "".join(lines).encode("utf-8")
        if data == self._written:
            return
        try:
            files.make_directory(DIRECTORY, 0o700)      # an older home has none
            files.replace_file(PATH, data, 0o600)
            self._written = data
        except OSError as error:
            log.event("accounts_not_written", error=error.strerror)
