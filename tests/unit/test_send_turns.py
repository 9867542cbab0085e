"""Whose job is next, and how many slots it gets."""

from mqmail.prog.mq_send.job import Job
from mqmail.prog.mq_send.turns import Turns
from mqmail.queue import ids
from mqmail.queue.record import Envelope, Recipient, State


def job(number, site="", count=1):
    """A job of message *number* with *count* recipients."""
    id = ids.make(1732252800_000000 + number, 7)
    states = [State(Recipient(str(n), "remote", f"u{n}@example.org"), active=True)
              for n in range(1, count + 1)]
    envelope = Envelope(id, 1732252800.0, 0, False, False, "a@example.org", "", "", {})
    made = Job(envelope, "a@example.org", "remote", states, lambda *_: None, lambda: -1)
    made.site = site
    return made


def turns(limit, *jobs):
    found = Turns()
    found.limit = limit
    for one in jobs:
        found.add(one)
    return found


def begin_all(found):
    """Begin all that may; who they are."""
    begun = []
    while found.ready():
        begun.append(found.take())
        found.begin(begun[-1], several=True)
    return begun


def verdict(found, one):
    one._tell(min(one._left), None, "")
    return found.shrink(one)


def test_messages_take_turns():
    jobs = [job(1), job(1), job(1), job(2)]
    assert begin_all(turns(100, *jobs)) == [jobs[0], jobs[3], jobs[1], jobs[2]]


def test_a_job_has_half_of_what_is_free_and_no_more_than_its_recipients():
    large, small, last = job(1, count=100), job(2, count=3), job(3, count=100)
    found = turns(20, large, small, last)
    assert begin_all(found) == [large, small, last]
    assert [one.slots for one in (large, small, last)] == [10, 3, 4]
    assert found.busy == 17


def test_with_no_slot_free_none_begins():
    found = turns(3, *[job(n) for n in range(5)])
    first = begin_all(found)
    assert len(first) == 3
    assert not found.ready()
    found.end(first[0])
    assert len(begin_all(found)) == 1


def test_slots_become_free_as_verdicts_come_and_one_stays_until_the_end():
    one = job(1, count=8)
    found = turns(10, one)
    begin_all(found)
    assert one.slots == 5
    for left in (7, 6, 5):
        assert not verdict(found, one)
        assert one.left == left
    assert verdict(found, one)
    assert (one.slots, found.busy) == (4, 4)
    for _ in range(4):
        verdict(found, one)
    assert (one.left, one.slots, found.busy) == (0, 1, 1)
    found.end(one)
    assert found.busy == 0


def test_one_site_has_half_of_the_slots_while_others_wait_and_never_all():
    slow = [job(n, site="slow") for n in range(20)]
    found = turns(8, *slow)
    assert begin_all(found) == slow[:6]
    other = job(100, site="other")
    found.add(other)
    assert begin_all(found) == [other]
    found.end(slow[0])
    assert begin_all(found) == [slow[6]]            # nobody else waits
    found.add(job(101, site="other"))
    found.add(job(102))
    assert [one.id for one in begin_all(found)] == [job(101).id]
    for one in slow[1:4]:
        found.end(one)
    assert [one.id for one in begin_all(found)][0] == job(102).id


def test_a_job_of_one_site_gets_no_more_slots_than_the_site_may_have():
    jobs = [job(1, site="mx", count=50), job(2, site="mx", count=50), job(3, site="other")]
    found = turns(20, *jobs)
    assert begin_all(found) == [jobs[0], jobs[2], jobs[1]]
    assert [one.slots for one in jobs] == [10, 5, 1]


def test_the_only_slot_is_for_anybody():
    found = turns(1, job(1, site="mx"), job(2, site="other"))
    assert len(begin_all(found)) == 1
    assert found.busy == 1


def test_two_sites_use_an_odd_number_of_slots():
    found = turns(3, *[job(n, site="ab"[n % 2]) for n in range(8)])
    assert len(begin_all(found)) == 3


def test_a_crowd_is_those_that_wait_and_those_under_way():
    jobs = [job(n, site="mx") for n in range(5)]
    found = turns(2, *jobs)
    begin_all(found)
    assert found.crowd("mx") == 5
    found.end(jobs[0])
    jobs[4].states = []
    assert found.drop_empty() == [jobs[4]]
    assert found.crowd("mx") == 3
    assert list(found.jobs()) == jobs[2:4]


def test_when_all_is_over_nothing_is_left():
    jobs = [job(n // 2, site=["", "a", "b"][n % 3], count=n) for n in range(1, 30)]
    found = turns(7, *jobs)
    running = begin_all(found)
    while running:
        one = running.pop(0)
        while one.left:
            verdict(found, one)
        found.end(one)
        running += begin_all(found)
    assert not found
    assert (found.busy, found._count, found._crowd, found._waiting, found._held, found._by_id) == (
        0, 0, {}, {}, {}, {})


def test_a_user_of_ours_leaves_a_slot_to_others():
    for limit, alone in ((1, 1), (2, 1), (8, 7), (9, 7), (10, 8), (16, 14)):
        found = Turns(owned=True)
        found.limit = limit
        for number in range(limit):
            found.add(job(number, "slow@example.org"))
        assert len(begin_all(found)) == alone, limit
        found.add(job(100, "bob@example.org"))
        assert len(begin_all(found)) == (limit > 1)


def test_the_last_slots_are_for_users_who_have_none():
    found = Turns(owned=True)
    found.limit = 8
    for number in range(40):
        found.add(job(number, f"{'abcd'[number % 4]}@example.org"))
    assert len(begin_all(found)) == 7
    bob = job(100, "bob@example.org")
    found.add(bob)
    assert begin_all(found) == [bob]
    assert not found.ready()
    found.end(bob)
    assert not found.ready()
