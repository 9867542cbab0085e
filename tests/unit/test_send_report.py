"""What mq-send tells mq-bounce."""

import pytest

from mqmail.mail.address import parse_path
from mqmail.prog.mq_send import report
from mqmail.prog.mq_send.job import Job
from mqmail.prog.mq_send.places import Places
from mqmail.prog.mq_send.verdicts import Clock, Verdict, brief, lines_for
from mqmail.queue import ids, lines, record
from mqmail.queue.record import Envelope, Recipient
from mqmail.xmtp.params import parse_rcpt
from mqmail.xmtp.reply import LONGEST_LINE_XMQ, Target

ID = ids.make(1732252800_000000, 7)
HEAD = Envelope(ID, 1732252800.0, 100, False, True, "alice@example.org", "", "", {"proto": "esmtp"})


def a_record(*recipients):
    return record.parse(lines.head(HEAD, recipients))


def failed(address="bob@example.org", notify=(), orcpt="", host="", said=""):
    """A record whose only recipient has failed, and its state."""
    found = a_record(Recipient("1", "remote", address, notify, orcpt))
    record.extend(found, lines.fail_line("1", 1732252900, "5.1.1", host, said))
    return found, found.current()[0]


@pytest.mark.parametrize(("notify", "action"), [
    ((), "failed"), (("failure",), "failed"), (("success", "failure"), "failed"), (("never",), "none"),
    (("success",), "none"), (("delay",), "none")])
def test_a_failure_is_told_unless_notify_says_otherwise(notify, action):
    assert report.action(failed(notify=notify)[1]) == action


@pytest.mark.parametrize(("destination", "notify", "action"), [
    ("local", (), ""), ("local", ("failure",), ""), ("local", ("success",), "delivered"),
    ("mailbox", ("success",), "delivered"), ("remote", ("success",), "relayed")])
def test_a_success_is_told_if_asked_for(destination, notify, action):
    found = a_record(Recipient("1", destination, "bob@example.org", notify))
    record.extend(found, lines.done_line("1", 1732252900, "2.0.0"))
    assert report.action(found.current()[0]) == action


@pytest.mark.parametrize(("destination", "action"), [
    ("remote", ""), ("mine", ""), ("local", "delivered")])
def test_a_next_hop_that_reports_itself_leaves_nothing_to_tell(destination, action):
    found = a_record(Recipient("1", destination, "bob@example.org", ("success", "failure")))
    record.extend(found, lines.done_line("1", 1732252900, "2.0.0", dsn=True))
    assert report.action(found.current()[0]) == action


def test_what_has_been_told_is_not_told_again():
    found, state = failed()
    record.extend(found, lines.told_line("1", 1732252901, "failed"))
    assert report.action(state) == ""
    assert report.to_tell(found, True) == {}


def test_the_sender_hears_of_the_address_it_gave():
    found = a_record(Recipient("1", "new", "team@example.org"))
    record.extend(found, lines.replacements("1", [("remote", "secret@example.net", None)]))
    record.extend(found, lines.fail_line("1", 1732252900, "5.1.1", "", "no <secret@example.net> here"))
    [[state]] = report.to_tell(found, False).values()
    shown, words = report.parameters(found, state, 0.0)
    assert shown == "team@example.org"
    assert "secret" not in " ".join(words)


@pytest.mark.parametrize(("via", "sender", "told"), [
    ({"auth": "alice"}, None, True), ({"ip": "192.0.2.1"}, None, False),
    ({"auth": "alice"}, "owner-list@example.org", False)])
def test_a_failure_nobody_wants_to_hear_of_is_told_for_an_account_to_be_counted(via, sender, told):
    head = Envelope(ID, 1732252800.0, 100, False, True, "alice@example.org", "", "", via)
    member = Recipient("1", "remote", "bob@example.org", ("never",), "", sender)
    found = record.parse(lines.head(head, [member]))
    record.extend(found, lines.fail_line("1", 1732252900, "5.1.1"))
    states = report.to_tell(found, False).get("alice@example.org", [])
    assert ([report.parameters(found, state, 0.0)[1][0] for state in states] == ["XACTION=none"]) is told
    assert bool(report.to_tell(found, False)) is told


@pytest.mark.parametrize(("sender", "auth"), [("alice@example.org", True), ("owner@example.org", False)])
def test_what_is_refused_to_a_list_is_not_the_accounts(sender, auth):
    head = Envelope(ID, 1732252800.0, 100, False, True, "alice@example.org", "", "",
                    {"proto": "esmtp", "auth": "alice"})
    found = record.parse(lines.head(head, [Recipient("1", "remote", "bob@example.org", (), "")]))
    job = Job(head, sender, "error", found.current(), lambda *_: None, lambda: -1)
    [via] = [word for word in job._mail({"XMQ": ""}) if word.startswith("XVIA=")]
    assert ("auth+3Dalice" in via) is auth
    assert "proto+3Desmtp" in via


