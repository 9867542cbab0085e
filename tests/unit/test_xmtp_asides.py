"""VRFY, EXPN and ETRN as the server core takes them."""

import pytest

from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, reply
from support.dialogue import Told, codes, opened


def etrn(argument, offer=("ETRN",)):
    told = opened(offer=offer)
    return told.say(b"ETRN " + argument + b"\r\n"), told.log


@pytest.mark.parametrize(("argument", "event", "said"), [
    (b"mail.example.com", events.Etrn("mail.example.com"), b"mail.example.com"),
    (b"  Example.COM ", events.Etrn("Example.COM"), b"Example.COM"),
    (b"@example.com", events.Etrn("example.com", below=True), b"@example.com"),
])
def test_etrn_asks_for_a_host_or_a_domain(argument, event, said):
    assert etrn(argument) == (b"250 2.0.0 OK, queuing for node %s started\r\n" % said, [event])


@pytest.mark.parametrize(("argument", "code"), [
    (b"", 501), (b"@", 501), (b"a..b", 501), (b"a b", 501), (b"<a@b.example>", 501), (b"-x.c", 501),
    ("b\u00fccher.example".encode(), 501), (b"#uucp", 458), (b"@#uucp", 458), (b"x" * 64, 501),
])
def test_etrn_for_what_is_no_host(argument, code):
    said, log = etrn(argument)
    assert (codes(said), log) == ([code], [])


def test_etrn_has_to_be_offered_and_stands_outside_of_transactions():
    assert codes(etrn(b"example.com", offer=("SIZE",))[0]) == [502]
    told = opened(offer=("ETRN",))
    assert codes(told.say(b"MAIL FROM:<>\r\nETRN example.com\r\nRSET\r\nETRN example.com\r\n")) == [
        250, 503, 250, 250]
    assert codes(Told(offer=("ETRN",)).say(b"ETRN example.com\r\n")) == [220, 503]


def test_a_session_may_not_say_etrn_for_ever():
    told = opened(offer=("ETRN",), idle=5)
    answers = codes(told.say(b"ETRN example.com\r\n" * 10))
    assert answers[-1] == 421
    assert told.server.closed
    assert len(told.log) <= 5


def test_the_application_answers_etrn():
    told = opened(offer=("ETRN",))
    told._on_etrn = lambda event: told.server.answer(event, reply(459, "4.7.1", "no"))
    assert told.say(b"ETRN example.com\r\n") == b"459 4.7.1 no\r\n"


def test_expn_has_to_be_offered():
    told = opened()
    assert codes(told.say(b"EXPN team\r\n")) == [502]
    told = opened(offer=("EXPN",))
    members = Reply(250, ("<a@b.c>", "<d@e.f>"), "2.1.0")
    told._on_verify = lambda event: told.server.answer(event, members)
    assert told.say(b"EXPN team\r\n") == b"250-2.1.0 <a@b.c>\r\n250 2.1.0 <d@e.f>\r\n"
    assert told.log == [events.Verify("team", expand=True)]
    assert codes(told.say(b"EXPN\r\n")) == [501]


def test_smtputf8_of_vrfy_is_told():
    told = opened(offer=("SMTPUTF8", "EXPN"))
    told.say(b"VRFY \xc3\xa9 SMTPUTF8\r\nEXPN team SMTPUTF8\r\n")
    assert told.log == [events.Verify("\u00e9", utf8=True),
                        events.Verify("team", expand=True, utf8=True)]


def test_who_verifies_many_that_are_not_there_is_disconnected():
    told = opened(errors=5)
    told._on_verify = lambda event: told.server.answer(event, reply(550, "5.1.1", "no such user"))
    assert codes(told.say(b"VRFY x\r\n" * 10))[-1] == 421
    assert told.server.closed
