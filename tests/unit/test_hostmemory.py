"""What is remembered of hosts that could not be reached."""

import pytest

from mqmail.mail.hostmemory import FORGET, LONGEST, PROBE, Down, HostMemory

T = 1_700_000_000.0
MX = "mx.example:25 may"


def down(memory, now, key=MX, fuzz=0.0, said="Connection refused"):
    return memory.down(key, now, fuzz, "4.4.1", "mx.example[192.0.2.1]:25", said)


def test_a_host_that_nothing_is_known_of_may_be_tried_by_all():
    memory = HostMemory()
    assert memory.known(MX, T) is None
    assert memory.known(MX, T) is None


def test_a_host_that_is_down_is_not_tried_before_its_time():
    memory = HostMemory()
    assert down(memory, T) == T + 400
    told = Down(T + 400, "4.4.1", "mx.example[192.0.2.1]:25", "Connection refused")
    assert memory.known(MX, T) == told
    assert memory.known(MX, T + 399.9) == told
    assert memory.known("other.example:25 may", T) is None


def test_the_schedule_is_that_of_messages_from_the_first_failure_on():
    memory, now, times = HostMemory(), T, []
    for _ in range(6):
        now = down(memory, now)
        times.append(now - T)
        assert memory.known(MX, now) is None
    assert times[:3] == [400, 1600, 3600]
    assert times[3] == 6400
    assert times[4] - times[3] == times[5] - times[4] == pytest.approx(LONGEST / 1.1)


def test_of_ten_thousand_that_come_when_its_time_has_come_one_gets_to_try():
    memory = HostMemory()
    until = down(memory, T)
    answers = [memory.known(MX, until + n / 1000) for n in range(10_000)]
    assert [n for n, answer in enumerate(answers) if answer is None] == [0]
    assert {answer.until for answer in answers[1:]} == {until + PROBE}
    assert answers[1].said == "Connection refused"


def test_an_attempt_that_is_never_heard_of_again_leads_to_another():
    memory = HostMemory()
    until = down(memory, T)
    assert memory.known(MX, until) is None
    assert memory.known(MX, until + PROBE) is None


def test_an_attempt_that_fails_moves_the_time_on():
    memory = HostMemory()
    until = down(memory, T)
    assert memory.known(MX, until) is None
    assert down(memory, until + 30, said="No route to host") > until + 1000
    assert memory.known(MX, until + PROBE + 1).said == "No route to host"


def test_attempts_that_fail_together_count_as_one():
    memory = HostMemory()
    first = down(memory, T)
    assert [down(memory, T + n / 10, fuzz=0.5) for n in range(5)] == [first] * 5


def test_attempts_that_fail_behind_the_one_that_was_due_do_not_count():
    memory = HostMemory()
    until = down(memory, T)
    assert memory.known(MX, until) is None
    assert down(memory, until + 1) == down(memory, until + 2, fuzz=0.5) == down(memory, until + 90)


def test_a_host_that_answers_is_forgotten():
    memory = HostMemory()
    memory.known(MX, down(memory, T))
    memory.up(MX)
    memory.up(MX)
    assert [memory.known(MX, T), memory.known(MX, T)] == [None, None]
    assert down(memory, T + 5000) == T + 5400          # and begins anew


def test_force_has_a_host_tried_once_if_it_was_not_since():
    memory = HostMemory()
    down(memory, T)
    assert memory.known(MX, T + 1, force=T) is not None
    assert memory.known(MX, T + 2, force=T + 1) is None
    assert memory.known(MX, T + 3, force=T + 1) is not None         # that one is under way
    down(memory, T + 4)
    assert memory.known(MX, T + 5, force=T + 3.5) is not None       # it ended after that
    assert memory.known(MX, T + 5, force=T + 4.5) is None


def test_nobody_forces_from_the_future():
    memory = HostMemory()
    down(memory, T)
    assert [memory.known(MX, T + 1, force=T + 999) for _ in "12"][0] is None
    assert memory.known(MX, T + 1, force=T + 999) is not None


def test_an_attempt_by_force_that_fails_moves_the_time_on():
    memory = HostMemory()
    until = down(memory, T)
    assert memory.known(MX, T + 390, force=T + 389) is None
    assert down(memory, T + 391) > until + 600


def test_fuzz_adds_a_tenth_at_most():
    assert down(HostMemory(), T, fuzz=0.5) - T == pytest.approx(420)
    assert down(HostMemory(), T, fuzz=0.999) - T < 440


def test_what_nobody_tried_again_for_a_day_is_forgotten():
    memory = HostMemory()
    until = down(memory, T)
    assert down(memory, until + FORGET + 1) == until + FORGET + 401
    assert len(memory) == 1


def test_the_host_that_was_asked_for_the_longest_ago_makes_room():
    memory = HostMemory(2)
    down(memory, T, "a")
    down(memory, T, "b")
    memory.known("a", T + 1)
    down(memory, T + 2, "c")
    assert [memory.known(key, T + 3) is not None for key in "abc"] == [True, False, True]


