"""A header is vetted: each rule by what breaks it and what does not; and submission completes it."""

import pytest

from mqmail.control import lines
from mqmail.control.headerchecks import parse_headerchecks
from mqmail.mail.headerrules import MOST_PARSED, RULES, broken, is_date
from mqmail.mail.headerscan import LARGEST_JUDGED
from mqmail.policy.facts import Facts
from mqmail.policy.header import HeaderRules, make, submission_header
from mqmail.policy.verdict import DEFER, NO_OPINION, REJECT

GOOD = (b"From: Alice <alice@example.org>\r\nDate: Sun, 22 Nov 2026 08:20:00 +0100\r\n"
        b"Message-ID: <1@example.org>\r\n")
TO = b"To: bob@example.net, \"Q, R\" <q@example.net>,\r\n undisclosed: ;\r\n"
LONG = b"x" * 998


def parsed(text):
    return lines.parse("headerchecks", text.encode(), parse_headerchecks, "")


DEFAULT = parsed("")


def rules(header, utf8=False, **more):
    return broken(header, utf8, RULES, **more)


@pytest.mark.parametrize("header", [
    GOOD, GOOD + TO, GOOD + b"Subject: x\r\n folded\r\n\tagain\r\n", GOOD + b"X: 1\r\nX: 2\r\n",
    GOOD + b"Y:" + LONG[2:] + b"\r\n", GOOD + b"Subject :obsolete\r\n",
    GOOD.replace(b"Alice <alice@example.org>", b"a@b.c, d@e.f\r\nSender: a@b.c"),
    GOOD + b"Received: a\r\nReceived: b\r\n", GOOD[:-2]])
def test_good_headers_break_nothing(header):
    assert rules(header) == []


@pytest.mark.parametrize(("header", "found"), [
    (b"", ["from", "date", "messageid"]),
    (GOOD + b"From: eve@example.com\r\n", ["froms"]),
    (GOOD + b"from: eve@example.com\r\n", ["froms"]),
    (GOOD + b"FROM : eve@example.com\r\n", ["froms"]),
    (GOOD.replace(b"<alice@example.org>", b"nobody@"), ["from"]),
    (GOOD.replace(b"Alice <alice@example.org>", b""), ["from"]),
    (GOOD.replace(b"Alice <alice@example.org>", b"a@b.c, d@e.f"), ["sender"]),
    (GOOD + b"Sender: a@b.c, d@e.f\r\n", ["sender"]),
    (GOOD + b"Sender: a@b.c\r\nSender: d@e.f\r\n", ["twice"]),
    (GOOD + b"Date: Sun, 22 Nov 2026 08:20:00 +0100\r\n", ["date"]),
    (GOOD.replace(b"22 Nov", b"Nov 22"), ["datesyntax"]),
    (GOOD.replace(b"<1@example.org>", b"1@example.org"), ["messageid"]),
    (GOOD.replace(b"<1@example.org>", b"<a b@c>"), ["messageid"]),
    (GOOD + b"Subject: a\r\nSubject: b\r\n", ["twice"]),
    (GOOD + b"To: a@b.c\r\nTO: d@e.f\r\n", ["twice"]),
    (GOOD + b"To: <a@b.c\r\n", ["addresses"]),
    (GOOD + b"Cc: (unclosed a@b.c\r\n", ["addresses"]),
    (GOOD + b"nothing\r\n", ["syntax"]),
    (b" starts folded\r\n" + GOOD, ["syntax"]),
    (GOOD + b"Subject: a\r\n \t\r\n b\r\n", ["fold"]),
    (GOOD + b"Y:" + LONG + b"\r\n", ["lines"]),
    (GOOD + b"Subject: a\0b\r\n", ["nul"]),
    (GOOD + b"Subject: a\x1b[1m\r\n", ["control"]),
    (GOOD + "Subject: \u00fc\r\n".encode(), ["eightbit"]),
    (GOOD + b"Subject: \xff\r\n", ["eightbit", "utf8"]),
    (GOOD + b"X: " + b"\r\n ".join([LONG[:900]] * 300) + b"\r\n", ["size"]),
])
def test_each_rule(header, found):
    assert rules(header) == found
    assert broken(header, False, frozenset(RULES) - frozenset(found)) == []


def test_under_smtputf8_text_may_be_utf8_and_nothing_else():
    assert rules(GOOD + "Subject: \u00fc\r\n".encode(), utf8=True) == []
    assert rules(GOOD + b"Subject: \xff\r\n", utf8=True) == ["utf8"]


def test_a_carriage_return_is_no_line_end():
    """Python's email takes it for one: a Bcc, or a second From."""
    assert rules(GOOD + b"Subject: x\rFrom: eve@example.com\r\n") == []


def test_what_submission_adds_is_not_missed():
    assert rules(b"From: a@b.c\r\n", completes=True) == []
    assert rules(b"From: a@b.c\r\nDate: x\r\nDate: y\r\n", completes=True) == ["date", "datesyntax"]


