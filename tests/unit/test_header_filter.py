"""The filter that rewrites addresses in a header: what it changes, and what it leaves alone."""

import pytest

from mqmail.mail import mailboxes
from mqmail.mail.headerfilter import LONGEST_FIELD, MOST_LOOKED_AT, PRICE, HeaderFilter

NAMES = {"joe@in.example": "joe.doe@out.example", "ann@in.example": "ann@out.example",
         "o d@in.example": '"o d"@out.example'}


def outside(address):
    """The test's table: two people, and a domain."""
    local, _, domain = address.rpartition("@")
    if domain.lower() != "in.example":
        return address
    return NAMES.get(f"{local.lower()}@in.example", f"{local}@out.example")


def through(message, *, pieces=0, change=outside):
    """*message* through a filter of To and From, whole or in pieces of so many octets."""
    found = HeaderFilter({b"to": change, b"from": change})
    step = pieces or max(1, len(message))
    out = [found.feed(message[place:place + step]) for place in range(0, len(message), step)]
    return b"".join(out) + found.end()


@pytest.mark.parametrize(("before", "after"), [
    ("joe@in.example", "joe.doe@out.example"),
    ("Joe Doe <JOE@In.Example>", "Joe Doe <joe.doe@out.example>"),
    ("zoe@IN.example (Zoe, \"of\" in.example)", "zoe@out.example (Zoe, \"of\" in.example)"),
    ('"zoe"@in.example', '"zoe"@out.example'),
    ('"zoe\\" <x@in.example>" <zoe@in.example>', '"zoe\\" <x@in.example>" <zoe@out.example>'),
    ("=?utf-8?q?J=C3=B6?= <zoe@in.example>,\r\n\tann@in.example",
     "=?utf-8?q?J=C3=B6?= <zoe@out.example>,\r\n\tann@out.example"),
    ("team: joe@in.example, x@else.example;, Ann <ann@in.example>",
     "team: joe.doe@out.example, x@else.example;, Ann <ann@out.example>"),
    ("zoe (the one) @ (at) in . example", "zoe (the one) @ (at) out.example"),
    ("<@a.example,@b.example:zoe@in.example>", "<@a.example,@b.example:zoe@out.example>"),
    ("<@a.example:joe@in.example>", "<joe.doe@out.example>"),
    ("M\u00fcller <m\u00fcller@in.example>", "M\u00fcller <m\u00fcller@out.example>"),
    ("zoe@in.example\r\n .sub", "zoe@in.example\r\n .sub"),      # in.example.sub
    ("undisclosed-recipients:;", "undisclosed-recipients:;"),
    ("joe, <>, root", "joe, <>, root"),
    ("ann@in.example, zoe@in.example, joe@@in.example",
     "ann@in.example, zoe@in.example, joe@@in.example"),         # no list
    ("<joe@in.example", "<joe@in.example"),
    ("(joe@in.example", "(joe@in.example"),
])
def test_only_addresses_change(before, after):
    start = b"Subject: to joe@in.example\r\nTo:"
    rest = b"\r\nX-To: joe@in.example\r\n\r\nTo: joe@in.example\r\n"
    message = start + before.encode() + rest
    expected = start + after.encode() + rest
    assert through(message) == expected
    assert through(message, pieces=1) == expected


def test_octets_that_are_no_text_stay():
    before = b"To: \xff\xfe <joe@in.example>,\r\n  \xc3(x\xe4) zoe@in.example \r\n\r\n\xff"
    after = b"To: \xff\xfe <joe.doe@out.example>,\r\n  \xc3(x\xe4) zoe@out.example \r\n\r\n\xff"
    assert through(before) == after


@pytest.mark.parametrize("message", [
    b"", b"\r\n", b"\r\nTo: joe@in.example\r\n", b"\r\n To: joe@in.example\r\n", b"\r", b"To",
    b"Hello\r\nTo: joe@in.example\r\n", b" To: joe@in.example\r\n",
    b"Subject: x\r\nHello,\r\nTo: joe@in.example\r\n",
    b"Subject: x\r\n\r\nTo: joe@in.example\r\n", b"To : \r\n\r\n", b"To: x\nTo: joe@in.example@\r\n"])
def test_what_is_no_field_of_the_header_stays(message):
    for pieces in (0, 1, 2, 3):
        assert through(message, pieces=pieces) == message


@pytest.mark.parametrize(("before", "after"), [
    (b"To: zoe@in.example", b"To: zoe@out.example"),
    (b"to :zoe@in.example\r\n", b"to :zoe@out.example\r\n"),
    (b"From: zoe@in.example\r\nTo: zoe@in.example\r\n\r\n",
     b"From: zoe@out.example\r\nTo: zoe@out.example\r\n\r\n")])
def test_a_message_may_end_anywhere(before, after):
    for pieces in (0, 1, 2):
        assert through(before, pieces=pieces) == after


def test_a_line_that_becomes_too_long_is_folded():
    people = ", ".join([f"u{number}@in.example" for number in range(61)])
    assert len(people) < 990
    found = through(f"To: {people}\r\n\r\n".encode())
    lines = found.split(b"\r\n")
    assert len(lines) == 4
    assert max(map(len, lines)) <= 998
    assert b" ".join(lines[:2]).replace(b"  ", b" ") == b"To: " + people.replace("in.", "out.").encode()


def test_no_address_is_parted_by_folding():
    people = [f"u{number}@in.example" for number in range(68)]
    found = through(f"To: {','.join(people)}\r\n\r\n".encode())
    lines = found.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert b"".join(lines).replace(b" ", b"") == f"To:{','.join(people).replace('in.', 'out.')}".encode()
    assert all(line.endswith(b",") for line in lines[1:-3])


def test_a_huge_field_passes_as_it_is():
    huge = b"To: " + b"joe@in.example,\r\n " * (LONGEST_FIELD // 18 + 1) + b"\r\n"
    rest = b"To: joe@in.example\r\n\r\n"
    for pieces in (0, 1000, LONGEST_FIELD):
        assert through(huge + rest, pieces=pieces) == huge + b"To: joe.doe@out.example\r\n\r\n"
    line = b"x" * (LONGEST_FIELD + 10) + b": y\r\nTo: joe@in.example\r\n"       # no field
    for pieces in (0, 1000):
        assert through(line, pieces=pieces) == line


def test_what_is_looked_at_is_bounded():
    field = b"To: " + b"joe@in.example,\r\n " * 300 + b"\r\n"
    message = field * 40 + b"From: ann@in.example\r\n\r\n"
    asked = []
    found = through(message, change=lambda address: asked.append(address) or address)
    assert found == message
    assert len(asked) == 300 * (MOST_LOOKED_AT // (len(field) + 300 * PRICE)) + 1


def test_what_the_table_raises_comes_out():
    def fails(address):
        raise OSError(address)

    with pytest.raises(OSError, match="joe@in.example"):
        through(b"To: joe@in.example\r\n\r\n", change=fails)


def test_what_is_asked_about_is_canonical():
    asked = []
    mailboxes.change('"a"@X.example, b(c)@d.example, "e f"@g.example, h',
                     lambda one: asked.append(one) or one)
    assert asked == ["a@X.example", "b@d.example", '"e f"@g.example']
