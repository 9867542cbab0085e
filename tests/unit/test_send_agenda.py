"""Whose turn it is in mq-send."""

from mqmail.prog.mq_send.agenda import ALL, FRESH_PER_DUE, Agenda


def taken(agenda, now=100.0):
    """Every id there is, in the order they are begun; none of them ends."""
    return [found[0] for found in iter(lambda: agenda.next(now), None)]


def test_new_messages_come_first_and_do_not_starve_the_others():
    agenda = Agenda()
    for number in range(2 * FRESH_PER_DUE):
        agenda.add_fresh(f"fresh{number}")
    agenda.add_due("due0", 1.0)
    agenda.add_due("due1", 2.0)
    agenda.add_due("later", 101.0)
    order = taken(agenda)
    assert order[:FRESH_PER_DUE + 1] == [f"fresh{n}" for n in range(FRESH_PER_DUE)] + ["due0"]
    assert order[2 * FRESH_PER_DUE + 1:] == ["due1"]
    assert agenda.wake_at() == 101.0


def test_times_move_with_the_clock():
    agenda = Agenda()
    agenda.add_due("one", 1000.0)
    agenda.add_due("two", 2000.0)
    agenda.bring([("two", ("1",))])
    agenda.shift(-900.0)
    assert agenda.wake_at() == 100.0
    assert sorted(taken(agenda, 150.0)) == ["one", "two"]
    agenda.finished("two")
    agenda.add_due("two", 300.0)
    agenda.shift(100.0)
    assert taken(agenda, 350.0) == []
    assert taken(agenda, 400.0) == ["two"]


def test_a_due_one_that_is_active_already_does_not_hide_the_new_ones():
    agenda = Agenda()
    for number in range(FRESH_PER_DUE + 2):
        agenda.add_fresh(f"fresh{number}")
    agenda.add_due("fresh0", 1.0)
    assert taken(agenda) == [f"fresh{n}" for n in range(FRESH_PER_DUE + 2)]


def test_an_id_is_known_until_it_is_finished():
    agenda = Agenda()
    agenda.add_fresh("a")
    assert agenda.next(0.0) == ("a", "new", ())
    agenda.add_fresh("a")
    assert agenda.next(0.0) is None
    agenda.finished("a")
    agenda.add_fresh("a")
    assert agenda.next(0.0) == ("a", "new", ())


def test_all_can_be_forced_the_oldest_first():
    agenda = Agenda()
    for id, at in (("b", 500.0), ("a", 900.0), ("c", 300.0)):
        agenda.add_due(id, at)
    assert agenda.next(100.0) is None
    agenda.force_all()
    assert [agenda.next(100.0) for _ in range(4)] == [
        ("a", "wait", ALL), ("b", "wait", ALL), ("c", "wait", ALL), None]


def test_two_entries_of_a_message_begin_it_once_at_a_time():
    """As when queue/wait is read again after a trouble with the disk."""
    agenda = Agenda()
    for at in (1.0, 2.0, 3.0, 150.0):
        agenda.add_due("a", at)
    agenda.bring([("a", ("1",))])
    agenda.add_fresh("b")
    assert sorted(taken(agenda)) == ["a", "b"]
    agenda.finished("a")
    agenda.add_due("a", 150.0)
    assert taken(agenda) == []
    assert taken(agenda, 150.0) == ["a"]