def replaced(notify, *targets):
    """A record with a recipient that several stand for, and what is to be told then."""
    found = a_record(Recipient("1", "new", "team@example.org", notify, "rfc822;t@example.com"))
    verdict = Verdict("replace", "5.1.6", targets=targets)
    clock = Clock(1732252900.0, 604800.0)
    record.extend(found, lines_for(found, found.current()[0], verdict, clock, Places(())))
    return found


ONE, TWO = Target("remote", "a@example.net"), Target("local", "b@example.org")
MEMBERS = [Target("remote", f"{name}@example.net", "owner@example.org") for name in "ab"]


@pytest.mark.parametrize(("notify", "targets", "inherited"), [
    ((), [ONE, TWO], [(), ()]), (("failure", "delay"), [ONE, TWO], [("failure", "delay")] * 2),
    (("success",), [ONE, TWO], [("never",)] * 2), (("never",), [ONE, TWO], [("never",)] * 2),
    (("success", "failure"), [ONE, TWO], [("failure",)] * 2), (("success",), [ONE], [("success",)]),
    (("never",), MEMBERS, [("failure",)] * 2), (("success",), MEMBERS, [("failure",)] * 2),
    ((), MEMBERS, [(), ()]), (("never",), MEMBERS[:1], [("failure",)])])
def test_what_is_to_be_told_of_those_that_an_address_stands_for(notify, targets, inherited):
    assert [state.recipient.notify for state in replaced(notify, *targets).current()] == inherited


def test_several_instead_of_one_are_told_once():
    found = replaced(("success", "failure"), ONE, TWO)
    for seq in ("1.1", "1.2"):
        record.extend(found, lines.done_line(seq, 1732252900, "2.0.0"))
    [(sender, [state])] = report.to_tell(found, False).items()
    assert (sender, state.recipient.seq, report.action(state)) == ("alice@example.org", "1", "expanded")
    shown, words = report.parameters(found, state, 0.0)
    assert (shown, words) == ("team@example.org", ["XACTION=expanded", "XSTATUS=2.0.0",
                                                   "ORCPT=rfc822;t@example.com"])
    record.extend(found, lines.told_line("1", 1732252901, "expanded"))
    assert report.to_tell(found, False) == {}


def test_a_lists_owner_hears_of_the_member():
    found = a_record(Recipient("1", "new", "list@example.org"))
    record.extend(found, lines.replacements("1", [("remote", "m@example.net", "owner@example.org")]))
    record.extend(found, lines.fail_line("1", 1732252900, "5.1.1"))
    [[sender, [state]]] = report.to_tell(found, False).items()
    assert sender == "owner@example.org"
    assert report.parameters(found, state, 0.0)[0] == "m@example.net"


LONG_ADDRESS = f"{'x' * 60}@{'.'.join(['y' * 60] * 3)}"


@pytest.mark.parametrize("said", ["550 no", "\U0001f600" * 500, " " * 500, "\u200b" * 500, "+" * 500])
@pytest.mark.parametrize("host", ["mx.example.net", "\u200b" * 255])
@pytest.mark.parametrize("orcpt", ["", "rfc822;" + "\U0001f600" * 490])
def test_all_that_is_to_be_told_fits_into_a_command(said, host, orcpt):
    found, state = failed(LONG_ADDRESS, orcpt=orcpt, host=host, said=said)
    shown, words = report.parameters(found, state, 0.0)
    argument = " ".join([f"TO:<@error:{shown}>", *words])
    assert len(f"RCPT {argument}\r\n".encode()) <= LONGEST_LINE_XMQ
    rcpt = parse_rcpt(argument, {"XMQ", "DSN", "SMTPUTF8"}, utf8=True, number=0)
    assert rcpt.address == parse_path(f"<{LONG_ADDRESS}>").address
    assert rcpt.orcpt == orcpt
    assert said.startswith(dict(rcpt.x)["said"])
    assert host.startswith(dict(rcpt.x)["host"])
    assert said != "550 no" or dict(rcpt.x)["said"] == said


def test_an_address_that_stands_for_too_many_fails():
    found = a_record(Recipient("1", "new", "team@example.org"), Recipient("2", "new", "b@example.org"))
    targets = tuple([Target("remote", f"u{n}@example.net") for n in range(record.MOST_RECIPIENTS - 2)])
    rest = Clock(1732252900.0, 604800.0), Places(())
    [first, second] = found.current()
    record.extend(found, lines_for(found, first, Verdict("replace", "5.1.6", targets=targets), *rest))
    assert first.kind == "replaced"
    two = tuple([Target("remote", f"v{n}@example.net") for n in range(2)])
    record.extend(found, lines_for(found, second, Verdict("replace", "5.1.6", targets=two), *rest))
    assert (second.kind, second.status) == ("fail", "5.5.3")


