import pytest

from mqmail.mail.headerscan import HeaderScan, is_field


def scan(*pieces, longest=1 << 20):
    found = HeaderScan(longest)
    for piece in pieces:
        found.feed(piece)
    return found


def test_received_fields_are_counted_in_any_case_and_in_the_header_only():
    found = scan(b"Received: a\r\nRECEIVED: b\r\n\tReceived: no\r\nX-Received: no\r\n"
                 b"received:c\r\nSubject: Received: no\r\n\r\nReceived: body\r\n")
    assert found.received == 3
    assert found.done


def test_a_header_that_comes_byte_by_byte():
    found = scan(*[bytes((b,)) for b in b"Received: a\r\nReceived: b\r\n\r\nx"])
    assert (found.received, found.done, found.starts_with_header) == (2, True, True)


def test_more_than_the_limit_is_a_loop():
    assert not scan(b"Received: x\r\n" * 100 + b"\r\n").loops()
    assert scan(b"Received: x\r\n" * 101 + b"\r\n").loops()
    assert scan(b"Received: x\r\n" * 3 + b"\r\n").loops(2)


@pytest.mark.parametrize("first", [b" folded: x", b"\tx", b"hello", b"From a@b Fri Nov 22", b":x",
                                   b"a b: c", b"\xc3\xbc: x", b"x" * 300 + b": y", b"."])
def test_a_message_that_starts_with_no_field_is_all_body(first):
    found = scan(first + b"\r\nReceived: x\r\n\r\n")
    assert (found.started, found.starts_with_header, found.done) == (True, False, True)
    assert found.received == 0


@pytest.mark.parametrize("first", [b"Subject: x\r\n", b"Subject : x\r\n", b"x" * 200 + b":\r\n",
                                   b"Subject: " + b"x" * 900])
def test_a_message_that_starts_with_a_field(first):
    found = scan(first)
    assert (found.started, found.starts_with_header, found.done) == (True, True, False)


@pytest.mark.parametrize(("message", "header"), [(b"", True), (b"\r\nbody\r\n", True),
                                                 (b"Subject: x", True), (b"hello", False)])
def test_short_messages(message, header):
    assert scan(message).starts_with_header is header


def test_nothing_is_decided_by_half_a_first_line():
    assert not scan(b"Subj").started
    assert not scan(b"\r").started
    assert scan(b"Subj", b"ect: x\r\n").starts_with_header


def test_a_header_may_be_as_large_as_the_limit_and_not_larger():
    header = b"Subject: x\r\n" * 10 + b"\r\n"
    assert not scan(header + b"x" * 999, longest=len(header)).too_large
    found = scan(header + b"x", longest=len(header) - 1)
    assert (found.too_large, found.done) == (True, True)


def test_no_line_is_held_whole():
    found = scan(b"Subject: ", *[b"x" * 1000] * 500)
    assert len(found._held) < 300


def test_a_field_name():
    assert is_field(b"X-A:")
    assert not is_field(b"no colon")
    assert not is_field(b"")
