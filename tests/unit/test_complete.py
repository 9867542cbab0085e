import io

import pytest

from mqmail.base.failure import Permanent
from mqmail.mail import header
from mqmail.mail.complete import Settings, complete
from mqmail.mail.mailboxes import Hosts

HOSTS = Hosts("example.org", "example.org", "plus.example")
BASE = Settings(HOSTS, "id.example.org", "alice", name="Alice A", seconds=1_795_335_600.25, pid=42,
                recipients=("bob@example.com",))
ADDED = (b"Date: Sun, 22 Nov 2026 08:20:00 +0000\r\n"
         b"Message-ID: <20261122082000.250000.42.mqmail@id.example.org>\r\n"
         b'From: "Alice A" <alice@example.org>\r\n')


def run(text, **changes):
    return complete(header.read(io.BytesIO(text).readline)[0], BASE.replace(**changes))


def test_a_message_without_header_gets_one():
    done = run(b"")
    assert done.header == ADDED + b"Cc: recipient list not shown: ;\r\n"
    assert (done.sender, done.recipients) == ("alice@example.org", ("bob@example.com",))


def test_a_complete_header_is_left_as_it_is():
    text = (b"Received: x\r\nDate: y\r\nFrom: a@b.c\r\nMessage-Id: <z>\r\nTo: q@r.s (Q,\r\n R)\r\n"
            b"X-Odd:  kept \r\n")
    assert run(text).header == text


def test_recipients_of_the_header():
    done = run(b"To: a@x.y, b@x.y\nCC: c@x.y\nbcc: d@x.y\nBcc : e@x.y\nApparently-To: f\nTo: g@x.y\n"
               b"Resent-Foo: h@x.y\nX-To: i@x.y\n")
    assert done.recipients == ("bob@example.com", *[f"{c}@x.y" for c in "abcde"], "f@example.org",
                               "g@x.y")
    assert b"cc" not in done.header.lower().replace(b"cc: c@x.y\r\n", b"")


def test_recipients_only_of_the_command_line():
    done = run(b"To: a@x.y\nBcc: d@x.y\n", from_header=False)
    assert done.recipients == ("bob@example.com",)
    assert done.header == ADDED + b"To: a@x.y\r\n"


def test_a_recipient_given_twice_counts_once():
    assert run(b"To: bob@example.com, c@x.y\nCc: c@x.y\n").recipients == ("bob@example.com", "c@x.y")


def test_a_resent_message():
    done = run(b"Resent-To: r@x.y\nResent-Bcc: s@x.y\nTo: a@x.y\nBcc: b@x.y\nFrom: q@x.y\n",
               recipients=())
    assert done.recipients == ("r@x.y", "s@x.y")
    assert done.header == (b"".join([b"Resent-" + line for line in ADDED.splitlines(True)])
                           + b"Resent-To: r@x.y\r\nTo: a@x.y\r\nFrom: q@x.y\r\n")


def test_any_resent_field_makes_it_resent():
    with pytest.raises(Permanent, match="no recipients"):
        run(b"Resent-Date: x\nTo: a@x.y\n", recipients=())
    assert b"Resent-Cc: recipient list not shown: ;\r\n" in run(b"Resent-Date: x\nTo: a@x.y\n").header


def test_fields_that_are_removed():
    done = run(b"Return-Path: <r@x.y>\nContent-Length: 5\nBcc: b@x.y\nResent-Bcc: c@x.y\nX: 1\n")
    assert b"X: 1\r\n" in done.header
    for name in (b"Return-Path", b"Content-Length", b"Bcc"):
        assert name not in done.header


def test_sender_fields_are_completed():
    done = run(b"From: A <a>\nSender: s@cs\nReply-To: a b\nErrors-To: e\nX-From: x\n")
    assert done.header.endswith(b"From: A <a@example.org>\r\nSender: s@cs.example.org\r\n"
                                b"Reply-To: a@example.org, b@example.org\r\nErrors-To: e@example.org\r\n"
                                b"X-From: x\r\n")