def test_a_record_has_room_for_the_verdicts_on_all_recipients():
    sure, sparse = record.LONGEST // 2, len(lines.told_line("100000.100000", 1732252900, "failed"))
    found = a_record(Recipient("1", "new", "team@example.org"))
    words = brief(Verdict("fail", "5.1.1", "\u20ac" * 255, "\u20ac" * 500, tls="x" * 80, secs="y" * 80))
    line = lines_for(found, found.current()[0], words, Clock(1732252900.0, 604800.0), Places(()))
    assert record.MOST_RECIPIENTS * (len(line) + sparse) <= sure
    found.good_length = record.LONGEST // 4 * 3 + 1
    more = Verdict("replace", "5.1.6", targets=(Target("remote", "x@example.net"),))
    assert b"fail 1 " in lines_for(found, found.current()[0], more, Clock(1732252900.0, 1.0), Places(()))


# Those that wait

WAIT = 1732252900, "4.4.1", 1732253000, "mx.example.net", "no answer"


def waiting(*recipients, via=None, sender="alice@example.org"):
    """A record whose recipients all wait."""
    head = HEAD.replace(via=via or {"proto": "esmtp"}, sender=sender)
    found = record.parse(lines.head(head, recipients))
    for one in recipients:
        record.extend(found, lines.wait_line(one.seq, *WAIT))
    return found


def is_late(found):
    return [state.recipient.seq for state in report.late(found)]


@pytest.mark.parametrize("via", [{"proto": "esmtp"}, {"proto": "esmtp", "auth": "alice"},
                                 {"proto": "esmtp", "cert": "alice@example.org"}, {"proto": "local"}])
@pytest.mark.parametrize("notify", [(), ("never",), ("failure",), ("success", "failure"), ("delay",),
                                    ("failure", "delay")])
def test_who_hears_of_a_delay(via, notify):
    found = waiting(Recipient("1", "remote", "bob@example.org", notify), via=via)
    wanted = "delay" in notify or not notify and bool({"auth", "cert"} & set(via))
    assert is_late(found) == ["1"] * wanted
    assert bool(report.to_tell(found, True)) == wanted
    assert report.to_tell(found, False) == {}


def test_the_null_sender_hears_of_no_delay():
    assert is_late(waiting(Recipient("1", "remote", "bob@example.org", ("delay",)), sender="")) == []


def test_a_delay_is_told_once_and_the_failure_all_the_same():
    found = waiting(Recipient("1", "remote", "bob@example.org", ("delay", "failure")))
    record.extend(found, lines.told_line("1", 1732252901, "delayed"))
    assert is_late(found) == []
    record.extend(found, lines.wait_line("1", *WAIT))
    assert report.to_tell(found, True) == {}
    record.extend(found, lines.fail_line("1", 1732259999, "5.4.7"))
    [[state]] = report.to_tell(found, True).values()
    assert report.action(state) == "failed"


def test_an_address_is_late_once_however_many_it_stands_for():
    found = waiting(Recipient("1", "new", "team@example.org", ("delay",)))
    record.extend(found, lines.replacements("1", [("remote", f"{n}@example.net", None) for n in "abc"]))
    for seq in ("1.1", "1.2", "1.3"):
        record.extend(found, lines.wait_line(seq, *WAIT))
    assert is_late(found) == ["1.3"]        # they come last first
    record.extend(found, lines.told_line("1.3", 1732252901, "delayed"))
    record.extend(found, lines.done_line("1.3", 1732252902, "2.0.0"))
    assert is_late(found) == []


def test_members_of_a_list_are_late_each_for_itself():
    found = waiting(Recipient("1", "new", "list@example.org", ("delay",)))
    record.extend(found, lines.replacements("1", [("remote", f"{n}@example.net", "owner@example.org")
                                                  for n in "ab"]))
    for seq in ("1.1", "1.2"):
        record.extend(found, lines.wait_line(seq, *WAIT))
    record.extend(found, lines.told_line("1.2", 1732252901, "delayed"))
    assert [sender for sender in report.to_tell(found, True)] == ["owner@example.org"]
    assert is_late(found) == ["1.1"]


def test_what_is_said_of_a_late_one():
    found = waiting(Recipient("1", "remote", "bob@example.org", ("delay",)))
    shown, words = report.parameters(found, found.current()[0], 1732857600.5)
    assert shown == "bob@example.org"
    assert words == ["XACTION=delayed", "XSTATUS=4.4.1", "XSAID=no+20answer", "XHOST=mx.example.net",
                     "XTIME=1732252900", "XUNTIL=1732857600"]
