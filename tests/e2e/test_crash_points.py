"""kill -9 at each system call, one after the other, with which mq-queue, mq-send, mq-local and mq-bounce
change files or send something, in each of some scenarios: what was accepted arrives, whole, once, or
twice for a crash; nothing else does.

Each state is tried in one of two ways in turn: that process alone is killed and started again by
mq-start, or everything is. MQMAIL_CRASH=all: each state in both ways (``make crash``).
"""

import itertools
import os

import pytest

from support import tracing
from support.crashing import BOUNCING, PROGRAMS, SCENARIOS, KillAt, check, in_lanes, settle
from support.launcher import Launcher

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600),
              pytest.mark.skipif(tracing.missing() != "", reason=tracing.missing())]
LANES = 5
BOTH = os.environ.get("MQMAIL_CRASH") == "all"

CASES = [(scenario, program) for scenario in SCENARIOS for program in PROGRAMS
         if program != "mq-bounce" or scenario.name in BOUNCING]


@pytest.fixture(scope="module")
def results():
    """Case to the future of (states, duplicates): all are worked on at the same time, in LANES homes."""
    launcher = Launcher()
    with in_lanes(launcher, LANES, crash, CASES) as futures:
        yield dict(zip(CASES, futures, strict=True))
    launcher.close()


def crash(system, scenario, program):
    """Kill *program* at its first call, its second and so on, until it does not come to so many."""
    states = duplicates = 0
    for number in itertools.count(1):
        for everything in (False, True) if BOTH else (number % 2 == 0,):
            judge = KillAt(system, program, number, everything)
            duplicates += one_crash(system, scenario, judge, everything)
            if judge.hit is None:
                return states, duplicates
            states += 1


def one_crash(system, scenario, judge, everything):
    """How many duplicates one crash makes."""
    mark = system.mark()
    system.close_later()
    system.restart(scenario.without)
    system.judge = judge

    def hit():
        return judge.hit is not None

    accepted = system.put(scenario, mark)
    if scenario.without and not hit():
        system.restart()
    accepted = settle(system, scenario, mark, accepted, hit) if not hit() else accepted
    if hit() and (everything or scenario.without):
        system.restart()
    try:
        settle(system, scenario, mark, accepted)
        return check(system, scenario, mark, 2 if hit() else 1)
    except AssertionError as error:
        raise AssertionError(f"{scenario}, killed at {judge.hit}: {error}") from error


@pytest.mark.parametrize(("scenario", "program"), CASES, ids=str)
def test_a_crash_at_any_call_loses_and_invents_nothing(results, scenario, program, record_property):
    states, duplicates = results[scenario, program].result()
    record_property("states", states)
    record_property("duplicates", duplicates)
    print(f"crash points: {scenario}, {program}: {states} states, {duplicates} duplicates")
    assert states > 4
