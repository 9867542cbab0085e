"""The client's half: what is said when, and what the answers mean."""

import pytest

from mqmail.xmtp.client import (
    ASK,
    BODY,
    EAGER,
    FILE,
    Broken,
    Client,
    End,
    Go,
    Ready,
    Transaction,
    Verdict,
)
from mqmail.xmtp.text import BadText

HELLO = b"220 hi\r\n", b"250-you\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
PLAIN = b"220 hi\r\n", b"250 you\r\n"


def ready(kind="lmtp", greeting=HELLO):
    client = Client(kind, "me.example")
    for octets in greeting:
        events = client.feed(octets)
        client.take_output()
    assert events == [Ready()]
    assert client.idle
    return client


def transaction(*who, mode=BODY, sender="s@b.com", parameters=()):
    return Transaction(sender, [(one + "@c.com", []) for one in who], parameters, mode)


def out(client):
    return client.take_output()[0]


def codes(one):
    return [verdict and verdict.code for verdict in one.verdicts]


def test_hello():
    client = Client("smtp", "me.example")
    assert client.feed(b"220-hi\r\n220 there\r\n") == []
    assert out(client) == b"EHLO me.example\r\n"
    assert client.feed(b"250-you\r\n250-size 5\r\n250 8BITMIME\r\n") == [Ready()]
    assert client.features == {"SIZE": "5", "8BITMIME": ""}


def test_hello_comes_before_what_was_begun():
    client = Client("smtp", "me.example")
    client.begin(transaction("a"))
    assert out(client) == b""
    client.feed(b"220 hi\r\n")
    assert out(client) == b"EHLO me.example\r\n"
    client.feed(b"502 what\r\n")
    assert out(client) == b"HELO me.example\r\n"
    client.feed(b"250 you\r\n")
    assert out(client) == b"MAIL FROM:<s@b.com>\r\n"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("smtp", [b"554 go away\r\n"]),
        ("smtp", [b"421 busy\r\n"]),
        ("smtp", [b"220 hi\r\n", b"421 busy\r\n"]),
        ("smtp", [b"220 hi\r\n", b"451 no\r\n"]),
        ("lmtp", [b"220 hi\r\n", b"500 no\r\n"]),
        ("smtp", [b"220 hi\r\n", b"500 no\r\n", b"500 no\r\n"]),
    ],
)
def test_a_refused_session(kind, said):
    client = Client(kind, "me.example")
    for octets in said:
        events = client.feed(octets)
    assert type(events[-1]) is Broken
    assert events[-1].reply.code == int(said[-1][:3])
    assert not client.ready


def test_ask_in_one_burst():
    client, one = ready(), transaction("a", "b", mode=ASK, parameters=["BODY=8BITMIME"])
    client.begin(one)
    client.begin(transaction("c", mode=ASK))
    assert out(client) == (
        b"MAIL FROM:<s@b.com> BODY=8BITMIME\r\nRCPT TO:<a@c.com>\r\nRCPT TO:<b@c.com>\r\nRSET\r\n"
        b"MAIL FROM:<s@b.com>\r\nRCPT TO:<c@c.com>\r\nRSET\r\n"
    )
    events = client.feed(b"250 ok\r\n551 <@local:a@c.com>\r\n250 what\r\n250 ok\r\n")
    assert events == [Verdict(one, 0), Verdict(one, 1), End(one)]
    assert codes(one) == [551, 250]
    assert client.expecting == 3


def test_one_at_a_time_without_pipelining():
    client, one = ready(greeting=PLAIN), transaction("a", "b")
    client.begin(one)
    lines = []
    for answer in (b"250 ok\r\n", b"250 ok\r\n", b"450 no\r\n", b"354 go\r\n"):
        lines.append(out(client))
        events = client.feed(answer)
    assert lines == [
        b"MAIL FROM:<s@b.com>\r\n",
        b"RCPT TO:<a@c.com>\r\n",
        b"RCPT TO:<b@c.com>\r\n",
        b"DATA\r\n",
    ]
    assert events == [Go(one)]
    client.body(one, b".x\r\n", last=True)
    assert out(client) == b"..x\r\n.\r\n"
    assert client.feed(b"250 ok\r\n") == [Verdict(one, 0), End(one)]


