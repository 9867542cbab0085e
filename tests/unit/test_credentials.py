"""control/credentials: what a line may hold, and that no secret is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mqmail.base.failure import BadFile
from mqmail.control import credentials, lines
from mqmail.control.credentials import Credentials, Entry, parse_credentials


def parse(text):
    return lines.parse("control/credentials", text.encode(), parse_credentials, "me.example")


@pytest.mark.parametrize(("line", "entry"), [
    ("a user secret", Entry("user", "secret")),
    ("  a\tuser \t secret  ", Entry("user", "secret")),
    ("a user@example.com p#ss+w=rd,!", Entry("user@example.com", "p#ss+w=rd,!")),
    ("a user #", Entry("user", "#")),
    ("a user back\\slash", Entry("user", "back\\slash")),
    ('a user mid"quote"', Entry("user", 'mid"quote"')),
    ('a user "abcd efgh  ijkl "', Entry("user", "abcd efgh  ijkl ")),
    ('a user "!not a program"', Entry("user", "!not a program")),
    (r'a user "\"quoted\" and \\"', Entry("user", r'"quoted" and \ '.strip())),
    ('a "user name" p\u00e4ss', Entry("user name", "p\u00e4ss")),
    ("a user secret plain,Login", Entry("user", "secret", (), ("PLAIN", "LOGIN"))),
    ('a user "a b" SCRAM-SHA-256', Entry("user", "a b", (), ("SCRAM-SHA-256",))),
    ("a user !/bin/token", Entry("user", "", ("/bin/token",))),
    ('a user !"/bin/token --for  user" xoauth2', Entry("user", "", ("/bin/token", "--for", "user"),
                                                       ("XOAUTH2",))),
])
def test_lines(line, entry):
    assert parse(f"# who we are\n\n{line}\n") == Credentials({"a": entry})


def test_entries_are_found_by_name():
    found = parse("smart.example-1_@ user one\nother user two\n")
    assert found.entry("other").secret == "two"
    assert found.entry("smart.example-1_@").secret == "one"
    assert found.entry("Other") is None
    assert found == Credentials({"smart.example-1_@": Entry("user", "one"),
                                 "other": Entry("user", "two")})


@pytest.mark.parametrize(("line", "why"), [
    ("a user", "2 words instead of 3 or 4"),
    ("a user geheim geheim x", "5 words instead of 3 or 4"),
    ("a user geheim geheim", "the fourth word is not a list of SCRAM-SHA-256-PLUS, .*double quotes"),
    ("a user geheim XOAUTH2", "the fourth word"),
    ("a user geheim PLAIN,", "the fourth word"),
    ("a user geheim !PLAIN", "the fourth word"),
    ("a user !/bin/geheim PLAIN", "the fourth word is not a list of OAUTHBEARER, XOAUTH2"),
    ("a user !bin/geheim", "not followed by a path"),
    ("a user !geheim", "not followed by a path"),
    ("a user !", "no secret"),
    ("a user ! geheim", "no secret"),
    ('a user ""', "no secret"),
    ('a "" geheim', "no user"),
    ("a !user geheim", "no user"),
    ('a user "geheim', "a quote without an end"),
    ('a user "geheim\\"', "a quote without an end"),
    ('a user "geheim\\', "stands only before"),
    ('a user "gehe\\im"', "stands only before"),
    ('a user "geh"eim', "something follows a closing quote"),
    ("!a user geheim", "the first word is not a name"),
    ("geheim/1 user geheim", "the first word is not a name"),
    ("b\u00e4r user geheim", "the first word is not a name"),
    (f"{'a' * 65} user geheim", "the first word is not a name"),
    ('"" user geheim', "the first word is not a name"),
    ("b user geheim", "b is given twice"),
])
def test_mistakes_are_named_and_show_no_secret(line, why):
    with pytest.raises(BadFile, match=f"control/credentials line 2: .*{why}") as caught:
        parse(f"b user x\n{line}\n")
    assert "eim" not in repr(caught.value)


def test_an_entry_does_not_show_its_secret():
    found = parse('a user geheim PLAIN\nb user !"/bin/token geheim"\n')
    assert "geheim" not in f"{found!r} {found} {found.entry('a')} {found.entry('b')!r}"
    assert "<Entry user='user' secret=... mechanisms=('PLAIN',)>" in repr(found)


def test_the_examples_of_the_manual():
    page = (Path(__file__).parents[2] / "man/mq-credentials.5").read_text(encoding="utf-8")
    blocks = page.partition(".Sh EXAMPLES\n")[2].split(".Bd -literal -offset indent\n")
    found = parse(blocks[1].partition("\n.Ed")[0])
    assert found.entries == {
        "smarthost": Entry("office-7", "hunter2"),
        "app": Entry("alice@example.com", "abcd efgh ijkl mnop", (), ("PLAIN",)),
        "cloud": Entry("bob@example.net", "", ("/usr/local/bin/mail-token", "bob")),
    }


def test_entries_that_differ():
    one = Entry("user", "a")
    assert hash(one) == hash(Entry("user", "a"))
    assert one not in (Entry("user", "b"), Entry("other", "a"), Entry("user", "a", ("/x",)),
                       Entry("user", "a", (), ("PLAIN",)), "a")


@pytest.mark.parametrize(("mode", "accepted"), [(0o600, True), (0o640, True), (0o400, True),
                                                (0o644, False), (0o604, False)])
def test_who_may_read_the_file(tmp_path, mode, accepted):
    path = tmp_path / "credentials"
    path.touch()
    path.chmod(mode)
    if accepted:
        credentials.check_mode(str(path), os.stat(path))
    else:
        with pytest.raises(BadFile, match=f"others may read it: chmod 600 {path}"):
            credentials.check_mode(str(path), os.stat(path))
