"""The server core under any input, in any pieces."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqmail.mail.address import check_domain
from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply
from mqmail.xmtp.server import ALLOWED
from mqmail.xmtp.text import TextCheck
from support.cutting import cuts, flaw_by_hand, kinds, often, pieces, scraps, texts
from support.dialogue import Told, codes, opened

COMMANDS = [
    b"EHLO c\r\n",
    b"HELO c\r\n",
    b"LHLO c\r\n",
    b"MAIL FROM:<a@b.com>\r\n",
    b"MAIL FROM:<> BODY=8BITMIME SIZE=5\r\n",
    b"MAIL FROM:<no@b.com>\r\n",
    b"RCPT TO:<a@b.com>\r\n",
    b"RCPT TO:<no@b.com>\r\n",
    b"RCPT TO:<later@b.com>\r\n",
    b"RCPT TO:<full@b.com>\r\n",
    b"RCPT TO:<lists@b.com> NOTIFY=NEVER\r\n",
    b"RCPT TO:<@x:a@b.com>\r\n",
    b"DATA\r\n",
    b"DATA\r\ntext\r\n.\r\n",
    b"BDAT 4\r\nab\r\n",
    b"BDAT 2 LAST\r\n\r\n",
    b"BDAT 9999\r\n",
    b"BDAT x\r\n",
    b"BDAT 0 LAST\r\n",
    b"XFD 5\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"HELP\r\n",
    b"VRFY a\r\n",
    b"EXPN lists\r\n",
    b"ETRN example.com\r\n",
    b"ETRN @example.com\r\n",
    b"ETRN #queue\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN\r\n",
    b"AUTH PLAIN Z29vZA==\r\n",
    b"*\r\n",
    b"QUIT\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b".\r\n",
    b"x" * 30,
    b"y" * 70 + b"\r\n",
    b"MAIL FROM:<nodata@b.com>\r\n",
    b"\xff\r\n",
    b"\0\r\n",
    b"RCPT ",
]
ENVELOPE = b"MAIL FROM:<a@b.com>\r\nRCPT TO:<a@b.com>\r\nRCPT TO:<full@b.com>\r\n"
BEGINNINGS = [b"", b"EHLO c\r\nLHLO c\r\n", b"EHLO c\r\nLHLO c\r\n" + ENVELOPE]
streams = st.tuples(
    st.sampled_from([*BEGINNINGS, BEGINNINGS[-1] + b"DATA\r\n", BEGINNINGS[-1] + b"BDAT 30\r\n"]),
    st.lists(st.sampled_from(COMMANDS) | st.binary(max_size=8) | scraps, max_size=25).map(b"".join),
).map(b"".join)
offers = st.sets(
    st.sampled_from(
        [
            "PIPELINING",
            "SIZE",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            "DSN",
            "AUTH PLAIN",
            "STARTTLS",
            "EXPN",
            "ETRN",
            "XMQ",
        ]
    )
).map(sorted)
LIMITS = {
    "size": 60,
    "recipients": 3,
    "errors": 6,
    "refused": 3,
    "idle": 8,
    "command": 64,
    "extended": 64,
    "line": 20,
}


def played(kind, offer, limits, stream, parts):
    told = Told(kind, offer, **limits)
    out = told.server.take_output() + b"".join([told.say(part) for part in parts])
    server = told.server
    return (
        out,
        told.log,
        told.bodies,
        server.state,
        server.closed,
        server.take_descriptors(everything=True),
    )


@often
@given(kinds, offers, st.sampled_from([LIMITS, {}, {"size": 3}]), streams, cuts)
def test_any_cutting_of_any_input_gives_the_same(kind, offer, limits, stream, places):
    whole = played(kind, offer, limits, stream, [stream])
    assert played(kind, offer, limits, stream, pieces(stream, places)) == whole
    assert played(kind, offer, limits, stream, [bytes((octet,)) for octet in stream]) == whole


@often
@given(kinds, streams)
def test_late_answers_in_any_order_give_the_same(kind, stream):
    now, late = Told(kind, errors=1000), Told(kind, late=True, errors=1000)
    assert now.say(stream) == late.say(stream)
    assert now.server.accepted == late.server.accepted
    assert now.bodies == late.bodies


@often
@given(kinds, offers, st.binary(max_size=300) | streams, cuts)
def test_any_input_is_borne_and_nothing_piles_up(kind, offer, stream, places):
    told = Told(kind, offer, **LIMITS)
    for piece in pieces(stream, places):
        told.say(piece)
        longest = 4096 if "XMQ" in offer else 64
        assert told.server.buffered <= (12288 if "AUTH PLAIN" in offer else longest)
        assert not told.server.owing


STATES = {
    "start": [],
    "ready": [b"HELLO"],
    "mail": [b"HELLO", b"MAIL FROM:<a@b.com>\r\n"],
    "rcpt": [b"HELLO", b"MAIL FROM:<a@b.com>\r\n", b"RCPT TO:<a@b.com>\r\n"],
    "chunk": [b"HELLO", b"MAIL FROM:<a@b.com>\r\n", b"RCPT TO:<a@b.com>\r\n", b"BDAT 1\r\nx"],
}
GOOD = {
    "HELO": b" c",
    "EHLO": b" c",
    "LHLO": b" c",
    "MAIL": b" FROM:<>",
    "RCPT": b" TO:<b@b.com>",
    "BDAT": b" 0 LAST",
    "VRFY": b" a",
    "EXPN": b" a",
    "ETRN": b" example.com",
    "AUTH": b" PLAIN Z29vZA==",
    "XFD": b" 5",
}


@pytest.mark.parametrize(
    ("kind", "state", "verb"), list(itertools.product(["smtp", "lmtp"], STATES, ALLOWED))
)
def test_every_command_is_answered_in_every_state(kind, state, verb):
    told = Told(kind, ("PIPELINING", "CHUNKING", "AUTH PLAIN", "STARTTLS", "ETRN", "EXPN"))
    for line in STATES[state]:
        told.say((b"LHLO c\r\n" if kind == "lmtp" else b"EHLO c\r\n") if line == b"HELLO" else line)
    told.server.take_output()
    assert told.server.state == state
    transaction = (told.server.mail, list(told.server.accepted))
    answers = codes(told.say(verb.encode() + GOOD.get(verb, b"") + b"\r\n"))
    assert len(answers) == 1
    if state not in ALLOWED[verb] and verb != "XFD":
        assert answers == [503]
    if answers[0] >= 500:
        assert told.server.state == state
        assert (told.server.mail, list(told.server.accepted)) == transaction


@often
@given(kinds, st.text(max_size=80) | st.from_regex(r"[@#]?[a-zA-Z0-9.-]{1,70}", fullmatch=True))
def test_etrn_asks_for_a_domain_name_or_is_refused(kind, argument):
    """Whatever follows it: one reply, of RFC 1985 section 5.2's; what is asked for is a name."""
    told = opened(kind, offer=("ETRN",))
    line = b"ETRN " + argument.encode("utf-8", "surrogateescape") + b"\r\n"
    if b"\n" in line[:-1] or b"\r" in line[:-2]:
        return
    answers = codes(told.say(line))
    assert len(answers) == 1
    assert told.server.state == "ready"
    for event in told.log:
        assert isinstance(event, events.Etrn)
        check_domain(event.node)
        assert event.node.isascii()
        assert event.below is argument.strip(" ").startswith("@")
    assert answers[0] in ((250,) if told.log else (458, 500, 501))


