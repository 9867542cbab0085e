"""Whose a home is, and becoming that account."""

from __future__ import annotations

import os
import pwd

from mqmail.base.failure import Permanent, Usage
from mqmail.base.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@value
class Account:
    """An account of this host."""

    name: str
    uid: int
    gid: int


def account_named(name: str) -> Account:
    """The account that --owner names. Raises Usage."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Usage(f"--owner: this host has no account {name!a}: make it first, or name"
                    " another") from None
    return Account(name, entry.pw_uid, entry.pw_gid)


def check_owner(account: Account) -> None:
    """Raises Usage when we cannot make a home for *account*."""
    if account.uid == 0:
        raise Usage("--owner: not root: mqmail runs as an account without privileges, such as mail")
    if os.geteuid() not in (0, account.uid):
        raise Usage(f"--owner: only root can make a home for {account.name}: leave out --owner, and"
                    " the home is yours")


def enter(home: str, owner: str, system: bool) -> Iterator[str]:
    """Make the home, go there, and be its owner from here on: *owner*, or with *system* root, whom an
    existing home belongs to, or whoever is the default. Raises Permanent and Usage."""
    if os.path.islink(home.rstrip("/")):
        raise Permanent(f"{home} is a symbolic link: name the directory itself")
    is_new = not os.path.isdir(home)
    if is_new:
        os.makedirs(home, 0o755)
    os.chdir(home)   # its owner may be unable to search the directories above
    found = os.stat(".")
    if os.geteuid() == 0:
        account = _root_chooses(home, owner, system, found)
        name = _become(account) if account.uid else account.name
    else:
        name = name_of(os.geteuid())
        if found.st_uid != os.geteuid():
            raise Permanent(f"{home} belongs to {name_of(found.st_uid)}: run mq-setup as that"
                            " user, or as root")
    if is_new:
        yield f"made {home}/ (owner {name})"


def _root_chooses(home: str, owner: str, system: bool, found: os.stat_result) -> Account:
    """The account that owns, or gets, the home."""
    if found.st_uid != 0:
        account = Account(name_of(found.st_uid), found.st_uid, found.st_gid)
        if owner and account_named(owner).uid != account.uid:
            raise Permanent(f"--owner: {home} belongs to {account.name} already")
        if system:
            raise Permanent(f"--system: {home} belongs to {account.name}: stop mqmail, give the"
                            " directory to root, and then run mq-setup --repair")
        return account
    found_in_it = os.listdir(".")
    if "control" in found_in_it or system and not found_in_it:
        if owner:
            raise Permanent(f"--owner: {home} belongs to root: it is the whole system's")
        return Account("root", 0, 0)
    if found_in_it:
        raise Permanent(f"{home} belongs to root and is not empty: name a new directory, or"
                        " give this one and what is in it to the account that mqmail shall run as")
    account = account_named(owner) if owner else _default_owner()
    os.chown(".", account.uid, account.gid)
    return account


def _default_owner() -> Account:
    try:
        return account_named("mail")
    except Usage:
        return account_named("nobody")


def _become(account: Account) -> str:
    """Root must not follow what others may have put into the home; what is made belongs to the owner."""
    os.setgroups([])
    os.setgid(account.gid)
    os.setuid(account.uid)
    return account.name


def name_of(uid: int) -> str:
    """An account, for people."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
