"""Tables as text, cdb and SQLite: one table, as new as its files; what is wrong is temporary."""

import gc
import os
import sqlite3
from struct import pack

import pytest

from mqmail.base.failure import BadFile
from mqmail.policy import cdb, sqlitemap
from mqmail.policy.maps import ALL_WORDS, Files, Maps

CDB, SQLITE = "control/access.cdb", "control/access.sqlite"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.chmod(tmp_path, 0o755)
    os.mkdir("control", 0o755)


def make_cdb(pairs, path=CDB):
    """In place of the old one."""
    with open("new", "wb") as file:
        cdb.write(file.fileno(), [(key.encode(), value.encode()) for key, value in pairs.items()])
    os.chmod("new", 0o644)
    os.rename("new", path)


def make_sqlite(pairs):
    sqlitemap.write("new", pairs.items())
    os.chmod("new", 0o644)
    os.rename("new", SQLITE)


def maps(entries=(), words=frozenset()):
    found = Maps("access", dict(entries), words, Files("access"))
    found.refresh()
    return found


def trouble(key="a"):
    """What is wrong with the files, of a program that is new and of one that has seen better ones."""
    with pytest.raises(BadFile) as caught:
        maps().get(key)
    return caught.value.text


def test_all_forms_are_one_table_and_the_text_is_first():
    make_cdb({"a": "cdb", "b": "cdb", "c": "cdb"})
    make_sqlite({"a": "sqlite", "b": "sqlite", "d": "sqlite"})
    found = maps({"a": "text"})
    assert [found.get(key) for key in "abcde"] == [
        ("text", "control/access"), ("cdb", CDB), ("cdb", CDB), ("sqlite", SQLITE), None]


@pytest.mark.parametrize("make", [make_cdb, make_sqlite])
def test_a_file_that_comes_changes_and_goes(make):
    found = maps()
    assert found.get("a") is None
    for value in ("1", "22"):
        make({"a": value})
        found.refresh()
        assert found.get("a")[0] == value
    os.unlink(CDB if make is make_cdb else SQLITE)
    found.refresh()
    assert found.get("a") is None


def test_rows_of_sqlite_change_where_they_lie():
    make_sqlite({"a": "1"})
    found = maps()
    database = sqlite3.connect(SQLITE)
    with database:
        database.execute("UPDATE map SET value = '2' WHERE key = 'a'")
    database.close()
    assert found.get("a")[0] == "2"


@pytest.mark.parametrize("make", [make_cdb, make_sqlite])
def test_the_kinds_of_keys(make):
    make({"to:a@b": "OK"})
    assert maps(words=frozenset(("helo",))).words == ALL_WORDS
    make({"to:a@b": "OK", "#words": "to 4/22"})
    assert maps(words=frozenset(("helo",))).words == {"helo", "to", "4/22"}


def opened():
    """How many descriptors the files have."""
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return len([link for link in links if os.path.islink(link) and "access." in os.readlink(link)])


def test_descriptors_are_given_back():
    gc.collect()
    found, before = maps(), opened()
    for number in range(5):
        make_cdb({"a": str(number)})
        make_sqlite({"a": str(number)})
        found.refresh()
    assert opened() == before + 2
    with open(CDB, "r+b") as file:
        file.truncate(100)
    with pytest.raises(BadFile):
        found.refresh()
    assert opened() <= before + 1


@pytest.mark.parametrize("path", [CDB, SQLITE])
def test_a_file_that_others_write_is_not_used(path):
    make_cdb({"a": "1"})
    os.rename(CDB, path)
    os.chmod(path, 0o666)
    assert trouble() == f"{path}: group or others may write it: chmod go-w {path}"


@pytest.mark.parametrize("content", [b"", b"no cdb", bytes(2047), 2048 * b"\xff"])
def test_what_is_no_cdb(content):
    with open(CDB, "wb") as file:
        file.write(content)
    assert trouble().startswith(f"{CDB}: no whole cdb file (")


def test_a_cdb_that_is_cut_while_it_is_open():
    make_cdb({f"key{number}": 500 * "x" for number in range(100)})
    found = maps()
    os.truncate(CDB, 2048)
    with pytest.raises(BadFile, match=f"{CDB}: no whole cdb file"):
        for number in range(100):
            found.get(f"key{number}")


def one_table(slots, record):
    """A cdb file whose hash tables are all the same."""
    start = 2048 + len(record)
    table = b"".join([pack("<II", *slot) for slot in slots])
    return pack("<II", start, len(slots)) * 256 + record + table


def test_a_cdb_that_wants_much_of_us():
    number = cdb.hash_of(b"a")
    slot = number, 2048
    for content, why in ((one_table([slot] * 5000, pack("<II", 1, 1) + b"bx"), "too many keys"),
                         (one_table([slot], pack("<II", 1, 1 << 31) + b"a"), "a value of"),
                         (one_table([slot], pack("<II", 1, 1) + b"a\xff"), "not UTF-8"),
                         (one_table([(number, 1 << 31)], b""), "ends too early")):
        with open(CDB, "wb") as file:
            file.write(content)
        assert why in trouble()
    with open(CDB, "wb") as file:       # full, of another key
        file.write(one_table([(number, 2048)] * 50, pack("<II", 1, 1) + b"bx"))
    assert maps().get("a") is None


