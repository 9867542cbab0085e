"""The account that a home belongs to, and becoming it.

Root must not write into a home: its owner could have put a symbolic link where we make a file.
So root's programs do that ``with as_owner(...)``, and all but mq-lspawn give up root for good.
"""

from __future__ import annotations

import importlib
import os
import pwd

from mqmail.base.value import value
from mqmail.control import reader
from mqmail.net import lifeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# What daemons import when they first need it: by then they may be unable to read it.
LATE_IMPORTS = ("concurrent.futures.thread", "ctypes", "encodings.idna", "grp", "subprocess", "uvloop")


@value
class Owner:
    """*name* is "" when the uid has no account."""

    uid: int
    gid: int
    name: str


def owner_of(path: str = ".") -> Owner:
    """Whom directory *path* belongs to; its group is the directory's."""
    found = os.stat(path)
    try:
        name = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        name = ""
    return Owner(found.st_uid, found.st_gid, name)


def become_owner(owner: Owner) -> None:
    """From root to *owner*, for good; does nothing when we are not root or *owner* is root."""
    if os.geteuid() != 0 or owner.uid == 0:
        return
    with lifeline.kept():
        if owner.name:
            os.initgroups(owner.name, owner.gid)
        else:
            os.setgroups([])
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)


def give_up_root() -> None:
    """For daemons that need no root: whoever starts them as root gets them as the owner of the home,
    the current directory. Does nothing where become_owner does nothing."""
    if os.geteuid() == 0:
        import_late()
        become_owner(owner_of("."))


def import_late() -> None:
    """Import all that daemons import late, and the parsers of control files."""
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    reader.preload()


class as_owner:  # noqa: N801  reads as the statement it is
    """``with as_owner(owner):`` files are made and opened with the owner's rights. Does nothing when
    we are not root. Supplementary groups are given up, and stay so."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._root = os.geteuid() == 0 and owner.uid != 0
        self._gid = os.getegid()

    def __enter__(self) -> None:
        if self._root:
            os.setgroups([])
            with lifeline.kept():
                os.setegid(self._owner.gid)
                os.seteuid(self._owner.uid)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._root:
            with lifeline.kept():
                os.seteuid(0)
                os.setegid(self._gid)
