"""mq-makemap: makes a table of a text file: control/NAME.cdb, or control/NAME.sqlite.

Usage:
  mq-makemap [--home DIR] [--sqlite] NAME FILE
  mq-makemap [--home DIR] [--sqlite] --delete NAME
  mq-makemap --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --sqlite        make an SQLite file, not a cdb file
  --delete        remove the table
  --help          this text

NAME is a control file whose tables may have these forms: access, rewrite. FILE has the lines that
control/NAME would have, and is not that file; - is the standard input. A mistake in it changes nothing.
"""

from __future__ import annotations

import os

from mqmail.base import files
from mqmail.base.failure import BadFile, Temporary, Usage
from mqmail.base.files import read_bounded, read_fd_bounded, sync_directory, write_all
from mqmail.base.program import describe
from mqmail.control import lines, reader
from mqmail.control.access import parse_access, unknown_sets
from mqmail.control.rewrite import parse_rewrite
from mqmail.net import daemon
from mqmail.net.owner import become_owner, owner_of
from mqmail.policy import cdb, sqlitemap
from mqmail.policy.maps import CDB, SQLITE, WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.control.access import Access
    from mqmail.control.rewrite import Rewrite

PARSERS = {"access": parse_access, "rewrite": parse_rewrite}
LARGEST = 1 << 30       # bytes of a FILE
STDIN = "standard input"


def main(argv: list[str]) -> int:
    """Make it, or remove it."""
    home, _, found = daemon.arguments(__doc__, argv)
    name = str(found["NAME"])
    if name not in PARSERS:
        raise Usage(f"{name!a} is not a table that can be made: write {', '.join(PARSERS)}")
    form = SQLITE if found["--sqlite"] else CDB
    data = b"" if found["--delete"] else _read(str(found["FILE"]))
    reader.preload()
    daemon.enter(home)
    become_owner(owner_of("."))
    path = f"control/{name}.{form}"
    if found["--delete"]:
        _delete(path)
        return 0
    source = STDIN if found["FILE"] == "-" else str(found["FILE"])
    table = lines.parse(source, data, PARSERS[name], "")
    if name == "access":
        _check_sets(source, table)
    _write(path, form, table)
    write_all(1, f"{path}: {len(table.entries)} entries\n".encode())
    return 0


def _check_sets(source: str, table: Access) -> None:
    """Nobody would look for the option sets of *table* before a client is concerned."""
    for text in unknown_sets(source, table, reader.load(".", ["optionsets"]).optionsets):
        raise BadFile(text)


def _read(name: str) -> bytes:
    """With the rights of who starts us."""
    if name != "-":
        return read_bounded(name, LARGEST)
    if files.is_regular(os.fstat(0).st_mode):
        return read_fd_bounded(0, STDIN, LARGEST)
    pieces, size = [], 0
    while piece := os.read(0, 1 << 20):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise BadFile(f"{STDIN}: larger than {LARGEST} bytes")
    return b"".join(pieces)


def _delete(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        raise Usage(f"{path}: there is none") from None
    sync_directory("control")


def _write(path: str, form: str, table: Access | Rewrite) -> None:
    """In place of the old one at once, or not at all."""
    temporary = f"control/.{path.partition('/')[2]}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(fd, 0o644)        # whatever the umask: xmtpd may be somebody else's
            if form == CDB:
                cdb.write(fd, [(key.encode(), value.encode()) for key, value in _pairs(table)])
            else:
                sqlitemap.write(temporary, _pairs(table))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException as error:
        _forget(temporary)
        if isinstance(error, OSError):
            raise Temporary(f"{path}: {describe(error)}") from None
        if isinstance(error, ValueError):
            raise BadFile(f"{path}: {error}") from None
        raise
    sync_directory("control")


def _pairs(table: Access | Rewrite) -> Iterator[tuple[str, str]]:
    """What the keys are, and the entries."""
    yield WORDS, " ".join(sorted(table.words))
    yield from table.entries.items()


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
