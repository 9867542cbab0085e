"""Recipients are verified at their LMTP service: what is asked, remembered, and done in trouble."""

import asyncio
import os
import socket
from types import SimpleNamespace

import pytest

from mqmail.base import unix
from mqmail.base.failure import BadFile
from mqmail.base.waiter import Running, run
from mqmail.control import lines
from mqmail.control.destinations import BUILT_IN, parse_destinations
from mqmail.control.verify import parse_verify
from mqmail.net.blocking import over_socket
from mqmail.net.stream import Deadlines, connect_unix
from mqmail.policy import verify
from mqmail.policy.asking import Asker
from mqmail.policy.facts import Facts
from mqmail.policy.verdict import DEFER, NEXT, OK, REJECT, RELAY, Verdict
from support.home import free_port
from support.lmtpservice import CLOSE, LmtpService

GOOD, NOBODY = "250 2.1.5 yes", "550 5.1.1 no such mailbox"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parse(text, parser=parse_verify):
    return lines.parse("control/x", text.encode(), parser, "m.example")


async def connect(path):
    return over_socket(unix.connect(path))


class Desk:
    """A process with the check; *asked*: what the service heard."""

    def __init__(self, answer, text="example.org lists", now=lambda: 100.0,
                 destination="", port=0, most=verify.MOST, name="lists.sock"):
        self.asked = []
        self.mails = 0
        self._answer = answer
        self.service = LmtpService(name, None, False, self._on_mail, self._on_rcpt, port)
        destinations = parse(f"lists:lmtp:{destination or f'unix:{name}'}", parse_destinations)
        self.services = SimpleNamespace(connect=connect, loop=None, deadlines=None, kept={})
        self.check = verify.Verified(parse(text), destinations, verify.Memory(now, most),
                                     Asker(self.services, "m.example").ask)

    def _on_mail(self, _count):
        self.mails += 1

    def _on_rcpt(self, argument):
        self.asked.append(argument)
        return self._answer(argument)

    def look(self, recipient="bob@example.org", said=None):
        facts = Facts("s")
        facts.said = said or {}
        facts.recipient = recipient
        said = self.check.look(facts)
        return said if hasattr(said, "action") else run(said)


def test_the_service_decides():
    desk = Desk(lambda argument: GOOD if "bob" in argument else NOBODY)
    assert desk.look().action == NEXT
    said = desk.look("zoe@example.org")
    assert (said.action, said.reply.said()) == (REJECT, NOBODY)
    assert desk.asked == ["TO:<bob@example.org>", "TO:<zoe@example.org>"]
    assert desk.service.sessions == 1
    assert desk.service.asked == []         # no message came of it


@pytest.mark.parametrize(("said", "action"), [(GOOD, RELAY), (NOBODY, REJECT), (CLOSE, DEFER)])
def test_a_domain_that_is_not_ours(said, action):
    desk = Desk(lambda argument: said, "example.org lists relay=yes")
    assert [desk.look().action, desk.look().action] == [action, action]
    desk = Desk(lambda argument: CLOSE, "example.org lists relay=yes trouble=accept", name="2.sock")
    assert desk.look().action == RELAY


def test_a_client_that_is_not_wanted_cannot_relay():
    desk = Desk(lambda argument: GOOD, "example.org lists relay=yes")
    assert desk.look(said={"mail": Verdict(REJECT)}).action == NEXT
    assert desk.look(said={"mail": Verdict(OK)}).action == RELAY


def test_other_domains_are_nobodys_business():
    desk = Desk(lambda argument: NOBODY)
    assert desk.look("bob@a.example.org").action == NEXT
    assert desk.look("postmaster").action == NEXT
    assert desk.asked == []


def test_which_line_counts():
    found = parse("* one\n.example.org two timeout=3\na.example.org three trouble=accept\n")
    assert [found.lookup(domain).destination for domain in (
        "a.example.org", "b.example.org", "c.b.example.org", "example.org", "example.com")] == [
        "three", "two", "two", "one", "one"]
    assert found.lookup("b.example.org").timeout == 3
    assert found.lookup("a.example.org").trouble == "accept"
    assert parse("example.org x").lookup("a.example.org") is None


@pytest.mark.parametrize("text", ["example.org", "example.org a/b", "a@b lists",
                                  "example.org lists trouble=no", "example.org lists timeout=0",
                                  "example.org lists x=y", "a.example lists relay=1",
                                  "a lists\nA lists", "example.org lists trouble=defer trouble=accept"])
def test_mistakes(text):
    with pytest.raises(BadFile):
        parse(text)


def test_what_is_known_is_not_asked_until_it_is_old():
    now = [100.0]
    desk = Desk(lambda argument: GOOD if "BOB" in argument else NOBODY, now=lambda: now[0])
    for seconds, asked in ((0, 2), (59, 2), (2, 3), (538, 4), (2, 5)):
        now[0] += seconds
        assert desk.look("BOB@example.org").action == NEXT
        assert desk.look("zoe@Example.org").action == REJECT
        assert len(desk.asked) == asked


def test_what_is_remembered_is_bounded():
    desk = Desk(lambda argument: GOOD, most=2)
    for name in ("a", "b", "c", "c", "b", "a"):
        desk.look(f"{name}@example.org")
    assert [text[4] for text in desk.asked] == ["a", "b", "c", "a"]


@pytest.mark.parametrize("said", ["451 4.2.1 later", "452 4.2.2 full", "503 5.5.1 what", "421 4.3.2 bye",
                                  CLOSE])
@pytest.mark.parametrize(("trouble", "action"), [("", DEFER), (" trouble=defer", DEFER),
                                                 (" trouble=accept", NEXT)])