@pytest.mark.parametrize("text", [
    "Sun, 22 Nov 2026 08:20:00 +0100", "22 Nov 2026 08:20 GMT", "1 jan 99 00:00:00 EST",
    "Sun,22 Nov 2026 23:59:60 -0000 (a (nested) comment)", "Sun , 22 Nov 2026 08:20:00 Z"])
def test_dates(text):
    assert is_date(f" {text}".encode())


@pytest.mark.parametrize("text", [
    "", "today", "Sun, 22 Nov 2026 08:20:00",
    "Sun, 32 Nov 2026 08:20:00 +0000", "2026-11-22T08:20:00Z",
    "Sun, 22 Nov 2026 24:20:00 +0000", "Sun, 22 Nov 2026 8:20:00 +0000",
    "Sun, 22 Nov 2026 08:20:00 +100",
    "Sun, 22 Nov 2026 08:20:00 +0_00", "Sun, \u0662 Nov 2026 08:20:00 +0000", "(" * 2000])
def test_no_dates(text):
    assert not is_date(text.encode())


def test_a_long_list_of_addresses_is_not_looked_at():
    """However large a header, the time it takes is bounded."""
    bad = b"To: <" + b",\r\n ".join([LONG[:900]] * (MOST_PARSED // 900 + 1)) + b"\r\n"
    assert rules(GOOD + bad) == []
    assert len(GOOD + bad) < LARGEST_JUDGED


# --- the check ---

def look(header, text="", role="mx"):
    facts = Facts("s1", role=role, ip="192.0.2.1")
    facts.sender, facts.header = "a@b.c", header
    return HeaderRules(parsed(text)).look(facts)


def test_what_no_honest_program_writes_is_refused():
    said = look(GOOD + b"From: eve@example.com\r\n")
    assert (said.action, said.why) == (REJECT, "froms")
    assert said.reply.encode() == (
        b"550 5.6.0 the header has more than one From field (RFC 5322 section 3.6)\r\n")
    assert [rule for rule, action in DEFAULT.items() if action == "reject"] == ["nul", "size", "froms"]


def test_what_is_marked_is_logged(capfd):
    assert look(b"From: a@b.c\r\n") == NO_OPINION
    assert capfd.readouterr().err == (
        "event=header_marked prog=mqmail session=s1 ip=192.0.2.1 sender=a@b.c rules=date,messageid\n")
    assert look(b"From: a@b.c\r\n", role="submission") == NO_OPINION
    assert look(b"From: a@b.c\r\n", "date off\nmessageid off") == NO_OPINION
    assert capfd.readouterr().err == ""


def test_a_rejection_goes_before_a_deferral():
    assert look(b"", "from defer\nmessageid reject").why == "messageid"
    said = look(b"", "from defer")
    assert (said.action, said.reply.code, said.reply.status) == (DEFER, 451, "4.6.0")


def test_without_any_rule_there_is_no_check():
    class Control:
        headerchecks = parsed("\n".join([f"{rule} off" for rule in RULES]))
    assert make(Control, None) is None
    Control.headerchecks = DEFAULT
    assert isinstance(make(Control, None), HeaderRules)


@pytest.mark.parametrize("line", [
    "date", "date maybe", "dat off", "date off\ndate mark", "date off now"])
def test_lines_that_make_no_sense_are_named(line):
    with pytest.raises(Exception, match=r"^headerchecks line \d: "):
        parsed(line)


# --- submission ---

def submitted(header, sender="alice@example.org"):
    facts = Facts("s1", role="submission")
    facts.sender = sender
    return submission_header(header, facts, 1795332000.0, "1.2@mail.example.org")


def test_a_complete_header_stays_as_it_is_but_for_bcc():
    odd = b"X:\tkeep  \r\n \t kept\r\nsubject:  \xff\r\nno field\r\n"
    assert submitted(GOOD + odd) == GOOD + odd
    assert submitted(GOOD + b"Bcc: x@y.z,\r\n q@y.z\r\nBCC : v@y.z\r\n" + odd) == GOOD + odd
    assert submitted(b"Resent-Bcc: x@y.z\r\nReturn-Path: <x@y.z>\r\n" + GOOD) == GOOD


def test_what_is_missing_is_added_on_top():
    assert submitted(b"Subject: x\r\n") == (
        b"Date: Sun, 22 Nov 2026 07:20:00 +0000\r\nMessage-ID: <1.2@mail.example.org>\r\n"
        b"From: <alice@example.org>\r\nSubject: x\r\n")
    assert b"From" not in submitted(b"", sender="")


def test_a_completed_header_breaks_no_rule():
    assert rules(submitted(b"To: x@y.z\r\n")) == []


def test_a_bcc_behind_a_bare_carriage_return_is_no_field():
    assert submitted(GOOD + b"Subject: x\rBcc: y@z.a\r\n") == GOOD + b"Subject: x\rBcc: y@z.a\r\n"
