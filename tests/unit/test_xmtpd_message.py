"""A message on its way through xmtpd: what the queue's refusals mean, and what hooks see of it."""

from contextlib import suppress
from socket import socketpair
from threading import Thread

import pytest

from mqmail.base.waiter import run
from mqmail.control.certificates import Certificates
from mqmail.control.listeners import Listener
from mqmail.control.optionsets import OptionSets
from mqmail.control.reader import Control
from mqmail.net.blocking import over_socket
from mqmail.net.converse import converse
from mqmail.policy.hooks import Hook
from mqmail.policy.stages import Check, Stages
from mqmail.policy.verdict import Verdict
from mqmail.prog.xmtpd.dialogue import Dialogue
from mqmail.prog.xmtpd.message import SEEN
from mqmail.prog.xmtpd.peer import Peer
from mqmail.prog.xmtpd.pool import Pool
from mqmail.prog.xmtpd.settings import Settings
from mqmail.xmtp.reply import reply

TROUBLE = "451 4.3.0 internal trouble, try again later"
TWO = b"EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\n"
CLIENT = Peer(ip="192.0.2.1", relay=True)
SMALL = b"Subject: x\r\n\r\nhello\r\n"


FILES = {"me": "mx.example", "smtpgreeting": "mx.example ready", "databytes": 0, "maxrecipients": 100,
         "optionsets": OptionSets({}), "tlscertificates": Certificates({})}


class Knows:
    """Answers for mq-resolve: those in *refused* are nobody."""

    def __init__(self, *refused):
        self.refused = refused
        self.asked = []
        self.parameters = []

    async def ask(self, transaction):
        addresses = [address for address, _ in transaction.recipients]
        self.asked.append(addresses)
        self.parameters.append(transaction.parameters[0])
        for number, address in enumerate(addresses):
            refused = address in self.refused
            transaction.verdicts[number] = reply(550, "5.1.1", "no") if refused else reply(250, "", "ok")


class Queue(Thread):
    """Says *answers* one after the other to MAIL, RCPT and BDAT, and "250 ok" behind the last."""

    def __init__(self, answers):
        super().__init__(daemon=True)
        self.ours, self.theirs = socketpair()
        self.ours.settimeout(20)
        self._answers = list(answers)
        self.heard = []
        self.start()

    def run(self):
        with self.ours, self.ours.makefile("rb") as file, suppress(OSError):    # it goes when it likes
            self._say("220 q")
            while line := file.readline():
                self.heard.append(line)
                word, *numbers = line.split()
                if word == b"BDAT":
                    self.heard.append(file.read(int(numbers[0])))
                self._say("250-q\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 XMQ" if word == b"EHLO" else
                          self._answers.pop(0) if self._answers else "250 ok")

    def _say(self, answer):
        self.ours.sendall(answer.encode() + b"\r\n")


def served(commands, answers=(), checks=(), resolver=None, peer=CLIENT):
    """The lines that a client hears which says *commands* at once, and what the queue hears."""
    client, ours = socketpair()
    queue = Queue(answers)
    with client:
        client.settimeout(20)

        async def connect():
            return over_socket(queue.theirs)

        settings = Settings(Control(FILES))
        settings.stages = Stages(checks, lambda _facts: None, failed)
        pool = Pool(connect, "mx.example")
        handler = Dialogue(settings, Listener(), peer, "s1", resolver, pool)
        Thread(target=client.sendall, args=(commands,), daemon=True).start()
        handler.server.greet()
        run(converse(over_socket(ours), handler.server, handler))
        handler.forget_body()
        pool.close()
        for sock in (ours, queue.theirs):
            sock.close()
        queue.join(20)
        return everything(client).split("\r\n")[:-1], b"".join(queue.heard)


def failed(_check, error):
    raise error


def everything(sock):
    found = b""
    while piece := sock.recv(1 << 20):
        found += piece
    return found.decode()


def bdat(text):
    return b"BDAT %d LAST\r\n%b" % (len(text), text)


# --- what the queue says ---

