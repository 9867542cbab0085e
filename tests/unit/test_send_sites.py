"""What mq-send knows of sites: who is down, who asks first, who is brought forward."""

import pytest

from mqmail.prog.mq_send.sites import PROBE, Sites, later

NOW = 1_732_252_800.0
RETRY = 4000.0


def down(sites, domain="a.example", site="mx.example", id="first", now=NOW, retry=RETRY, fuzz=0.0):
    """A verdict says that *site* could not be reached."""
    return sites.fell(domain, site, id, now, retry, fuzz, f"{site}[192.0.2.1]:25", "no answer")


def test_nobody_is_held_back_before_anything_is_known():
    sites = Sites()
    assert not sites
    assert sites.hold("a.example", "id", NOW, 0.0) is None
    assert sites.name("a.example") == "@a.example"
    assert sites.is_open("a.example", NOW)


def test_who_brings_the_news_asks_first_and_the_others_come_soon_after():
    sites = Sites()
    assert down(sites) == (NOW + RETRY, True)
    until, news = down(sites, id="second", now=NOW + 1.0, retry=RETRY - 1.0, fuzz=0.5)
    assert not news
    assert until == pytest.approx(NOW + RETRY * 1.1, abs=2.0)
    for fuzz in (0.0, 0.999):
        hold = sites.hold("a.example", "third", NOW + 2.0, fuzz)
        assert NOW + RETRY * 1.05 <= hold.until <= NOW + RETRY * 1.151
        assert (hold.status, hold.host, hold.said, hold.tried) == (
            "4.4.1", "mx.example[192.0.2.1]:25", "no answer", True)


def test_the_others_come_at_least_half_a_minute_after_a_short_time():
    assert later(1.0, 0.0) == 30.0
    assert later(1.0, 0.999) < 90.0
    assert later(86400.0, 0.0) == 4320.0


def test_another_domain_of_the_site_is_held_back_and_others_are_not():
    sites = Sites()
    sites.answered("b.example", "mx.example", "old", "1")
    sites.answered("c.example", "mx.other.example", "old", "1")
    down(sites)
    assert sites.hold("b.example", "id", NOW + 1.0, 0.0)
    assert sites.hold("c.example", "id", NOW + 1.0, 0.0) is None


def test_at_its_time_one_message_asks_alone():
    sites = Sites()
    down(sites)
    at = NOW + RETRY
    assert sites.hold("a.example", "first", at, 0.0) is None
    assert sites.hold("a.example", "first", at, 0.0) is None        # it may have several recipients
    assert sites.hold("a.example", "second", at + 1.0, 0.0).until == at + 1.0 + later(RETRY, 0.0)
    assert sites.hold("a.example", "second", at + PROBE + 1.0, 0.0) is None     # the first one vanished
    assert sites.hold("a.example", "first", at + PROBE + 2.0, 0.0)


def test_a_probe_that_fails_is_news_again():
    sites = Sites()
    down(sites)
    sites.hold("a.example", "first", NOW + RETRY, 0.0)
    assert down(sites, now=NOW + RETRY + 30.0) == (NOW + 2 * RETRY + 30.0, True)
    assert sites.hold("a.example", "second", NOW + RETRY + 31.0, 0.0)


def test_a_probe_that_finds_another_site_leaves_the_former_one_to_be_asked():
    sites = Sites()
    sites.answered("b.example", "mx.example", "old", "1")
    down(sites)
    sites.answered("c.example", "mx.new.example", "first", "1")         # that was no probe
    assert sites.hold("b.example", "second", NOW + 1.0, 0.0)
    sites.hold("a.example", "third", NOW + RETRY, 0.0)
    assert sites.hold("b.example", "second", NOW + RETRY + 1.0, 0.0)
    sites.answered("a.example", "mx.new.example", "third", "1")
    assert sites.hold("b.example", "second", NOW + RETRY + 2.0, 0.0) is None


def test_any_answer_ends_it():
    sites = Sites()
    down(sites)
    assert sites.answered("b.example", "mx.example", "other", "1")
    assert sites.hold("a.example", "second", NOW + 1.0, 0.0) is None
    assert not sites.answered("b.example", "mx.example", "other", "1")


def test_times_are_whole_seconds_and_never_before_the_services_own():
    assert down(Sites(), now=NOW + 0.25, retry=10.0)[0] == NOW + 11.0


def test_a_clock_that_is_set_back_holds_nobody():
    sites = Sites()
    down(sites)
    assert sites.hold("a.example", "second", NOW - 10.0, 0.0) is None
    sites.hold("a.example", "first", NOW + RETRY, 0.0)
    assert sites.hold("a.example", "second", NOW - 86400.0, 0.0) is None


def test_a_verdict_in_flight_neither_delays_the_first_one_nor_makes_another():
    sites = Sites()
    down(sites)
    down(sites, id="second", now=NOW + 5.0)         # says five seconds later
    assert sites.hold("a.example", "first", NOW + RETRY, 0.0) is None


def wait(sites, *ids, domain="a.example"):
    for id in ids:
        sites.wait(domain, id, {"1"})


def ids_of(messages):
    return [id for id, _ in messages]


def test_the_oldest_are_brought_forward_first_a_few_at_a_time():
    sites = Sites()
    down(sites)
    wait(sites, "c", "a", "e", "b", "d")
    assert sites.waiting("a.example") == 5
    assert sites.release("a.example", 2) == [("a", {"1"}), ("b", {"1"})]
    wait(sites, "a")
    assert ids_of(sites.release("a.example", 9)) == ["a", "c", "d", "e"]
    assert sites.release("a.example", 9) == []


def test_only_the_recipients_that_wait_for_it_are_brought_forward():
    sites = Sites()
    down(sites)
    sites.wait("a.example", "m", {"1", "2"})
    sites.wait("a.example", "m", {"2.3"})
    sites.answered("a.example", "mx.example", "m", "2")     # it has been told to come later
    assert sites.release("a.example", 9) == [("m", {"1", "2.3"})]


def test_a_message_that_was_answered_waits_no_longer():
    sites = Sites()
    down(sites)
    wait(sites, "a", "b")
    sites.answered("a.example", "mx.example", "a", "1")
    assert sites.release("a.example", 9) == [("b", {"1"})]


def test_what_waits_for_a_domain_waits_for_its_site_once_that_is_known():
    sites = Sites()
    wait(sites, "b")
    assert sites.name("a.example") == "@a.example"
    sites.answered("z.example", "mx.example", "other", "1")
    wait(sites, "a", "b", domain="z.example")
    sites.answered("a.example", "mx.example", "other", "1")
    assert ids_of(sites.release("z.example", 9)) == ["a", "b"]


def test_what_is_known_is_bounded():
    sites = Sites(most=3, most_waiting=4)
    for number in range(10):
        down(sites, f"d{number}.example", f"mx{number}.example")
        sites.wait(f"d{number}.example", f"m{number}", {"1"})
    assert [n for n in range(10) if sites.hold(f"d{n}.example", "x", NOW + 1.0, 0.0)] == [7, 8, 9]
    assert [ids_of(sites.release(f"d{n}.example", 9)) for n in range(10)][7:] == [["m7"], ["m8"], ["m9"]]
    wait(sites, *[f"n{n}" for n in range(10)], domain="d9.example")
    assert len(sites.release("d9.example", 20)) == 4


def test_ids_that_come_and_go_do_not_pile_up():
    sites = Sites()
    down(sites)
    for number in range(5000):
        wait(sites, f"m{number}")
        sites.answered("a.example", "mx.example", f"m{number}", "1")
    [site] = sites._sites.values()
    assert len(site.order) < 200
