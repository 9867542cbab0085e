"""Whose address is this: the rules that mq-resolve, which accepts mail, and mq-lspawn, which delivers
it, must agree on.

``name`` alone, ``name+detail`` (a delimiter of control/detaildelimiter, the detail says nothing), and
qmail's ``name-ext``, which is the user's own business: it exists if the user has a file for it.
"""

from __future__ import annotations

import errno
import os

from mqmail.mail import dotqmail
from mqmail.mail.address import domain_of, local_of, lower_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mqmail.control.users import Users

DASH = "-"
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_HIDDEN = (errno.EACCES, errno.EPERM)


def without_detail(local: str, delimiters: str) -> Iterator[str]:
    """What *local* (unquoted) may be without a detail, the longest first. With ``-`` as a delimiter the
    owner and the robot of a list, ``owner-name`` and ``name-request``, stay whole."""
    if DASH in delimiters and (local.startswith("owner-") or local.endswith("-request")):
        delimiters = delimiters.replace(DASH, "")
    for place in range(len(local) - 1, 0, -1):
        if local[place] in delimiters:
            yield local[:place]


def extensions(local: str) -> Iterator[tuple[str, str]]:
    """(name, ext) of each way to read *local* as ``name-ext``, the longest name first."""
    place = local.rfind(DASH, 1, -1)
    while place > 0:
        yield local[:place], local[place + 1:]
        place = local.rfind(DASH, 1, place)


def part_of(destination: str, address: str, delimiters: str) -> str:
    """Whose share of the deliveries at a time *address* counts for, as far as that can be told without
    a look: its name up to the first delimiter or ``-``. An account is the same in all domains. Those
    whose names begin alike (``jane-roe`` and ``jane-doe``) have one share together."""
    local = lower_ascii(local_of(address))
    ends = [place for sign in DASH + delimiters if (place := local.find(sign, 1)) > 0]
    name = local[:min(ends, default=len(local))]
    return name if destination == "local" else f"{name}@{domain_of(address)}"


def has_file(home: str, ext: str) -> bool:
    """Whether directory *home* holds a .qmail file for *ext*. True when we may not look: then the
    delivery, which has the user's rights, decides. Raises OSError when the disk has trouble."""
    try:
        names = dotqmail.candidates(DASH, ext)
    except ValueError:
        return False
    for name, _ in names:
        try:
            os.stat(f"{home}/{name}")
        except OSError as error:
            if error.errno in _HIDDEN:
                return True
            if error.errno not in _ABSENT:
                raise
        else:
            return True
    return False


def find_mailbox(address: str, users: Users, delimiters: str,
                 exists: Callable[[str, str], bool] = has_file) -> tuple[str, str] | None:
    """(directory below mail/, ext) of the virtual mailbox that *address* belongs to; None without one.

    In this order: the address as it is, without its detail, as an extension of the longest name that
    is a user (if *exists*(``mail/DIRECTORY``, ext)), the domain's catch-all. *ext* is "" for all but
    an extension. The current directory is the home.
    """
    names = users.domains.get(domain_of(address))
    if not names:
        return None
    written = local_of(address)
    local = lower_ascii(written)
    if local in names:
        return names[local], ""
    for name in without_detail(local, delimiters):
        if name in names:
            return names[name], ""
    for name, ext in extensions(written):
        directory = names.get(lower_ascii(name))
        if directory is not None:
            if exists(f"mail/{directory}", ext):
                return directory, ext
            break
    return (names[""], "") if "" in names else None


def find_account(local: str, home_of: Callable[[str], str | None], delimiters: str,
                 exists: Callable[[str, str], bool] = has_file) -> tuple[str, str, str] | None:
    """(account, ext, dash) of the account that *local* (unquoted, any case) belongs to; None without
    one. *home_of* gives the home of an account that may get mail, by its name in lower case. As for
    mailboxes; *dash* is ``-`` with an extension, else "" as is *ext*."""
    lower = lower_ascii(local)
    for name in (lower, *without_detail(lower, delimiters)):
        if home_of(name) is not None:
            return name, "", ""
    for written, ext in extensions(local):
        name = lower_ascii(written)
        home = home_of(name)
        if home is not None:
            return (name, ext, DASH) if exists(home, ext) else None
    return None
