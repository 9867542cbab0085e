import pytest

from mqmail.mail.mimeheader import content_type, read
from mqmail.mail.mimewalk import LONGEST_HEADER, MOST_DEPTH, MOST_SECTIONS
from mqmail.mail.recode import CannotRecode, check, needs_recoding, recode, recoded_size

TOP = "MIME-Version: 1.0\n"
MIXED = TOP + 'Content-Type: multipart/mixed; boundary="b"\n\n'


def octets(text):
    """A message as the queue has it; U+DCxx stand for single octets."""
    return text.replace("\n", "\r\n").encode("utf-8", "surrogateescape")


def recoded(text):
    message = octets(text)
    assert needs_recoding([message])
    plan = check([message])
    out = b"".join(recode([message], plan))
    assert recoded_size([message], plan) == len(out)
    assert not needs_recoding([out])
    return out.decode("ascii").replace("\r\n", "\n")


def refused(text):
    with pytest.raises(CannotRecode) as caught:
        check([octets(text)])
    assert caught.value.status == "5.6.3"
    return str(caught.value)


def test_text_becomes_quoted_printable_and_keeps_its_lines():
    assert recoded(TOP + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
                   "Subject: a\n b\n\nmäh = x \n.\nFrom me\n--x\n-x\n") == (
        TOP + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n"
        "Subject: a\n b\n\nm=C3=A4h =3D x=20\n=2E\n=46rom me\n=2D-x\n-x\n")


def test_other_content_becomes_base64():
    assert recoded(TOP + "Content-Type: image/png\n\nä") == (
        TOP + "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\nw6Q=\n")


def test_text_that_is_mostly_not_ascii_becomes_base64_with_its_crlf():
    assert recoded(TOP + "Content-Type: text/html\n\näöü\n").endswith("base64\n\nw6TDtsO8DQo=\n")
    assert recoded(TOP + "Content-Type: text/html\n\nä12345\n").endswith("printable\n\n=C3=A412345\n")


def test_only_the_parts_that_need_it_are_changed():
    assert recoded(MIXED + "--b\nX: y\n\nfine -- here\n\n--b\n\nä123456\n--b\n"
                   "Content-Transfer-Encoding: base64\n\nAAAA\n--b--\n") == (
        MIXED + "--b\nX: y\n\nfine -- here\n\n--b\nContent-Transfer-Encoding: quoted-printable\n\n"
        "=C3=A4123456\n--b\nContent-Transfer-Encoding: base64\n\nAAAA\n--b--\n")


def test_a_long_line_of_ascii_gets_soft_line_breaks():
    out = recoded(TOP + "\n" + "x" * 999 + "\nend\n")
    assert out.count("=\n") == 13
    assert out.replace("=\n", "").endswith("printable\n\n" + "x" * 999 + "\nend\n")
    assert not needs_recoding([b"\r\n" + b"x" * 998 + b"\r\n"])


def test_labels_of_what_is_seven_bits_now():
    assert recoded(TOP + "Content-Type: multipart/mixed; boundary=b\n"
                   "Content-Transfer-Encoding: binary\n\n--b\n"
                   "content-transfer-encoding: 8BIT (yes)\n\nplain\n--b\n\n\udce4123\n--b--\n") == (
        TOP + "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\n\n--b\n"
        "Content-Transfer-Encoding: 7bit\n\nplain\n--b\nContent-Transfer-Encoding: quoted-printable\n\n"
        "=E4123\n--b--\n")


@pytest.mark.parametrize("octet, charset", [("ä", "utf-8"), ("\udce4", "unknown-8bit")])
def test_a_message_without_mime_becomes_one(octet, charset):
    out = recoded(f"Subject: x\n\nabc{octet}defgh\n")
    assert out.startswith(f"Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset={charset}\n"
                          "Content-Transfer-Encoding: quoted-printable\n\nabc=")


def test_what_is_said_of_the_type_is_left_alone():
    assert recoded("Content-Type: text/html\n\nmäh, mäh\n") == (
        "Content-Type: text/html\nMIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n"
        "m=C3=A4h, m=C3=A4h\n")
    assert "Content-Type" not in recoded(TOP + "\nmäh, mäh\n")


def test_an_attached_message_is_recoded_inside():
    assert recoded(MIXED + "--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n"
                   "Subject: inner\n\nmäh, mähen\n--b--\n") == (
        MIXED + "--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\n"
        "Subject: inner\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: quoted-printable\n\nm=C3=A4h, m=C3=A4hen\n--b--\n")


