"""A table in up to three forms at once: text (control/NAME, read as a whole when the program starts and
at HUP), cdb (control/NAME.cdb) and SQLite (control/NAME.sqlite), which lie where they are and are opened
again when they change. A key is looked for in this order; together they are one table.
"""

from __future__ import annotations

import os

from mqmail.base.failure import BadFile
from mqmail.control.reader import Directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mqmail.policy.cdb import Cdb
    from mqmail.policy.sqlitemap import SqliteMap

    Form = tuple[Callable[[str], str | None], str]

CDB, SQLITE = FORMS = ("cdb", "sqlite")
WORDS = "#words"        # the key of what the keys are, as Access.words has it; mq-makemap writes it
# What a file without it is taken to have.
ALL_WORDS = frozenset("connect helo from to untagged 4/8 4/16 4/24 6/32 6/48 6/56 6/64".split())


class Files:
    """The forms of table *name*, of the home in the working directory, that are files of their own. They
    are trusted as control files are. One object for the life of a process."""

    def __init__(self, name: str) -> None:
        self._files = [_File(f"{name}.{form}", form) for form in FORMS]
        self._open: list[_File] | None = None       # those that are there; None: it is to be found out
        self.forms: tuple[Form, ...] = ()           # of those
        self.words: frozenset[str] = frozenset()

    def exist(self) -> bool:
        """Whether there is any, usable or not: who looks something up will say."""
        return any([os.path.lexists(file.path) for file in self._files])

    def refresh(self) -> None:
        """Look for new and changed ones. Raises BadFile."""
        try:
            changed = True in [file.refresh() for file in self._files]
        except BadFile:
            self._open = None
            raise
        if changed or self._open is None:
            self._open = [file for file in self._files if file.table is not None]
            self.forms = tuple([(file.table.get, file.path)     # type: ignore[union-attr]
                                for file in self._open])
            self.words = frozenset().union(*[file.words for file in self._files])

    def get(self, key: str) -> tuple[str, str] | None:
        """(value, path) of *key*; None without one. Raises BadFile, also for a file that has turned out
        to be bad since somebody has looked for new ones."""
        if self._open is None:
            self.refresh()
        for look_up, path in self.forms:
            found = look_up(key)
            if found is not None:
                return found, path
        return None

    def close(self) -> None:
        """Close them."""
        for file in self._files:
            file.close()


class Maps:
    """The table *name*: *entries* and *words* of its text, as in control/access.py, and its *files*."""

    def __init__(self, name: str, entries: Mapping[str, str], words: frozenset[str],
                 files: Files) -> None:
        self.path = f"control/{name}"
        self._entries = entries
        self._own_words = words
        self._files = files
        self._files_words = files.words
        self.words = words | files.words

    def exists(self) -> bool:
        """Whether there is any form of it."""
        return bool(self._entries) or self._files.exist()

    def refresh(self) -> frozenset[str]:
        """Look for new and changed files, and return what keys there are. Raises BadFile."""
        self._files.refresh()
        if self._files.words is not self._files_words:
            self._files_words = self._files.words
            self.words = self._own_words | self._files_words
        return self.words

    def get(self, key: str) -> tuple[str, str] | None:
        """(value, path) of *key*; None without one. Raises BadFile."""
        found = self._entries.get(key)
        return self._files.get(key) if found is None else (found, self.path)

    @property
    def forms(self) -> tuple[Form, ...]:
        """How to look a key up in each form there is, in this order, and its path: for who has refreshed
        it and looks for many keys at once. The functions give None without the key, or raise BadFile."""
        own = ((self._entries.get, self.path),) if self._entries else ()
        return own + self._files.forms


class _File:
    """One file in one form, which may be there or not."""

    def __init__(self, name: str, form: str) -> None:
        self._name = name
        self._form = form
        self.path = f"control/{name}"
        self.table: Cdb | SqliteMap | None = None
        self._state: tuple[int, ...] | None = None
        self.words: frozenset[str] = frozenset()

    def state(self) -> tuple[int, ...] | None:
        """What tells one content from another; None without a file. Raises BadFile."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadFile(f"{self.path}: {error.strerror}") from None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def refresh(self) -> bool:
        """Open it if it is new or has changed; whether it was. Raises BadFile, and does so again until
        the file is mended."""
        state = self.state()
        if state == self._state:
            return False
        self.close()
        if state is not None:
            self.table = self._open()
            self.words = self._read_words()
        self._state = state
        return True

    def _open(self) -> Cdb | SqliteMap | None:
        """Its module is imported now: most homes have no such file."""
        fd = Directory(".").open(self._name)
        if fd is None:
            return None
        if self._form == CDB:
            from mqmail.policy.cdb import Cdb
            return Cdb(fd, self.path)
        os.close(fd)            # it was opened to be looked at: SQLite opens it itself
        from mqmail.policy.sqlitemap import SqliteMap
        return SqliteMap(self.path)

    def _read_words(self) -> frozenset[str]:
        try:
            written = self.table.get(WORDS) if self.table is not None else None
        except BadFile:
            self.close()
            raise
        return ALL_WORDS if written is None else frozenset(written.split())

    def close(self) -> None:
        """As if it were not there."""
        if self.table is not None:
            self.table.close()
        self.table, self._state, self.words = None, None, frozenset()
