"""The client core: whatever a server says, and against our own server."""

import os
from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.xmtp import events
from mqmail.xmtp.client import (
    ASK,
    BODY,
    EAGER,
    FILE,
    AuthDone,
    AuthFailed,
    Broken,
    Client,
    End,
    Go,
    Ready,
    TlsGo,
    TlsRefused,
    Transaction,
    Verdict,
)
from mqmail.xmtp.reply import ProtocolError, Reply, ReplyReader, targets_of
from support.cutting import cuts, kinds, often, pieces
from support.dialogue import ANSWERS, FINALS, Told


@often
@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                b"250 ok\r\n",
                b"250-a\r\n",
                b"250\n",
                b"551 5.1.6 <a@b.com>\r\n",
                b"354-\r\n",
                b"25",
                b"\r\n",
                b"999 x\r\n",
                b"421 bye\r\n",
                b"250 " + b"x" * 5000,
                b"220 \x1b[2J\xff\0\r\n",
            ]
        ),
        max_size=12,
    ).map(b"".join),
    cuts,
)
def test_any_octets_are_replies_or_a_protocol_error(octets, places):
    def replies(parts):
        reader, found = ReplyReader(most_lines=4), []
        try:
            for part in parts:
                found.extend([]) if not part else [found.append(one) for one in reader.read(part)]
        except ProtocolError as error:
            found.append(str(error))
        return found

    whole = replies([octets])
    assert replies(pieces(octets, places)) == whole
    assert replies([bytes((octet,)) for octet in octets]) == whole
    for one in whole:
        assert type(one) is str or (
            200 <= one.code <= 599 and all(line.isprintable() for line in one.lines)
        )


plain = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=60)


@often
@given(
    st.integers(200, 599),
    st.lists(plain, min_size=1, max_size=5),
    st.sampled_from(["", "2.0.0", "5.1.1"]),
    cuts,
)
def test_a_reply_is_read_as_it_was_said(code, lines, status, places):
    if status and status[0] != str(code)[0]:
        status = ""
    if not status:
        lines = ["x" + line for line in lines]  # a text that begins like a status is one
    said = Reply(code, tuple(lines), status)
    reader = ReplyReader()
    assert [one for part in pieces(said.encode(), places) for one in reader.feed(part)] == [said]


@often
@given(plain.map(lambda text: text * 200), st.integers(30, 512))
def test_a_long_reply_line_is_cut_between_characters(text, longest):
    raw = Reply(250, (text,), "2.0.0").encode(longest)
    assert len(raw) <= longest
    assert raw.endswith(b"\r\n")
    assert ("250 2.0.0 " + text).startswith(raw[:-2].decode())


@often
@given(st.text(max_size=80) | st.text('<>@"\\abc.:, ', max_size=40))
def test_any_551_gives_targets_or_a_protocol_error(text):
    try:
        targets = targets_of(Reply(551, (text, "<a@b.com> sender=" + text)))
    except ProtocolError:
        return
    for target in targets:
        for value in (target.address, target.sender, target.destination):
            assert value == "" or value.isprintable()


def exchange(client, told, transactions, bodies, places, fd=-1):
    """Carry out all transactions one after the other; events of each, in order."""
    found, waiting, seen = [], list(transactions), 0
    greeting = told.server.take_output()
    octets, going = [greeting], True
    places = list(places) or [7]
    while going:
        going = False
        for piece in octets:
            step = places[seen % len(places)] + 1
            seen += 1
            for start in range(0, len(piece), step):
                found += react(client, client.feed(piece[start : start + step]), bodies)
        if waiting and client.idle:
            client.begin(waiting[0], fd, 5)
            bodies[waiting[0]] = bodies.get(waiting[0], b"")
            found += react(client, client.events(), bodies)
            waiting.pop(0)
        out, fds = client.take_output()
        octets = []
        step = places[seen % len(places)] + 1
        for start in range(0, len(out), step):
            octets.append(told.say(out[start : start + step], fds if not start else ()))
            going = True
        octets = [octet for octet in octets if octet]
        going = going or bool(octets)
    return found


def react(client, happened, bodies):
    found = list(happened)
    for event in happened:
        if type(event) is Go:
            body = bodies[event.transaction]
            half = len(body) // 2
            client.body(event.transaction, body[:half])
            client.body(event.transaction, body[half:], last=True)
            found += react(client, client.events(), bodies)
    return found


