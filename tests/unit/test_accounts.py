"""Accounts that get mail: qmail-getpw's rules, and what is remembered."""

import os
import pwd
import resource

import pytest

from mqmail.base.failure import Temporary
from mqmail.control import accounts


def account(name="joe", uid=None, home="/"):
    uid = os.getuid() + 1 if uid is None else uid
    return pwd.struct_passwd((name, "x", uid, 1, "", home, "/bin/sh"))


@pytest.fixture
def database(monkeypatch):
    """The password database: name to entry; root is always there. Counts look-ups."""
    class Database(dict):
        asked = 0

    found = Database()

    def getpwnam(name):
        found.asked += 1
        return found[name]

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    return found


def test_an_account_with_a_home_of_its_own(database, tmp_path):
    uid = 54321 if os.getuid() == 0 else os.getuid()
    if os.getuid() == 0:
        os.chown(tmp_path, uid, -1)
    database["joe"] = account(uid=uid, home=str(tmp_path))
    assert accounts.look_up("joe") == str(tmp_path)


def test_never_root_not_even_by_another_name(database, tmp_path):
    database["toor"] = account(uid=0, home=str(tmp_path))
    assert accounts.look_up("toor") is None


def test_a_home_of_somebody_else_or_of_nobody(database, tmp_path):
    database["daemon"] = account(uid=os.getuid() + 1, home=str(tmp_path))
    database["nobody"] = account(uid=12345, home="/nonexistent")
    database["odd"] = account(uid=12345, home="/dev/null/x")
    assert [accounts.look_up(name) for name in database] == [None, None, None]


def test_root_is_refused_on_this_host_too():
    assert accounts.look_up("root") is None


@pytest.mark.parametrize("name", ["", "x" * 33, "j\xf6rg", "nobody-has-this-name"])
def test_names_that_are_no_accounts(name):
    assert accounts.look_up(name) is None


def test_a_disk_with_trouble_puts_mail_off(database, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    database["joe"] = account(home=str(tmp_path / "loop"))
    with pytest.raises(Temporary, match="home directory"):
        accounts.look_up("joe")


def test_without_descriptors_nobody_is_unknown():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(Temporary, match="/etc/passwd: Too many open files"):
            accounts.look_up("nobody-has-this-name")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_answers_are_kept_for_a_while(database, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(accounts.time, "monotonic", lambda: now[0])
    kept = accounts.Accounts()
    assert [kept.home_of("joe") for _ in range(3)] == [None] * 3
    assert database.asked == 1
    now[0] += accounts.KEPT
    kept.home_of("joe")
    assert database.asked == 2


def test_what_is_kept_is_bounded(database, monkeypatch):
    monkeypatch.setattr(accounts, "MOST_KEPT", 3)
    kept = accounts.Accounts()
    for number in range(10):
        kept.home_of(f"joe{number}")
        assert len(kept._homes) <= 3
