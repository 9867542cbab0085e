"""How long a server waits, whatever its client does."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.xmtp.patience import Patience

COMMAND, SESSION, RATE = 300, 900, 100
STEPS = st.lists(st.tuples(st.sampled_from(["octet", "answer", "body"]), st.floats(0, 400),
                           st.integers(0, 100_000)), max_size=60)


def play(patience, steps):
    """(Seconds that it waited, octets it took) until it has no patience, or *steps* end."""
    waited = taken = 0
    for what, seconds, octets in steps:
        seconds = min(seconds, patience.left)
        waited += seconds
        patience.waited(seconds)
        if patience.left <= 0:
            break
        if what == "body":
            taken += octets
            patience.took(octets)
        if what != "octet":
            patience.go_on()
    return waited, taken


@settings(deadline=None)
@given(STEPS)
def test_without_an_accepted_message_the_time_is_bounded(steps):
    patience = Patience(COMMAND, SESSION, RATE)
    waited, taken = play(patience, steps)
    assert waited <= SESSION + taken / RATE + 1e-6
    assert patience.left <= COMMAND


@settings(deadline=None)
@given(STEPS)
def test_octets_that_are_no_answer_give_no_time(steps):
    patience = Patience(COMMAND, SESSION, RATE)
    waited, _ = play(patience, [("octet", seconds, 0) for _, seconds, _ in steps])
    assert waited <= COMMAND + 1e-6


@settings(deadline=None)
@given(st.lists(st.floats(0.001, COMMAND - 1), max_size=60), st.floats(1, 1000))
def test_a_body_that_comes_fast_enough_comes_whole(pauses, times):
    patience = Patience(COMMAND, SESSION, RATE)
    for seconds in pauses:
        patience.waited(seconds)
        assert patience.left > 0
        patience.took(int(seconds * RATE * times) + 1)
        patience.go_on()
    assert patience.left == COMMAND


@settings(deadline=None)
@given(STEPS)
def test_an_accepted_message_makes_all_well(steps):
    patience = Patience(COMMAND, SESSION, RATE)
    play(patience, steps)
    patience.renew()
    assert patience.left == COMMAND
    assert not patience.session_is_first
    patience.took(10**9)        # no more than all
    patience.waited(SESSION)
    assert patience.session_is_first or patience.left == COMMAND - SESSION


def test_which_time_is_over():
    patience = Patience(COMMAND, SESSION, RATE)
    assert not patience.session_is_first
    for _ in range(3):
        patience.waited(COMMAND - 1)
        patience.go_on()
    assert patience.session_is_first
    assert patience.left == 3
    patience.took(200)
    assert patience.left == 5
