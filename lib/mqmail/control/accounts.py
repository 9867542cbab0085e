"""The accounts of this host that get mail, as qmail-getpw chooses them: not uid 0, and with a home that
exists and belongs to the account. Answers are kept for a few seconds."""

from __future__ import annotations

import errno
import os
import pwd
import time

from mqmail.base.failure import Temporary

KEPT = 10.0             # seconds
MOST_KEPT = 10000       # names
DATABASE = "/etc/passwd"
LONGEST_NAME = 32       # what useradd(8) and qmail-getpw take
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_HIDDEN = (errno.EACCES, errno.EPERM)


class Accounts:
    """``home_of(name)``, remembered."""

    def __init__(self) -> None:
        self._homes: dict[str, tuple[str | None, float]] = {}

    def home_of(self, name: str) -> str | None:
        """The home of account *name* (lower case), None when there is none or it gets no mail. Raises
        Temporary when the password database or the home's disk has trouble."""
        now = time.monotonic()
        found = self._homes.get(name)
        if found is not None and found[1] > now:
            return found[0]
        home = look_up(name)
        if len(self._homes) >= MOST_KEPT:
            self._homes.clear()
        self._homes[name] = home, now + KEPT
        return home


def look_up(name: str) -> str | None:
    """As Accounts.home_of, not remembered."""
    if not name or len(name) > LONGEST_NAME or not name.isascii():
        return None
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        _check_database()
        return None
    is_user = account.pw_uid != 0 and _is_home(account.pw_dir, account.pw_uid)
    return account.pw_dir if is_user else None


def _check_database() -> None:
    """getpwnam says the same for "no such account" and for "cannot look", out of descriptors, say."""
    try:
        os.close(os.open(DATABASE, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise Temporary(f"{DATABASE}: {error.strerror}", "4.3.0") from None


def _is_home(path: str, uid: int) -> bool:
    """Whether *path* is a directory of *uid*'s; also when we may not look: the delivery will."""
    try:
        return os.stat(path).st_uid == uid
    except OSError as error:
        if error.errno in _HIDDEN:
            return True
        if error.errno in _ABSENT:
            return False
        raise Temporary(f"a home directory cannot be looked at: {error.strerror}", "4.3.0") from None
