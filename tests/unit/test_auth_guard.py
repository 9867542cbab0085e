"""How often a login may be tried, and what accounts may send."""

from __future__ import annotations

import asyncio
import time

import pytest

from mqmail.auth import guard, habits, ledger
from mqmail.auth.guard import Guard, Rules, Scores, network_of
from mqmail.auth.ledger import HOUR, Ledger
from mqmail.control.accountlimits import Limit
from mqmail.control.networks import parse_networks

T = 1_700_000_000.0 // HOUR * HOUR
HERE, THERE = "192.0.2.1", "198.51.100.7"


def fail(one, ip, account, count, now=T):
    """How many of *count* failures were let through."""
    done = 0
    for _ in range(count):
        if one.begin_address(ip, now) and one.begin_account(ip, account, now):
            done += 1
    return done


@pytest.mark.parametrize(("ip", "network"), [
    ("192.0.2.1", "192.0.2.1"), ("", ""), ("2001:db8::1", "2001:db8:0:0::/64"),
    ("2001:DB8:0:0:1:2:3:4", "2001:db8:0:0::/64"), ("::1", "0:0:0:0::/64"),
    ("2001:db8:1:2::", "2001:db8:1:2::/64"), ("::ffff:192.0.2.1", "0:0:0:0::/64"),
    ("1:2:3:4:5:6:7:8", "1:2:3:4::/64"), ("2001:0db8:00aa::1", "2001:db8:aa:0::/64"),
])
def test_networks(ip, network):
    assert network_of(ip) == network


def test_many_logins_do_not_make_one_forgotten():
    one = Guard(Rules(1e6, 60.0), Rules(30.0, 60.0))
    assert fail(one, HERE, "alice", 40) == 30
    for number in range(2 * guard.MOST_KEYS):
        one.begin_account(f"192.0.2.{number % 250}", f"junk{number}", T)
    assert not one.begin_account(THERE, "alice", T)
    for number in range(2 * guard.MOST_KEYS):       # all of them high: the oldest goes, and it ends
        for _ in range(4):
            one.begin_account(HERE, f"more{number}", T)
    assert len(one._accounts) == guard.MOST_KEYS


def test_one_account_that_comes_from_everywhere_makes_no_other_one_forgotten():
    one = Guard(account=Rules(1.0, 60.0))
    one.success(HERE, "alice")
    for number in range(2 * guard.MOST_KEYS):
        one.success(f"2001:db8:0:{number:x}::1", "stolen")
    assert fail(one, THERE, "alice", 3) == 1
    assert one.begin_account(HERE, "alice", T)
    assert fail(one, "2001:db8::1", "stolen", 3) == 1       # its own first networks are


def test_an_address_that_fails_too_often_waits():
    one = Guard(Rules(20.0, 60.0), Rules(1000.0, 60.0))
    assert sum([fail(one, HERE, f"user{n}", 1) for n in range(50)]) == 20
    assert fail(one, THERE, "user1", 1) == 1
    assert fail(one, HERE, "user1", 5, T + 120) == 2        # a minute takes one away


def test_an_ipv6_site_is_one_address():
    one = Guard(Rules(20.0, 60.0), Rules(1000.0, 60.0))
    assert sum([fail(one, f"2001:db8::{n}", "user", 1) for n in range(50)]) == 20


def test_an_account_that_is_guessed_at_waits_but_not_where_its_owner_is():
    one = Guard(Rules(1000.0, 60.0), Rules(30.0, 60.0))
    one.begin_address(HERE, T)
    one.begin_account(HERE, "alice", T)
    one.undo(HERE, "alice", T)
    one.success(HERE, "alice")
    assert sum([fail(one, f"10.0.0.{n}", "alice", 1) for n in range(99)]) == 30
    assert fail(one, THERE, "alice", 1) == 0
    assert fail(one, HERE, "alice", 1) == 1
    assert fail(one, THERE, "bob", 1) == 1


def test_the_account_alone_counts_for_clients_without_an_address():
    guard = Guard()
    guard.success("", "alice")          # a local user: all of them would be her
    tried = [guard.begin_address("", T) and guard.begin_account("", "alice", T) for _ in range(50)]
    assert tried == [True] * 30 + [False] * 20
    assert guard.known() == {}


def test_at_a_host_that_many_share_each_account_counts_alone():
    one = Guard(Rules(3.0, 60.0), Rules(5.0, 60.0))
    one.shared = parse_networks(["192.0.2.0/24"], "")
    assert sum([fail(one, HERE, f"user{n}", 1) for n in range(50)]) == 50
    assert one.delay(HERE, "other", T) == 0.0
    one.success(HERE, "user")                       # its owner reads mail there
    assert fail(one, HERE, "user", 9) == 5          # and so may who guesses
    assert one.delay(HERE, "user", T) > 0.0
    assert fail(one, THERE, "user", 1) == 1         # nobody is kept out elsewhere
    one.undo(HERE, "user", T)
    assert fail(one, HERE, "user", 9) == 1


def test_a_success_costs_nothing():
    one = Guard()
    for _ in range(500):
        assert one.begin_address(HERE, T)
        assert one.begin_account(HERE, "alice", T)
        one.undo(HERE, "alice", T)
    assert one.delay(HERE, "alice", T) == 0.0


def test_many_at_a_time_do_not_get_past_the_limit():
    """They count from their begin, not from their failure."""
    one = Guard(Rules(5.0, 60.0), Rules(5.0, 60.0))
    assert [one.begin_address(HERE, T) for _ in range(8)] == [True] * 5 + [False] * 3


