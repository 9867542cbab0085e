"""Each system call of mq-queue, mq-send, mq-local and mq-bounce fails once, one after the other: the
disk is full, broken, over quota, or there are no descriptors or no memory. What was accepted arrives,
nobody gets a bounce because of it, and when the fault is gone everything goes on by itself.

Each call is tried with one of the errors in turn. MQMAIL_CRASH=all: with each of them (``make crash``).
"""

import errno
import itertools
import os

import pytest

from support import tracing
from support.crashing import BOUNCING, PROGRAMS, SCENARIOS, check, in_lanes, settle
from support.launcher import Launcher

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800),
              pytest.mark.skipif(tracing.missing() != "", reason=tracing.missing())]
LANES = 8               # most of the time is spent waiting for mq-send to try again
PARTS = 4               # of a case, which are tried at the same time
ALL = os.environ.get("MQMAIL_CRASH") == "all"
_FILES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ENOMEM)
_OPENING = (errno.EMFILE, errno.ENFILE)
ERRORS = {"create": _FILES + _OPENING, "open": (errno.EIO, errno.ENOMEM, *_OPENING),
          "socket": (errno.ENOMEM, *_OPENING), "send": (errno.ENOMEM,),
          "read": (errno.EIO, errno.ENOMEM)}
CASES = [(scenario, program) for scenario in SCENARIOS for program in PROGRAMS
         if scenario.name in BOUNCING or scenario.name == "one" and program != "mq-bounce"]


class FailAt:
    """A judge that has *program*'s *number*-th call fail, with the *turn*-th of the errors it may
    meet."""

    def __init__(self, program, number, turn):
        self._program, self._left, self._turn = program, number, turn
        self.hit = None
        self.last = True            # there are no more errors for this call

    def __call__(self, call):
        if call.program != self._program or self.hit is not None or call.name == "connect":
            return None
        self._left -= 1
        if self._left:
            return None
        errors = ERRORS.get(call.kind, _FILES)
        self.last = self._turn >= len(errors) - 1
        number = errors[self._turn % len(errors)]
        self.hit = call, errno.errorcode[number]
        return number


@pytest.fixture(scope="module")
def results():
    """Case to the futures of numbers of states: all are worked on at the same time, in LANES homes."""
    launcher = Launcher()
    parts = [(*case, first) for case in CASES for first in range(1, PARTS + 1)]
    with in_lanes(launcher, LANES, fail, parts) as futures:
        yield {case: futures[PARTS * n:PARTS * (n + 1)] for n, case in enumerate(CASES)}
    launcher.close()


def fail(system, scenario, program, first):
    """How many faults it stands: of the calls number *first*, *first* + PARTS and so on."""
    states = 0
    for number in itertools.count(first, PARTS):
        for turn in itertools.count() if ALL else (number,):
            judge = FailAt(program, number, turn)
            one_fault(system, scenario, judge)
            if judge.hit is None:
                return states
            states += 1
            if judge.last:
                break


def one_fault(system, scenario, judge):
    """Everything is started anew, and then nothing more: what ends is mq-start's to start again."""
    mark = system.mark()
    system.close_later()
    system.judge = None
    system.restart()
    system.judge = judge
    accepted = system.put(scenario, mark)
    try:
        settle(system, scenario, mark, accepted)
        check(system, scenario, mark, 1 if judge.hit is None else 2)
    except AssertionError as error:
        raise AssertionError(f"{scenario}, failed: {judge.hit}: {error}") from error


@pytest.mark.parametrize(("scenario", "program"), CASES, ids=str)
def test_a_call_that_fails_loses_and_bounces_nothing(results, scenario, program, record_property):
    states = sum([future.result() for future in results[scenario, program]])
    record_property("states", states)
    print(f"faults: {scenario}, {program}: {states} states")
    assert states > 5
