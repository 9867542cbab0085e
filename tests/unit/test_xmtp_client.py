"""The client's half: what is said when, and what the answers mean."""

from base64 import b64encode

import pytest

from mqmail.xmtp.client import (
    ASK,
    BODY,
    EAGER,
    FILE,
    Alive,
    AuthDone,
    AuthFailed,
    Broken,
    Client,
    End,
    Go,
    Hop,
    Ready,
    TlsGo,
    TlsRefused,
    Transaction,
    Verdict,
)
from mqmail.xmtp.reply import Reply
from mqmail.xmtp.text import BadText

HELLO = b"220 hi\r\n", b"250-you\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
PIPELINING = b"220 hi\r\n", b"250-you\r\n250 PIPELINING\r\n"
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
        ready(greeting=PIPELINING),
        transaction("a", mode=EAGER),
    )
    client.begin(one)
    assert client.events() == []
    assert out(client) == b"MAIL FROM:<s@b.com>\r\nRCPT TO:<a@c.com>\r\nDATA\r\n"
    assert client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n") == [Go(one)]


@pytest.mark.parametrize("mail", [b"250 ok", b"550 no"])
@pytest.mark.parametrize("final", [b"554 no recipients", b"250 ok"])
def test_data_taken_for_nobody_gets_an_empty_body(mail, final):
    client, one = ready("smtp", PIPELINING), transaction("a", "b")
    client.begin(one)
    out(client)
    events = client.feed(mail + b"\r\n550 no\r\n550 no\r\n354 go\r\n")
    assert events == [Verdict(one, 0), Verdict(one, 1)]
    assert out(client) == b".\r\n"
    client.feed(final + b"\r\n")
    assert out(client) == b"RSET\r\n"
    assert client.feed(b"250 ok\r\n") == [End(one)]
    assert codes(one) == [550, 550]
    assert client.idle


def test_an_lmtp_service_that_takes_data_for_nobody():
    client, one = ready("lmtp", PIPELINING), transaction("a")
    client.begin(one)
    assert type(client.feed(b"250 ok\r\n550 no\r\n354 go\r\n")[-1]) is Broken
    assert codes(one) == [550]


def test_data_refused_for_want_of_recipients():
    client, one = ready(greeting=PIPELINING), transaction("a")
    client.begin(one)
    out(client)
    assert client.feed(b"250 ok\r\n450 later\r\n503 no recipients\r\n") == [Verdict(one, 0)]
    assert out(client) == b"RSET\r\n"
    assert client.feed(b"250 ok\r\n") == [End(one)]
    assert codes(one) == [450]


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


# --- STARTTLS ---

PLAIN_TLS = b"220 hi\r\n", b"250-you\r\n250-PIPELINING\r\n250-XOLD\r\n250 STARTTLS\r\n"


def test_starttls_forgets_what_was_said_before():
    client = ready("smtp", PLAIN_TLS)
    client.start_tls()
    assert client.awaiting == "STARTTLS"
    assert out(client) == b"STARTTLS\r\n"
    assert not client.idle
    assert client.feed(b"220 go\r\n") == [TlsGo()]
    assert client.awaiting == ""
    client.begin(transaction("a"))
    assert out(client) == b""
    client.tls_started()
    assert client.features == {}
    assert out(client) == b"EHLO me.example\r\n"
    assert client.feed(b"250-you\r\n250 XNEW\r\n") == [Ready()]
    assert client.features == {"XNEW": ""}
    assert out(client) == b"MAIL FROM:<s@b.com>\r\n"


def test_nothing_is_said_behind_starttls():
    client = ready("smtp", PLAIN_TLS)
    client.start_tls()
    client.begin(transaction("a"))
    client.quit()
    assert out(client) == b"STARTTLS\r\n"


def test_lmtp_says_lhlo_again():
    client = ready("lmtp", PLAIN_TLS)
    client.start_tls()
    client.feed(b"220 go\r\n")
    client.take_output()
    client.tls_started()
    assert out(client) == b"LHLO me.example\r\n"


@pytest.mark.parametrize(
    "injected", [b"250 ok\r\n", b"2", b"\r\n", b"250-a\r\n", b"\x16\x03\x01", b"x" * 9999])
@pytest.mark.parametrize("later", [False, True])
def test_plain_text_behind_the_220_ends_the_session(injected, later):
    client = ready("smtp", PLAIN_TLS)
    client.start_tls()
    if later:
        assert client.feed(b"220 go\r\n") == [TlsGo()]
        events = client.feed(injected)
    else:
        events = client.feed(b"220 go\r\n" + injected)
    assert [type(event) for event in events] == [Broken]
    assert client.broken


