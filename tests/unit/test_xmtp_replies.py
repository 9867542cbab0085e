"""Reading what servers say, and the paths of a 551."""

import pytest

from mqmail.xmtp.reply import (
    ProtocolError,
    Reply,
    ReplyReader,
    Target,
    elsewhere,
    facts_of,
    reply,
    split_status,
    tag_of,
    targets_of,
)


def read(octets):
    return ReplyReader().feed(octets)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("User not local; please try <user@domain.example>", [Target("new", "user@domain.example")]),
        ("<@remote:user@domain.example>", [Target("remote", "user@domain.example")]),
        ("#3 <a@b.com> sender=owner-a@b.com", [Target("new", "a@b.com", "owner-a@b.com")]),
        ('try <"a>b\\" <c"@d.com> now', [Target("new", '"a>b\\" <c"@d.com')]),
        ('<@local:"a b"@d.com> sender="x+20y"@z.com', [Target("local", '"a b"@d.com', '"x y"@z.com')]),
        ("<@one.example,@two.example:a@b.com>", [Target("new", "a@b.com")]),
    ],
)
def test_one_path(text, wanted):
    assert targets_of(reply(551, "5.1.6", text)) == wanted


def test_several_paths():
    (answer,) = read(
        b"551-5.1.6 this one has moved\r\n551-5.1.6 <a@b.com>\r\n551 5.1.6 <@local:c@d.com>\r\n"
    )
    assert targets_of(answer) == [Target("new", "a@b.com"), Target("local", "c@d.com")]


def test_what_elsewhere_says_targets_of_reads():
    targets = [("", '"a>b"@c.com', ""), ("remote", "x@y.example", '"o w"@z.com')]
    (answer,) = read(elsewhere(targets, tag="#1 ").encode(4096))
    assert targets_of(answer) == [
        Target("new", '"a>b"@c.com'),
        Target("remote", "x@y.example", '"o w"@z.com'),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "go away",
        "<>",
        "<a@b.com",
        "<a>b@c.com>",
        '<"a@b.com>',
        "<a@b.com >",
        "<@a.b:c@d.com>",
        "<@:c@d.com>",
        "<a@b.com> sender=x+0D+0ARSET",
        "<a@b.com> sender=x",
        "<a@b.com> sender=a>b@c.com",
        "<a\x00@b.com>",
        "<a b@c.com>",
    ],
)
def test_bad_paths(text):
    with pytest.raises(ProtocolError, match="551"):
        targets_of(reply(551, "5.1.6", text))


@pytest.mark.parametrize(
    "octets",
    [
        b"25\r\n",
        b"\r\n",
        b"hello\r\n",
        b"250x\r\n",
        b"150 x\r\n",
        b"600 x\r\n",
        b"2_0 x\r\n",
        b"+25 x\r\n",
        b"\xd9\xa1\xd9\xa1 x\r\n",
        b"250-a\r\n251 b\r\n",
        b"250\tx\r\n",
        b"x" * 5000,
        b"250 " + b"x" * 5000 + b"\r\n",
        b"250-x\r\n" * 600,
    ],
)
def test_no_replies(octets):
    with pytest.raises(ProtocolError):
        read(octets)


def test_terse_and_odd_replies():
    assert read(b"421\r\n250-\r\n250 \r\n220 x\n") == [
        Reply(421),
        Reply(250, ("", "")),
        reply(220, "", "x"),
    ]


def test_nothing_that_moves_a_cursor_comes_out():
    (answer,) = read(b"550 a\x1b[2Jb\0c\rd\x7f\xff\xc2\x85\xe2\x80\xaee\r\n")
    assert answer.text == "a?[2Jb?c?d?\\xff??e"


def test_nothing_that_ends_a_line_goes_out():
    assert (
        Reply(550, ("a\r\nb\x00c\u2028d", "e\ud800"), "5.0.0").encode()
        == b"550-5.0.0 a??b?c?d\r\n550 5.0.0 e?\r\n"
    )
    assert reply(550, "", "a\nb").encode() == b"550 a?b\r\n"


def test_lines_are_cut_to_the_limit():
    assert reply(250, "2.0.0", "x" * 600).encode() == b"250 2.0.0 " + b"x" * 500 + b"\r\n"
    assert reply(250, "2.0.0", "x" * 500).encode() == b"250 2.0.0 " + b"x" * 500 + b"\r\n"
    assert len(reply(250, "2.0.0", "\xfc" * 600).encode()) <= 512


@pytest.mark.parametrize(
    ("code", "text", "wanted"),
    [
        (550, "5.1.1 no", ("5.1.1", "no")),
        (550, "5.1.1", ("5.1.1", "")),
        (550, "4.1.1 no", ("", "4.1.1 no")),
        (550, "5.1 no", ("", "5.1 no")),
        (550, "5.1.x no", ("", "5.1.x no")),
        (250, "2.1.1000 x", ("", "2.1.1000 x")),
        (250, "2.\u0661.1 x", ("", "2.\u0661.1 x")),
    ],
)
def test_status(code, text, wanted):
    assert split_status(code, text) == wanted


def test_facts_and_tags():
    assert facts_of("ok id=1 said=a+20b bad=+zz 1x=2 =3 host=mx") == {
        "id": "1",
        "said": "a b",
        "host": "mx",
    }
    assert tag_of(reply(250, "", "#12 ok")) == 12
    for text in ("ok #12", "#", "#-1", "#1_0", "#\u0661", "#123456789"):
        assert tag_of(reply(250, "", text)) is None
