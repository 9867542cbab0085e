from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.mail.retry import next_attempt

times = st.floats(0, 1e11)
skips = st.integers(-5, 1000)
fuzzes = st.floats(0, 1, exclude_max=True)


@settings(deadline=None)
@given(times, times, skips, fuzzes)
def test_the_next_attempt_is_always_later_than_now(arrived, now, skip, fuzz):
    assert next_attempt(arrived, now, skip, fuzz) > now


@settings(deadline=None)
@given(times, times, st.integers(1, 1000), fuzzes)
def test_fuzz_only_lengthens_the_interval_and_by_a_tenth_at_most(arrived, now, skip, fuzz):
    plain = next_attempt(arrived, now, skip) - now
    assert plain * 0.999 <= next_attempt(arrived, now, skip, fuzz) - now <= plain * 1.101


@settings(deadline=None)
@given(st.floats(0, 1e9), st.floats(0, 1e8), st.floats(0, 1e8))
def test_an_older_message_never_has_an_earlier_next_attempt(arrived, one, two):
    young, old = sorted((one, two))
    assert next_attempt(arrived, arrived + young) <= next_attempt(arrived, arrived + old)
