"""The pace of a host under all histories."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.mail.pace import Pace

bounds = st.tuples(st.integers(1, 30), st.integers(1, 30)).map(sorted)
events = st.lists(st.tuples(st.sampled_from(["success", "success", "failure", "ask"]),
                            st.floats(-10, 1000), st.integers(0, 40)), max_size=80)


def play(pace, events):
    """Let *events* happen; the limits before and after each."""
    now, limits = 1000.0, []
    for what, pause, running in events:
        now, before = now + pause, pace.limit
        pace.may_begin(running, now) if what == "ask" else getattr(pace, what)(now)
        limits.append((what, before, pace.limit))
    return now, limits


@settings(deadline=None)
@given(bounds, events)
def test_the_limit_keeps_its_bounds_and_moves_as_it_should(bounds, events):
    pace = Pace(*bounds)
    assert pace.limit == bounds[0]
    for what, before, limit in play(pace, events)[1]:
        assert 1 <= limit <= bounds[1]
        if what == "success":
            assert before <= limit <= before + 1
        elif what == "failure":
            assert limit in (before, max(before // 2, 1))
        else:
            assert limit in (before, bounds[0])


@settings(deadline=None)
@given(bounds, events, st.integers(0, 40))
def test_whatever_happened_a_host_that_takes_all_gets_the_most_in_the_end(bounds, events, running):
    pace = Pace(*bounds)
    now, _ = play(pace, events)
    for n in range(sum(range(1, bounds[1] + 1))):
        pace.success(now + n)
    assert pace.limit == bounds[1]
    assert pace.may_begin(running, now + n) == (running < bounds[1])


@settings(deadline=None)
@given(bounds, events)
def test_a_host_never_stays_shut(bounds, events):
    pace = Pace(*bounds)
    now, _ = play(pace, events)
    assert pace.may_begin(0, now)
