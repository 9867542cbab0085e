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

LARGEST = 64 << 20   # bytes of a file
_OTHERS_WRITE = 0o022


class Control:
    """The values of control files, as attributes or by ``control["name"]``: str, int, or what the
    file's parser makes (table.py names it)."""

    __slots__ = ("_values",)

    def __init__(self, found: dict[str, Any]) -> None:
        self._values = found

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"the control file {name} has not been loaded") from None


def load(home: str, names: Iterable[str]) -> Control:
    """Read the control files *names* of *home*. Raises BadFile: ``control/NAME line N: what is wrong
    and what to write instead``."""
    directory = _Directory(home)
    rows = [BY_NAME[name] for name in names]
    found: dict[str, Any] = {}
    if any(row.uses_me or row.name == "me" for row in rows):
        found["me"] = _value(directory, BY_NAME["me"], "")
    for row in rows:
        if row.name != "me":
            found[row.name] = _value(directory, row, found.get("me", ""))
    if "aliases" in found:
        _check_destinations(directory, found)
    return Control(found)


def _check_destinations(directory: _Directory, found: dict[str, Any]) -> None:
    """No alias sends mail to a destination that is not there."""
    used = found["aliases"].used
    if not used:
        return
    known = found.get("destinations") or _value(directory, BY_NAME["destinations"], "")
    unknown = sorted([(number, name) for name, number in used.items() if known.lookup(name) is None])
    if unknown:
        number, name = unknown[0]
        raise BadFile(f"{directory.path}/aliases line {number}: there is no destination {name}: write"
                      f" {name}:lmtp:unix:PATH or {name}:lmtp:tcp:HOST:PORT into"
                      f" {directory.path}/destinations")


def check(home: str) -> list[str]:
    """Every problem with the control files of *home*; [] when all is well."""
    problems: list[str] = []
    try:
        directory = _Directory(home)
        unknown = sorted(set(os.listdir(directory.path)) - set(BY_NAME))
    except (BadFile, OSError) as error:
        return [str(error)]
    for row in TABLE_OF_FILES:
        try:
            load(home, [row.name])
        except BadFile as error:
            if error.text not in problems:
                problems.append(error.text)
    problems.extend([f"{directory.path}/{name}: no control file has this name: see mq-control(5), or"
                     " move it away" for name in unknown if not _is_ignored(name)])
    return problems


def _is_ignored(name: str) -> bool:
    """Notes, editors' copies and files being written are nobody's mistake."""
    return name == "README" or name[0] == "." or name[-1] == "~"


def _value(directory: _Directory, row: Row, me: str) -> Any:
    path = f"{directory.path}/{row.name}"
    data = directory.read(row)
    if data is None:
        if row.default is None:
            raise BadFile(f"{path} line 1: is missing: write this host's full name into it, such as"
                          " mail.example.org")
        data = row.default.format(me=me).encode()
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
    for row in TABLE_OF_FILES:
        if row.parser:
            _parser(row)


class _Directory:
    """HOME/control, checked, and whom we trust to write there."""

    def __init__(self, home: str) -> None:
        self.path = "control" if home in (".", "") else f"{home}/control"
        try:
            top, below = os.stat(home or "."), os.stat(self.path)
        except OSError as error:
            raise BadFile(f"{error.filename}: {error.strerror}: mq-setup makes a home") from None
        self._trusted = {0, top.st_uid, os.geteuid()}
        self._check(home or ".", top)
        self._check(self.path, below)

    def _check(self, path: str, found: os.stat_result) -> None:
        if found.st_mode & _OTHERS_WRITE:
            raise BadFile(f"{path}: group or others may write it: chmod go-w {path}")
        if found.st_uid not in self._trusted:
            raise BadFile(f"{path}: belongs to uid {found.st_uid}: it must be root's, the home's owner's"
                          " or our own")

    def read(self, row: Row) -> bytes | None:
        """The content of a file; None when there is none."""
        path = f"{self.path}/{row.name}"
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
            if row.secret:
                _module(row).check_mode(path, os.fstat(fd))
            return files.read_fd_bounded(fd, path, LARGEST)
        finally:
            os.close(fd)
