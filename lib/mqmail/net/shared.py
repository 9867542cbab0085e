"""Memory that a process shares with those it forks, and a lock on it that a death gives back."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_UN, lockf
from mmap import mmap


class Shared:
    """*octets* of zeros, made before fork(); ``with shared:`` keeps all other processes out. The lock is
    the process's (POSIX): the kernel takes it back from one that is killed."""

    def __init__(self, octets: int) -> None:
        self._fd = os.memfd_create("mqmail-shared", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, octets)
        self._memory = mmap(self._fd, octets)

    def cells(self, first: int, octets: int) -> memoryview[int]:
        """Numbers of 32 bits; *first*: the octet they begin at."""
        return memoryview(self._memory)[first:first + octets].cast("I")

    def __enter__(self) -> Shared:
        lockf(self._fd, LOCK_EX)
        return self

    def __exit__(self, *_error: object) -> None:
        lockf(self._fd, LOCK_UN)
