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

_SET, _GET, _NAME = 1, 2, 15        # <linux/prctl.h>


def die_with_parent(parent: int) -> None:
    """Be killed when *parent*, which forked this process, ends; or now, if it has ended."""
    import ctypes
    ctypes.CDLL(None).prctl(_SET, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:      # it ended before we asked
        os._exit(111)


def set_name(name: str) -> None:
    """What ps(1) calls this process: 15 octets. (/proc/self/comm is not ours once root is given up.)"""
    import ctypes
    ctypes.CDLL(None).prctl(_NAME, name.encode()[:15], 0, 0, 0)


class kept:  # noqa: N801  reads as the statement it is
    """``with kept():`` a change of uid or gid, which would cut the lifeline, leaves it as it is."""

    def __enter__(self) -> None:
        import ctypes
        found = ctypes.c_int()
        ctypes.CDLL(None).prctl(_GET, ctypes.byref(found), 0, 0, 0)
        self._parent = os.getppid() if found.value else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._parent:
            die_with_parent(self._parent)