@pytest.mark.parametrize(("answers", "said"), [
    (["250 ok", "250 ok", "250 ok", "250 2.0.0 id=x1"], "250 2.0.0 ok x1"),
    (["250 ok", "250 ok", "550 5.7.1 not he", "451 4.5.3 for all"], TROUBLE),
    (["250 ok", "550 5.1.3 bad", "250 ok", "250 2.0.0 id=x1"], TROUBLE),
    (["250 ok", "501 5.1.3 bad", "501 5.1.3 bad", "503 5.5.1 who", "250 ok"], TROUBLE),
    (["250 ok", "250 ok", "452 4.5.3 too many", "452 4.5.3 too many"], "452 4.5.3 too many"),
    (["552 5.3.4 too large", "503 5.5.1 x", "503 5.5.1 x", "503 5.5.1 x"], "552 5.3.4 too large"),
    (["250 ok", "250 ok", "250 ok", "554 5.4.6 loops"], "554 5.4.6 loops"),
])
def test_who_was_taken_is_not_refused_for_good_later(answers, said):
    heard, passed = served(TWO + bdat(SMALL) + b"QUIT\r\n", answers)
    assert heard[-2] == said
    assert passed.count(b"RCPT TO:") == 2
    assert b"hello" in passed


# --- what hooks see ---

def seen_by(stage, commands, resolver=None, see=lambda session: session.recipients):
    seen = []
    hook = Hook(stage, lambda session: seen.append(see(session)))
    heard, _ = served(commands, checks=[hook], resolver=resolver)
    return seen, heard


def test_a_hook_at_rcpt_sees_who_of_a_burst_was_taken():
    resolver = Knows("b@y.example")
    seen, heard = seen_by("rcpt", TWO + b"RCPT TO:<d@y.example>\r\nRSET\r\nQUIT\r\n", resolver)
    assert seen == [(), (), ("c@y.example",)]
    assert [line[:3] for line in heard[-5:-2]] == ["550", "250", "250"]


def test_without_such_a_hook_a_burst_is_one_question():
    resolver = Knows()
    seen, _ = seen_by("mail", TWO + b"QUIT\r\n", resolver)
    assert (seen, resolver.asked) == ([()], [["b@y.example", "c@y.example"]])


def of_body(session):
    return session.octets, session.header, session.body


@pytest.mark.parametrize(("text", "header", "body"), [
    (SMALL, b"Subject: x\r\n", b"hello\r\n"),
    (b"hello\r\n", b"", b"hello\r\n"),
    (b"Subject: x\r\n", b"Subject: x\r\n", b""),
    (SMALL + b"y" * 70 + b"\r\n" + (b"z" * 70 + b"\r\n") * 3000, b"Subject: x\r\n",
     b"hello\r\n" + b"y" * 70 + b"\r\n" + (b"z" * 70 + b"\r\n") * 3000),
])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_hook_at_body_sees_the_size_and_the_start(text, header, body, pieces):
    half = len(text) // pieces
    first = b"BDAT %d\r\n%b" % (half, text[:half]) if pieces == 2 else b""
    rest = text[half:] if pieces == 2 else text
    [(octets, seen_header, seen_body)], _ = seen_by(
        "body", TWO + first + bdat(rest) + b"QUIT\r\n", see=of_body)
    assert (octets, seen_header, seen_body) == (len(text), header, body[:SEEN])


class Adds(Check):
    """A field on top of each message."""

    name, stage = "adds", "mail"

    def look(self, _facts):
        return Verdict(fields=("X-Seen: yes",))


@pytest.mark.parametrize(("text", "queued"), [
    (SMALL, b"X-Seen: yes\r\n" + SMALL),
    (b"\r\nhello\r\n", b"X-Seen: yes\r\n\r\nhello\r\n"),
    (b"hello\r\n\r\nTo: x\r\n", b"X-Seen: yes\r\n\r\nhello\r\n\r\nTo: x\r\n"),
    (b"hello\r\n" * 20000, b"X-Seen: yes\r\n\r\n" + b"hello\r\n" * 20000),
])
def test_a_body_stays_a_body_behind_our_fields(text, queued):
    _, heard = served(TWO + bdat(text) + b"QUIT\r\n", checks=[Adds()])
    first, *more = heard.split(b"BDAT ")[1:]
    assert b"".join([one.partition(b"\r\n")[2] for one in (first, *more)]).startswith(queued)


