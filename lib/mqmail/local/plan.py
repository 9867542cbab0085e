"""Which instructions speak for an address of a user's, and whether they are safe to follow.

Everything is checked here, before anything is done: a mistake in the last line of a .qmail file
defers the mail before the first line has been followed.
"""

from __future__ import annotations

import errno
import os

from mqmail.base.failure import Permanent, Temporary
from mqmail.base.files import read_fd_bounded
from mqmail.base.value import value
from mqmail.local.body import deferral
from mqmail.mail import address, dotqmail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.mail.dotqmail import Instruction

_WRITABLE_BY_OTHERS = 0o022
_STICKY = 0o1000
_OWNER_EXECUTES = 0o100
_ABSENT = (errno.ENOENT, errno.ENAMETOOLONG)


@value
class User:
    """Whose files. *home* is a directory, absolute or relative to the current one; *dash* and *ext*
    are what the address has after the user's name; *virtual*: a mailbox without a system account."""

    name: str
    home: str
    dash: str = ""
    ext: str = ""
    virtual: bool = False


@value
class Plan:
    """What to do. *default* is the environment's DEFAULT; *create*: this is the default delivery and
    its Maildir may be made."""

    instructions: tuple[Instruction, ...]
    default: str | None
    create: bool


def plan(user: User, recipient: str) -> Plan:
    """The instructions for *recipient*, an address of *user*. Raises Temporary for what is unsafe or
    not understood, Permanent when nothing speaks for this extension."""
    if 0 in (os.getuid(), os.geteuid()):
        raise Temporary("refusing to deliver as root", "4.3.5")
    home_is_ours = _check_home(user.home)
    name, default, data, mode = _find(user)
    try:
        instructions = dotqmail.parse(data, dotqmail.host_of(recipient))
    except dotqmail.BadInstructions as error:
        raise Temporary(f"{name} {error}", "4.3.5") from None
    _check(name, instructions, recipient, mode)
    return Plan(instructions, default, create=not data and (user.virtual or home_is_ours))


def _check_home(home: str) -> bool:
    """Refuse a home that others write to, or that its owner locked; returns whether it is ours."""
    try:
        found = os.stat(home)
    except OSError as error:
        raise deferral(error, "home directory") from error
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise Temporary("home directory is writable by others", "4.3.5")
    if found.st_mode & _STICKY:
        raise Temporary("home directory is sticky: its owner is editing the instructions", "4.2.1")
    return found.st_uid == os.getuid()


def _find(user: User) -> tuple[str, str | None, bytes, int]:
    """(name, DEFAULT, content, mode) of the file that speaks for this address."""
    try:
        names = dotqmail.candidates(user.dash, user.ext)
    except ValueError:
        names = []
    for name, default in names:
        found = _read(f"{user.home}/{name}", name)
        if found is not None:
            return name, default, *found
    if user.dash:
        raise Permanent("no mailbox here by that name", "5.1.1")
    return "", None, b"", 0


def _read(path: str, name: str) -> tuple[bytes, int] | None:
    """(content, mode), None when there is no such file. A symbolic link is followed: with the user's
    own uid it leads nowhere that the user could not go, and what it leads to is checked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise deferral(error, name) from error
    try:
        found = os.fstat(fd)
        if found.st_uid not in (0, os.getuid()):
            raise Temporary(f"{name} belongs to somebody else", "4.3.5")
        if found.st_mode & _WRITABLE_BY_OTHERS:
            raise Temporary(f"{name} is writable by others", "4.3.5")
        return read_fd_bounded(fd, name, dotqmail.LARGEST_FILE), found.st_mode
    finally:
        os.close(fd)


def _check(name: str, instructions: tuple[Instruction, ...], recipient: str, mode: int) -> None:
    for instruction in instructions:
        if instruction.kind != "forward":
            if mode & _OWNER_EXECUTES:
                raise Temporary(f"{name} is executable and may only forward", "4.7.0")
        elif address.lower_ascii(instruction.text) == address.lower_ascii(recipient):
            raise Temporary(f"{name} forwards {recipient} to itself", "4.3.5")


def owner_files(user: User) -> tuple[bool, bool]:
    """Whether the address has an owner, and whether that one wants a sender per recipient."""
    name = dotqmail.owner_file(user.dash, user.ext)
    return _exists(user, name), _exists(user, name + "-default")


def _exists(user: User, name: str) -> bool:
    try:
        os.stat(f"{user.home}/{name}")
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise deferral(error, name) from error
    return True