def test_a_session_refused_by_its_greeting_answers_503_until_quit():
    told = Told()
    told.server.greet(Reply(554, ("no",), "5.7.1"))
    told.server.take_output()
    for verb in ALLOWED:
        assert codes(told.say(verb.encode() + b"\r\n")) == [221 if verb == "QUIT" else 503], verb
        if told.server.closed:
            told = Told()
            told.server.greet(Reply(554, ("no",), "5.7.1"))
            told.server.take_output()


@often
@given(kinds, st.lists(st.binary(max_size=40), min_size=1, max_size=6), cuts)
def test_any_octets_go_by_bdat_to_a_server_that_bears_them(kind, parts, places):
    """A body that the core finds no flaw in arrives; any other is refused, and the session goes on."""
    body = b"".join(parts)
    check = TextCheck()
    check.feed(body)
    check.finish()
    told = opened(kind)
    stream = (
        b"MAIL FROM:<>\r\nRCPT TO:<a@b.com>\r\n"
        + b"".join(
            [
                b"BDAT %d%s\r\n%s" % (len(part), b" LAST" if number == len(parts) - 1 else b"", part)
                for number, part in enumerate(parts)
            ]
        )
        + b"NOOP\r\n"
    )
    answers = codes(b"".join([told.say(piece) for piece in pieces(stream, places)]))
    assert len(answers) == 2 + len(parts) + 1
    assert answers[-1] == 250
    if check.flaw:
        assert told.bodies == []
        assert set(answers[2:-1]) & {550, 554}
    else:
        assert told.bodies == [body]
        assert set(answers) == {250}


@often
@given(kinds, texts, cuts)
def test_a_body_goes_by_data_as_it_is_or_not_at_all(kind, body, places):
    told = opened(kind)
    told.say(b"MAIL FROM:<>\r\nRCPT TO:<a@b.com>\r\nRCPT TO:<b@b.com>\r\nDATA\r\n")
    stuffed = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
    stream = stuffed + (b"" if body.endswith(b"\r\n") or not body else b"\r\n") + b".\r\nNOOP\r\n"
    answers = codes(b"".join([told.say(piece) for piece in pieces(stream, places)]))
    assert answers[-1] == 250
    assert len(answers) == (3 if kind == "lmtp" else 2)
    if flaw_by_hand(stream[: -len(b".\r\nNOOP\r\n")], 998):
        assert told.bodies == []
        assert set(answers[:-1]) <= {550, 554}
    else:
        assert told.bodies == [body + (b"" if body.endswith(b"\r\n") or not body else b"\r\n")]


def test_hello_is_the_first_event():
    told = Told()
    told.say(b"EHLO c\r\n")
    assert told.log == [events.Hello("EHLO", "c")]