@pytest.mark.parametrize("answer", [b"454 4.7.0 not now\r\n", b"502 what?\r\n"])
def test_refused_starttls_leaves_the_session(answer):
    client = ready("smtp", PLAIN_TLS)
    client.start_tls()
    client.take_output()
    (event,) = client.feed(answer)
    assert type(event) is TlsRefused
    assert event.reply.code == int(answer[:3])
    assert client.idle
    assert "XOLD" in client.features


@pytest.mark.parametrize("answer", [b"250 ok\r\n", b"334 \r\n", b"421 bye\r\n", b"", b"garbage\r\n"])
def test_other_answers_to_starttls_end_the_session(answer):
    client = ready("smtp", PLAIN_TLS)
    client.start_tls()
    assert [type(event) for event in client.feed(answer)] == [Broken]


def test_only_an_idle_session_can_change():
    client = ready("smtp", PLAIN_TLS)
    client.begin(transaction("a"))
    with pytest.raises(ValueError, match="STARTTLS on a session that is not idle"):
        client.start_tls()
    with pytest.raises(ValueError, match="AUTH on a session that is not idle"):
        client.authenticate(Exchange(b"x"))
    assert b"AUTH" not in out(client)


# --- AUTH ---


class Exchange:
    """Says *first*, then *responses*; a response of "" is a bad challenge."""

    mechanism = "TEST"

    def __init__(self, first, *responses, doubt=""):
        self._first = first
        self._responses = list(responses)
        self._doubt = doubt
        self.challenges = []

    def first(self):
        return self._first

    def step(self, challenge):
        self.challenges.append(challenge)
        response = self._responses.pop(0) if self._responses else b"again"
        if response == "":
            raise ValueError("not what I know")
        return response

    def finish(self):
        return self._doubt


def authenticating(exchange):
    client = ready("smtp", PLAIN_TLS)
    client.authenticate(exchange)
    return client


def test_auth_step_by_step():
    exchange = Exchange(None, b"one", b"", b"\0\xff")
    client = authenticating(exchange)
    assert client.awaiting == "AUTH"
    client.begin(transaction("a"))
    said = []
    for answer in (b"334 \r\n", b"334\r\n", b"334 AP8=\r\n", b"235 2.7.0 welcome\r\n"):
        said.append(out(client))
        events = client.feed(answer)
    assert said == [b"AUTH TEST\r\n", b"b25l\r\n", b"\r\n", b"AP8=\r\n"]
    assert exchange.challenges == [b"", b"", b"\0\xff"]
    assert events == [AuthDone()]
    assert out(client) == b"MAIL FROM:<s@b.com>\r\nRCPT TO:<a@c.com>\r\n"


@pytest.mark.parametrize(("first", "line"), [
    (b"", b"AUTH TEST =\r\n"), (b"\0me\0pass", b"AUTH TEST AG1lAHBhc3M=\r\n")])
def test_an_initial_response(first, line):
    client = authenticating(Exchange(first))
    assert out(client) == line
    assert client.feed(b"235 ok\r\n") == [AuthDone()]
    assert client.idle


def test_a_long_initial_response_waits_for_an_empty_challenge():
    """A command has 512 octets at the most (RFC 4954 section 4)."""
    exchange = Exchange(b"t" * 376)
    client = authenticating(exchange)
    assert out(client) == b"AUTH TEST\r\n"
    client.feed(b"334 \r\n")
    assert out(client) == b64encode(b"t" * 376) + b"\r\n"
    assert client.feed(b"235 ok\r\n") == [AuthDone()]
    assert exchange.challenges == []
    assert out(authenticating(Exchange(b"t" * 375))) == b"AUTH TEST " + b64encode(b"t" * 375) + b"\r\n"


def test_a_refused_auth_leaves_the_session():
    client = authenticating(Exchange(b"x"))
    (event,) = client.feed(b"535 5.7.8 who?\r\n")
    assert event == AuthFailed(Reply(535, ("who?",), "5.7.8"), "535 5.7.8 who?")
    assert client.idle


