import pytest

from mqmail.mail.crlf import Body


def convert(*pieces):
    body = Body()
    return b"".join([*[body.feed(piece) for piece in pieces], body.end()])


@pytest.mark.parametrize(("given", "made"), [
    (b"a\nb\n", b"a\r\nb\r\n"), (b"a\r\nb\r\n", b"a\r\nb\r\n"), (b"a\rb\r", b"a\r\nb\r\n"),
    (b"a\r\r\nb", b"a\r\n\r\nb\r\n"), (b"\n.\n", b"\r\n.\r\n"), (b"", b""), (b"\r", b"\r\n"),
    (b"a\r\r", b"a\r\n\r\n"), (b"\0\xff\n", b"\0\xff\r\n")])
def test_every_line_ends_in_crlf(given, made):
    assert convert(given) == made


def test_a_line_of_998_octets_is_left_alone():
    assert convert(b"x" * 998 + b"\ny") == b"x" * 998 + b"\r\ny\r\n"
    assert convert(b"x" * 998) == b"x" * 998 + b"\r\n"


def test_a_longer_line_is_broken():
    assert convert(b"a\n" + b"x" * 999 + b"\n") == b"a\r\n" + b"x" * 998 + b"\r\nx\r\n"
    assert convert(b"x" * 998 + b"\r", b"\n") == b"x" * 998 + b"\r\n"


def test_no_character_of_utf8_is_broken():
    text = "x" + "\u20ac" * 2000
    assert convert(text.encode()).decode().replace("\r\n", "") == text