def test_a_body_of_the_message_before_is_forgotten():
    again = TWO.partition(b"\r\n")[2]
    text = b"a: b\r\n\r\nc\r\n"
    seen, _ = seen_by("body", TWO + bdat(SMALL) + again + bdat(text) + b"QUIT\r\n", see=of_body)
    assert seen[1] == (len(text), b"a: b\r\n", b"c\r\n")


# --- option sets and rights end with their message ---

LARGE = SMALL + (b"z" * 70 + b"\r\n") * 1000
AGAIN = TWO.partition(b"\r\n")[2]


def test_the_size_of_a_recipients_set_is_forgotten_with_a_body_that_is_too_large(monkeypatch):
    monkeypatch.setitem(FILES, "optionsets", OptionSets({"small": {"databytes": 1000}}))
    hook = Hook("rcpt", lambda _session: "set:small", FILES["optionsets"])
    again = b"MAIL FROM:<a@x.example> SIZE=5000\r\nQUIT\r\n"
    heard, _ = served(TWO + bdat(LARGE) + again, checks=[hook])
    assert [line[:3] for line in heard[-3:]] == ["552", "250", "221"]


def test_a_burst_has_no_more_recipients_than_the_set_allows(monkeypatch):
    monkeypatch.setitem(FILES, "optionsets", OptionSets({"few": {"maxrecipients": 2}}))
    heard, passed = served(TWO + 3 * b"RCPT TO:<d@y.example>\r\n" + bdat(SMALL) + b"QUIT\r\n",
                           checks=[Together()])
    assert [line[:3] for line in heard[-7:]] == ["250", "250", "452", "452", "452", "250", "221"]
    assert passed.count(b"RCPT TO:") == 2


class Together(Check):
    """Puts the set ``few`` in force, for all recipients of a burst at once."""

    stage = "rcpt"

    def look(self, _facts):
        return Verdict(options="few")


def test_who_relays_by_a_sender_does_not_by_another():
    hook = Hook("mail", lambda session: "RELAY" if session.sender == "boss@x.example" else None)
    resolver = Knows()
    boss = b"MAIL FROM:<boss@x.example>\r\nRCPT TO:<b@y.example>\r\nRSET\r\n"
    served(b"EHLO c.example\r\n" + boss + AGAIN + b"RSET\r\n" + boss + b"QUIT\r\n", checks=[hook],
           resolver=resolver, peer=Peer(ip="192.0.2.1"))
    assert ["relay+3D1" in said for said in resolver.parameters] == [
        True, False, True]


@pytest.mark.parametrize(("taken", "said"), [("", "451 4.7.1 not c"), ("c", "250 2.0.0 ok")])
def test_who_cannot_tell_single_recipients_hears_of_a_message_that_is_nobodys(taken, said):
    answers = {"b": reply(550, "5.7.1", "not b"), "c": reply(451, "4.7.1", "not c")}
    hook = Hook("header", lambda session: Verdict(recipients=tuple(
        [(one, answers[one[0]]) for one in session.recipients if one[0] != taken])))
    heard, passed = served(TWO + bdat(SMALL) + b"QUIT\r\n", checks=[hook])
    assert heard[-2] == said
    assert (passed == b"") == (taken == "")


@pytest.mark.parametrize("text", [SMALL, LARGE])
def test_a_message_refused_to_each_is_nobodys(text):
    hook = Hook("header", lambda session: Verdict(recipients=tuple(
        [(one, reply(550, "5.7.1", f"not {one[0]}")) for one in session.recipients])))
    commands = TWO.replace(b"<a@x.example>", b"<a@x.example> PRDR")
    heard, passed = served(commands + bdat(text) + b"QUIT\r\n", checks=[hook])
    assert heard[-5:-1] == ["353 responses for each recipient follow", "550 5.7.1 not b",
                            "550 5.7.1 not c", "550 5.7.1 not b"]
    assert passed == b""