WHO = ["a", "b", "no", "later", "elsewhere", "lists", "full", "gone"]


def wanted(kind, mode, sender, who):
    """The code each recipient gets."""
    if sender in ANSWERS:
        return [ANSWERS[sender].code] * len(who)
    found = [ANSWERS[one].code if one in ANSWERS else 0 for one in who]
    if mode == ASK:
        return [code or 250 for code in found]
    late = [FINALS[one].code if one in FINALS and kind == "lmtp" else 250 for one in who]
    if sender == "nodata" and mode != FILE:
        late = [451] * len(who)
    return [code or final for code, final in zip(found, late, strict=True)]


@settings(deadline=None, max_examples=400)
@given(
    kinds,
    st.sets(st.sampled_from(["PIPELINING", "CHUNKING", "SIZE", "XMQ"])),
    st.lists(
        st.tuples(
            st.sampled_from([ASK, FILE, BODY, EAGER]),
            st.sampled_from(["s", "", "no", "nodata"]),
            st.lists(st.sampled_from(WHO), min_size=1, max_size=6),
            st.sampled_from(
                [b"", b"x\r\n", b".\r\n..\r\nx.\r\n", b"\r\n.\r\nQUIT\r\n", b"y" * 998 + b"\r\n"]
            ),
        ),
        min_size=1,
        max_size=3,
    ),
    cuts,
    st.booleans(),
    st.randoms(),
)
def test_client_against_server(kind, offer, plans, places, late, random):
    if "XMQ" in offer:
        offer = offer | {"PIPELINING"}
    told = Told(
        kind,
        tuple(sorted(offer)),
        late=late,
        errors=1000,
        order=lambda numbers: random.sample(numbers, len(numbers)),
    )
    client, transactions, bodies = Client(kind, "me.example"), [], {}
    for mode, sender, who, body in plans:
        if mode == FILE and ("XMQ" not in offer or kind == "smtp"):
            mode = BODY
        path = sender and sender + "@b.com"
        transactions.append(Transaction(path, [(one + "@c.com", []) for one in who], [], mode))
        bodies[transactions[-1]] = body
    read, write = os.pipe()
    try:
        happened = exchange(client, told, transactions, bodies, places, read)
    finally:
        os.close(read)
        os.close(write)
    assert type(happened[0]) is Ready
    assert not [event for event in happened if type(event) is Broken]
    ends = [event.transaction for event in happened if type(event) is End]
    assert ends == transactions
    assert client.idle
    sent = []
    for (_, sender, who, body), transaction in zip(plans, transactions, strict=True):
        assert [reply.code for reply in transaction.verdicts] == wanted(
            kind, transaction.mode, sender, who
        )
        assert transaction.waiting == 0
        verdicts = [
            event.number
            for event in happened
            if type(event) is Verdict and event.transaction is transaction
        ]
        assert sorted(verdicts) == list(range(len(who)))
        if sender == "no" or transaction.mode == ASK or all(one in ANSWERS for one in who):
            continue
        if transaction.mode == FILE:
            sent.append(events.BodyFile(read, 5))
        elif sender != "nodata":
            sent.append(body)
    assert told.bodies == sent
    assert told.server.state == "ready"


@often
@given(
    kinds,
    st.lists(
        st.sampled_from(
            [
                b"220 hi\r\n",
                b"250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 XMQ\r\n",
                b"250 ok\r\n",
                b"354 go\r\n",
                b"550 no\r\n",
                b"250 #1 ok\r\n",
                b"250 #2 ok\r\n",
                b"250 #0\r\n",
                b"250 #99999\r\n",
                b"421 bye\r\n",
                b"551 x\r\n",
                b"garbage\r\n",
                b"451 later\r\n",
            ]
        ),
        max_size=25,
    ).map(b"".join),
    st.sampled_from([ASK, FILE, BODY, EAGER]),
    cuts,
)
def test_a_hostile_server_breaks_the_session_at_most(kind, octets, mode, places):
    """No exception, no verdict twice, and none after the session broke."""
    client = Client(kind, "me.example")
    transaction = Transaction("a@b.com", [("x@y.com", []), ("z@y.com", [])], [], mode)
    bodies, happened = {transaction: b"x\r\n"}, []
    client.begin(transaction, 0, 3)
    for piece in [*pieces(octets, places), b""]:
        happened += react(client, client.feed(piece) if piece or client.broken is False else [], bodies)
        client.take_output()
    numbers = [event.number for event in happened if type(event) is Verdict]
    assert len(numbers) == len(set(numbers)) == 2 - transaction.waiting
    assert len([event for event in happened if type(event) is Broken]) == 1
    assert type(happened[-1]) is Broken
    if any(type(event) is End for event in happened):
        assert transaction.waiting == 0