def test_failures_are_answered_later_and_later():
    one, delays = Guard(), []
    for _ in range(10):
        one.begin_address(HERE, T)
        one.begin_account(HERE, "alice", T)
        delays.append(one.delay(HERE, "alice", T))
    assert delays[:4] == [0.0, 0.0, 0.5, 1.0]
    assert delays == sorted(delays)
    assert delays[-1] == guard.LONGEST_DELAY
    assert one.delay(THERE, "alice", T) == guard.LONGEST_DELAY      # of the account
    assert one.delay(THERE, "bob", T) == 0.0
    assert one.delay(HERE, "bob", T + 3600) == 0.0


def test_memory_is_bounded():
    scores = Scores(Rules(10.0, 60.0))
    for number in range(guard.MOST_KEYS + 100):
        scores.add(number, 1.0, T)
    assert len(scores) == guard.MOST_KEYS
    assert scores.score(0, T) == 0.0        # the oldest were forgotten
    assert scores.score(guard.MOST_KEYS, T) == 1.0
    scores.add(guard.MOST_KEYS, -1.0, T)
    assert len(scores) == guard.MOST_KEYS - 1


# --- accounts ---

LIMIT = Limit(messages=10, recipients=100, refused=5)


def send(book, count, now=T, login="alice", limit=LIMIT, **counts):
    """How often of *count* times it may."""
    counts = counts or {"messages": 1}
    return sum([book.count(login, counts, limit, now)[0] == "" for _ in range(count)])


def test_messages_and_recipients_within_an_hour():
    book = Ledger()
    assert send(book, 50) == 10
    assert send(book, 50, recipients=3) == 33
    assert send(book, 5, login="bob") == 5
    assert book.rates("alice", T) == {"messages": 10, "recipients": 99, "refused": 0}


def test_the_hour_slides():
    book = Ledger()
    assert send(book, 50, T + HOUR - 1) == 10
    assert send(book, 50, T + HOUR + 1) == 0
    assert send(book, 50, T + 1.5 * HOUR) == 5
    assert send(book, 50, T + 3 * HOUR) == 10


def test_a_clock_that_is_set_back_stops_nobody_for_long():
    book = Ledger()
    assert send(book, 50, T + 10000 * HOUR) == 10
    assert send(book, 50) == 0
    assert send(book, 50, T + 2 * HOUR) == 10


def test_no_limit():
    assert send(Ledger(), 1000, limit=Limit(0, 0, 0)) == 1000


def test_who_collects_refusals_is_stopped_until_they_are_old():
    book = Ledger()
    assert send(book, 4, refused=1) == 4
    assert send(book, 1) == 1
    book.count("alice", {"refused": 1}, LIMIT, T)
    assert book.count("alice", {"messages": 1}, LIMIT, T) == ("refused", False)
    assert send(book, 1, login="bob") == 1
    assert send(book, 1, T + 2 * HOUR) == 1


def test_each_reason_is_news_once_an_hour():
    book = Ledger()
    news = [book.count("alice", {"messages": 1}, LIMIT, T + n) for n in range(20)]
    assert [why for why, _ in news] == [""] * 10 + ["messages"] * 10
    assert [is_news for _, is_news in news] == [False] * 10 + [True] + [False] * 9
    assert [book.count("alice", {"recipients": 200}, LIMIT, T)[1] for _ in range(2)] == [True, False]
    assert book.count("alice", {"messages": 1}, LIMIT, T + 20)[1] is False
    assert book.count("alice", {"messages": 20}, LIMIT, T + HOUR)[1] is True


def test_a_surge_is_many_times_what_was_usual():
    surge = Limit(0, 0, 0, surge=10)
    book = Ledger()
    assert send(book, 500, limit=surge, recipients=1) == ledger.SURGE_FREE     # nothing is known of it
    book = Ledger()
    assert send(book, 50, limit=surge, recipients=1) == 50
    later = T + 24 * HOUR
    assert 470 <= send(book, 2000, later, limit=surge, recipients=1) <= 500
    assert book.count("alice", {"recipients": 1}, surge, later)[0] == "surge"
    # the hour in which it was stopped is no new habit
    assert 450 <= send(book, 2000, later + 24 * HOUR, limit=surge, recipients=1) <= 500


def test_habits_outlive_the_process():
    book = Ledger()
    send(book, 50, limit=Limit(), recipients=4)
    kept = list(book.usual(T + HOUR))
    assert kept == [("alice", 200)]
    other = Ledger()
    other.remember(*kept[0], T + HOUR)
    assert send(other, 3000, T + HOUR, limit=Limit(0, 0, 0, 10), recipients=1) == 2000


def test_what_accounts_do_is_kept_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    loop = asyncio.new_event_loop()
    book, guard = Ledger(), Guard()
    book.remember("al ice", 200, time.time())
    for ip in ("192.0.2.1", "2001:db8:0:1::7", "198.51.100.9"):
        guard.success(ip, "bob")
    habits.Habits(loop, book, guard).save()
    assert (tmp_path / habits.PATH).read_text().splitlines() == [
        "al+20ice 200", "bob 0 192.0.2.1 2001:db8:0:1::/64 198.51.100.9"]
    with open(habits.PATH, "a") as file:
        file.write("eve x 192.0.2.2\neve 0 no-network\n+zz 1\n\nlone\ncarol 7")
    other, found = Ledger(), Guard()
    habits.Habits(loop, other, found)
    loop.close()
    assert found.known() == guard.known()
    assert dict(other.usual(time.time())) == {"al ice": 200, "carol": 7}


def test_accounts_that_are_silent_longest_are_forgotten(monkeypatch):
    monkeypatch.setattr(ledger, "MOST_ACCOUNTS", 3)
    book = Ledger()
    for name in "abcab":
        send(book, 10, login=name)
    assert send(book, 1, login="d") == 1        # c is forgotten
    assert send(book, 1, login="a") == 0
    assert send(book, 1, login="c") == 1
