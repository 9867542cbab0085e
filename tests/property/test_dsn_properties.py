from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mqmail.mail.dsn import Report, Reported, headers_only, report

SEED = "0123456789abcdef"
nasty = st.text(max_size=60) | st.text("\r\n\0 -=_.;\x85\u2028\udcff\U0001f600", max_size=60) | (
    st.sampled_from([f"\r\n--=_mqmail.{SEED}--\r\n", "x" * 3000, "\u00fc" * 3000, "line\r\n" * 999]))
actions = st.sampled_from(["failed", "delayed", "delivered", "relayed", "expanded"])
reporteds = st.builds(Reported, nasty, actions, nasty, nasty, nasty, nasty, nasty, nasty)
reports = st.builds(Report, nasty, nasty, nasty, nasty, nasty, st.just(SEED),
                    st.lists(reporteds, min_size=1, max_size=3).map(tuple), nasty, nasty,
                    st.sampled_from(["", "full", "hdrs"]), st.integers(0, 1 << 30),
                    st.booleans(), st.booleans(), st.booleans())
ORIGINAL = b"Subject: x\r\n\r\nbody\r\n"


@settings(deadline=None, max_examples=300)
@given(reports)
def test_any_values_make_a_report_of_three_parts(about):
    whole = b"".join(report(about, [ORIGINAL]))
    lines = whole.split(b"\r\n")
    assert whole.endswith(f"\r\n--=_mqmail.{SEED}--\r\n".encode())
    assert all(b"\r" not in line and b"\n" not in line and b"\0" not in line for line in lines)
    assert max(map(len, lines)) <= 998
    assert sum(line.startswith(b"--") for line in lines) == 4
    whole.decode("utf-8")
    assert about.utf8 or not (about.to + about.sender).isascii() or whole.isascii()
    status = whole.split(f"\r\n--=_mqmail.{SEED}\r\n".encode())[2]
    assert status.count(b"\r\nFinal-Recipient: ") == len(about.recipients)
    assert status.count(b"\r\n\r\n") == len(about.recipients) + 1
    assert status.count(b"\r\nAction: ") == len(about.recipients)


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"A: b", b"", b"\r", b"\n", b"long" * 5]), max_size=8)
       .map(b"\r\n".join), st.lists(st.integers(0, 80), max_size=5), st.integers(1, 60))
@example(b"A: b\r\n\r\n", [5, 6, 7], 6)
def test_a_header_is_the_same_in_any_cutting(message, cuts, longest):
    places = [0, *sorted(min(c, len(message)) for c in cuts), len(message)]
    pieces = [message[a:b] for a, b in pairwise(places)]
    header = b"".join(headers_only(pieces, longest))
    assert header == b"".join(headers_only([message], longest))
    assert len(header) <= longest
    assert (b"\r\n" + message + b"\r\n").startswith(b"\r\n" + header)
    assert b"\r\n\r\n" not in b"\r\n" + header
