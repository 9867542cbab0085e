"""XSESSION and a line of somebody else's AUTH: both sides of the protocol core."""

import pytest

from mqmail.xmtp import events
from mqmail.xmtp.client import AuthSaid, Broken, Client, SessionKnown
from mqmail.xmtp.reply import reply
from mqmail.xmtp.server import Limits, Server


def connected():
    client = Client("smtp", "me.example")
    client.feed(b"220 hello\r\n")
    client.feed(b"250-here\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 XMQ\r\n")
    client.take_output()
    return client


@pytest.mark.parametrize(("words", "code"), [(("XMQ",), b"250"), (("PIPELINING",), b"502")])
def test_only_xmq_callers_say_for_whom_they_ask(words, code):
    server = Server("smtp", "here.example", words, Limits())
    server.feed(b"EHLO me.example\r\nXSESSION ip=192.0.2.1 tls=TLSv1.3\r\n")
    server.answer(server.next_event())
    event = server.next_event()
    if code == b"250":
        assert event == events.Session("ip=192.0.2.1 tls=TLSv1.3")
        server.answer(event, reply(250, "2.0.0", "ok"))
    assert server.take_output().split(b"\r\n")[-2].startswith(code)


def test_who_does_not_know_it_refuses():
    server = Server("smtp", "here.example", ("XMQ",), Limits())
    server.feed(b"EHLO me.example\r\nXSESSION ip=192.0.2.1\r\n")
    server.answer(server.next_event())
    server.answer(server.next_event())
    assert server.take_output().split(b"\r\n")[-2].startswith(b"502 5.5.1")


def test_not_inside_a_transaction():
    server = Server("smtp", "here.example", ("XMQ",), Limits())
    server.feed(b"XSESSION ip=192.0.2.1\r\n")
    assert server.next_event() is None
    assert server.take_output().startswith(b"503")


@pytest.mark.parametrize("answer", [b"250 2.0.0 ok\r\n", b"502 5.5.1 no\r\n"])
def test_the_client_tells(answer):
    client = connected()
    client.session("ip=192.0.2.1")
    assert client.take_output()[0] == b"XSESSION ip=192.0.2.1\r\n"
    (event,) = client.feed(answer)
    assert type(event) is SessionKnown
    assert event.reply.encode() == answer
    with pytest.raises(ValueError, match="not fit"):
        client.session("ip=1\r\nQUIT")


def test_lines_are_passed_on_as_they_are():
    client = connected()
    for line, answer in (("AUTH LOGIN", b"334 VXNlcm5hbWU6\r\n"), ("dG9t", b"334 \r\n"),
                         ("", b"334 eA==\r\n"), ("*", b"535 5.7.8 no\r\n"),
                         ("AUTH PLAIN AHgAeQ==", b"235 2.7.0 ok\r\n")):
        client.pass_on(line)
        assert client.take_output()[0] == line.encode() + b"\r\n"
        (event,) = client.feed(answer)
        assert type(event) is AuthSaid
        assert event.reply.encode() == answer
    assert client.idle


def test_one_line_at_a_time():
    client = connected()
    with pytest.raises(ValueError, match="not fit"):
        client.pass_on("AUTH PLAIN\r\nQUIT")
    client.pass_on("AUTH PLAIN")
    with pytest.raises(ValueError, match="not idle"):
        client.pass_on("again")
    assert [type(one) for one in client.feed(b"421 4.7.0 bye\r\n")] == [Broken]