def sql(*commands):
    database = sqlite3.connect(SQLITE)
    for command in commands:
        database.execute(command)
    database.commit()
    database.close()
    os.chmod(SQLITE, 0o644)


@pytest.mark.parametrize(("commands", "why"), [
    (["CREATE TABLE other(x)"], "no such table: map"),
    (["CREATE TABLE map(key)"], "no such column: value"),
    (["CREATE TABLE map(key, value)"], "no index on key: CREATE UNIQUE INDEX"),
    (["CREATE TABLE map(key PRIMARY KEY, value)", "INSERT INTO map VALUES ('a', 1)"], "is no text"),
    (["CREATE TABLE map(key PRIMARY KEY, value)", "INSERT INTO map VALUES ('a', NULL)"], "is no text"),
    (["CREATE TABLE map(key PRIMARY KEY, value)",
      "INSERT INTO map VALUES ('a', CAST(x'ff' AS TEXT))"], SQLITE),
    (["CREATE TABLE map(key PRIMARY KEY, value)",
      "INSERT INTO map VALUES ('a', printf('%.*c', 9000, 'x'))"], "is no text"),
    (["CREATE TABLE t(key PRIMARY KEY)", "CREATE VIEW map AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL"
      " SELECT n + 1 FROM r) SELECT t.key, n AS value FROM t, r WHERE n < 0",
      "INSERT INTO t VALUES ('a')"], "interrupted"),
])
def test_an_sqlite_file_that_is_not_as_it_should_be(commands, why):
    sql(*commands)
    assert why in trouble()
    assert trouble().startswith(SQLITE)


def test_what_is_no_sqlite_file():
    with open(SQLITE, "wb") as file:
        file.write(5000 * b"x")
    assert "file is not a database" in trouble()


def test_a_locked_sqlite_file_is_temporary():
    make_sqlite({"a": "1"})
    found = maps()
    writer = sqlite3.connect(SQLITE, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BadFile, match="locked"):
        found.get("a")
    for _ in range(2000):       # longer than a test may take, if each waited
        with pytest.raises(BadFile, match="locked"):
            found.get("a")
    writer.execute("COMMIT")
    writer.close()
    assert found.get("a")[0] == "1"


def test_a_bad_file_is_trouble_until_it_is_mended():
    make_cdb({"a": "1"})
    found = maps()
    with open("bad", "wb") as file:
        file.write(b"x")
    os.rename("bad", CDB)
    for _ in range(2):
        with pytest.raises(BadFile):
            found.refresh()
    make_cdb({"a": "2"})
    found.refresh()
    assert found.get("a")[0] == "2"


def test_a_file_that_cannot_be_looked_at_is_there_all_the_same():
    """Or a process that is started anew would end again and again."""
    os.symlink("access.cdb", CDB)
    assert Maps("access", {}, frozenset(), Files("access")).exists()
    assert trouble() == f"{CDB}: Too many levels of symbolic links"


def test_nobody_who_is_in_the_middle_of_a_message_misses_what_is_in_a_file_that_has_become_bad():
    make_cdb({"a": "1"})
    found = maps()
    with open(CDB, "wb") as file:
        file.write(b"x")
    with pytest.raises(BadFile):
        found.refresh()                 # for another message
    with pytest.raises(BadFile):
        found.get("a")
    make_cdb({"a": "2"})
    assert found.get("a") == ("2", CDB)


def test_a_file_that_came_together_with_a_bad_one_is_used_when_that_is_gone():
    found = maps()
    make_cdb({"a": "cdb", "#words": "from"})
    with open(SQLITE, "w", encoding="ascii") as file:
        file.write("no database")
    for look in (found.refresh, lambda: found.get("a")):
        with pytest.raises(BadFile):
            look()
    os.unlink(SQLITE)
    assert found.refresh() == {"from"}
    assert found.get("a") == ("cdb", CDB)


def test_what_a_cdb_remembers_is_bounded(monkeypatch):
    monkeypatch.setattr(cdb, "MOST_KNOWN", 3)
    make_cdb({"a": "1", "long": "x" * 300})
    table = cdb.Cdb(os.open(CDB, os.O_RDONLY), CDB)
    for _ in range(2):
        assert [table.get(key) for key in ("a", "b", "long", "c", "d", "e")] == [
            "1", None, "x" * 300, None, None, None]
        assert len(table._known) <= 3 and "long" not in table._known
    table.close()


def test_hash():
    """Of the format's text: 5381, then times 33 and xor for each octet."""
    assert cdb.hash_of(b"") == 5381
    assert cdb.hash_of(b"a") == (5381 * 33) ^ 97
    assert cdb.hash_of(200 * b"\xff") < 1 << 32
