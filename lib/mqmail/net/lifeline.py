"""prctl(2): the name of a process, and children that the kernel kills when their parent ends
(PR_SET_PDEATHSIG): what is left of a killed daemon must not hold its locks. ctypes is imported when it
is needed: 3 ms, for daemons only.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_SET, _GET, _NAME = 1, 2, 15        # <linux/prctl.h>
_libc: list[Any] = []               # once it is needed; children that are forked share it


def _prctl(option: int, argument: object) -> None:
    import ctypes
    if not _libc:
        _libc.append(ctypes.CDLL(None))
    _libc[0].prctl(option, argument, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Be killed when *parent*, which forked this process, ends; or now, if it has ended."""
    _prctl(_SET, int(signal.SIGKILL))
    if os.getppid() != parent:      # it ended before we asked
        os._exit(111)


def set_name(name: str) -> None:
    """What ps(1) calls this process: 15 octets. (/proc/self/comm is not ours once root is given up.)"""
    _prctl(_NAME, name.encode()[:15])


class kept:  # noqa: N801  reads as the statement it is
    """``with kept():`` a change of uid or gid, which would cut the lifeline, leaves it as it is."""

    def __enter__(self) -> None:
        import ctypes
        found = ctypes.c_int()
        _prctl(_GET, ctypes.byref(found))
        self._parent = os.getppid() if found.value else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._parent:
            die_with_parent(self._parent)
