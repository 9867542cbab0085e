"""What must never end a message or begin a command."""

import pytest

from support.dialogue import codes, opened

ENVELOPE = b"MAIL FROM:<a@b.com>\r\nRCPT TO:<a@b.com>\r\n"
SECOND = b"MAIL FROM:<smuggled@b.com>\r\nRCPT TO:<x@b.com>\r\nDATA\r\nevil\r\n"

BARE = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\n\r.\n\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\r\0\n.\r\n",
    b"\r\n\r.\r\n",
]
TEXT = [
    b"\r\n. \r\n",
    b"\r\n.\t\r\n",
    b"\r\n.\v\r\n",
    b"\r\n.\f\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\x0b.\x0b",
    b"\x1c.\x1c",
    b"\x1d.\x1d",
    b"\x1e.\x1e",
    b"\x85.\x85",
    b"\xc2\x85.\xc2\x85",
    b"\xe2\x80\xa8.\xe2\x80\xa8",
    b"\xe2\x80\xa9.\xe2\x80\xa9",
    b"\r\n\xef\xbc\x8e\r\n",
    b"\r\n\xe3\x80\x82\r\n",
    b"\r\n\xae\r\n",
    b"\r\n\xc0\xae\r\n",
    b"\x8d\x8a.\x8d\x8a",
    b"\r\n..\r\n",
]


@pytest.mark.parametrize("look_alike", BARE)
@pytest.mark.parametrize("lead", [b"", b"text"])
def test_a_bare_line_end_is_refused_once_and_all_is_swallowed(look_alike, lead):
    told = opened()
    told.say(ENVELOPE + b"DATA\r\n")
    assert told.say(lead + look_alike + SECOND) == b""
    answers = told.say(b".\r\nNOOP\r\n")
    assert codes(answers) == [550, 250]
    assert answers.startswith(b"550 5.6.11 ")
    assert told.bodies == []
    assert [event.sender for event in told.log if hasattr(event, "sender")] == ["a@b.com"]


@pytest.mark.parametrize("look_alike", TEXT)
def test_what_only_looks_like_an_end_is_text(look_alike):
    told = opened()
    told.say(ENVELOPE + b"DATA\r\n")
    assert told.say(b"text" + look_alike + SECOND) == b""
    assert codes(told.say(b".\r\n")) == [250]
    assert told.bodies == [b"text" + look_alike.replace(b"\r\n.", b"\r\n") + SECOND]


@pytest.mark.parametrize("first", [b".\n", b".\r", b".\rx", b".\n.\n"])
def test_the_first_octets_after_354(first):
    told = opened()
    told.say(ENVELOPE + b"DATA\r\n")
    assert told.say(first + SECOND) == b""
    assert codes(told.say(b"\r\n.\r\n")) == [550]


@pytest.mark.parametrize("edge", [1024, 4096, 8192, 16384, 65536])
@pytest.mark.parametrize("shift", range(-3, 4))
@pytest.mark.parametrize(
    ("end", "real"), [(b"\r\n.\r\n", True), (b"\n.\r\n", False), (b"\r\n.\n", False)]
)
def test_an_end_at_the_edge_of_a_buffer(edge, shift, end, real):
    told = opened()
    told.say(ENVELOPE + b"DATA\r\n")
    lines = b"x" * 510 + b"\r\n"
    body = (lines * 200)[: edge + shift].rstrip(b"\r\n") + end
    out = b"".join([told.say(body[at : at + edge]) for at in range(0, len(body), edge)])
    assert codes(out) == ([250] if real else [])
    assert told.server.in_transaction is not real


def test_dots():
    told = opened()
    told.say(ENVELOPE + b"DATA\r\n")
    told.say(b"..\r\n...\r\n.x\r\n" + b"y" * 511 + b".z\r\n" + b"y" * 997 + b".\r\n.\r\n")
    assert told.bodies == [b".\r\n..\r\nx\r\n" + b"y" * 511 + b".z\r\n" + b"y" * 997 + b".\r\n"]


def test_an_end_of_data_inside_a_chunk_is_text():
    told = opened()
    body = b"a\r\n.\r\nQUIT\r\n.\r\n"
    assert codes(told.say(ENVELOPE + b"BDAT %d LAST\r\n" % len(body) + body + b"NOOP\r\n")) == [
        250,
        250,
        250,
        250,
    ]
    assert told.bodies == [body]


def test_a_bare_line_end_in_a_chunk_is_refused_and_the_rest_swallowed():
    told = opened()
    assert codes(told.say(ENVELOPE + b"BDAT 3\r\na\nbBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")) == [
        250,
        250,
        550,
        503,
        250,
    ]
    assert told.bodies == []


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL FROM:<a@b.com>\nRCPT TO:<x@b.com>\r\n",
        b"MAIL FROM:<a@b.com>\rRCPT TO:<x@b.com>\r\n",
        b"MAIL FROM:<a\nRSET\n@b.com>\r\n",
        b"NOOP\n\r\n",
        b"\nMAIL FROM:<a@b.com>\r\n",
    ],
)
def test_nothing_of_a_line_with_a_bare_line_end_is_a_command(line):
    told = opened()
    assert set(codes(told.say(line))) == {500}
    assert told.log == []
    assert codes(told.say(b"NOOP\r\n")) == [250]


def test_text_behind_a_refused_data_is_no_message():
    told = opened()
    answers = codes(
        told.say(b"MAIL FROM:<a@b.com>\r\nRCPT TO:<no@b.com>\r\nDATA\r\ntext\r\n.\r\nQUIT\r\n")
    )
    assert answers == [250, 550, 554, 500, 500, 221]
    assert told.bodies == []


def test_what_was_said_before_tls_is_dropped():
    told = opened(offer=("STARTTLS", "PIPELINING"))
    assert codes(told.say(b"STARTTLS\r\nNOOP\r\n" + b"RSET\r\n" * 10000 + b"MAIL FR")) == [220]
    assert told.say(b"NOOP\r\n") == b""
    assert told.server.buffered == 0
    told.server.tls_started()
    assert told.server.state == "start"
    assert codes(told.say(b"OM:<a@b.com>\r\nMAIL FROM:<a@b.com>\r\nEHLO c\r\n")) == [500, 503, 250]