def test_who_is_the_sender():
    text = b"Return-Path: <r@x.y>\nFrom: f@x.y\n"
    assert run(text, sender="given@x.y").sender == "given@x.y"
    assert run(text, sender="").sender == ""
    assert run(text).sender == "r@x.y"
    assert run(b"Return-Path: <>\n").sender == ""
    assert run(b"Return-Path: <broken\n").sender == "alice@example.org"
    assert run(text, letters="s").sender == "alice@example.org"
    assert run(text, letters="s", sender_user="su", sender_host="sh.x").sender == "su@sh.x"
    assert run(b"", host="h.x").sender == "alice@h.x"


def test_letters_m_and_r():
    assert run(b"", letters="m").sender == "alice-1795335600.42@example.org"
    assert run(b"", letters="rm").sender == "alice-1795335600.42-bob=example.com@example.org"
    assert run(b"", letters="r", sender="x@y.z").sender == "x@y.z"
    with pytest.raises(Permanent, match="QMAILINJECT=r"):
        run(b"To: c@x.y\n", letters="r")


def test_letters_f_and_i():
    assert run(b"From: x@y.z\nMessage-ID: <1>\nTo: a\n", letters="fi").header == \
        ADDED + b"To: a@example.org\r\n"
    made = run(b"Resent-From: x@y.z\nFrom: q@x.y\nMessage-ID: <1>\n", letters="fi").header
    assert b"x@y.z" not in made
    assert b"From: q@x.y\r\nMessage-ID: <1>\r\n" in made


@pytest.mark.parametrize(("name", "letters", "shown"), [
    ("", "", "alice@example.org"),
    ('A "B" \\', "", '"A \\"B\\" \\\\" <alice@example.org>'),
    ("A (B)", "c", "alice@example.org (A \\(B\\))"),
    ("Jos\u00e9 X", "", "=?utf-8?q?Jos=C3=A9=20X?= <alice@example.org>"),
    ("Jos\u00e9", "c", "alice@example.org (=?utf-8?q?Jos=C3=A9?=)"),
    ("a\r\nBcc: x@y.z", "", '"a  Bcc: x@y.z" <alice@example.org>'),
    ("a\udcff", "", "=?utf-8?q?a=EF=BF=BD?= <alice@example.org>"),
])
def test_the_name_in_from(name, letters, shown):
    assert f"\r\nFrom: {shown}\r\n" in run(b"", name=name, letters=letters).header.decode()


def test_long_names_make_encoded_words_of_at_most_75_characters():
    lines = run(b"", name="\u20ac" * 100).header.decode().split("\r\n")
    words = [word for line in lines for word in line.split() if word.startswith("=?")]
    assert len(words) > 10
    assert max(map(len, words)) <= 75


def test_a_user_or_host_with_a_line_end_is_refused():
    for changes in ({"user": "a\nBcc: x"}, {"host": "h\r\nBcc: x"}, {"sender_user": "a\nb"}):
        with pytest.raises(Permanent, match="user '.*' at host"):
            run(b"", **changes)


def test_a_list_that_cannot_be_read_is_an_error_only_where_it_counts():
    text = b"To: good@x.y, <bad\nFrom: <\n"
    with pytest.raises(Permanent, match="header field To: '<' without '>'"):
        run(text)
    done = run(text, from_header=False)
    assert done.header.endswith(b"To: good@x.y, <bad\r\nFrom: <\r\n")


def test_too_many_recipients():
    many = b"".join([b"To: %d@x.y\n" % n for n in range(10_001)])
    assert len(run(b"".join(many.splitlines(True)[:10_000]), recipients=()).recipients) == 10_000
    with pytest.raises(Permanent, match="more than 10000 recipients"):
        run(many, recipients=())