def test_a_refused_mail_without_pipelining():
    client, one = ready(greeting=PLAIN), transaction("a", "b")
    client.begin(one)
    assert client.feed(b"550 no\r\n")[-1] == End(one)
    assert codes(one) == [550, 550]
    assert client.idle


@pytest.mark.parametrize("mode", [BODY, EAGER])
def test_a_body_by_chunks(mode):
    client, one = ready(), transaction("a", "no", "b", mode=mode)
    client.begin(one)
    events = client.events()
    if mode == BODY:
        events = client.feed(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n")[1:]
    assert events == [Go(one)]
    out(client)
    client.body(one, b"")
    client.body(one, b"ab")
    client.body(one, b"", last=True)
    assert out(client) == b"BDAT 2\r\nabBDAT 0 LAST\r\n"
    if mode == EAGER:
        client.feed(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n")
    assert client.feed(b"250 ok\r\n250 ok\r\n") == [Verdict(one, 0)]
    assert client.feed(b"452 full\r\n") == [Verdict(one, 2), End(one)]
    assert codes(one) == [250, 550, 452]


def test_eager_needs_chunking():
    client, one = (
        ready(greeting=(HELLO[0], b"250-you\r\n250 PIPELINING\r\n")),
        transaction("a", mode=EAGER),
    )
    client.begin(one)
    assert client.events() == []
    assert out(client) == b"MAIL FROM:<s@b.com>\r\nRCPT TO:<a@c.com>\r\n"
    assert client.feed(b"250 ok\r\n250 ok\r\n") == []
    assert out(client) == b"DATA\r\n"


def test_a_refused_chunk_is_the_verdict_on_all():
    client, one = ready("smtp"), transaction("a", "b", mode=EAGER)
    client.begin(one)
    client.body(one, b"ab")
    client.body(one, b"cd", last=True)
    out(client)
    client.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n452 full\r\n503 no\r\n")
    assert codes(one) == [452, 452]
    assert out(client) == b"RSET\r\n"
    assert client.feed(b"250 ok\r\n") == [End(one)]


def test_a_body_nobody_wants():
    client, one = ready(), transaction("a", mode=BODY)
    client.begin(one)
    out(client)
    assert client.feed(b"250 ok\r\n550 no\r\n") == [Verdict(one, 0)]
    assert out(client) == b"RSET\r\n"
    assert client.feed(b"250 ok\r\n") == [End(one)]


def test_refused_data():
    client, one = ready(greeting=PLAIN), transaction("a")
    client.begin(one)
    client.feed(b"250 ok\r\n")
    client.feed(b"250 ok\r\n")
    assert client.feed(b"451 no\r\n") == [Verdict(one, 0)]
    out(client)
    assert client.feed(b"250 ok\r\n") == [End(one)]


def test_files_and_tagged_verdicts():
    client = ready(greeting=(HELLO[0], b"250-you\r\n250-PIPELINING\r\n250 XMQ\r\n"))
    one, two = transaction("a", "no", "b", mode=FILE), transaction("c", mode=FILE)
    client.begin(one, 7, 100)
    client.begin(two, 8, 200)
    octets, fds = client.take_output()
    assert fds == (7, 8)
    assert octets.count(b"XFD 100\r\n") == octets.count(b"XFD 200\r\n") == 1
    client.feed(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n")
    assert client.feed(b"452 4.2.2 #2 full\r\n") == [Verdict(one, 2)]
    assert client.feed(b"250 2.0.0 #1 ok\r\n") == [Verdict(one, 0), End(one)]
    client.feed(b"250 ok\r\n250 ok\r\n250 ok #9\r\n")
    assert codes(two) == [250]


def test_a_descriptor_rides_on_its_own_command():
    client, one = ready(greeting=PLAIN), transaction("a", mode=FILE)
    client.begin(one, 7, 5)
    assert client.take_output()[1] == ()
    client.feed(b"250 ok\r\n")
    assert client.take_output()[1] == ()
    client.feed(b"250 ok\r\n")
    assert client.take_output() == (b"XFD 5\r\n", (7,))


@pytest.mark.parametrize("tag", [b"#0", b"#3", b"#999", b"#1"])
def test_a_verdict_on_nobody(tag):
    client, one = ready(), transaction("a", "b", mode=FILE)
    client.begin(one, 7, 5)
    client.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n250 #1 ok\r\n")
    (event,) = client.feed(b"250 " + tag + b" ok\r\n")
    assert type(event) is Broken
    assert codes(one) == [250, None]


def test_a_tag_is_no_tag_after_a_body_that_was_sent():
    client, one = (
        ready(greeting=(HELLO[0], b"250-you\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 XMQ\r\n")),
        transaction("a"),
    )
    client.begin(one)
    client.feed(b"250 ok\r\n250 ok\r\n")
    client.body(one, b"x", last=True)
    client.feed(b"250 #77 is your number\r\n")
    assert codes(one) == [250]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage\r\n",
        b"250 ok\r\n250 ok\r\n250 ok\r\n250 too many\r\n",
        b"354 go\r\n",
        b"250 ok\r\n354 go\r\n",
        b"250 ok\r\n250 ok\r\n250 ok\r\n421 idle\r\n",
        b"250-" + b"x" * 9999,
        b"421 closing\r\n",
    ],
)
def test_a_session_that_breaks(said):
    client, one = ready(), transaction("a", "b")
    client.begin(one)
    events = client.feed(said)
    assert type(events[-1]) is Broken
    assert client.broken
    assert not client.idle
    assert codes(one) == [None, None]
    client.take_output()
    client.body(one, b"x", last=True)
    client.begin(transaction("c", mode=EAGER))
    client.quit()
    assert out(client) == b""
    assert client.feed(b"250 ok\r\n") == client.events() == []


def test_good_replies_before_a_bad_one_count():
    client, one = ready(), transaction("a", "b", mode=ASK)
    client.begin(one)
    assert client.feed(b"250 ok\r\n550 no\r\ngarbage\r\n")[0] == Verdict(one, 0)
    assert codes(one) == [550, None]


def test_421_to_a_recipient_is_its_verdict():
    client, one = ready(), transaction("a", "b", mode=ASK)
    client.begin(one)
    assert client.feed(b"250 ok\r\n421 closing\r\n") == [Verdict(one, 0)]
    assert type(client.feed(b"")[0]) is Broken
    assert codes(one) == [421, None]


def test_the_connection_ends_before_the_last_verdict():
    client, one = ready(), transaction("a", "b")
    client.begin(one)
    client.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n")
    client.body(one, b"x\r\n", last=True)
    client.feed(b"250 ok\r\n")
    (event,) = client.feed(b"")
    assert event.why == "connection closed while waiting for the reply to message"
    assert codes(one) == [250, None]


def test_quit():
    client = ready()
    client.quit()
    assert out(client) == b"QUIT\r\n"
    assert client.feed(b"221 bye\r\n") == [Broken("bye")]


@pytest.mark.parametrize("flaw", [b"a\nb", b"a\r.\r\n", b"x" * 999])
def test_a_body_that_may_not_go_by_data(flaw):
    client, one = ready(greeting=PLAIN), transaction("a")
    client.begin(one)
    for answer in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
        client.feed(answer)
    with pytest.raises(BadText):
        client.body(one, flaw)


@pytest.mark.parametrize("bad", ["a\r\nRSET@b.com", "a\nb", "\ud800", "a\x00b"])
def test_nothing_that_ends_a_line_goes_into_a_command(bad):
    client = ready()
    for one in (
        Transaction(bad, [("a@b.com", [])]),
        Transaction("", [(bad, [])]),
        Transaction("", [("a@b.com", ["X=" + bad])]),
        Transaction("", [("a@b.com", [])], [bad]),
    ):
        with pytest.raises(ValueError, match="not fit for a command"):
            client.begin(one)
    assert out(client) == b""
    assert client.idle


def test_nobody_is_no_transaction():
    with pytest.raises(ValueError, match="without recipients"):
        ready().begin(Transaction("a@b.com", []))
