from mqmail.mail import retry


def test_the_schedule_of_a_remote_destination_is_that_of_qmail():
    times, now = [], 0.0
    for _ in range(6):
        now = retry.next_attempt(0.0, now)
        times.append(now)
    assert times == [400, 1600, 3600, 6400, 10000, 14400]      # 6:40, 26:40, 1:00:00, ...


def test_local_destinations_are_tried_more_often():
    assert retry.next_attempt(1000.0, 1000.0, retry.SKIP_LOCAL) == 1100.0


def test_the_root_is_rounded_down():
    assert retry.next_attempt(0.0, 480.0) == (21 + 20) ** 2


def test_two_attempts_are_at_least_a_second_apart():
    assert retry.next_attempt(0.0, 3.9999, skip=1) == 4.9999


def test_a_clock_set_back_ten_years_makes_the_message_newborn():
    now = 1_700_000_000.0
    assert retry.next_attempt(now + 10 * 365 * 86400, now) == now + 400


def test_fuzz_adds_at_most_a_tenth_of_the_interval():
    assert retry.next_attempt(0.0, 0.0, fuzz=0.5) == 420.0
    assert retry.next_attempt(100.0, 100.0, fuzz=0.999) < 100.0 + 440.0


def test_a_message_expires_after_its_lifetime_and_not_before():
    assert not retry.expired(100.0, 700.0, 600.0)
    assert retry.expired(100.0, 700.5, 600.0)


def test_a_clock_set_back_expires_nothing():
    assert not retry.expired(1_700_000_000.0, 5.0, 0.0)
