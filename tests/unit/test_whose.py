"""Whose an address is: the mailbox or account, and the extension."""

import os

import pytest
from nonroot import home, nonroot  # noqa: F401

from mqmail.control import lines
from mqmail.control.users import parse_users
from mqmail.control.whose import (
    extensions,
    find_account,
    find_mailbox,
    has_file,
    part_of,
    without_detail,
)

# ruff: noqa: F811  the fixture is imported

USERS = """
alice@x.example
alice-news@x.example
Bob@x.example:bobdir
@all.example:rest
jim@all.example
"""


def users(text=USERS):
    return lines.parse("control/users", text.encode(), parse_users, "")


def always(_home, _ext):
    return True


def never(_home, _ext):
    return False


@pytest.mark.parametrize(("address", "found"), [
    ("alice@x.example", ("alice", "")),
    ("ALICE@X.example", ("alice", "")),
    ('"alice"@x.example', ("alice", "")),
    ("bob@x.example", ("bobdir", "")),
    ("alice+tag@x.example", ("alice", "")),
    ("alice+@x.example", ("alice", "")),
    ("alice+a+b@x.example", ("alice", "")),
    ("alice-news+tag@x.example", ("alice-news", "")),
    ("alice-Foo@x.example", ("alice", "Foo")),
    ("alice-foo+tag@x.example", ("alice", "foo+tag")),
    ("alice-news-foo@x.example", ("alice-news", "foo")),
    ("alice-@x.example", None),
    ("-alice@x.example", None),
    ("alicex@x.example", None),
    ("carol@x.example", None),
    ("alice@y.example", None),
    ("who@all.example", ("rest", "")),
    ("jim-who@all.example", ("jim", "who")),
])
def test_mailboxes(address, found):
    assert find_mailbox(address, users(), "+", always) == found


def test_an_extension_without_a_file_goes_to_the_catch_all_or_to_nobody():
    assert find_mailbox("alice-foo@x.example", users(), "+", never) is None
    assert find_mailbox("jim-who@all.example", users(), "+", never) == ("rest", "")


def test_the_longest_name_that_is_a_user_owns_its_extensions():
    asked = []
    find_mailbox("alice-news-foo@x.example", users(), "+", lambda *which: asked.append(which))
    assert asked == [("mail/alice-news", "foo")]


def test_delimiters_are_those_given():
    assert find_mailbox("alice=tag@x.example", users(), "=", never) == ("alice", "")
    assert find_mailbox("alice+tag@x.example", users(), "", never) is None
    assert find_mailbox("alice-tag@x.example", users(), "-", never) == ("alice", "")


def test_a_dash_as_delimiter_does_not_break_the_names_of_lists():
    assert list(without_detail("owner-team", "-+")) == []
    assert list(without_detail("team-request", "-")) == []
    assert list(without_detail("owner-team+x", "-+")) == ["owner-team"]
    assert list(without_detail("a-b-c", "-")) == ["a-b", "a"]


def test_extensions_are_neither_empty_nor_of_nobody():
    assert list(extensions("a-b-c")) == [("a-b", "c"), ("a", "b-c")]
    assert list(extensions("-a-")) == []
    assert list(extensions("a--")) == [("a", "-")]


@pytest.mark.parametrize(("local", "found"), [
    ("joe", ("joe", "", "")),
    ("JOE", ("joe", "", "")),
    ("joe+x", ("joe", "", "")),
    ("joe-Ext-more", ("joe", "Ext-more", "-")),
    ("joe-dev-x", ("joe-dev", "x", "-")),
    ("jo", None),
    ("joe.x", None),
])
def test_accounts(local, found):
    homes = {"joe": "/home/joe", "joe-dev": "/home/dev"}
    assert find_account(local, homes.get, "+", always) == found


def test_an_account_has_the_extensions_it_has_files_for():
    assert find_account("joe-x", {"joe": "/home/joe"}.get, "+", never) is None
    asked = []
    find_account("joe-x", {"joe": "/home/joe"}.get, "+", lambda *which: asked.append(which))
    assert asked == [("/home/joe", "x")]


@pytest.mark.parametrize(("file", "ext", "found"), [
    (".qmail-news", "news", True),
    (".qmail-news", "News", True),
    (".qmail-a:b", "a.b", True),
    (".qmail-list-default", "list-owner-x", True),
    (".qmail-default", "what-ever", True),
    (".qmail-news", "new", False),
    (".qmail-list-default", "list", False),
    (".qmail", "news", False),
])
def test_files_of_extensions(tmp_path, file, ext, found):
    (tmp_path / file).touch()
    assert has_file(str(tmp_path), ext) is found


@pytest.mark.parametrize("ext", ["../x", "/etc/passwd", "a/b", "x" * 300])
def test_no_extension_leaves_the_home(tmp_path, ext):
    (tmp_path / "home").mkdir()
    (tmp_path / "x").touch()
    assert has_file(str(tmp_path / "home"), ext) is False


def test_a_home_that_is_not_there_has_no_files(tmp_path):
    assert has_file(str(tmp_path / "gone"), "x") is False


@nonroot
def test_where_we_may_not_look_the_delivery_decides(home):
    os.chmod(home, 0)
    assert has_file(home, "x") is True


def test_trouble_with_the_disk_is_no_answer(tmp_path):
    (tmp_path / ".qmail-x").symlink_to(".qmail-x")
    with pytest.raises(OSError, match="symbolic links"):
        has_file(str(tmp_path), "x")


@pytest.mark.parametrize(("destination", "address", "delimiters", "part"), [
    ("mailbox", "Alice-a-b@x.example", "+", "alice@x.example"),
    ("mailbox", "alice+a-b@x.example", "+", "alice@x.example"),
    ("mailbox", "alice+a@x.example", "", "alice+a@x.example"),
    ("local", "alice=a@x.example", "+=", "alice"),
    ("local", "alice@y.example", "+=", "alice"),
    ("local", "-alice-a@y.example", "", "-alice"),
    ("local", "alice", "+", "alice"),
])
def test_whose_share_an_address_counts_for(destination, address, delimiters, part):
    assert part_of(destination, address, delimiters) == part
