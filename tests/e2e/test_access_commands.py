"""mq-access explains the access table of a home; mq-makemap makes its other forms."""

import os
import sqlite3

import pytest

from support.home import run

pytestmark = pytest.mark.e2e
TABLE = """\
# who may what
To:postmaster@          OK
Connect:192.0.2.0/24    RELAY
Connect:192.0.2.66      REJECT 554 5.7.1 it has a virus

From:@spam.example      set:strict REJECT
To:doctor@mail.example.org REQUIRE tls
To:alice@relay.example  RELAY
To:@relay.example       DEFER 451 Please try main MX
To:trap@                DISCARD
"""


@pytest.fixture
def site(new_home):
    """A home with the table, where nothing runs."""
    home = new_home()
    home.control(access=TABLE, optionsets="strict greetdelay=3\n")
    return home


def ask(home, *words):
    """(exit code, lines)."""
    done = home.run("mq-access", *words, check=False)
    assert done.stderr == b"", done.stderr
    return done.returncode, done.stdout.decode().splitlines()


def test_the_deciding_entry_and_what_comes_of_it(site):
    words = ["connect=192.0.2.66", "from=eve@spam.example", "to=Postmaster@mail.example.org"]
    assert ask(site, *words) == (0, [
        "connect: control/access line 4: connect:192.0.2.66 REJECT 554 5.7.1 it has a virus",
        "from: control/access line 6: from:spam.example set:strict REJECT",
        "to: control/access line 2: to:postmaster@ OK",
        "so: passed on to mq-resolve"])
    words = ["connect=192.0.2.66", "helo=x.example", "from=<>", "to=bob@mail.example.org"]
    assert ask(site, *words) == (1, [
        "connect: control/access line 4: connect:192.0.2.66 REJECT 554 5.7.1 it has a virus",
        "helo: no entry",
        "from: no entry",
        "to: no entry",
        "so: 554 5.7.1 it has a virus"])


@pytest.mark.parametrize(("words", "code", "last"), [
    (["to=zoe@relay.example"], 2, "so: 451 4.7.1 Please try main MX"),
    (["to=alice@relay.example"], 0, "so: passed on to mq-resolve, and may be anywhere"),
    (["connect=192.0.2.7", "to=x@far.example"], 0, "so: passed on to mq-resolve, and may be anywhere"),
    (["to=x@far.example"], 0, "so: passed on to mq-resolve"),
    (["to=trap@far.example"], 0, "so: taken and thrown away"),
    (["to=doctor@mail.example.org"], 1, "so: 530 5.7.10 this mail needs TLS: say STARTTLS first"),
    (["tls=no", "to=doctor@mail.example.org"], 1,
     "so: 530 5.7.10 this mail needs TLS: say STARTTLS first"),
    (["tls=yes", "to=doctor@mail.example.org"], 0, "so: passed on to mq-resolve"),
    (["to=postmaster"], 0, "so: passed on to mq-resolve"),
    (["connect=192.0.2.66"], 1,
     "connect: control/access line 4: connect:192.0.2.66 REJECT 554 5.7.1 it has a virus"),
])
def test_outcomes(site, words, code, last):
    found = ask(site, *words)
    assert (found[0], found[1][-1]) == (code, last)


def test_all_that_is_looked_up(site):
    assert ask(site, "--all", "to=Bob+x@relay.example")[1][:-2] == [
        f"to: looked up to:{name}" for name in (
            "bob+x@relay.example", "bob@relay.example", "bob+x@", "bob@", "relay.example")]


def test_a_dry_run_of_a_host_name(site):
    site.control(access="Connect:.dialup.example REJECT\n")
    assert ask(site, "host=1.2.dialup.example")[0] == 1
    assert ask(site, "connect=192.0.2.1", "host=dialup.example")[0] == 0


@pytest.mark.parametrize("word", ["to", "to=x y", "connect=1.2.3", "size=3", "from=@", "tls=1.3"])
def test_a_wrong_command_line(site, word):
    done = site.run("mq-access", word, check=False)
    assert (done.returncode, done.stdout) == (100, b"")
    assert done.stderr.startswith(b"mq-access: ")


def test_a_mistake_in_the_table(site):
    site.control(access=TABLE + "To:bob@mail.example.org RELYA\n")
    done = site.run("mq-access", "to=bob@mail.example.org", check=False)
    assert done.returncode == 111
    assert b'control/access line 11: unknown action "RELYA": write OK' in done.stderr


