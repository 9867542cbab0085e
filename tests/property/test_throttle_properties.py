"""Throttles against the plainest model: never more than allowed, and never less once time has passed."""

from contextlib import nullcontext

from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mqmail.control.throttles import Limits, Rate
from mqmail.policy.pressure import Floor
from mqmail.policy.throttle import ALL, PARTS, Happenings, Sessions, Throttle

SEED = b"s" * 16


def cells(octets):
    return memoryview(bytearray(octets)).cast("I")


@settings(deadline=None, max_examples=300)
@given(some.lists(some.integers(0, 9000), max_size=120), some.integers(1, 12), some.integers(1, 20),
       some.integers(0, 10 ** 9))
def test_a_rate(steps, most, seconds, begin):
    """*steps* in milliseconds."""
    table, rate = Happenings(cells(Happenings.size(64)), SEED), Rate(most, seconds)
    taken, now = [], begin
    for step in steps:
        now += step
        allowed = table.allows("x", rate, now / 1000)
        within = [at for at in taken if at > now - 1000 * seconds]
        lately = [at for at in taken if at > now - 1000 * seconds * (PARTS + 1) // PARTS - 1]
        if allowed:
            assert len(within) < most
            table.note("x", rate, now / 1000)
            taken.append(now)
        else:
            assert len(lately) >= most


class Counting(RuleBasedStateMachine):
    """Three processes; each may be killed and started anew."""

    def __init__(self):
        super().__init__()
        self.memory = cells(Sessions.size(512, 3))
        self.rates = cells(Happenings.size(64))
        self.processes = [self.make(column) for column in range(3)]
        self.open = {}          # (process, session): names
        self.next = 0

    def make(self, column):
        made = Throttle(Sessions(self.memory, 3, column, SEED), Happenings(self.rates, SEED),
                        nullcontext())
        made.clear()
        return made

    def count(self, name):
        return sum([name in names for names in self.open.values()])

    @rule(process=some.integers(0, 2), client=some.integers(0, 5), most=some.integers(1, 12))
    def begin(self, process, client, most):
        rules = [(f"4:{client}", Limits((2, 0))), ("*", Limits((5, 0)))]
        self.next += 1
        room = (self.count(f"4:{client}") < 2, self.count("*") < 5, self.count(ALL) < most)
        said = self.processes[process].begin(f"{self.next}", rules, 100, most, 0.0)
        assert (said == "") == all(room)
        if said == "":
            self.open[process, f"{self.next}"] = {f"4:{client}", "*", ALL}

    @rule(which=some.integers(0, 100))
    def end(self, which):
        if self.open:
            process, session = list(self.open)[which % len(self.open)]
            self.processes[process].end(session)
            del self.open[process, session]

    @rule(process=some.integers(0, 2))
    def die(self, process):
        self.open = {key: names for key, names in self.open.items() if key[0] != process}
        self.processes[process] = self.make(process)

    @invariant()
    def counts(self):
        table = Sessions(self.memory, 3, 0, SEED)
        for name in (ALL, "*", *[f"4:{client}" for client in range(6)]):
            assert table.count(name) == self.count(name)


TestCounting = Counting.TestCase
TestCounting.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


@settings(deadline=None)
@given(some.lists(some.integers(0, 300)), some.integers(0, 200), some.integers(0, 200))
def test_a_floor(free, least, enough):
    floor, was_low = Floor(), False
    for octets in free:
        low = floor.feel(octets, least, enough)
        assert low or octets >= least
        assert not low or octets < max(least, enough)
        assert low == was_low or (low and octets < least) or (was_low and octets >= max(least, enough))
        was_low = low