class Exchange:
    """Echoes; with "bad" it is no challenge."""

    mechanism = "ECHO"

    def __init__(self, first, doubt):
        self._first = first
        self.doubt = doubt

    def first(self):
        return self._first

    def step(self, challenge):
        if challenge == b"bad":
            raise ValueError("bad")
        return challenge

    def finish(self):
        return self.doubt


def opening(client, answers, places, tls, exchange):
    """Greeting, EHLO, STARTTLS or not, AUTH: events and what was said, each answer cut at *places*."""
    happened, said, todo = [], [], ["tls"] * tls + ["auth"]
    for answer in answers:
        for piece in pieces(answer, places):
            for event in client.feed(piece) if piece else ():
                happened.append(event)
                if type(event) is TlsGo:
                    assert client.take_output()[0] == b""
                    client.tls_started()
        if client.idle and todo:
            client.start_tls() if todo.pop(0) == "tls" else client.authenticate(exchange)
        said.append(client.take_output()[0])
    return happened, said


@often
@given(
    st.sampled_from([b"", b"220 go\r\n", b"454 4.7.0 not now\r\n"]),
    st.none() | st.binary(max_size=600),
    st.lists(st.binary(max_size=60), max_size=12),
    st.sampled_from([b"235 ok\r\n", b"535 5.7.8 no\r\n"]),
    st.sampled_from(["", "no proof"]),
    cuts,
)
def test_the_opening_of_a_session_cut_anywhere(tls, first, challenges, last, doubt, places):
    """The same happens and the same is said; what was refused or not believed says so."""
    hello = b"250-mx.example\r\n250-STARTTLS\r\n250 AUTH ECHO\r\n"
    answers = [b"220 hi\r\n", hello, *([tls] if tls else []), *([hello] if tls[:3] == b"220" else []),
               *[b"334 " + b64encode(one) + b"\r\n" for one in challenges], last]
    results = []
    for cut in (places, []):
        client = Client("smtp", "me.example")
        results.append(opening(client, answers, cut, bool(tls), Exchange(first, doubt)))
    assert results[0] == results[1]
    happened, said = results[0]
    kinds = [type(event) for event in happened]
    if tls:
        assert (TlsRefused if tls[:3] == b"454" else TlsGo) in kinds
    cancelled = said.index(b"*\r\n") if b"*\r\n" in said else None
    good = last[:1] == b"2" and not doubt and cancelled is None
    assert (AuthDone in kinds) == (client.idle and AuthFailed not in kinds) == good
    if cancelled is not None:
        assert said[cancelled + 1:] == [b""] * len(said[cancelled + 1:])


@often
@given(
    st.lists(
        st.sampled_from(
            [
                b"220 go\r\n",
                b"250 ok\r\n",
                b"250-x\r\n250 STARTTLS\r\n",
                b"334 \r\n",
                b"334 YmFk\r\n",
                b"334 !\r\n",
                b"235 ok\r\n",
                b"535 no\r\n",
                b"421 bye\r\n",
                b"454 no\r\n",
                b"354 go\r\n",
                b"25",
                b"x\r\n",
            ]
        ),
        max_size=20,
    ).map(b"".join),
    st.booleans(),
    cuts,
)
def test_a_hostile_server_while_a_session_opens(octets, tls, places):
    """No exception, one end, and not an octet in plain text once the server has said 220 to STARTTLS."""
    client, happened, shaking = Client("smtp", "me.example"), [], False
    for piece in [*pieces(b"220 hi\r\n250 mx\r\n" + octets, places), b""]:
        events = client.feed(piece) if piece or not client.broken else []
        happened += events
        shaking = shaking or TlsGo in map(type, events)
        if client.idle:
            client.start_tls() if tls else client.authenticate(Exchange(None, ""))
        client.quit() if shaking else None
        assert not shaking or client.take_output()[0] == b""
        client.take_output()
    assert [type(event) for event in happened].count(Broken) == 1
    assert type(happened[-1]) is Broken
