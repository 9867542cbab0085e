"""xmtpd's clients whom others speak for, what mq-auth's refusals mean to them, how many there may be."""

from contextlib import suppress
from socket import socketpair
from threading import Thread

import pytest

from mqmail.base import xtext
from mqmail.base.waiter import run
from mqmail.control.certificates import Certificates
from mqmail.control.listeners import parse_line
from mqmail.control.optionsets import OptionSets, parse_optionsets
from mqmail.control.reader import Control
from mqmail.net.blocking import over_socket
from mqmail.policy.facts import Facts
from mqmail.policy.stages import Check, Stages
from mqmail.policy.verdict import Verdict
from mqmail.prog.xmtpd.auth import AuthTalk
from mqmail.prog.xmtpd.dialogue import Dialogue
from mqmail.prog.xmtpd.peer import Peer, plain_ip
from mqmail.prog.xmtpd.settings import Settings
from mqmail.prog.xmtpd.shares import OTHERS, Shares, share_of
from mqmail.xmtp import events

# --- XCLIENT ---


FILES = {"me": "mx.example", "smtpgreeting": "mx.example ready", "databytes": 0, "maxrecipients": 100,
         "optionsets": OptionSets({}), "tlscertificates": Certificates({})}


@pytest.mark.parametrize(("text", "ip"), [
    ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("::FFFF:C000:201", "192.0.2.1"),
    ("0:0:0:0:0:ffff:127.0.0.1", "127.0.0.1"), ("2001:DB8:0::0:1", "2001:db8::1"),
    ("fe80::1%eth0", "fe80::1"), ("0:0:0:0:0:0:0:1", "::1"), ("", ""), ("192.0.2", ""),
    ("\u0661.2.3.4", ""), ("1.2.3.4\0", "")])
def test_an_address_has_one_spelling(text, ip):
    assert plain_ip(text) == ip


@pytest.mark.parametrize(("tls", "more", "said"), [
    ("require", {}, "530 5.7.0 say STARTTLS first"),
    ("may", {"clientcert": "require"}, "530 5.7.0 a client certificate is required")])
def test_what_a_listener_asks_for_holds_whatever_a_helo_name_is_given(tls, more, said):
    sets = OptionSets({"strict": {"tls": tls, **more}, "lax": {"databytes": 5}})
    settings = Settings(Control({**FILES, "optionsets": sets}))

    class Lax(Check):
        name, stage = "access", "helo"

        def look(self, facts):
            return Verdict(options="lax")

    settings.stages = Stages([Lax()], lambda _facts: None, lambda _check, _error: None)
    handler = Dialogue(settings, parse_line("127.0.0.1:25 set=strict"), Peer(ip="192.0.2.1"), "s1", None,
                       None)
    assert last(handler, "EHLO c.example", "MAIL FROM:<a@b.example>") == f"{said}\r\n".encode()


def test_another_set_may_hold_after_starttls():
    sets = OptionSets({"out": {"tlsset": "inside"}, "inside": {"etrn": ("a.example",), "databytes": 5}})
    settings = Settings(Control({**FILES, "optionsets": sets}))
    settings.stages = Stages((), lambda _facts: None, lambda _check, _error: None)
    listener = parse_line("127.0.0.1:25 set=out")
    handler = Dialogue(settings, listener, Peer(ip="192.0.2.1"), "s1", None, None)
    last(handler, "EHLO c.example")
    assert "ETRN" not in handler.server.words
    handler.facts.tls = "TLSv1.3"
    handler.server.tls_started()
    handler.tls_started()
    assert b"SIZE 5\r\n" in last(handler, "EHLO c.example")
    assert "ETRN" in handler.server.words


def test_an_idle_session_has_few_attributes():
    """With more than 30, CPython gives each object a dictionary of its own: 1.3 KB."""
    settings = Settings(Control(FILES))
    settings.stages = Stages((), lambda _facts: None, lambda _check, _error: None)
    handler = Dialogue(settings, parse_line("127.0.0.1:25"), Peer(ip="192.0.2.1"), "s1", None, None)
    last(handler, "EHLO c.example")
    assert len(vars(handler)) <= 30


def last(handler, *lines):
    """What is heard last of who says *lines*."""
    handler.server.greet()
    said = b""
    for line in lines:
        handler.server.feed(line.encode() + b"\r\n")
        while (event := handler.server.next_event()) is not None:
            waiting = handler.handle(event)
            if waiting is not None:
                run(waiting)
        said = handler.server.take_output()
    return said


def after(*lines):
    """(The session of a client behind a filter that has said *lines*, what it heard last)."""
    settings = Settings(Control(FILES))
    settings.stages = Stages((), lambda _facts: None, lambda _check, _error: None)
    listener = parse_line("127.0.0.1:25 xclient=192.0.2.1")
    handler = Dialogue(settings, listener, Peer(ip="192.0.2.1"), "s1", None, None)
    return handler, last(handler, "EHLO filter.example", *lines)


@pytest.mark.parametrize(("attributes", "ip"), [
    ("ADDR=198.51.100.7", "198.51.100.7"), ("ADDR=IPV6:::ffff:198.51.100.7", "198.51.100.7"),
    ("ADDR=ipv6:2001:DB8::1", "2001:db8::1"), ("ADDR=[UNAVAILABLE]", ""),
    ("NAME=x.example", "192.0.2.1")])