def test_parts_of_a_digest_are_messages():
    out = recoded(MIXED.replace("mixed", "digest") + "--b\n\nSubject: inner\n\nmäh, mäh\n--b--\n")
    assert "--b\n\nSubject: inner\nMIME-Version: 1.0\n" in out


def test_text_around_the_parts_stays_readable():
    assert recoded(MIXED + "für --b\n--b\n\nplain\n--b--\nfür\n") == (
        MIXED + "f=C3=BCr --b\n--b\n\nplain\n--b--\nf=C3=BCr\n")


def test_boundaries():
    inner = 'Content-Type: multipart/mixed; boundary="bb"\n\n'
    message = MIXED + "--b \t\n" + inner + "--bb\n\nä123456\n--bbb\n--b\n\nö123456\n--bb--\nx\n--b--"
    assert recoded(message) == (
        MIXED + "--b \t\n" + inner + "--bb\nContent-Transfer-Encoding: quoted-printable\n\n"
        "=C3=A4123456\n=2D-bbb\n--b\nContent-Transfer-Encoding: quoted-printable\n\n"
        "=C3=B6123456\n=2D-bb--\nx\n--b--")


def test_a_multipart_that_is_never_closed():
    assert recoded(MIXED + "--b\nContent-Type: a/b\n\nä\n") == (
        MIXED + "--b\nContent-Type: a/b\nContent-Transfer-Encoding: base64\n\nw6QNCg==\n")


def test_a_header_that_ends_without_blank_line():
    assert recoded(MIXED + "--b\nHallöchen!\n--b--\n") == (
        MIXED + "--b\nContent-Transfer-Encoding: quoted-printable\n\nHall=C3=B6chen!\n--b--\n")


def test_nul_in_a_part_is_encoded_when_the_message_is():
    assert "\n\nAAA=\n" in recoded(MIXED + "--b\nContent-Type: a/b\n\n\0\0\n--b\n\nä12345\n--b--\n")


def signed(inner, more=""):
    return (MIXED + more + "--b\nContent-Type: multipart/signed; micalg=x; boundary=s\n\n--s\n"
            f"Content-Transfer-Encoding: 8bit\n\n{inner}\n--s\n"
            "Content-Type: application/pgp-signature\n\nabc\n--s--\n--b--\n")


def test_signed_parts_are_not_touched():
    assert "multipart/signed" in refused(signed("ä"))
    assert "multipart/signed" in refused(signed("x" * 999))
    fine = signed("plain", "--b\n\nä12345\n")
    assert recoded(fine) == fine.replace(
        "--b\n\nä12345\n", "--b\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A412345\n")


@pytest.mark.parametrize("head, why", [
    ("Content-Type: message/partial; id=x", "message/partial"),
    ("Content-Type: message/delivery-status", "message/delivery-status"),
    ("Content-Type: message/global", "message/global"),
    ("Content-Type: multipart/encrypted; boundary=e", "multipart/encrypted"),
    ("Content-Type: multipart/mixed", "without boundary"),
    ("Content-Type: multipart/mixed; boundary=e", "without parts"),
    ("Content-Type: multipart/mixed; boundary=b", "boundary is also"),
    ("Content-Type: multipart/mixed; boundary=b--", "boundary is also"),
    ("Content-Type: multipart/mixed; boundary=a; boundary=b", "not clear"),
    ("Content-Type: multipart/mixed; boundary=\"a", "not clear"),
    ("Content-Type: multipart/mixed boundary=a", "not clear"),
    ("Content-Type: text/plain\nContent-Type: text/html", "not clear"),
    ("Content-Transfer-Encoding: 8bit\nContent-Transfer-Encoding: 8bit", "not clear"),
    ("Content-Transfer-Encoding: base64", "in base64"),
    ("Content-Transfer-Encoding: Quoted-Printable (x)", "in quoted-printable"),
    ("Content-Transfer-Encoding: x-uuencode", "in x-uuencode"),
    ("Content-Transfer-Encoding: 8bit; really", "in ?"),
    ("Content-Type: multipart/mixed; boundary=e\nContent-Transfer-Encoding: base64", "in base64"),
    ("Subject: ä", "a header has 8-bit"),
    ("Subject: " + "x" * 999, "a line of a header has over 998"),
])
def test_what_is_refused(head, why):
    assert why in refused(MIXED + "--b\n" + head + "\n\nä\n--b--\n")
    if "header has" not in why and "line of" not in why:
        inside = MIXED + "--b\n" + head + "\n\nplain\n--b\n\nä12345\n--b--\n"
        assert "--b\n" + head + "\n\nplain\n--b\nContent-Transfer" in recoded(inside)


