"""An SQLite file with a table ``map(key, value)``, read where it lies; other programs may write it."""

from __future__ import annotations

import _sqlite3

from mqmail.base.failure import BadFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST_VALUE = 8192    # characters
_BUSY = 100             # milliseconds that a writer may make us wait
_LOCKED = 5             # SQLITE_BUSY
_STEPS = 100000         # of SQLite's machine for a look-up: one takes some ten
_ASK = "SELECT value FROM map WHERE key = ? LIMIT 1"


class SqliteMap:
    """The file at *path*, which holds no ``?``, ``#`` or ``%``. Raises BadFile."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._database = _sqlite3.connect(f"file:{path}?mode=ro", timeout=0.0, uri=True,
                                              isolation_level=None)
            self._database.execute("PRAGMA trusted_schema = OFF")
            self._database.execute("PRAGMA cell_size_check = ON")
            self._be_patient(_BUSY)
            self._steps = 0
            self._database.set_progress_handler(self._too_long, 1000)
            self._check_index()
        except (_sqlite3.Error, UnicodeError) as error:
            raise self._bad(error) from None

    def _check_index(self) -> None:
        """Without an index each look-up would read the whole table."""
        plan = self._database.execute(f"EXPLAIN QUERY PLAN {_ASK}", ("",)).fetchall()
        if not any([str(row[-1]).startswith("SEARCH") for row in plan]):
            raise BadFile(f"{self._path}: the table map has no index on key: CREATE UNIQUE INDEX"
                          " map_key ON map(key)")

    def _be_patient(self, milliseconds: int) -> None:
        """Wait so long for a writer, each time: once that was too short, not again until it is gone."""
        self._patience = milliseconds
        self._database.execute(f"PRAGMA busy_timeout = {milliseconds}")

    def _too_long(self) -> bool:
        self._steps += 1000
        return self._steps > _STEPS

    def get(self, key: str) -> str | None:
        """The value of *key*, None without one. Raises BadFile."""
        self._steps = 0
        try:
            row = self._database.execute(_ASK, (key,)).fetchone()
        except (_sqlite3.Error, UnicodeError) as error:
            if getattr(error, "sqlite_errorcode", 0) == _LOCKED:
                self._be_patient(0)         # a session has many questions
            raise self._bad(error) from None
        if not self._patience:
            self._be_patient(_BUSY)
        if row is None:
            return None
        if not isinstance(row[0], str) or len(row[0]) > LARGEST_VALUE:
            raise BadFile(f"{self._path}: the value of {key[:80]!a} is no text of at most"
                          f" {LARGEST_VALUE} characters")
        return row[0]

    def _bad(self, error: Exception) -> BadFile:
        return BadFile(f"{self._path}: {str(error)[:200]}: is it an SQLite file with a table"
                       " map(key, value)?")

    def close(self) -> None:
        """No more questions."""
        self._database.close()


def write(path: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Make a new file *path* of *pairs*, no key twice. Raises BadFile."""
    try:
        database = _sqlite3.connect(path, isolation_level=None)
        try:
            database.execute("CREATE TABLE map(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
            database.execute("BEGIN")
            database.executemany("INSERT INTO map VALUES (?, ?)", pairs)
            database.execute("COMMIT")
        finally:
            database.close()
    except _sqlite3.Error as error:
        raise BadFile(f"{path}: {error}") from None
