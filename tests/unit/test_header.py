import io

import pytest

from mqmail.base.failure import Permanent
from mqmail.mail import header


def read(data):
    source = io.BytesIO(data)
    fields, first = header.read(source.readline)
    return [(f.name, f.content) for f in fields], first + source.read()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n"])
def test_fields_folding_and_body(end):
    text = b"To: a,\n\tb\nSubject:x\n\nbody: 1\n".replace(b"\n", end)
    fields, body = read(text)
    assert fields == [(b"To", b" a,\n\tb"), (b"Subject", b"x")]
    assert body == b"body: 1" + end


def test_a_bare_cr_is_no_line_end():
    assert read(b"Subject: x\rBcc: evil@x\n\n") == ([(b"Subject", b" x Bcc: evil@x")], b"")


def test_a_first_line_that_is_no_field_means_no_header():
    for data in (b"hello world\nTo: x\n", b" To: x\n", b": x\n", b"a b: c\n", b"caf\xc3\xa9: c\n"):
        assert read(data) == ([], data)


def test_a_line_that_is_no_field_starts_the_body():
    assert read(b"To: a\nhello\nCc: b\n") == ([(b"To", b" a")], b"hello\nCc: b\n")


def test_blanks_before_the_colon_do_not_hide_a_field():
    fields, _ = header.read(io.BytesIO(b"Bcc \t: a\n\n").readline)
    assert fields == [header.Field(b"bcc", b"Bcc", b" a")]


def test_a_line_of_blanks_neither_ends_the_header_nor_stays():
    assert read(b"To: a,\n \t \n b\n\nx")[0] == [(b"To", b" a,\n b")]


def test_mbox_from_lines_on_top_are_dropped():
    assert read(b"From a@b Sat Jan 03 01:05:34 1996\n>From x\nTo: a\n\nFrom b\n") == (
        [(b"To", b" a")], b"From b\n")


def test_header_without_body_and_nothing_at_all():
    assert read(b"To: a") == ([(b"To", b" a")], b"")
    assert read(b"") == ([], b"")
    assert read(b"\nbody") == ([], b"body")


def test_a_header_larger_than_the_limit_is_refused():
    line = b"X: " + b"y" * 60 + b"\n"
    fits = line * (header.LARGEST // len(line))
    assert len(read(fits + b"\n")[0]) == header.LARGEST // len(line)
    for data in (fits + line, b"X: " + b"y" * header.LARGEST, b"X: y\n" + b" z" * header.LARGEST,
                 b"From " + b"y" * (header.LARGEST - 4) + b"\n\nbody\n"):
        with pytest.raises(Permanent, match="larger than 1048576 octets"):
            read(data)


def test_a_huge_first_line_without_colon_is_body():
    data = b"y" * (header.LARGEST * 2)
    assert read(data) == ([], data)


def test_writing_uses_crlf_and_keeps_what_was_there():
    fields, _ = header.read(io.BytesIO(b"to:a,\n\tb  \nX:\n\n").readline)
    assert header.write(fields) == b"to:a,\r\n\tb  \r\nX:\r\n"


def test_long_lines_are_folded_at_blanks():
    raw = header.write([header.make("To", ", ".join(["bob@example.org"] * 200))])
    lines = raw.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert raw.replace(b"\r\n", b"") == b"To: " + b", ".join([b"bob@example.org"] * 200)


def test_long_lines_without_blanks_are_folded_anywhere_but_in_a_character():
    raw = header.write([header.make("X", "\u00e9" * 3000)])
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert "".join(raw.decode().split()) == "X:" + "\u00e9" * 3000


def test_folding_makes_no_line_of_blanks():
    for content in (b" " * 5000, b" " * 5000 + b"x", b"x\n" + b" " * 3000 + b"y" * 3000):
        lines = header.write([header.Field(b"x", b"X", content)]).split(b"\r\n")
        assert all(line.strip() for line in lines[:-1])
        assert max(map(len, lines)) <= 998