def test_a_clock_set_back_a_day_stalls_nobody():
    memory, back = HostMemory(), T - 86400
    down(memory, T)
    assert memory.known(MX, back).until == back + LONGEST
    assert memory.known(MX, back + LONGEST) is None


def test_words_are_kept_in_part():
    memory = HostMemory()
    memory.down(MX, T, 0.0, "4.4.1", "h" * 100_000, "x" * 100_000)
    assert len(memory.known(MX, T).said) < 1000
    assert len(memory.known(MX, T).host) < 1000


def test_the_dump_has_a_line_for_each_host_the_last_used_first():
    memory = HostMemory()
    down(memory, T)
    memory.down("b:2525 verify", T + 1, 0.0, "4.7.5", "b", "caf\xe9: \udcff\n")
    assert memory.dump().decode() == (
        "b:2525+20verify 1700000001.000 1700000001.000 1700000401.000 status=4.7.5 host=b "
        "said=caf\xe9:+20+FF+0A\n"
        "mx.example:25+20may 1700000000.000 1700000000.000 1700000400.000 status=4.4.1 "
        "host=mx.example[192.0.2.1]:25 said=Connection+20refused\n")


def test_a_dump_too_large_leaves_out_what_was_used_the_longest_ago():
    one, other = HostMemory(), HostMemory()
    for n in range(5000):
        down(one, T, str(n), said="\n" * 1000)
    assert len(one.dump()) <= 4 << 20
    assert other.load(one.dump(), T) == 0
    assert other.known("4999", T) is not None
    assert other.known("0", T) is None


def test_a_dump_is_read_again_in_its_order():
    one, other = HostMemory(2), HostMemory(2)
    down(one, T, "a")
    down(one, T + 1, "b")
    assert other.load(one.dump(), T + 2) == 0
    assert other.known("b", T + 2) == one.known("b", T + 2)
    down(other, T + 3, "c")
    assert other.known("a", T + 4) is None              # it was the older one
    assert other.known("b", T + 4) is not None


GOOD = b"a 1700000000.000 1700000001.000 1700000401.000 status=4.4.1 host=h said=s\n"


@pytest.mark.parametrize("bad", [
    b"\n", b"\0\n", b"\xff\xfe\n", b"a\n", b"b 1 2 3\n", GOOD[:-1], GOOD,
    GOOD.replace(b"a ", b" ", 1), GOOD.replace(b"a ", b"b\t ", 1), GOOD.replace(b"a ", b"b+2 ", 1),
    b"b" + GOOD.replace(b"4.4.1", b"5.1.1"), b"b" + GOOD.replace(b"4.4.1", b"2.0.0"),
    b"b" + GOOD.replace(b"4.4.1", b"4.4.1.1"), b"b" + GOOD.replace(b"status", b"state"),
    b"b" + GOOD.replace(b"1700000000.000", b"+1700000000.00"), b"b" + GOOD.replace(b" 17", b" -17"),
    b"b" + GOOD.replace(b"1700000000.000", b"nan"), b"b" + GOOD.replace(b"1700000000.000", b"1e9.000"),
    b"b" + GOOD.replace(b"1700000000.000", "\u0661.000".encode()),
    b"b" + GOOD.replace(b" 17", b" 9" * 99),
    b"b" + GOOD.replace(b"17", b"1_7"), b"b" + GOOD.replace(b" host", b" .000 host"),
])
def test_bad_lines_of_a_file_are_left_out_and_counted(bad):
    memory = HostMemory()
    assert memory.load(GOOD + bad, T + 2) == 1
    assert len(memory) == 1
    assert memory.known("a", T + 2) == Down(T + 401, "4.4.1", "h", "s")


def test_a_file_from_the_future_puts_nothing_off_for_long():
    memory = HostMemory()
    assert memory.load(GOOD.replace(b"17000", b"19000"), T) == 0
    assert memory.known("a", T).until == T + LONGEST
    assert memory.known("a", T + LONGEST) is None
    assert down(memory, T + LONGEST, "a") > T + LONGEST + 1000     # first failure: not later than T


def test_a_file_of_long_ago_says_nothing():
    memory = HostMemory()
    assert memory.load(GOOD, T + 401 + FORGET + 1) == 0
    assert len(memory) == 0


def test_a_file_is_read_up_to_the_most_hosts():
    memory = HostMemory(3)
    lines = [GOOD.replace(b"a ", b"%d " % n, 1) for n in range(100)]
    assert memory.load(b"".join(lines), T + 2) == 1
    assert [memory.known(str(n), T + 2) is not None for n in range(5)] == [True] * 3 + [False] * 2
    assert memory.load(b"\n" * 10_000_000, T + 2) == 4
    assert len(memory) == 0