# --- other forms ---


@pytest.mark.parametrize(("option", "form"), [([], "cdb"), (["--sqlite"], "sqlite")])
def test_a_table_in_another_form(site, option, form, tmp_path):
    path = site.path / f"control/access.{form}"
    lines = tmp_path / "lines"
    lines.write_text("# many\nTo:Carl@relay.example RELAY\nConnect:198.51.0.0/18 OK\n")
    done = site.run("mq-makemap", *option, "access", lines)
    assert done.stdout == f"control/access.{form}: 2 entries\n".encode()
    owner = os.stat(site.path).st_uid
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (owner, 0o644)
    assert ask(site, "connect=198.51.63.1", "to=carl@relay.example") == (0, [
        f"connect: control/access.{form}: connect:198.51.0.0/18 OK",
        f"to: control/access.{form}: to:carl@relay.example RELAY",
        "so: passed on to mq-resolve, and may be anywhere"])
    assert ask(site, "to=zoe@relay.example")[0] == 2        # the text's
    assert site.run("mq-showctl", "--check").stdout == b""

    lines.write_text("To:carl@relay.example RELYA\n")
    done = site.run("mq-makemap", *option, "access", lines, check=False)
    assert done.returncode == 111
    assert f'{lines} line 1: unknown action "RELYA"'.encode() in done.stderr
    assert ask(site, "to=carl@relay.example")[0] == 0

    site.run("mq-makemap", *option, "access", "-", text=b"To:carl@relay.example REJECT\n")
    assert ask(site, "to=carl@relay.example")[0] == 1
    site.run("mq-makemap", *option, "--delete", "access")
    assert not path.exists()
    assert site.run("mq-makemap", *option, "--delete", "access", check=False).returncode == 100


def test_no_temporary_file_stays(site):
    before = sorted(os.listdir(site.path / "control"))
    site.run("mq-makemap", "access", "-", text=b"To:x@ RELYA\n", check=False)
    (site.path / "control/access.cdb").mkdir()
    done = site.run("mq-makemap", "access", "-", text=b"To:x@ OK\n", check=False)
    assert done.returncode == 111
    assert sorted(os.listdir(site.path / "control")) == sorted([*before, "access.cdb"])


def test_an_option_set_that_is_not_there_or_opens_too_much_is_a_mistake(site):
    site.control(optionsets="open relay=yes\n")
    for text, why in (
            ("Connect:192.0.2.1 OK\nTo:x@ set:nowhere OK\n", "there is no option set nowhere"),
            ("\nFrom:x@far.example set:open\n", "set:open has relay=yes, and anybody can write")):
        done = site.run("mq-makemap", "access", "-", text=text.encode(), check=False)
        assert done.returncode == 111
        assert done.stderr.startswith(f"mq-makemap: standard input line 2: {why}".encode())
    site.run("mq-makemap", "access", "-", text=b"To:x@ set:open OK\n")


def test_only_tables_that_may_have_other_forms(site):
    assert site.run("mq-makemap", "locals", "-", check=False).returncode == 100


def test_an_sqlite_table_made_by_other_means(site):
    database = sqlite3.connect(site.path / "control/access.sqlite")
    database.execute("CREATE TABLE map(key TEXT PRIMARY KEY, value TEXT)")
    database.execute("INSERT INTO map VALUES ('connect:203.0.113.0/24', 'REJECT'), ('to:bad@', 'RELYA')")
    database.commit()
    database.close()
    os.chown(site.path / "control/access.sqlite", os.stat(site.path).st_uid, -1)
    assert ask(site, "connect=203.0.113.5")[0] == 1
    done = site.run("mq-access", "to=bad@x.example", check=False)
    assert done.returncode == 111
    assert b'control/access.sqlite: to:bad@: unknown action "RELYA"' in done.stderr


def test_a_damaged_table(site):
    (site.path / "control/access.cdb").write_bytes(b"x")
    os.chown(site.path / "control/access.cdb", os.stat(site.path).st_uid, -1)
    done = site.run("mq-access", "to=x@far.example", check=False)
    assert done.returncode == 111
    assert b"control/access.cdb: no whole cdb file" in done.stderr


def test_no_home():
    assert run("mq-access", "--home", "/nonexistent", "to=a@b", check=False).returncode == 111
