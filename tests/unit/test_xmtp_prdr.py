"""PRDR and XCLIENT in the protocol core."""

import pytest

from mqmail.xmtp import events
from mqmail.xmtp.reply import reply
from mqmail.xmtp.server import Server

NEVER = reply(550, "5.7.1", "not for me")
LATER = reply(451, "4.7.1", "later")


def session(*extensions, kind="smtp"):
    server = Server(kind, "mx.example", ("PIPELINING", *extensions))
    server.greet()
    say(server, "LHLO x.example" if kind == "lmtp" else "EHLO x.example")
    server.take_output()
    return server


def say(server, *lines):
    """Feed lines; every event but the body's end is answered with yes. The last event."""
    server.feed("".join([f"{line}\r\n" for line in lines]).encode())
    last = None
    while (event := server.next_event()) is not None:
        last = event
        if type(event) not in (events.Body, events.BodyEnd, events.Reset, events.Xclient):
            server.answer(event)
    return last


def said(server):
    return server.take_output().decode().split("\r\n")[:-1]


def message(server, mail, count):
    say(server, mail, *[f"RCPT TO:<r{n}@x.example>" for n in range(count)], "DATA")
    said(server)
    return say(server, "Subject: x", "", "x", ".")


def verdicts(server, *answers):
    for number, answer in reversed(list(enumerate(answers))):
        assert said(server) == []
        server.answer_recipient(number, answer)
    return said(server)


def test_each_recipient_has_a_verdict():
    server = session("PRDR")
    assert type(message(server, "MAIL FROM:<a@x.example> PRDR", 3)) is events.BodyEnd
    assert verdicts(server, None, NEVER, LATER) == [
        "353 responses for each recipient follow", "250 2.0.0 ok", "550 5.7.1 not for me",
        "451 4.7.1 later", "250 2.0.0 ok"]
    say(server, "MAIL FROM:<b@x.example>")
    assert said(server) == ["250 2.1.0 sender ok"]


def test_one_verdict_for_all_is_said_once():
    server = session("PRDR")
    message(server, "MAIL FROM:<a@x.example> PRDR", 2)
    assert verdicts(server, NEVER, NEVER) == ["550 5.7.1 not for me"]


def test_if_nobody_gets_it_the_last_reply_says_so():
    server = session("PRDR")
    message(server, "MAIL FROM:<a@x.example> PRDR", 2)
    assert verdicts(server, NEVER, LATER)[-1] == "451 4.7.1 later"


@pytest.mark.parametrize(("mail", "count"), [
    ("MAIL FROM:<a@x.example>", 2), ("MAIL FROM:<a@x.example> PRDR", 1)])
def test_who_does_not_ask_or_has_one_recipient_gets_one_reply(mail, count):
    server = session("PRDR")
    event = message(server, mail, count)
    assert not server.each_is_told
    server.answer(event, NEVER)
    assert said(server) == ["550 5.7.1 not for me"]


def test_prdr_is_a_parameter_only_where_it_is_offered():
    server = session()
    say(server, "MAIL FROM:<a@x.example> PRDR")
    assert said(server)[0][:3] == "555"


# --- XCLIENT ---

def test_xclient_takes_the_session_back_to_its_start():
    server = session("XCLIENT ADDR")
    event = say(server, "XCLIENT addr=IPV6:2001:db8::1 NAME=[UNAVAILABLE] LOGIN=a+2Bb")
    assert event == events.Xclient((("addr", "IPV6:2001:db8::1"), ("name", ""), ("login", "a+b")))
    server.answer(event)
    assert said(server) == ["220 mx.example ESMTP"]
    say(server, "MAIL FROM:<a@x.example>")
    assert said(server) == ["503 5.5.1 say EHLO first"]


@pytest.mark.parametrize(("line", "code"), [
    ("XCLIENT", "501"), ("XCLIENT ADDR", "501"), ("XCLIENT NOSUCH=1", "501"),
    ("XCLIENT ADDR=1 ADDR=2", "501"),
    ("XCLIENT NAME=+0A", "501"), ("XCLIENT NAME=+0", "501")])
def test_bad_attributes(line, code):
    server = session("XCLIENT ADDR")
    assert say(server, line) is None
    assert said(server)[0][:3] == code


def test_xclient_is_for_those_who_are_offered_it_and_not_inside_a_transaction():
    server = session()
    say(server, "XCLIENT ADDR=192.0.2.1")
    assert said(server)[0][:3] == "502"
    server = session("XCLIENT ADDR")
    say(server, "MAIL FROM:<a@x.example>", "XCLIENT ADDR=192.0.2.1")
    assert said(server)[1][:3] == "503"