def test_trouble(said, trouble, action, capfd):
    desk = Desk(lambda argument: said, f"example.org lists{trouble}")
    found = desk.look()
    assert found.action == action
    assert found.reply is None or found.reply.said().startswith("451 4.4.3 ")
    why = "connection+20closed+20" if said is CLOSE else said.split()[0]
    [line] = [line for line in capfd.readouterr().err.splitlines() if "event=verify_failed" in line]
    assert f" said={why}" in line


def test_the_log_says_why_it_cannot_be_asked(capfd):
    desk = Desk(lambda argument: GOOD, destination="unix:none.sock")
    assert desk.look().action == DEFER
    assert " said=No+20such+20file+20or+20directory" in capfd.readouterr().err


def test_a_service_that_is_away_is_left_alone_for_a_moment():
    now = [100.0]
    desk = Desk(lambda argument: CLOSE, now=lambda: now[0])
    assert [desk.look().action for _ in range(3)] == [DEFER] * 3
    assert desk.service.sessions == 1
    now[0] += 6
    desk.look()
    assert desk.service.sessions == 2


def test_a_destination_that_has_moved_is_asked_anew():
    old, new = Desk(lambda argument: NOBODY), Desk(lambda argument: GOOD, name="new.sock")
    assert old.look("a@example.org").action == REJECT       # its session is kept, and what it said
    old.check = verify.Verified(parse("example.org lists"), new.check._destinations,
                                old.check._memory, old.check._ask)
    assert [old.look(f"{name}@example.org").action for name in "ab"] == [NEXT, NEXT]
    assert (len(old.asked), len(new.asked)) == (1, 2)


def test_of_our_own_services_no_session_is_kept():
    """Each of them has a process."""
    os.mkdir("run")
    own = BUILT_IN["mailbox"]
    with LmtpService(own.path, None, False, on_rcpt=lambda argument: GOOD) as service:
        asker = Asker(SimpleNamespace(connect=connect, loop=None), "m.example")
        for count in (1, 2):
            assert run(asker.ask(own, "bob@example.org", 10.0)).said() == GOOD
            assert service.sessions == count


def test_nobody_listens():
    desk = Desk(lambda argument: GOOD)
    os.unlink("lists.sock")
    assert desk.look().action == DEFER


def test_a_session_that_was_closed_while_idle_is_no_trouble():
    desk = Desk(lambda argument: GOOD if len(desk.asked) != 2 else CLOSE)
    assert desk.look("a@example.org").action == NEXT
    assert desk.look("b@example.org").action == NEXT        # asked again on a new session
    assert (desk.service.sessions, len(desk.asked)) == (2, 3)


def test_a_recipient_who_lives_elsewhere_is_taken():
    desk = Desk(lambda argument: "551 5.1.6 <bob@example.net>")
    assert desk.look().action == NEXT


@pytest.mark.parametrize(("said", "told"), [
    ("550 no mailbox", "550 5.1.1 no mailbox"), ("552-5.2.2 full\r\n552 5.2.2 really", "552 5.2.2 full"),
    ("551 5.7.1 go away", "551 5.7.1 go away")])
def test_what_the_client_hears(said, told):
    assert Desk(lambda argument: said).look().reply.said() == told


def test_a_null_sender_and_utf8():
    seen = []
    desk = Desk(lambda argument: seen.append(argument) or GOOD)
    assert desk.look("b\u00fccher@example.org").action == NEXT
    assert seen == ["TO:<b\u00fccher@example.org>"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_by_tcp(host):
    port = free_port()
    desk = Desk(lambda argument: NOBODY, destination=f"tcp:{host}:{port}", port=port)
    assert desk.look().action == REJECT


def in_loop(desk, looks):
    """The check under an event loop."""
    loop = asyncio.new_event_loop()
    deadlines = Deadlines(loop)
    desk.services.loop, desk.services.deadlines = loop, deadlines
    desk.services.connect = lambda path: connect_unix(loop, deadlines, path)
    found = []

    def ended(result, error):
        found.append(error or result)
        if len(found) == len(looks):
            loop.stop()

    def begin():
        for recipient in looks:
            facts = Facts("s")
            facts.recipient = recipient
            Running(desk.check.look(facts), ended)

    loop.call_soon(begin)
    loop.call_later(20, loop.stop)
    loop.run_forever()
    loop.close()
    return found


@pytest.mark.parametrize("host", ["", "127.0.0.1", "localhost"])
def test_in_an_event_loop(host):
    port = free_port() if host else 0
    destination = f"tcp:{host}:{port}" if host else "unix:lists.sock"
    desk = Desk(lambda argument: GOOD if "a@" in argument else NOBODY, destination=destination,
                port=port)
    found = in_loop(desk, ["a@example.org", "b@example.org"])
    assert sorted([said.action for said in found]) == [NEXT, REJECT]


def test_a_service_that_says_nothing_has_a_deadline():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("silent.sock")
    listener.listen(5)
    desk = Desk(lambda argument: GOOD, "example.org lists timeout=1", destination="unix:silent.sock")
    assert in_loop(desk, ["a@example.org"])[0].action == DEFER
    listener.close()


def test_the_factory():
    control = SimpleNamespace(me="m.example", verify=parse("example.org lists"),
                              destinations=parse("lists:lmtp:unix:x", parse_destinations))
    services = SimpleNamespace(kept={})
    first = verify.make(control, services)
    again = verify.make(control, services)
    assert first._memory is again._memory       # a reload forgets nobody
    control.destinations = parse("", parse_destinations)
    with pytest.raises(BadFile, match="control/verify: example.org: there is no destination lists"):
        verify.make(control, services)
    control.verify = parse("")
    assert verify.make(control, services) is None
