"""Message text on its way, cut anywhere."""

from hypothesis import example, given

from mqmail.xmtp.text import BadText, DataDecoder, DataEncoder, TextCheck
from support.cutting import cuts, flaw_by_hand, often, pieces, texts


@often
@given(texts, cuts)
@example(b"y" * 12 + b"\r", [11])
@example(b"y" * 10 + b"\rx", [11])
def test_a_text_is_judged_the_same_however_it_is_cut(body, places):
    check = TextCheck(10)
    for piece in pieces(body, places):
        check.feed(piece)
    check.finish()
    assert check.flaw == flaw_by_hand(body, 10)


def decoded_by_hand(data):
    """(body, octets used) of DATA as RFC 5321 4.5.2 says, or (body so far, -1)."""
    lines, at = [], 0
    while True:
        end = data.find(b"\r\n", at)
        line = data[at:] if end < 0 else data[at:end]
        if end >= 0 and line == b".":
            return b"".join(lines), end + 2
        held = end < 0 and line in (b".", b".\r")
        lines.append(b"" if held else line.removeprefix(b".") + (b"\r\n" if end >= 0 else b""))
        if end < 0:
            return b"".join(lines), -1
        at = end + 2


@often
@given(texts, cuts)
@example(b".\r\n", [])
@example(b".\n.\r.\r\n", [1, 2, 3, 4])
@example(b"\r\n.\r\r\n.\r\n", [3, 4, 5])
def test_the_end_of_data_is_found_however_it_is_cut(data, places):
    decoder, out, seen = DataDecoder(), b"", 0
    found = -1
    for piece in pieces(data, places):
        body, used = decoder.feed(piece)
        out += body
        if used >= 0:
            found = seen + used
            break
        seen += len(piece)
    assert (out, found) == decoded_by_hand(data)


@often
@given(texts, cuts, cuts)
def test_what_the_encoder_sends_the_decoder_reads(body, places, others):
    encoder, check = DataEncoder(), TextCheck()
    check.feed(body)
    check.finish()
    try:
        sent = b"".join([encoder.feed(piece) for piece in pieces(body, places)]) + encoder.finish()
    except BadText:
        assert check.flaw
        return
    assert not check.flaw
    decoder = DataDecoder()
    got = [decoder.feed(piece) for piece in pieces(sent, others)]
    assert b"".join([body for body, _ in got]) == body + (
        b"" if body.endswith(b"\r\n") or not body else b"\r\n"
    )
    assert [used for _, used in got if used >= 0][0] >= 0
    assert sent.endswith(b"\r\n.\r\n") or sent == b".\r\n"
    assert b"\r\n.\r\n" not in (b"\r\n" + sent)[:-1]