@pytest.mark.parametrize(("first", "challenge", "why"), [
    (None, b"334 !!\r\n", "it is not base64"),
    (None, b"334 eA\r\n", "it is not base64"),
    (None, b"334 eA==eA==\r\n", "it is not base64"),
    (None, "334 \u00fc\r\n".encode(), "it is not base64"),
    (None, b"334-eA==\r\n334 eA==\r\n", "it has more than one line"),
    (None, b"334 eA==\r\n", "not what I know"),
    (b"t" * 400, b"334 eA==\r\n", "it is not empty, and we speak first"),
])
def test_a_bad_challenge_is_cancelled(first, challenge, why):
    client = authenticating(Exchange(first, ""))
    client.take_output()
    assert client.feed(challenge) == []
    assert out(client) == b"*\r\n"
    assert client.feed(b"501 5.7.0 cancelled\r\n") == [AuthFailed(None, f"bad challenge: {why}")]
    assert client.idle


def test_challenges_without_end():
    client = authenticating(Exchange(None))
    said = []
    while not said or said[-1] != b"*\r\n":
        client.feed(b"334 eA==\r\n")
        said.append(out(client))
    assert len(said) == 9
    assert type(client.feed(b"334 eA==\r\n")[0]) is Broken


def test_who_takes_a_cancelled_auth_is_not_believed():
    client = authenticating(Exchange(None, ""))
    client.feed(b"334 \r\n")
    assert client.feed(b"235 welcome\r\n")[-1] == Broken("AUTH: bad challenge: not what I know")


def test_a_server_without_proof_is_not_believed():
    client = authenticating(Exchange(b"x", doubt="no signature"))
    assert client.feed(b"235 ok\r\n") == [AuthFailed(None, "no signature"), Broken("AUTH: no signature")]


@pytest.mark.parametrize(
    "answer", [b"354 go\r\n", b"300 x\r\n", b"421 bye\r\n", b"", b"334 " + b"x" * 9999])
def test_other_answers_to_auth_end_the_session(answer):
    assert type(authenticating(Exchange(b"x")).feed(answer)[-1]) is Broken


# --- probes and hops ---


def test_a_probe():
    client = ready()
    client.probe()
    assert client.awaiting == "RSET"
    assert out(client) == b"RSET\r\n"
    assert client.feed(b"250 ok\r\n") == [Alive()]
    assert client.idle
    client.probe()
    assert type(client.feed(b"451 no\r\n")[0]) is Broken


@pytest.mark.parametrize("answer", [b"250 2.0.0 host=mx\r\n", b"451 4.4.1 no\r\n", b"550 5.4.4 no\r\n"])
def test_a_hop(answer):
    client = ready()
    client.hop("host=mx.example port=25")
    assert client.awaiting == "XHOP"
    assert out(client) == b"XHOP host=mx.example port=25\r\n"
    (event,) = client.feed(answer)
    assert type(event) is Hop
    assert event.reply.encode() == answer
    assert client.idle


def test_a_hop_is_one_line():
    client = ready()
    with pytest.raises(ValueError, match="not fit for a command"):
        client.hop("host=x\r\nMAIL FROM:<>")
    assert client.feed(b"421 bye\r\n")[-1].reply.code == 421


# --- what the server offers, and how much of it ---


@pytest.mark.parametrize(("lines", "features"), [
    ([b"AUTH PLAIN LOGIN"], {"AUTH": "PLAIN LOGIN"}),
    ([b"AUTH=PLAIN"], {"AUTH": "PLAIN"}),
    ([b"auth=login PLAIN", b"AUTH CRAM-MD5"], {"AUTH": "LOGIN PLAIN CRAM-MD5"}),
    ([b"LIMITS RCPTMAX=20 MAILMAX=5"], {"LIMITS": "RCPTMAX=20 MAILMAX=5"}),
    ([b"", b"  ", b" size  10 "], {"SIZE": "10"}),
    ([b"AUTH"], {"AUTH": ""}),
])
def test_features(lines, features):
    client = Client("smtp", "me.example")
    client.feed(b"220 hi\r\n")
    client.feed(b"250-you\r\n" + b"".join([b"250-" + line + b"\r\n" for line in lines]) + b"250\r\n")
    assert client.features == features


@pytest.mark.parametrize("endless", [b"250-SIZE\r\n", b"x", b"250-" + b"y" * 4000 + b"\r\n"])
def test_an_endless_answer_to_ehlo_ends(endless):
    """Be it a line of a gigabyte or one line after the other."""
    client = Client("smtp", "me.example")
    client.feed(b"220 hi\r\n")
    fed, events = 0, []
    while not events:
        piece = endless * (65536 // len(endless))
        events = client.feed(piece)
        fed += len(piece)
    assert [type(event) for event in events] == [Broken]
    assert fed < 3_000_000
    assert client.features == {}
