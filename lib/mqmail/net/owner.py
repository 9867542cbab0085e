"""The account that a home belongs to, and becoming it; or, in a system home, that of the program.

Root must not write into a home: its owner could have put a symbolic link where we make a file.
So root's programs do that ``with as_owner(...)``, and all but mq-lspawn give up root for good. A system
home belongs to root: there each program becomes its own account (control/rights.py).
"""

from __future__ import annotations

import importlib
import os
import pwd

from mqmail.base.failure import Temporary
from mqmail.base.value import value
from mqmail.control import reader
from mqmail.control.rights import ROLE_OF, ROOT
from mqmail.net import lifeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from mqmail.control.rights import Accounts

# What daemons import when they first need it: by then they may be unable to read it.
LATE_IMPORTS = ("binascii", "concurrent.futures.thread", "ctypes", "encodings.ascii", "encodings.idna",
                "encodings.latin_1", "encodings.punycode", "grp", "hashlib", "hmac",
                "mqmail.net.trigger", "stringprep", "subprocess", "uvloop")


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
    if os.geteuid() == 0 and owner.uid != 0:
        groups = os.getgrouplist(owner.name, owner.gid) if owner.name else []
        _become(owner.uid, owner.gid, groups)


def _become(uid: int, gid: int, groups: list[int]) -> None:
    with lifeline.kept():
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def system_accounts(name: str) -> Accounts | None:
    """For program *name* in the home it works in: whose accounts programs become if that is a system
    home, else None. Raises Temporary when *name* cannot run there: not started by root, no such account,
    or others than root could put something in the place of our sockets and locks."""
    if os.stat(".").st_uid != 0:
        return None
    accounts: Accounts = reader.load(".", ["accounts"]).accounts
    for program in ROLE_OF:
        accounts.of(program)
    account = accounts.of(name if name in ROLE_OF else ROOT)
    if os.geteuid() != 0:
        raise Temporary(f"this home belongs to root: start {name} as root" + (
            f", and it becomes {account.name or f'uid {account.uid}'}" if account.uid else ""))
    found = os.lstat("run")
    if found.st_uid != 0 or found.st_mode & 0o170022 != 0o040000:
        raise Temporary("run/ is not a directory that only root can write: mq-setup --repair mends it")
    return accounts


def become_program(name: str, accounts: Accounts) -> None:
    """From root to the account of program *name* of a system home, for good."""
    account = accounts.of(name)
    _become(account.uid, account.gid, accounts.groups(name))


def give_up_root(name: str) -> None:
    """For programs that need no root any more: whoever starts them as root gets them as the owner of the
    home, the current directory, or as the account of *name* in a system home. Others stay who they are;
    in a system home they must be that account. Raises Temporary."""
    if os.geteuid() == 0:
        import_late()
        accounts = system_accounts(name)
        if accounts is None:
            become_owner(owner_of("."))
        else:
            become_program(name, accounts)
    elif os.stat(".").st_uid == 0:
        account = reader.load(".", ["accounts"]).accounts.of(name)
        if account.uid != os.geteuid():
            system_accounts(name)       # says what is wrong


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
