import re
from binascii import a2b_base64, a2b_qp
from email import message_from_bytes
from itertools import pairwise

from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st

from mqmail.mail.recode import CannotRecode, check, needs_recoding, recode, recoded_size

BOUNDARIES = ["b", "bb", "b--", "b-", "--", "=_b'():?", "b b", "x" * 70]
lines = st.sampled_from([
    (b"", 1), (b".", 1), (b"..", 1), (b"From me", 1), (b" ", 1), (b"tab\t", 1), (b"=", 1), (b"=E4", 1),
    (b"-", 1), (b"--b", 1), (b"--b--", 1), (b"--bb", 1), (b"--b c", 1), (b"--b \t", 1), (b"----", 1),
    (b"\xc3\xa4", 1), (b"\xe4\xff\x80", 1), (b"x", 76), (b"x", 77), (b"x", 998), (b"x", 999),
    (b"-", 5000), (b"From ", 900), (b".", 9000), (b"\xc3\xa4", 300), (b"\xff", 9000), (b"word ", 14),
    (b" ", 80), (b"a" * 74 + b"\xe4--", 1), (b"Subject: no", 1), (b"\0", 1),
    (b"Content-Type: text/plain", 1), (b"x--b", 1), (b"x" * 74 + b"\xe4" * 3, 1), (b"\xe4\xe4x", 200),
]).map(lambda pair: pair[0] * pair[1]) | st.binary(max_size=90).map(
        lambda b: b.replace(b"\r", b"").replace(b"\n", b""))
texts = st.lists(lines, max_size=6).map(b"\r\n".join)
encodings = st.sampled_from(["", "", "", "7bit", "8bit", "binary", "7bit", "8bit", "BINARY",
                             "8bit (really)", "quoted-printable", "base64", "x-odd"])
leaf_types = st.sampled_from(["", "text/plain", "text/html; charset=\"utf-8\"", "image/x",
                              "TEXT/PLAIN;\r\n charset=koi8-r", "message/partial"])


def header(kind, encoding, more=b""):
    out = b"Content-Type: " + kind.encode() + b"\r\n" if kind else b""
    out += b"X-Other: a;\r\n\tb\r\n"
    out += b"Content-transfer-encoding: " + encoding.encode() + b"\r\n" if encoding else b""
    return more + out + b"\r\n"


def leaves(content):
    return st.builds(lambda k, e, t: header(k, e) + t, leaf_types, encodings, content)


def wrapped(content):
    def messages(inner):
        return st.builds(
            lambda e, mime, body: header("message/rfc822", e) + b"Subject: inner\r\n" + mime + body,
            st.sampled_from(["", "8bit", "7bit"]), st.sampled_from([b"", b"MIME-Version: 1.0\r\n"]),
            inner)

    def multiparts(inner):
        return st.builds(multipart, st.sampled_from(["mixed", "alternative", "digest", "signed", "x-y"]),
                         st.sampled_from(BOUNDARIES), encodings, st.lists(inner, max_size=3), content,
                         content, st.sampled_from([b"", b" ", b"\t "]), st.booleans())

    return st.recursive(leaves(content), lambda i: messages(i) | multiparts(i), max_leaves=6)


def multipart(kind, boundary, encoding, parts, before, after, pad, closed):
    fence = b"--" + boundary.encode()
    out = header(f'multipart/{kind}; boundary="{boundary}"', encoding)
    out += before + b"\r\n" if before else b""
    for part in parts:
        out += fence + pad + b"\r\n" + part + b"\r\n"
    return out + (fence + b"--" + pad + b"\r\n" + after if closed else b"")


def whole(content):
    return st.builds(lambda top, entity: top + entity + b"\r\n",
                     st.sampled_from([b"Subject: x\r\n", b"MIME-Version: 1.0\r\n"]), wrapped(content))