def test_limits():
    deep = "Content-Type: message/rfc822\n\n"
    assert recoded(deep * MOST_DEPTH + "\nä12345").endswith("=C3=A412345")
    assert "deep" in refused(deep * (MOST_DEPTH + 1) + "\nä")
    assert "parts" in refused(MIXED + "--b\n\n" * MOST_SECTIONS)
    assert "header is larger" in refused("X: y\n" * (LONGEST_HEADER // 6 + 1))
    assert "boundary line" in refused(MIXED + "--b" + " " * 996 + "\n")


def test_a_part_that_has_ended_counts_no_more():
    attached = "--b\nContent-Type: message/rfc822\n\nSubject: inner\n\nplain\n"
    message = MIXED + attached * (MOST_DEPTH + 1) + "--b\n\nä12345\n--b--\n"
    assert recoded(message) == message.replace(
        "--b\n\nä", "--b\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4")


def test_a_boundary_that_closes_a_part_inside():
    outer = TOP + "Content-Type: multipart/mixed; boundary=b--\n\n--b--\n"
    assert "boundary is also" in refused(outer + "Content-Type: multipart/x; boundary=b\n\n--b\n\nä\n")


@pytest.mark.parametrize("lead", ["", "x", "xx"])
def test_no_octet_is_cut_by_a_soft_line_break(lead):
    out = recoded(TOP + "Content-Type: text/plain\n\n" + lead + "\udce4" * 40 + "x" * 90 + "\n")
    lines = out.partition("\n\n")[2].split("\n")
    assert "".join([line.removesuffix("=") for line in lines]) == lead + "=E4" * 40 + "x" * 90
    assert all(line[-1:] == "=" and line[:-1].count("=") * 3 + line.count("x") == len(line) - 1
               for line in lines[:-2])


@pytest.mark.parametrize("size", range(2, 100))
def test_a_boundary_is_one_only_at_the_beginning_of_a_line(size):
    message = octets(MIXED + "--b\n\nä123--b\n4--b--\n--b\n\nplain\n--b--\n")
    plan = check([message], size)
    assert b"".join(recode([message], plan, size)) == octets(
        MIXED + "--b\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4123--b\n4--b--\n"
        "--b\n\nplain\n--b--\n")


def test_needs_recoding_sees_a_line_end_that_is_cut():
    assert not needs_recoding([b"x" * 998 + b"\r", b"\n" + b"x" * 998])
    assert needs_recoding([b"x" * 998, b"x"])


@pytest.mark.parametrize("content, expected", [
    (b" text/plain", ("text/plain", b"")),
    (b" (a (b) \\) c) Text / (x)HTML ; charset=x", ("text/html", b"")),
    (b"text", ("text/plain", b"")),
    (b" ", ("text/plain", b"")),
    (b'multipart/mixed; x="a;boundary=no"; BOUNDARY = "a\\"b; (c) "', ("multipart/mixed", b'a"b; (c)')),
    (b"multipart/x; boundary=----=_Part_1/2:3?", ("multipart/x", b"----=_Part_1/2:3?")),
    (b"multipart/x; boundary=a (comment)", ("multipart/x", b"a")),
])
def test_content_type(content, expected):
    assert content_type(content) == expected


@pytest.mark.parametrize("content", [
    b"/", b"a/", b"a/b c=d", b"a/b/c", b'a/b; boundary="x', b'a/b; boundary="x" y', b"a/b; boundary=x y",
    b"a/b; boundary=x; boundary=x", b"a/b (", b'a/b; boundary="'])
def test_content_types_that_are_not_clear(content):
    with pytest.raises(ValueError):
        content_type(content)


def test_a_folded_header_is_read():
    head = read(b"Content-Type:\r\n\tmultipart/mixed;\r\n boundary=\r\n  x\r\n"
                b"MIME-VERSION : 1.0\r\n\r\n")
    assert (head.kind, head.boundary, head.mime, head.clear) == ("multipart/mixed", b"x", True, True)


def test_memory_is_bounded():
    def pieces():
        yield octets(MIXED + "--b\n\n")
        for _ in range(200):
            yield b"\xc3\xa4 and more " * 10000      # one line of 26 MB
        yield b"\r\n--b--\r\n"

    out = 0
    for piece in recode(pieces(), check(pieces())):
        assert len(piece) < 1 << 18
        out += len(piece)
    assert out > 26_000_000
