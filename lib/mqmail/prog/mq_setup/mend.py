"""Owners and modes of all that a home holds: looked at, and mended.

Every path is reached from the home part by part, no link is followed, and what is changed is what was
looked at: it is open. So whoever owns a part of the home cannot make root change anything else. A file
with several names is not changed, because some of them may be elsewhere.
"""

from __future__ import annotations

import os
import stat

from mqmail.base.value import value
from mqmail.control import rights
from mqmail.control.rights import DIRECTORY, FILE, PLACES, SOCKET, SOCKETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.control.rights import Accounts

DEEPEST = 30
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {stat.S_IFDIR: DIRECTORY, stat.S_IFREG: FILE, stat.S_IFSOCK: SOCKET}
_KEPT = 0o755               # of a mode that the table leaves to whoever made the file
_SET_ID = 0o6000


@value
class Wanted:
    """Any of *uids*, the first is given; *gid* or -1 for any; the *mode* that it shall have."""

    uids: tuple[int, ...]
    gid: int
    mode: int


class Mend:
    """The home we work in. *accounts*: of a system home; else all belongs to the owner of the home.
    ``run`` gives a line for each thing that is wrong; ``left`` counts those that are not *repaired*."""

    def __init__(self, accounts: Accounts | None, repair: bool) -> None:
        self.left = 0
        self._accounts = accounts
        self._repair = repair
        self._seen: set[str] = set()
        self._owner = os.stat(".").st_uid
        self._mail_owner = self._owner
        try:
            self._mail_owner = _owner_of_directory("mail") or self._owner
        except OSError:
            pass                        # there is none, or it is a link

    def run(self) -> Iterator[str]:
        """Look at everything."""
        if self._repair:
            yield from self._make_missing()
        fd = os.open(".", _LOOK)
        try:
            yield from self._one("", fd, 0)
        finally:
            os.close(fd)
        for place in PLACES:
            if place.required and place.path not in self._seen:
                yield self._problem(place.path, f"is no {place.kind}, or is missing: mq-setup makes it")

    def only(self, *paths: str) -> Iterator[str]:
        """Look at these, and not at what is below them."""
        for path in paths:
            try:
                fd = os.open(path or ".", _LOOK)
            except FileNotFoundError:
                continue
            try:
                yield from self._one(path, fd, 0, deeper=False)
            finally:
                os.close(fd)

    def _problem(self, path: str, text: str) -> str:
        self.left += 1
        return f"{path or '.'}: {text}"

    # What is missing

    def _make_missing(self) -> Iterator[str]:
        for place in PLACES:
            if place.required and place.path and self._make(place.path):
                yield f"{place.path}: was missing: made"

    def _make(self, path: str) -> bool:
        """Make a directory whose parent is there; the look at all that follows gives it its owner."""
        parent, _, name = path.rpartition("/")
        try:
            fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            return False
        finally:
            os.close(fd)
        return True

    # What is there

    def _one(self, path: str, fd: int, depth: int, deeper: bool = True) -> Iterator[str]:
        """*fd* is open with O_PATH: for what *path* was when we got there."""
        found = os.fstat(fd)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "")
        if stat.S_ISLNK(found.st_mode):
            yield self._problem(path, f"is a symbolic link to {os.readlink('', dir_fd=fd)}")
            return
        if kind == FILE and found.st_nlink > 1:
            yield self._problem(path, "has several names: remove it, or put a copy in its place")
            return
        self._seen.add(path)
        wrong = self._wrong(path, kind, found)
        if wrong is not None:
            yield self._mend(path, fd, found, wrong)
        if kind == DIRECTORY and deeper:
            yield from self._below(path, fd, depth)

    def _below(self, path: str, fd: int, depth: int) -> Iterator[str]:
        if depth == DEEPEST:
            yield self._problem(path, "is too deep to be looked at")
            return
        try:
            directory = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            yield self._problem(path, f"cannot be read: {error.strerror}")
            return
        try:
            for name in sorted(os.listdir(directory)):
                yield from self._entry(f"{path}/{name}" if path else name, name, directory, depth + 1)
        finally:
            os.close(directory)

    def _entry(self, path: str, name: str, directory: int, depth: int) -> Iterator[str]:
        try:
            fd = os.open(name, _LOOK, dir_fd=directory)
        except FileNotFoundError:       # it has come and gone
            return
        try:
            yield from self._one(path, fd, depth)
        finally:
            os.close(fd)

    # What it should be

    def _wrong(self, path: str, kind: str, found: os.stat_result) -> Wanted | None:
        """What it should be; None when it is."""
        wanted = self._wanted(path, kind, found)
        mode = stat.S_IMODE(found.st_mode)
        good = (found.st_uid in wanted.uids and wanted.gid in (-1, found.st_gid) and mode == wanted.mode)
        return None if good else wanted

    def _wanted(self, path: str, kind: str, found: os.stat_result) -> Wanted:
        mode = stat.S_IMODE(found.st_mode)
        owner, group, system_mode, own_mode = _place(path, kind) or ("", "", 0, 0)
        if not owner:           # nothing of ours: only let it be nobody's business
            harmless = kind == SOCKET or mode & stat.S_ISVTX
            return Wanted((found.st_uid,), -1, mode if harmless else mode & ~0o002)
        if self._accounts is not None:
            gid = self._accounts.of(group).gid if group else -1
            return Wanted((self._accounts.of(owner).uid,), gid, system_mode or mode & _KEPT)
        also = {"mail": (self._mail_owner,), "control": (0,)}.get(path.partition("/")[0], ())
        uids = (self._owner, *also)
        if not own_mode:
            return Wanted(uids, -1, mode & _KEPT)
        return Wanted(uids, -1, mode & own_mode | own_mode & 0o700)

    def _mend(self, path: str, fd: int, found: os.stat_result, wanted: Wanted) -> str:
        """By the descriptor: in /proc it stands for the very thing."""
        text = _difference(found, wanted)
        if not self._repair:
            return self._problem(path, text)
        this = f"/proc/self/fd/{fd}"
        uid = found.st_uid if found.st_uid in wanted.uids else wanted.uids[0]
        try:
            if found.st_mode & _SET_ID and (uid, wanted.gid) != (found.st_uid, -1):
                os.chmod(this, stat.S_IMODE(found.st_mode) & _KEPT)  # not somebody else's for a moment
            if (uid, wanted.gid) != (found.st_uid, -1):
                os.chown(this, uid, wanted.gid)
            os.chmod(this, wanted.mode)         # after chown, which takes set-group-id away
        except OSError as error:
            return self._problem(path, f"{text} (not mended: {error.strerror})")
        return f"{path or '.'}: mended: {text}"


def _owner_of_directory(path: str) -> int:
    fd = os.open(path, _LOOK | os.O_DIRECTORY)
    try:
        return os.fstat(fd).st_uid
    finally:
        os.close(fd)


def _place(path: str, kind: str) -> tuple[str, str, int, int] | None:
    """(owner, group, mode in a system home, mode in an owner's) by the table."""
    for one in SOCKETS:
        if kind == SOCKET and one.path == path:
            return one.owner, one.group, one.mode, one.own_mode
    place = rights.place_of(path, kind)
    return None if place is None else (place.owner, place.group, place.mode, place.own_mode)


def _difference(found: os.stat_result, wanted: Wanted) -> str:
    texts = []
    if found.st_uid not in wanted.uids:
        texts.append(f"owner is uid {found.st_uid}, not {wanted.uids[0]}")
    if wanted.gid not in (-1, found.st_gid):
        texts.append(f"group is gid {found.st_gid}, not {wanted.gid}")
    mode = stat.S_IMODE(found.st_mode)
    if mode != wanted.mode:
        texts.append(f"mode is {mode:04o}, not {wanted.mode:04o}")
    return ", ".join(texts)
