"""The table of who may do what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mqmail.base.failure import BadFile, Temporary
from mqmail.control import lines, rights
from mqmail.control.rights import Account, Accounts

TOP = Path(__file__).parents[2]
PROGRAMS = [*rights.ROLE_OF, rights.OTHERS]


def test_architecture_shows_the_table():
    assert "\n".join(["", *rights.table(), ""]) in (TOP / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_the_decision_names_the_accounts():
    text = (TOP / "docs/decisions/0014-own-accounts.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")]
    named = {program.split()[0].rstrip(","): account.split()[0].rstrip(",") for program, account in rows}
    assert {role.program: role.account for role in rights.ROLES}.items() <= named.items()


@pytest.mark.parametrize("one", rights.SOCKETS, ids=lambda one: one.path)
def test_a_sockets_mode_lets_in_its_callers_and_nobody_else(one):
    for program in PROGRAMS:
        able = "w" in rights.may(program, one.owner, one.group, one.mode)
        assert able == rights.may_call(program, one), program


def test_may():
    assert rights.may("mq-queue", "mq-queue", "mq-queue", 0o640) == "rw"
    assert rights.may("mq-send", "mq-queue", "mq-queue", 0o640) == "r"
    assert rights.may("mq-bounce", "mq-queue", "mq-queue", 0o2771) == "x"
    assert rights.may(rights.OTHERS, "root", "root", 0o754) == "r"


@pytest.mark.parametrize(("path", "kind", "found"), [
    ("", rights.DIRECTORY, ""), ("control/me", rights.FILE, "control/*"),
    ("control/credentials", rights.FILE, "control/credentials"),
    ("queue/new/3f", rights.DIRECTORY, "queue/new/*"),
    ("queue/wait/3f/1kq3v9s0c0g00a2f", rights.FILE, "queue/wait/*/*"),
    ("mail/a", rights.DIRECTORY, "mail/*"),
    ("mail/a/Maildir/new/1", rights.FILE, "mail/*/**"), ("run/x", rights.FILE, "run/*"),
])
def test_places(path, kind, found):
    assert rights.place_of(path, kind).path == found


@pytest.mark.parametrize(("path", "kind"), [("run/x", rights.DIRECTORY), ("other", rights.FILE),
                                            ("mail/file", rights.FILE)])
def test_what_is_no_place(path, kind):
    assert rights.place_of(path, kind) is None


def parse(text):
    return lines.parse("control/accounts", text.encode(), rights.parse_accounts, "")


def test_accounts():
    found = parse("# numbers\nxmtpd 47100:47200\nmq-local nobody\n")
    assert found.of("xmtpd") == Account("", 47100, 47200)
    assert found.of("mq-local").name == "nobody"
    assert found.groups("xmtpd") == [47200]
    assert found == parse("xmtpd 47100:47200\nmq-local nobody\n") != parse("")


def test_groups_and_callers():
    found = Accounts({role.program: Account("", uid, uid + 100)
                      for uid, role in enumerate(rights.ROLES, 1)})
    assert found.groups("mq-send") == sorted([found.of("mq-send").gid, found.of("mq-queue").gid])
    assert found.callers("run/resolve.sock") == {0, found.of("xmtpd").uid, found.of("mq-send").uid}
    assert found.of(rights.ROOT) == Account("root", 0, 0)


def test_no_account():
    if rights.named("mqd") is not None:
        pytest.skip("this host has one")
    with pytest.raises(Temporary, match="no account mqd for xmtpd: mq-setup --system makes it"):
        parse("").of("xmtpd")


@pytest.mark.parametrize(("text", "said"), [
    ("xmtpd", "write one of xmtpd"), ("mq-start 1:1", "write one of"), ("xmtpd 1:1 2", "write one of"),
    ("xmtpd no-such-account", "this host has no account 'no-such-account'"),
    ("xmtpd 1:", "write two numbers"), ("xmtpd 1:4294967295", "write two numbers"),
    ("xmtpd -1:1", "two numbers"), ("xmtpd 0:5", "is root"), ("xmtpd root", "is root"),
    ("xmtpd 1:1\nxmtpd 2:2", "line 2: xmtpd is given twice"),
])
def test_mistakes(text, said):
    with pytest.raises(BadFile, match=said):
        parse(text)


def test_groups_of_a_named_account_are_the_hosts():
    found = parse("mq-queue nobody\nmq-send nobody\n")
    entry = rights.named("nobody")
    assert found.groups("mq-queue") == sorted(set(os.getgrouplist("nobody", entry.gid)))
