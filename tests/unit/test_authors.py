"""From, or else Sender, is of who has logged in."""

import pytest

from mqmail.control import lines, logins, optionsets
from mqmail.policy.facts import Facts
from mqmail.policy.senders import Authors
from mqmail.policy.verdict import NO_OPINION, REJECT

ALICE = "alice@example.org"
TABLE = f"{ALICE}: {ALICE}, @alice.example, j\u00f6rg@b\u00fccher.example\nany: *\n"
LOGINS = lines.parse("control/logins", TABLE.encode(), logins.parse_logins, "mail.example.org")


def look(header, login=ALICE, role="submission", sets=(), options=""):
    facts = Facts("s", role)
    facts.login, facts.options = login, options
    facts.header = header if isinstance(header, bytes) else header.encode()
    return Authors(LOGINS, optionsets.parse_optionsets(sets, "")).look(facts)


@pytest.mark.parametrize("header", [
    "From: alice@example.org\r\n",
    "from : Alice\r\n\t<ALICE@Example.ORG>\r\n",
    "From: ceo@example.com <alice@example.org>\r\n",
    "From: =?utf-8?q?ceo=40example=2Ecom?= <alice@example.org>\r\n",
    "From: (ceo@example.com (nested)) \"alice\"@example . org\r\n",
    "From: Us: a@alice.example, b@alice.example;\r\n",
    "From: <@relay.example,@other.example:alice@example.org>\r\n",          # RFC 5322 section 4.4
    "From: j\u00f6rg@b\u00fccher.example\r\n",
    "From: j\u00f6rg@xn--bcher-kva.example\r\n",
    "From: ceo@example.com\r\nSender: Alice <alice@example.org>\r\n",
    "From: a@alice.example, ceo@example.com\r\nSender: alice@example.org\r\n",
    "From: nobody:;\r\nSender: alice@example.org\r\n",                      # RFC 6854
    "From: ceo@example.com\r\nResent-From: alice@example.org\r\n",
    "Resent-From: alice@example.org\r\nResent-From: x@example.com\r\nFrom: ceo@example.com\r\n",
    "Subject: no From at all\r\n", "", "Sender: alice@example.org\r\n",
])
def test_taken(header):
    assert look(header) is NO_OPINION


@pytest.mark.parametrize(("header", "why"), [
    ("From: ceo@example.com\r\n", "may not write as ceo@example.com"),
    ("Sender: ceo@example.com\r\n", "may not write as ceo@example.com"),       # readers are shown it
    ("From: alice@example.org\r\n" + "X: y\r\n" * 50000, "too large to be looked at"),
    ("From: alice@example.org <ceo@example.com>\r\n", "may not write as ceo"),
    ("From: \"alice@example.org\" <ceo@example.com>\r\n", "may not write as ceo"),
    ("From: ceo@example.com (alice@example.org)\r\n", "may not write as ceo"),
    ("From: alice@example.org, ceo@example.com\r\n", "may not write as ceo"),
    ("From: alice@example.org ceo@example.com\r\n", "may not write as ceo"),
    ("From: alice@example.org\r\nFROM : ceo@example.com\r\n", "may not write as ceo"),
    ("From: alice@example.org\r\nno field\r\nFrom: ceo@example.com\r\n", "may not write as ceo"),
    ("From: alice@example.org,\r\n ceo@example.com\r\n", "may not write as ceo"),
    ("From: Board: alice@example.org, ceo@example.com;\r\n", "may not write as ceo"),
    ("From: alice@sub.alice.example\r\n", "may not write as alice@sub"),
    ("From: j\u00f6rg@bu\u0308cher.example\r\n", "may not write as"),
    ("From: alice@ex\u0430mple.org\r\n", "may not write as"),               # a Cyrillic letter
    ("From: x:;\r\n", "without an address"), ("From:\r\n", "without an address"),
    ("From: <>\r\n", "cannot be read"), ("From: alice\r\n", "cannot be read"),
    ("From: alice@example.org <ceo@example.com\r\n", "cannot be read"),
    ("From: alice@example.org (\r\n", "cannot be read"),
    (b"From: alice@example.org, \xff\xfe@example.org\r\n", "cannot be read"),
    ("From: " + "(" * 9000 + "\r\n", "too long"),
    ("From: " + "alice@example.org," * 600 + "\r\n", "too long"),
    ("From: ceo@example.com\r\nSender: cfo@example.com\r\n", "may not write as ceo"),
    ("From: ceo@example.com\r\nSender: alice@example.org, cfo@example.com\r\n", "ceo"),
    ("From: ceo@example.com\r\nSender: alice@example.org\r\nSender: alice@example.org\r\n", "ceo"),
    ("From: ceo@example.com\r\nResent-From: x@example.com\r\nResent-From: alice@example.org\r\n", "ceo"),
    ("From: ceo@example.com\r\nReply-To: alice@example.org\r\n", "may not write as ceo"),
])
def test_refused(header, why):
    said = look(header)
    assert (said.action, said.reply.code, said.reply.status) == (REJECT, 550, "5.7.1")
    assert why in said.reply.text
    assert "alice@example.org" in said.reply.text
    assert len(said.reply.text) <= 400


FOREIGN = "From: ceo@example.com\r\n"


@pytest.mark.parametrize(("given", "refused"), [
    ({}, True), ({"login": ""}, False), ({"login": "any"}, False), ({"role": "submissions"}, True),
    ({"role": "mx"}, False),
    ({"role": "mx", "sets": ["strict checkfrom=yes"], "options": "strict"}, True),
    ({"sets": ["submission checkfrom=no"]}, False),
    ({"sets": ["x checkfrom=no"], "options": "x"}, False),
    ({"login": "bob@example.org"}, True),
])
def test_who_is_looked_at(given, refused):
    assert (look(FOREIGN, **given).action == REJECT) is refused


def test_a_login_that_may_use_any_sender_writes_what_nobody_can_read():
    assert look("From: root (Cron Daemon)\r\n", login="any") is NO_OPINION
    assert look("From: root (Cron Daemon)\r\n").action == REJECT


def test_sets_that_do_not_look_are_not_to_be_had_for_a_word():
    sets = optionsets.parse_optionsets(["open checkfrom=no", "shut checkfrom=yes"], "")
    assert sets.opens("open") == "checkfrom=no"
    assert sets.opens("shut") == ""