# Where Python's parser has ways of its own: headers whose lines begin with "From " or a blank where no
# field is to go on, and a boundary line directly after another.
calm = whole(texts.map(lambda t: re.sub(rb"(?m)^(?=[ \t])", b"x", t.replace(b"From ", b"Fram "))))
twofold = re.compile(rb"\r\n--(\S+|b b)[ \t]*\r\n--\1")


def recoded(message):
    """The message in seven bits, or None."""
    try:
        plan = check([message])
    except CannotRecode as why:
        event(str(why)[:40])
        return None
    out = b"".join(recode([message], plan))
    assert recoded_size([message], plan) == len(out)
    return out


def contents(message):
    """What Python's parser finds: the type and decoded content of each leaf, in order. Whose the line
    end of a message is whose last multipart is not closed, nobody says."""
    found = []
    for part in message_from_bytes(message).walk():
        payload = None if part.is_multipart() else part.get_payload(decode=True)
        found.append((part.get_content_type(), payload, part["subject"], part["x-other"]))
    kind, payload, *more = found[-1]
    return [*found[:-1], (kind, payload and payload.rstrip(b"\r\n"), *more)]


@settings(deadline=None, max_examples=800, suppress_health_check=list(HealthCheck))
@given(calm)
@example(b"Subject: x\r\n\r\n\xc3\xa4\r\n")
@example(b"Content-Type: image/x\r\n\r\n\xff\r\n")
def test_every_leaf_has_the_content_it_had(message):
    assume(not twofold.search(message))
    out = recoded(message)
    if out is None:
        return
    assert out.isascii()
    assert max(map(len, out.split(b"\r\n"))) <= 998
    assert not needs_recoding([out])
    assert contents(out) == contents(message)
    event("recoded" if needs_recoding([message]) else "was fine")


@settings(deadline=None, max_examples=500, suppress_health_check=list(HealthCheck))
@given(whole(texts) | st.binary(max_size=300) | st.lists(lines, max_size=30).map(b"\r\n".join),
       st.lists(st.integers(0, 5000), max_size=6), st.integers(2, 200))
def test_nothing_hangs_on_how_it_was_cut(message, cuts, size):
    places = [0, *sorted(min(c, len(message)) for c in cuts), len(message)]
    pieces = [message[a:b] for a, b in pairwise(places)]
    assert needs_recoding(pieces) == needs_recoding([message]) == wrong(message)
    try:
        plan = check([message])
    except CannotRecode as why:
        try:
            check(pieces, size)
        except CannotRecode as again:
            assert str(again) == str(why)
            return
        raise AssertionError("refused only when it is whole") from why
    assert check(pieces, size) == plan
    out = b"".join(recode([message], plan))
    assert b"".join(recode(pieces, plan)) == out == b"".join(recode(pieces, plan, size))
    assert not wrong(out)


def wrong(message):
    return not message.isascii() or max(map(len, message.split(b"\r\n"))) > 998


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(whole(texts))
def test_twice_is_as_once(message):
    out = recoded(message)
    if out is None or not needs_recoding([message]):
        return
    plan = check([out])
    assert not any(plan.actions) or b"\0" in out
    if b"\0" not in out:
        assert b"".join(recode([out], plan)) == out


@settings(deadline=None, max_examples=300)
@given(st.lists(lines | st.binary(max_size=200), max_size=8).map(b"\r\n".join), st.integers(2, 200),
       st.sampled_from(["text/plain", "image/x"]))
def test_any_octets_are_kept_by_the_encoding(content, size, kind):
    message = f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\xe4"
    head, _, body = recoded(message).partition(b"\r\n\r\n")
    coded = body.split(b"\r\n")
    assert max(map(len, coded)) <= 76
    assert not any(line.startswith((b"--", b".", b"From ")) for line in coded)
    assert not any(line.endswith((b" ", b"\t")) for line in coded)
    decode = a2b_qp if b"quoted-printable" in head else a2b_base64
    assert decode(body) == content + b"\xe4"
    plan = check([message], size)
    assert b"".join(recode([message], plan, size)) == head + b"\r\n\r\n" + body
