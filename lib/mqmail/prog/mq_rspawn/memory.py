"""run/remote/hosts: which hosts are down, over a restart. Its loss costs attempts, nothing else."""

from __future__ import annotations

import os
import time

from mqmail.base import log
from mqmail.base.files import make_directory, write_all
from mqmail.mail.hostmemory import MOST_OCTETS, HostMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

DIRECTORY = "run/remote"
PATH = f"{DIRECTORY}/hosts"
EVERY = 30.0            # seconds between two writings


class Memory:
    """``hosts``, read at the start and written now and then."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.hosts = HostMemory()
        self._loop = loop
        self._written = b""
        self._load()
        self._loop.call_later(EVERY, self._tick)

    def _load(self) -> None:
        try:
            with open(PATH, "rb") as file:
                data = file.read(MOST_OCTETS)
        except FileNotFoundError:
            return
        except OSError as error:
            return log.event("hosts_not_read", error=error.strerror)
        bad = self.hosts.load(data, time.time())
        log.event("hosts_read", hosts=len(self.hosts), bad=bad)

    def _tick(self) -> None:
        self.save()
        self._loop.call_later(EVERY, self._tick)

    def save(self) -> None:
        """Write what is known, if it is not what was written last."""
        data = self.hosts.dump()
        if data == self._written:
            return
        try:
            make_directory(DIRECTORY, 0o700)        # an older home has none
            fd = os.open(f"{PATH}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
            os.rename(f"{PATH}.new", PATH)
        except OSError as error:
            return log.event("hosts_not_written", error=error.strerror)
        self._written = data