def test_xclient_says_who_the_client_is(attributes, ip):
    handler, said = after(f"XCLIENT {attributes}")
    assert said[:3] == b"220"
    facts = handler.facts
    assert (facts.ip, facts.local, facts.relay, handler.may_relay) == (ip, False, False, False)
    assert not handler.may_be_another
    assert f" ip={ip or 'unknown'} " in xtext.decode(handler.via(False)[5:])


@pytest.mark.parametrize("address", ["IPV6:nonsense", "192.0.2", "1.2.3.4.5", "IPV6:"])
def test_an_address_that_is_none_is_refused(address):
    handler, said = after(f"XCLIENT ADDR={address}")
    assert (said[:3], handler.facts.ip) == (b"501", "192.0.2.1")


def test_a_login_by_xclient_is_spelt_as_any_other():
    handler, _ = after("XCLIENT LOGIN=Alice@Example.ORG ADDR=198.51.100.7")
    assert handler.facts.login == "alice@example.org"


# --- mq-auth ---

class Auth(Thread):
    """An mq-auth that says *answers* to the lines that come behind EHLO, one after the other."""

    def __init__(self, *answers):
        super().__init__(daemon=True)
        self.ours, self.theirs = socketpair()
        self._answers = ["220 a", "250-a\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 XMQ", *answers]
        self.heard = []
        self.start()

    def run(self):
        with self.ours, self.ours.makefile("rb") as file, suppress(OSError):
            for answer in self._answers:
                self.ours.sendall(f"{answer}\r\n".encode())
                self.heard.append(file.readline().decode().rstrip("\r\n"))


def authenticated(answer, **more):
    """What the client hears when mq-auth says *answer*, what mq-auth heard, and the facts."""
    auth = Auth("250 ok", answer)
    facts = Facts("s1", ip="192.0.2.1")
    for name, found in more.items():
        setattr(facts, name, found)

    async def connect():
        return over_socket(auth.theirs)

    talk = AuthTalk(connect, "mx.example", ["PLAIN"])
    said = run(talk.answer(events.Auth("PLAIN", "AGEAYg==", True), facts))
    talk.close()
    auth.theirs.close()
    auth.join(20)
    return said.said(), auth.heard, facts


DOWN = "454 4.7.0 logins cannot be checked now, try again later"


@pytest.mark.parametrize("answer", [
    "535 5.7.8 login or password wrong", "534 5.7.9 too weak", "538 5.7.11 not without TLS",
    "501 5.5.2 this is not base64", "504 5.5.4 not offered", "454 4.7.0 wait", "432 4.7.12 change it",
    "421 4.7.0 too many failed logins", "334 eA=="])
def test_what_is_for_the_client_reaches_it(answer):
    assert authenticated(answer)[0] == answer


@pytest.mark.parametrize("answer", [
    "500 5.5.2 unknown command", "502 5.5.1 not here", "503 5.5.1 not now", "550 5.7.1 uid 1 may not",
    "554 5.7.1 no", "530 5.7.0 TLS first", "421 4.3.2 closing down, come back", "250 ok",
    "235 2.7.0 login="])
def test_what_is_not_for_the_client_is_temporary(answer):
    said, _, facts = authenticated(answer)
    assert (said, facts.login) == (DOWN, "")


@pytest.mark.parametrize(("more", "word"), [
    ({}, " ip=192.0.2.1 "), ({"ip": ""}, " ip=unknown "), ({"ip": "", "local": True}, "")])
def test_clients_without_an_address_have_a_name_in_common(more, word):
    _, heard, _ = authenticated("535 5.7.8 no", **more)
    assert word in heard[1]
    assert ("ip=" in heard[1]) == bool(word)


# --- how many ---

LINES = [parse_line(text) for text in (
    "127.0.0.1:25", "[::1]:25", "127.0.0.1:26 set=small", "127.0.0.1:587 role=submission",
    "127.0.0.1:24 role=lmtp")]
SETS = parse_optionsets(["small sessions=3,10%"], "")


def filled(processes, total, lines=LINES, sets=SETS):
    """How many sessions a process lets in at each of *lines*, one after the other."""
    shares, let_in = Shares(processes), []
    for line in lines:
        name, most = share_of(line, sets.options(line.role, line.options), lines)
        before = shares._all
        while not shares.full(name, most, total):
            shares.begin(name)
        let_in.append(shares._all - before)
    return let_in


def test_a_flood_at_other_places_leaves_room_for_users():
    assert filled(1, 100) == [90, 0, 10, 0, 0]
    assert filled(1, 100, [LINES[0], LINES[3], LINES[4]]) == [90, 10, 0]
    assert filled(4, 40, [LINES[1], LINES[3]]) == [9, 1]


def test_without_a_place_for_users_nothing_is_kept():
    assert filled(1, 100, [LINES[0]]) == [100]
    assert share_of(LINES[0], SETS.options("mx"), [LINES[0]]) == (OTHERS, (0, 100))


def test_an_option_set_says_how_many():
    assert filled(1, 20, [LINES[2], LINES[3]]) == [3, 17]
    assert filled(1, 100, [LINES[2]]) == [10]
    assert filled(2, 100, [LINES[2]]) == [5]
    assert filled(1, 2, [LINES[2]]) == [2]


def test_sessions_that_end_make_room():
    shares = Shares(1)
    shares.begin("x")
    assert shares.full("x", (1, 0), 10)
    assert not shares.full("y", (1, 0), 10)
    shares.end("x")
    assert not shares.full("x", (1, 0), 10)
