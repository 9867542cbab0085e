"""Who stands behind several recipients gets the message once, and its sender hears all it wants to."""

import pytest

from mqmail.prog.mq_send.places import Places
from mqmail.prog.mq_send.verdicts import Clock, Verdict, lines_for
from mqmail.queue import lines, record
from mqmail.queue.record import Envelope, Recipient
from mqmail.xmtp.reply import Target

CLOCK = Clock(1732252900.0, 604800.0)
X = Target("mailbox", "x@example.org")


def a_record(*notify):
    """A record with a recipient for each of *notify*."""
    envelope = Envelope("1kq3v9s0c0g00a2f", 1732252800.0, 10, False, False, "a@example.net", "", "", {})
    return record.parse(lines.head(envelope, [Recipient(str(n), "new", f"r{n}@example.org", words)
                                              for n, words in enumerate(notify, 1)]))


def replace(found, places, seq, *targets):
    """What recipient *seq* becomes when its service answers with *targets*."""
    state = found.recipients[seq]
    verdict = Verdict("replace", "5.1.6", targets=targets)
    record.extend(found, lines_for(found, state, verdict, CLOCK, places))
    places.add(state)
    return state.kind, state.recipient.destination


@pytest.mark.parametrize(("first", "second", "is_covered"), [
    ((), (), True), ((), ("failure",), True), (("failure",), (), True), ((), ("never",), True),
    (("never",), (), False), (("never",), ("failure",), False), (("success",), ("failure",), False),
    (("success", "failure"), ("success",), True), (("failure",), ("success", "failure"), False),
    (("never",), ("never",), True), (("failure",), ("failure", "delay"), True)])
def test_a_second_way_to_a_place_is_left_out_if_the_sender_misses_no_report(first, second, is_covered):
    found = a_record(first, second)
    places = Places(found.current())
    assert replace(found, places, "1", X) == ("pending", "mailbox")
    assert replace(found, places, "2", X) == (("done", "new") if is_covered else ("pending", "mailbox"))


def test_a_place_that_failed_covers_nobody():
    found = a_record((), ())
    places = Places(found.current())
    replace(found, places, "1", X)
    record.extend(found, lines.fail_line("1", CLOCK.now, "5.2.1"))
    assert replace(found, places, "2", X) == ("pending", "mailbox")


def test_whoever_has_moved_on_covers_nobody_where_it_was():
    found = a_record((), ())
    places = Places(found.current())
    replace(found, places, "1", X)
    replace(found, places, "1", Target("remote", "y@example.com"))
    assert replace(found, places, "2", X) == ("pending", "mailbox")


def test_places_are_known_from_a_record_too():
    found = a_record((), ())
    replace(found, Places(()), "1", X)
    assert replace(found, Places(found.current()), "2", X) == ("done", "new")


def test_the_same_target_twice_is_one():
    found = a_record(())
    assert replace(found, Places(()), "1", X, X) == ("pending", "mailbox")
    assert len(found.recipients) == 1


def test_another_senders_copy_is_another():
    found = a_record((), ())
    places = Places(found.current())
    replace(found, places, "1", Target("mailbox", "x@example.org", "owner-list@example.org"))
    assert replace(found, places, "2", X) == ("pending", "mailbox")
