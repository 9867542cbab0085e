"""The planner: worked examples of SPEC's grouping, with 2xx as 250, 4xx as 450 and so on."""

from collections import Counter

import pytest

from mqmail.mail.mxlist import DIRECT, Choice, Way
from mqmail.mail.mxplan import MOST_LOOKUPS, Plan
from mqmail.xmtp.reply import Reply

OK, LATER, NO, DOWN = Reply(250), Reply(450), Reply(550), Reply(451, ("down",), "4.4.1")


class World:
    """A plan for *domains* (one recipient each, unless repeated), whose MX lists are *lists*:
    ``"10 a, 20 b"``. ``told`` has the verdicts; ``pick`` takes the first of equals."""

    def __init__(self, domains, lists, most=1, pick=lambda hops: hops[0]):
        self.told = {}
        self.plan = Plan(domains, most, pick, self._tell)
        self.lists = lists
        self.look_up()

    def _tell(self, number, verdict):
        assert number not in self.told
        self.told[number] = verdict

    def look_up(self):
        for domain in self.plan.lookups():
            found = [line.split() for line in self.lists[domain].split(",")]
            self.plan.found(domain, [Choice(int(p), name, 25) for p, name in found])

    def next(self):
        """The hosts and recipients of the transfers to begin."""
        self.begun = self.plan.transfers()
        return [(t.choice.host, list(t.recipients)) for t in self.begun]

    def answer(self, *verdicts, transfer=0):
        """One transfer's host was reached and said *verdicts*."""
        one = self.begun[transfer]
        self.plan.connected(one)
        for number, verdict in zip(one.recipients, verdicts, strict=True):
            self.plan.answered(one, number, verdict)
        self.plan.ended(one)

    def down(self, verdict=DOWN, transfer=0):
        self.plan.unreachable(self.begun[transfer], verdict)


def test_equal_lists_are_one_transfer():
    world = World(["x", "y", "z"], {"x": "10 a, 20 b", "y": "5 a, 7 b", "z": "10 c"}, most=5)
    assert world.next() == [("a", [0, 1]), ("c", [2])]


def test_domains_that_share_a_best_host_go_together_each_on_to_its_own_next():
    world = World(["x", "y", "z"], {"x": "10 a, 20 b", "y": "10 a, 20 c", "z": "20 a, 10 d"}, most=5)
    assert world.next() == [("a", [0, 1]), ("d", [2])]
    world.answer(LATER, LATER)
    assert world.next() == [("b", [0]), ("c", [1])]
    assert world.told == {}


def test_the_host_that_most_share_is_taken():
    world = World(["x", "y"], {"x": "10 a, 10 b", "y": "10 b, 10 c"})
    assert world.next() == [("b", [0, 1])]


def test_equal_hosts_are_taken_at_random():
    asked = []
    World(["x"], {"x": "10 a, 10 b, 20 c"}, pick=lambda hops: asked.append(hops) or hops[-1]).next()
    assert asked == [[("a", 25, DIRECT), ("b", 25, DIRECT)]]


def test_unequal_ways_are_unequal_hosts():
    """Neither do lists merge nor do sites share a host; equal ways do, whoever made them."""
    told = {}
    plan = Plan(["x", "y", "z"], 5, min, told.__setitem__)
    plan.lookups()
    for domain, tls in (("x", "may"), ("y", "verify"), ("z", "verify")):
        plan.found(domain, [Choice(10, "a", 25, way=Way(tls=tls)), Choice(20, "b", 25)])
    first, second = plan.transfers()
    assert [(t.choice.way.tls, t.recipients) for t in (first, second)] == [
        ("may", (0,)), ("verify", (1, 2))]
    plan.unreachable(second, DOWN)          # a host that cannot be reached in one way
    plan.connected(first)                   # goes on in the other
    plan.answered(first, 0, LATER)
    plan.ended(first)
    (last,) = plan.transfers()
    assert (last.choice.host, sorted(last.recipients)) == ("b", [0, 1, 2])


def test_5xx_is_final():
    world = World(["x", "x"], {"x": "10 a, 20 b"})
    world.next()
    world.answer(NO, LATER)
    assert world.told == {0: NO}
    assert world.next() == [("b", [1])]
    world.answer(OK)
    assert world.told == {0: NO, 1: OK}
    assert world.plan.finished


def test_some_4xx_wait():
    world = World(["x", "x"], {"x": "10 a, 20 b"})
    world.next()
    world.answer(OK, LATER)
    assert world.told == {0: OK, 1: LATER}
    assert world.plan.finished and world.next() == []


def test_a_domain_with_more_recipients_than_fit_is_judged_as_one():
    world = World(["x"] * 150, {"x": "10 a, 20 b"})
    assert [(host, len(numbers)) for host, numbers in world.next()] == [("a", 100)]
    world.answer(*[OK] * 100)
    assert [(host, len(numbers)) for host, numbers in world.next()] == [("a", 50)]
    world.answer(*[LATER] * 50)
    assert world.plan.finished
    assert Counter(v.code for v in world.told.values()) == {250: 100, 450: 50}


