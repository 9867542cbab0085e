"""Reading control files: all that is asked for, or BadFile.

A control file belongs to root, to the owner of the home or to us, and nobody else can write it,
nor the directories it is reached through; one with secrets is not for others to read either.
To reload, ``load`` again: nothing changes until all is read.
"""

from __future__ import annotations

import os

from mqmail.base import files
from mqmail.base.failure import BadFile
from mqmail.control import lines, values
from mqmail.control.table import BY_NAME, LINE, NUMBER, TABLE_OF_FILES, Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from mqmail.control.aliases import Aliases
    from mqmail.control.destinations import Destinations

LARGEST = 64 << 20   # bytes of a file
_OTHERS_WRITE = 0o022


class Control:
    """The values of control files, as attributes or by ``control["name"]``: str, int, or what the
    file's parser makes (table.py names it). Those of *missing* files are made when they are asked for:
    name to what makes it."""

    __slots__ = ("_missing", "_values")

    def __init__(self, found: dict[str, Any],
                 missing: dict[str, Callable[[], Any]] | None = None) -> None:
        self._values = found
        self._missing = missing or {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values and name in self._missing:
            self._values[name] = self._missing[name]()
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            if name in self._missing:
                return self[name]
            raise AttributeError(f"the control file {name} has not been loaded") from None

    def is_there(self, name: str) -> bool:
        """Whether there is a file *name*, of those that were asked for."""
        return name not in self._missing


def load(home: str, names: Iterable[str]) -> Control:
    """Read the control files *names* of *home*. Raises BadFile: ``control/NAME line N: what is wrong
    and what to write instead``."""
    directory = Directory(home)
    rows = [BY_NAME[name] for name in names]
    found: dict[str, Any] = {}
    missing: dict[str, Callable[[], Any]] = {}
    if any(row.uses_me or row.name == "me" for row in rows):
        found["me"] = _value(directory, BY_NAME["me"], directory.read(BY_NAME["me"]), "")
    me = found.get("me", "")
    for row in rows:
        if row.name != "me":
            data = directory.read(row)
            if data is None and row.parser:
                missing[row.name] = lambda row=row: _value(directory, row, None, me)    # type: ignore[misc]
            else:
                found[row.name] = _value(directory, row, data, me)
    if "aliases" in found:
        _check_destinations(directory, found["aliases"])
    return Control(found, missing)


def _check_destinations(directory: Directory, aliases: Aliases) -> None:
    """No alias sends mail to a destination that is not there."""
    if aliases.used:
        row = BY_NAME["destinations"]
        known = _value(directory, row, directory.read(row), "")
        for text in unknown_destinations(directory.path, aliases, known):
            raise BadFile(text)


def unknown_destinations(path: str, aliases: Aliases, known: Destinations) -> list[str]:
    """What is wrong with *aliases* that send mail to destinations not in *known*; *path* is that of the
    directory of both files."""
    unknown = sorted([(number, name) for name, number in aliases.used.items()
                      if known.lookup(name) is None])
    return [f"{path}/aliases line {number}: there is no destination {name}: write {name}:lmtp:unix:PATH"
            f" or {name}:lmtp:tcp:HOST:PORT into {path}/destinations" for number, name in unknown]


def _value(directory: Directory, row: Row, data: bytes | None, me: str) -> Any:
    """Of a file that holds *data*, or is missing."""
    path = f"{directory.path}/{row.name}"
    return parse(row, path, default_of(row, path, me) if data is None else data, me)


def default_of(row: Row, path: str, me: str) -> bytes:
    """What a missing file is taken to hold. Raises BadFile when it is required."""
    if row.default is None:
        raise BadFile(f"{path} line 1: is missing: write this host's full name into it, such as"
                      " mail.example.org")
    return row.default.format(me=me).encode()


def parse(row: Row, path: str, data: bytes, me: str) -> Any:
    """The value of a file that holds *data*. Raises BadFile with the first mistake in it."""
    if row.kind == LINE:
        return lines.parse_line(path, data, row.check or str)
    if row.kind == NUMBER:
        return lines.parse_line(
            path, data, lambda text: values.number(text, row.unit, row.lowest, row.highest))
    return lines.parse(path, data, _parser(row), me)


def _parser(row: Row) -> Callable[[lines.Lines, str], Any]:
    """A table's module is imported when its file is read: most programs need few of them."""
    parser: Callable[[lines.Lines, str], Any] = getattr(_module(row), row.parser.partition(".")[2])
    return parser


def _module(row: Row) -> Any:
    return __import__(f"mqmail.control.{row.parser.partition('.')[0]}", fromlist=["*"])


def preload() -> None:
    """Import the parsers of all files now: for a program that will give up the right to read its own
    modules, or that forks and wants them shared."""
    import binascii  # noqa: F401  which the parser of passwd imports when it meets a hash
    for row in TABLE_OF_FILES:
        if row.parser:
            _parser(row)


def _refuse(text: str) -> None:
    raise BadFile(text)


class Directory:
    """HOME/control, checked, and whom we trust to write there. *complain* is told of each owner and mode
    that is wrong; without it the first raises BadFile."""

    def __init__(self, home: str, complain: Callable[[str], None] = _refuse) -> None:
        self.path = "control" if home in (".", "") else f"{home}/control"
        self._complain = complain
        try:
            top, below = os.stat(home or "."), os.stat(self.path)
        except OSError as error:
            raise BadFile(f"{error.filename}: {error.strerror}: mq-setup makes a home") from None
        self._trusted = {0, top.st_uid, os.geteuid()}
        self._check(home or ".", top)
        self._check(self.path, below)

    def _check(self, path: str, found: os.stat_result) -> None:
        if found.st_mode & _OTHERS_WRITE:
            self._complain(f"{path}: group or others may write it: chmod go-w {path}")
        if found.st_uid not in self._trusted:
            self._complain(f"{path}: belongs to uid {found.st_uid}: it must be root's, the home's"
                           " owner's or our own")

    def read(self, row: Row) -> bytes | None:
        """The content of a file; None when there is none. Raises BadFile."""
        path = f"{self.path}/{row.name}"
        fd = self.open(row.name)
        if fd is None:
            return None
        try:
            if row.secret:
                self._check_secret(row, path, os.fstat(fd))
            return files.read_fd_bounded(fd, path, LARGEST)
        finally:
            os.close(fd)

    def open(self, name: str) -> int | None:
        """A descriptor of a file that nobody else writes; None when there is none. Raises BadFile."""
        path = f"{self.path}/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if os.path.islink(path):   # no silent default where a table was meant
                raise BadFile(f"{path}: is a symbolic link to nothing: remove it, or mend it") from None
            return None
        except OSError as error:
            raise BadFile(f"{path}: {error.strerror}") from None
        try:
            self._check(path, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check_secret(self, row: Row, path: str, found: os.stat_result) -> None:
        try:
            _module(row).check_mode(path, found)
        except BadFile as error:
            self._complain(error.text)
