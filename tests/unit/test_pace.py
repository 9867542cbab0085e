"""How many sessions a host gets."""

from mqmail.mail.pace import IDLE, ROUND, Pace


def after(pace, *events, now=0.0):
    """The limit after events, a second apart."""
    for event in events:
        now += ROUND
        getattr(pace, event)(now)
    return pace.limit


def test_a_host_begins_with_few_and_gets_one_more_for_each_success_up_to_the_most():
    pace = Pace(2, 5)
    assert [after(pace, "success") for _ in range(5)] == [3, 4, 5, 5, 5]


def test_sessions_begin_below_the_limit():
    pace = Pace(2, 5)
    assert [pace.may_begin(n, 0.0) for n in range(4)] == [True, True, False, False]


def test_a_refusal_halves_but_one_is_left():
    pace = Pace(20, 20)
    assert [after(pace, "failure", now=n * ROUND) for n in range(6)] == [10, 5, 2, 1, 1, 1]
    assert pace.may_begin(0, 6.0)


def test_parallel_refusals_count_as_one():
    pace = Pace(20, 20)
    for n in range(5):
        pace.failure(100.0 + n * ROUND / 6)
    assert pace.limit == 10
    pace.failure(100.0 + ROUND)
    assert pace.limit == 5


def test_after_a_refusal_it_grows_by_one_a_round():
    pace = Pace(8, 20)
    assert after(pace, "failure") == 4
    assert after(pace, *["success"] * 4) == 5
    assert after(pace, *["success"] * 5) == 6
    assert after(pace, *["success"] * 5) == 6


def test_it_recovers_fully():
    pace = Pace(4, 10)
    after(pace, *["failure"] * 10)
    assert after(pace, *["success"] * sum(range(1, 10))) == 10


def test_an_idle_host_begins_anew():
    pace = Pace(4, 20)
    after(pace, "failure", "failure")
    assert not pace.may_begin(1, 2 + IDLE)
    assert pace.may_begin(0, 2 + 2 * IDLE) and pace.limit == 1       # asked for just before
    assert pace.may_begin(0, 3 + 3 * IDLE) and pace.limit == 4
    assert after(pace, "success", now=3 + 3 * IDLE) == 5             # by one a success again


def test_a_host_with_sessions_under_way_is_not_idle():
    pace = Pace(2, 20)
    after(pace, "success", "success")
    assert pace.may_begin(3, 10 * IDLE) and pace.limit == 4


def test_a_session_that_lasts_long_keeps_a_host_from_being_idle():
    for event, limit in (("success", 3), ("failure", 1)):
        pace = Pace(2, 20)
        pace.may_begin(0, 0.0)
        assert after(pace, event, now=2 * IDLE) == limit
        assert pace.may_begin(0, 2 * IDLE + 2) and pace.limit == limit


def test_odd_bounds_are_made_even():
    assert Pace(0, 0).limit == 1
    assert Pace(9, 3).limit == 3


def test_a_clock_set_back_does_not_hide_refusals():
    pace = Pace(20, 20)
    pace.failure(1000.0)
    pace.failure(10.0)
    assert pace.limit == 5
