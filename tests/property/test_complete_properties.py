import io
from email.utils import getaddresses

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mqmail.base.failure import Permanent
from mqmail.mail import header
from mqmail.mail.address import parse_address
from mqmail.mail.complete import Settings, complete
from mqmail.mail.crlf import Body
from mqmail.mail.mailboxes import Hosts
from mqmail.mail.mailboxes import complete as complete_list

HOSTS = Hosts("example.org", "example.org", "plus.example")
KNOWN = Settings(HOSTS, "id.example.org", "alice", seconds=1.5)

names = st.sampled_from([b"To", b"Cc", b"Bcc", b"From", b"Return-Path", b"Resent-To", b"X", b"Date"])
junk = st.binary(max_size=200) | st.text('\\"()<>@,;:.[] \r\n\tab', max_size=60).map(str.encode)
headers = junk | st.lists(st.tuples(names, st.just(b": "), junk, st.just(b"\n")).map(b"".join),
                          max_size=6).map(b"".join)


@settings(deadline=None, max_examples=400)
@given(headers, st.booleans())
@example(b"To: a\r\n \rBcc: b\n", True)
@example(b"To: a\n Bcc: x@y.z\n", True)
def test_any_bytes_as_a_header(data, from_header):
    fields, _ = header.read(io.BytesIO(data).readline)
    try:
        done = complete(fields, KNOWN.replace(from_header=from_header, recipients=("b@x.y",)))
    except Permanent as failure:
        assert from_header
        assert failure.text.startswith("header field ")
        return
    assert done.header.endswith(b"\r\n")
    rest = done.header.replace(b"\r\n", b"")
    assert b"\r" not in rest
    assert b"\n" not in rest
    lines = done.header.split(b"\r\n")[:-1]
    assert all(0 < len(line) <= 998 and line.strip() for line in lines)
    assert all(parse_address(one) == one for one in done.recipients)
    again, body = header.read(io.BytesIO(done.header + b"\r\nbody").readline)
    assert body == b""
    assert header.write(again) == done.header
    removed = {b"bcc", b"resent-bcc", b"return-path", b"content-length"}
    assert not removed & {field.key for field in again}


atoms = st.from_regex(r"[a-z0-9!#$%&'*/=?^_`{|}~-]{1,12}", fullmatch=True)
phrases = st.none() | st.text('abc ,;:<>@.()', min_size=1, max_size=15)
comments = st.sampled_from(["", " (x)", " (a, b@c (d) \\) e)"])


@st.composite
def mailboxes(draw):
    """(an address as written, the address)"""
    local = ".".join(draw(st.lists(atoms, min_size=1, max_size=3)))
    domain = ".".join(draw(st.lists(st.from_regex("[a-z0-9]{1,8}", fullmatch=True), min_size=2,
                                    max_size=4)))
    phrase, whole = draw(phrases), f"{local}@{domain}"
    shown = whole if phrase is None else f'"{phrase}" <{whole}>'
    return shown + draw(comments), whole


@settings(deadline=None)
@given(st.lists(mailboxes(), max_size=8), st.sampled_from([",", ", ", ",\r\n\t", " , (c) ,"]))
def test_no_recipient_of_a_well_formed_list_is_lost(boxes, separator):
    text = separator.join([shown for shown, _ in boxes])
    changed, found = complete_list(text, HOSTS)
    assert found == [whole for _, whole in boxes]
    assert changed == text


@settings(deadline=None)
@given(st.lists(mailboxes(), min_size=1, max_size=8))
def test_the_standard_library_finds_the_same(boxes):
    text = ", ".join([shown for shown, _ in boxes])
    assert complete_list(text, HOSTS)[1] == [found for _, found in getaddresses([text])]


@settings(deadline=None)
@given(st.lists(st.tuples(atoms, st.sampled_from(["", "@cs", "@cs+", "@a.b"])), max_size=8),
       st.sampled_from([" ", ", ", "\n "]))
def test_completing_is_done_once(boxes, separator):
    changed, found = complete_list(separator.join([a + b for a, b in boxes]), HOSTS)
    assert len(found) == len(boxes)
    assert complete_list(changed, HOSTS) == (changed, found)


PIECES = [b"\r", b"\n", b"\r\n", b"x" * 998, b"y" * 997, "\u20ac".encode() * 400]
bodies = st.lists(st.binary(max_size=30) | st.sampled_from(PIECES), max_size=12)


@settings(deadline=None)
@given(bodies)
def test_any_body_in_any_pieces(pieces):
    body, whole = Body(), Body()
    made = b"".join([*[body.feed(piece) for piece in pieces], body.end()])
    text = b"".join(pieces)
    assert made == whole.feed(text) + whole.end()
    assert not made or made.endswith(b"\r\n")
    lines = made.split(b"\r\n")
    assert all(len(line) <= 998 and b"\r" not in line and b"\n" not in line for line in lines)
    ends = bytes.maketrans(b"", b"")
    assert b"".join(lines) == text.translate(ends, b"\r\n")


@settings(deadline=None)
@given(bodies)
def test_each_piece_of_a_body_ends_a_line(pieces):
    body = Body()
    for piece in pieces:
        made = body.feed(piece)
        assert not made or made.endswith(b"\r\n")