def test_a_dead_host_is_off_all_lists_and_equals_come_before_worse():
    lists = {"x": "10 a, 10 b, 20 c", "y": "10 a, 20 a2", "z": "10 c, 20 a"}
    world = World(["x", "y", "z"], lists, most=9)
    assert world.next() == [("a", [0, 1]), ("c", [2])]
    world.down()
    world.answer(LATER, transfer=1)
    assert world.told == {2: LATER}             # nothing is left of its list
    assert world.next() == [("b", [0]), ("a2", [1])]


def test_all_hosts_dead():
    world = World(["x"], {"x": "10 a, 20 b"})
    world.next()
    world.down()
    world.next()
    world.down(Reply(451, ("also down",)))
    assert world.told == {0: DOWN}
    assert world.plan.finished


@pytest.mark.parametrize(("words", "last"), [
    ([NO, DOWN], DOWN),             # a refusal to talk is final only if nobody says anything else
    ([DOWN, NO], DOWN),
    ([NO, NO], NO),
])
def test_refused_greetings(words, last):
    world = World(["x"], {"x": "10 a, 20 b"})
    for word in words:
        world.next()
        world.down(word)
    assert world.told == {0: last}


def test_a_reply_says_more_than_a_failed_connection():
    world = World(["x"], {"x": "10 a, 20 b"})
    world.next()
    world.answer(LATER)
    world.next()
    world.down()
    assert world.told == {0: LATER}


def test_a_host_is_reached_once_before_it_gets_more():
    world = World(["x"] * 250, {"x": "10 a"}, most=9)
    (first,) = world.plan.transfers()
    assert world.plan.transfers() == []
    world.plan.connected(first)
    assert [len(t.recipients) for t in world.plan.transfers()] == [100, 50]


def test_a_host_that_takes_one_connection_gets_one():
    world = World(["x"] * 250, {"x": "10 a"}, most=9)
    (first,) = world.plan.transfers()
    world.plan.connected(first)
    for other in world.plan.transfers():
        world.plan.unreachable(other, DOWN)
    assert world.plan.transfers() == []
    for number in first.recipients:
        world.plan.answered(first, number, OK)
    world.plan.ended(first)
    assert [len(t.recipients) for t in world.plan.transfers()] == [50]
    assert len(world.told) == 100


def test_a_host_that_dies_in_between():
    world = World(["x"] * 150 + ["y"], {"x": "10 a, 20 b", "y": "10 a, 20 c"})
    world.next()
    world.answer(*[OK] * 100)
    world.next()
    world.down()
    assert [world.told[n] for n in range(100, 150)] == [DOWN] * 50      # x has got something
    assert world.next() == [("c", [150])]


def test_final_4xx_is_not_asked_elsewhere():
    world = World(["x"], {"x": "10 a, 20 b"})
    world.next()
    world.plan.answered(world.begun[0], 0, LATER, final=True)
    world.plan.ended(world.begun[0])
    assert world.told == {0: LATER} and world.plan.finished


def test_a_late_domain_joins_those_that_wait():
    told = {}
    plan = Plan(["x", "y", "z"], 1, min, told.__setitem__)
    plan.lookups()
    plan.found("x", [Choice(10, "a", 25)])
    (first,) = plan.transfers()
    plan.found("y", [Choice(10, "a", 25)])
    plan.found("z", [Choice(10, "a", 25)])
    plan.unreachable(first, DOWN)
    assert told == {0: DOWN, 1: DOWN, 2: DOWN} and plan.finished


def test_fifty_look_ups_at_a_time():
    plan = Plan([str(n) for n in range(120)], 1, min, lambda number, verdict: None)
    first = plan.lookups()
    assert (len(first), plan.lookups()) == (MOST_LOOKUPS, [])
    plan.failed(first[0], NO)
    assert plan.lookups() == ["50"]


def test_giving_up():
    world = World(["x", "y", "z"], {"x": "10 a, 20 b", "y": "10 c", "z": "10 d"})
    world.next()
    world.plan.give_up(LATER)
    assert world.told == {1: LATER, 2: LATER}
    world.down()
    assert world.told[0] == DOWN and world.plan.finished


def test_nothing_begins_after_giving_up_when_one_of_several_connections_fails():
    world = World(["x"] * 250, {"x": "10 a"}, most=9)
    (first,) = world.plan.transfers()
    world.plan.connected(first)
    second, third = world.plan.transfers()
    world.plan.give_up(LATER)
    world.plan.unreachable(second, DOWN)
    assert world.plan.transfers() == []
    for one in (first, third):
        for number in one.recipients:
            world.plan.answered(one, number, OK)
        world.plan.ended(one)
    assert world.plan.finished and world.plan.transfers() == []
    assert {world.told[number] for number in second.recipients} == {LATER}


def test_an_unanswered_recipient_is_a_mistake_of_the_caller():
    world = World(["x"], {"x": "10 a"})
    world.next()
    with pytest.raises(ValueError, match=r"\[0\]"):
        world.plan.ended(world.begun[0])


def test_a_thousand_recipients_of_a_hundred_domains_with_one_mx():
    domains = [f"d{n % 100}" for n in range(1000)]
    world = World(domains, {f"d{n}": "10 mx" for n in range(100)}, most=20)
    world.look_up()         # the other fifty
    sizes = []
    while world.next():
        for place, transfer in enumerate(world.begun):
            sizes.append(len(transfer.recipients))
            world.answer(*[OK] * len(transfer.recipients), transfer=place)
    assert sizes == [100] * 10
    assert len(world.told) == 1000
