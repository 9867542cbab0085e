from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mqmail.mail.headerscan import HeaderScan

lines = st.sampled_from([b"Received: x", b"received:", b"Subject: y", b"\tfolded", b"", b"bad", b"\r",
                         b"\n", b"\r\n", b"z" * 250, b"Received: " + b"z" * 300, b"A" * 258 + b":"])
messages = st.lists(lines | st.binary(max_size=300), max_size=12).map(b"\r\n".join)


def scanned(pieces, longest):
    found = HeaderScan(longest)
    for piece in pieces:
        found.feed(piece)
    return (found.received, found.starts_with_header, found.done, found.too_large, found.started)


@settings(deadline=None, max_examples=500)
@given(messages, st.lists(st.integers(0, 3000), max_size=8), st.integers(1, 1500))
@example(b"A" * 255 + b"\r\n", [256], 1500)
@example(b"A" * 256 + b"\r\r\n\r\n", [257, 258], 1500)
def test_any_cutting_gives_the_same(message, cuts, longest):
    places = [0, *sorted(min(c, len(message)) for c in cuts), len(message)]
    pieces = [message[a:b] for a, b in pairwise(places)]
    assert scanned(pieces, longest) == scanned([message], longest)
    assert scanned([bytes((b,)) for b in message], longest) == scanned([message], longest)


@settings(deadline=None)
@given(messages)
def test_it_counts_what_a_reader_line_by_line_counts(message):
    header = []
    for line in (b"Subject: x\r\n" + message).split(b"\r\n"):
        if not line:
            break
        header.append(line)
    wanted = sum(line.lower().startswith(b"received:") for line in header)
    assert scanned([b"Subject: x\r\n" + message], 1 << 20)[0] == wanted
