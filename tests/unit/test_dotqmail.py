from __future__ import annotations

import pytest

from mqmail.mail import dotqmail
from mqmail.mail.dotqmail import BadInstructions, Instruction


def parse(text):
    return [(i.kind, i.text) for i in dotqmail.parse(text.encode(), "example.com")]


def test_every_kind_of_line():
    assert parse("# comment\n|exit 0\n&ann@example.org\ncarl@example.org\n\n./Mail/in \t\n"
                 "/srv/mbox\n./Maildir/\n/srv/Maildir/\n&dora\n7up@example.org") == [
        ("command", "exit 0"), ("forward", "ann@example.org"), ("forward", "carl@example.org"),
        ("mbox", "./Mail/in"), ("mbox", "/srv/mbox"), ("maildir", "./Maildir/"),
        ("maildir", "/srv/Maildir/"), ("forward", "dora@example.com"), ("forward", "7up@example.org")]


def test_empty_file_is_the_default_delivery_but_comments_deliver_nothing():
    assert dotqmail.parse(b"", "h") == (Instruction("maildir", "./Maildir/"),)
    assert parse("# nothing\n") == []


def test_lines_end_with_lf_alone():
    assert parse("|echo a\vb\x0cc\x85\u2028d\n") == [("command", "echo a\vb\x0cc\x85\u2028d")]
    assert parse("./mbox\r\n") == [("mbox", "./mbox")]


def test_bytes_that_are_not_utf8_survive():
    (found,) = dotqmail.parse(b"./caf\xe9\n", "h")
    assert found.text.encode("utf-8", "surrogateescape") == b"./caf\xe9"


@pytest.mark.parametrize(("text", "complaint"), [
    ("\n./Maildir/\n", "line 1: the first line is blank"),
    (" \t\n", "line 1: the first line is blank"),
    ("# x\n+list\n", "line 2: unknown instruction '+list'"),
    ("# x\n leading@space.example\n", "line 2: unknown instruction"),
    ("&no domain\n", "line 1: bad address 'no domain'"),
    ("a@b\n&<a@b>\n", "line 2: bad address '<a@b>'"),
    ("&\n", "line 1: bad address ''"),
    ("|a\0b\n", "line 1: NUL"),
    ("|" + "x" * 4096, "line 1: longer than 4096"),
    ("a@b.example\n" * 1001, "more than 1000 forwards"),
    ("|x\n" * 101, "more than 100 files and programs"),
    ("#" * 65537, "larger than 65536"),
])
def test_what_is_refused(text, complaint):
    with pytest.raises(BadInstructions, match=complaint.replace("+", r"\+")):
        parse(text)


def test_limits_are_allowed():
    assert len(parse("a@b.example\n" * 1000)) == 1000
    assert len(parse("|x\n" * 100)) == 100
    assert parse("|" + "x" * 4095) == [("command", "x" * 4095)]


def test_candidates():
    assert dotqmail.candidates("", "") == [(".qmail", None)]
    assert dotqmail.candidates("-", "Foo-B.ar") == [
        (".qmail-foo-b:ar", None), (".qmail-foo-default", "B.ar"), (".qmail-default", "Foo-B.ar")]
    assert dotqmail.candidates("+", "foo") == [(".qmail-foo", None), (".qmail-default", "foo")]
    assert dotqmail.candidates("-", "") == [(".qmail-", None), (".qmail-default", "")]


@pytest.mark.parametrize("ext", ["../x", "a/b", "/", "a\0b"])
def test_no_extension_leaves_the_home(ext):
    with pytest.raises(ValueError):
        dotqmail.candidates("-", ext)
    assert all("." not in name[1:] for name, _ in dotqmail.candidates("-", ".."))


def test_owner():
    assert dotqmail.owner_file("", "") == ".qmail-owner"
    assert dotqmail.owner_file("-", "List") == ".qmail-list-owner"
    assert dotqmail.owner_sender("bob-list@example.com") == "bob-list-owner@example.com"
    assert dotqmail.owner_sender("bob-list@example.com", "ann@x.example") == \
        "bob-list-owner-ann=x.example@example.com"
    assert dotqmail.owner_sender("bob-list@example.com", "ann@" + "x" * 60 + ".example") is None
    assert dotqmail.command_sender("bob-list@example.com", True, False) == "bob-list-owner@example.com"
    assert dotqmail.command_sender("bob-list@example.com", True, True) == \
        "bob-list-owner-@example.com-@[]"
    assert dotqmail.command_sender("bob-list@example.com", False, True) is None


def environment(**changes):
    given = {"user": "bob", "home": "/home/bob", "ext": "", "default": None, "sender": "ann@example.org",
             "new_sender": "ann@example.org", "recipient": "bob@mx.example.co.uk", "seconds": 820631134}
    return dotqmail.environment(**{**given, **changes})


def test_environment():
    found = environment(ext="a-b-c-d", default="c-d", recipient="bob-a-b-c-d@mx.example.co.uk",
                        new_sender="bob-owner@mx.example.co.uk")
    assert found == {
        "SENDER": "ann@example.org", "NEWSENDER": "bob-owner@mx.example.co.uk",
        "RECIPIENT": "bob-a-b-c-d@mx.example.co.uk", "USER": "bob", "HOME": "/home/bob",
        "LOCAL": "bob-a-b-c-d", "EXT": "a-b-c-d", "EXT2": "b-c-d", "EXT3": "c-d", "EXT4": "d",
        "HOST": "mx.example.co.uk", "HOST2": "mx.example.co", "HOST3": "mx.example", "HOST4": "mx",
        "DEFAULT": "c-d", "DTLINE": "Delivered-To: bob-a-b-c-d@mx.example.co.uk\n",
        "RPLINE": "Return-Path: <ann@example.org>\n",
        "UFLINE": "From ann@example.org Wed Jan 03 01:05:34 1996\n"}


def test_environment_without_default_extension_or_dots():
    found = environment(recipient="bob@localhost")
    assert "DEFAULT" not in found
    assert [found[n] for n in ("EXT", "EXT2", "EXT4", "HOST2", "HOST4")] == ["", "", "", "localhost",
                                                                              "localhost"]


def test_no_value_is_a_function_to_bash():
    evil = "() { :;}; touch /tmp/owned"
    found = environment(ext=evil, default=evil, recipient='"() { :;}; touch /tmp/owned"@x.example')
    assert found["EXT"] == found["DEFAULT"] == found["LOCAL"] == " " + evil
    assert not any(text.startswith("()") for text in found.values())


def test_no_value_holds_a_control_character():
    found = environment(ext="a\nb\0c", sender="a\r\nBcc: x@y", home="/h\x7f")
    assert found["EXT"] == "a_b_c"
    assert found["HOME"] == "/h_"
    assert found["RPLINE"] == "Return-Path: <a__Bcc: x@y>\n"
    assert found["UFLINE"].count("\n") == 1


def test_from_line():
    assert dotqmail.from_line("", 0) == "From MAILER-DAEMON Thu Jan 01 00:00:00 1970\n"
    assert dotqmail.from_line('"a b\tc\n"@x', 86400 * 20) == 'From "a-b-c-"@x Wed Jan 21 00:00:00 1970\n'
