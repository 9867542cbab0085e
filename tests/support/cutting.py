"""Input cut anywhere, and texts that are mostly trouble, for hypothesis."""

import itertools

from hypothesis import settings
from hypothesis import strategies as st

from mqmail.xmtp.text import BARE, LONG

often = settings(deadline=None, max_examples=300)
cuts = st.lists(st.integers(0, 400), max_size=12)
kinds = st.sampled_from(["smtp", "lmtp"])
scraps = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b".",
        b"\r\n.\r\n",
        b"\r\n..",
        b"x",
        b"ab",
        b"\xc3\xbc",
        b"\0",
        b"y" * 9,
        b"y" * 10,
        b"y" * 11,
        b"\xae",
        b"\x85",
    ]
)
texts = st.lists(scraps | st.binary(max_size=6), max_size=14).map(b"".join)


def pieces(data, places):
    ends = sorted(min(place, len(data)) for place in places)
    return [data[a:b] for a, b in itertools.pairwise([0, *ends, len(data)])]


def flaw_by_hand(body, longest):
    """The first flaw, octet by octet."""
    column = 0
    for at, octet in enumerate(body):
        if octet == 10 and not (at and body[at - 1] == 13):
            return BARE
        if octet == 13:
            if body[at + 1 : at + 2] != b"\n":
                return BARE
        elif octet == 10:
            column = 0
        else:
            column += 1
            if column > longest:
                return LONG
    return ""
