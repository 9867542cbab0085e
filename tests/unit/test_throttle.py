"""Counting sessions and what happens, alone and in several processes; what lines of throttles mean."""

import os
import signal
from contextlib import nullcontext

import pytest

from mqmail.base.waiter import Waiter, run
from mqmail.control import lines
from mqmail.control.pressure import Marks, parse_pressure
from mqmail.control.throttles import UNKNOWN, Limits, Rate, parse_throttles
from mqmail.net.shared import Shared
from mqmail.policy import known
from mqmail.policy.facts import Facts
from mqmail.policy.inflow import (
    KINDS,
    Inflow,
    NewMessage,
    NewRecipient,
    NewSession,
    PressedMessage,
    PressedSession,
)
from mqmail.policy.pressure import CALM, FEWER, REFUSE, SLOW, Floor, Pressure
from mqmail.policy.throttle import GROUP, Happenings, Sessions, Throttle
from mqmail.policy.verdict import LIMIT, NO_OPINION

SEED = bytes(16)


def throttles(text):
    return lines.parse("throttles", text.encode(), parse_throttles, "")


def cells(octets):
    return memoryview(bytearray(octets)).cast("I")


def throttle(columns=1, column=0, names=64, lock=None):
    return Throttle(Sessions(cells(Sessions.size(names, columns)), columns, column, SEED),
                    Happenings(cells(Happenings.size(names)), SEED), lock or nullcontext())


# --- control/throttles ---

def test_the_smallest_network_gives_a_clients_limits():
    found = throttles("* sessions=1\n10.0.0.0/8 sessions=2\n10.1.0.0/16 sessions=3 rate=4/1m\n"
                      "10.1.1.1 free\n")
    assert found.of("192.0.2.1") == [("4:c0000201", Limits((1, 0)))]
    assert found.of("10.9.9.9")[0][1] == Limits((2, 0))
    assert found.of("::ffff:10.1.0.1")[0] == ("4:a010001", Limits((3, 0), Rate(4, 60)))
    assert found.of("10.1.1.1") is None


@pytest.mark.parametrize("ip", ["", "nonsense"])
def test_all_without_an_address_are_one_client(ip):
    found = throttles("* sessions=1\n* together messages=9/1d\n10.0.0.0/8 together rate=5/2h\n")
    assert found.of(ip) == [(UNKNOWN, Limits((1, 0))), ("*", Limits(messages=Rate(9, 86400)))]
    assert throttles("10.0.0.0/8 free\n").of(ip) == [(UNKNOWN, Limits())]


def test_an_ipv6_client_is_a_64():
    found = throttles("* sessions=1\n")
    clients = "2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"
    one, other, far = [found.of(ip)[0][0] for ip in clients]
    assert one == other != far


def test_networks_and_everybody_are_counted_together_besides():
    found = throttles("* sessions=1\n10.0.0.0/8 together rate=5/2h\n* together messages=9/1d\n"
                      "10.0.0.1 recipients=1/1s\n")
    assert [limits for _, limits in found.of("10.2.3.4")] == [
        Limits((1, 0)), Limits(rate=Rate(5, 7200)), Limits(messages=Rate(9, 86400))]
    assert found.of("10.2.3.4")[1][0] == found.of("10.0.0.1")[1][0]
    assert found.of("10.0.0.1")[0][1] == Limits(recipients=Rate(1, 1))


@pytest.mark.parametrize(("words", "total", "most"), [
    ("20", 500, 20), ("10%", 500, 50), ("20,10%", 100, 20), ("20,10%", 500, 50), ("1%", 10, 1)])
def test_a_number_a_share_or_the_larger_of_both(words, total, most):
    assert throttles(f"* sessions={words}\n").others.most_sessions(total) == most


@pytest.mark.parametrize("line", [
    "*", "* free", "10.0.0.1", "10.0.0.1/8 sessions=1", "x sessions=1", "* sessions=0", "* sessions=1_0",
    "* sessions=+5", "* sessions=101%", "* sessions=5,5", "* sessions=", "* sessions=1 sessions=2",
    "* rate=5", "* rate=5/0s", "* rate=0/1s", "* rate=5/60", "* rate=5/8d", "* rate=5/s",
    "* weight=3/1s", "* together", "10.0.0.1 together free",
    "* sessions=1\n* rate=1/1s", "::/64 free\n::/64 sessions=1",
    "* sessions=\u0661"])
def test_a_line_that_says_nothing_sound_is_named(line):
    with pytest.raises(Exception, match=r"^throttles line \d: "):
        throttles(line + "\n")


# --- counting ---

def test_sessions_of_a_client_and_of_all():
    one, rules = throttle(), [("4:1", Limits((2, 0)))]
    assert [one.begin(name, rules, 10, 10, 0.0) for name in "abc"] == ["", "", "sessions of the client"]
    assert one.begin("d", [("4:2", Limits((2, 0)))], 10, 3, 0.0) == ""
    assert one.begin("e", [], 10, 3, 0.0) == "sessions of all"
    one.end("c")
    assert one.begin("c", rules, 10, 10, 0.0) == "sessions of the client"
    one.end("a")
    one.end("a")
    assert [one.begin(name, rules, 10, 10, 0.0) for name in "fg"] == ["", "sessions of the client"]


def test_a_refused_session_counts_nowhere():
    one = throttle()
    rules = [("4:1", Limits((5, 0), Rate(5, 60))), ("32/24/1", Limits((1, 0)))]
    assert one.begin("a", rules, 10, 10, 0.0) == ""
    assert {one.begin(f"{n}", rules, 10, 10, 0.0) for n in range(9)} == {"sessions of its network"}
    one.end("a")
    for number in range(4):
        assert one.begin(f"b{number}", rules, 10, 10, 0.0) == ""
        one.end(f"b{number}")
    assert one.begin("c", rules, 10, 10, 0.0) == "new sessions of the client"


def test_a_session_that_begins_anew_is_counted_once():
    ours = throttle()
    first, second = [[(name, Limits(sessions=(1, 0)))] for name in ("4:1", "4:2")]
    for _ in range(3):
        assert ours.begin("a", first, 10, 10, 0) == ours.begin("a", second, 10, 10, 0) == ""
    assert ours.begin("b", first, 10, 2, 0) == ""
    assert ours.begin("a", first, 10, 10, 0) == "sessions of the client"
    assert ours.begin("c", second, 10, 2, 0) == ""
    for session in "abc":
        ours.end(session)
    assert ours.begin("d", first, 10, 1, 0) == ""


def test_a_rate_holds_for_its_seconds_and_is_forgotten_behind_them():
    one, rules = throttle(), [("4:1", Limits(messages=Rate(3, 8)))]
    at = [0.0, 3.0, 7.9]
    assert [one.one_more("messages", rules, now) for now in at] == [""] * 3
    assert one.one_more("messages", rules, 7.99) == "messages of the client"
    assert one.one_more("recipients", rules, 7.99) == ""
    assert one.one_more("messages", rules, 9.0) == ""
    assert one.one_more("messages", rules, 10.0) == "messages of the client"
    assert [one.one_more("messages", rules, 100.0) for _ in range(4)].count("") == 3


def test_memory_is_bounded_and_those_seen_last_stay():
    """Each newcomer takes the place of the one that has been away for longest."""
    one = throttle(names=GROUP)
    limits = Limits(messages=Rate(1, 3600))
    for number in range(100):
        assert one.one_more("messages", [(f"4:{number}", limits)], 1.0 + number) == ""
    for number in range(100 - GROUP, 100):
        assert one.one_more("messages", [(f"4:{number}", limits)], 200.0) == "messages of the client"
    assert one.one_more("messages", [(f"4:{99 - GROUP}", limits)], 200.0) == ""


def test_sessions_are_never_forgotten_for_others():
    one = throttle(names=GROUP)
    for number in range(GROUP - 1):         # and one for all
        assert one.begin(f"{number}", [(f"4:{number}", Limits((1, 0)))], 99, 99, 0.0) == ""
    assert one.begin("more", [("4:x", Limits((1, 0)))], 99, 99, 0.0) == ""
    for number in range(GROUP - 1):
        assert one.begin("again", [(f"4:{number}", Limits((1, 0)))], 99, 99, 0.0) != ""
    one.end("more")
    for number in range(GROUP - 1):
        one.end(f"{number}")
    assert one.begin("new", [("4:y", Limits((1, 0)))], 99, 99, 0.0) == ""
    assert one.begin("newer", [("4:y", Limits((1, 0)))], 99, 99, 0.0) != ""


class Fleet:
    """Processes that share what they count."""

    def __init__(self, columns):
        self.columns = columns
        self.octets = Sessions.size(64, columns)
        self.shared = Shared(self.octets + Happenings.size(64))

    def throttle(self, column):
        made = Throttle(
            Sessions(self.shared.cells(0, self.octets), self.columns, column, SEED),
            Happenings(self.shared.cells(self.octets, Happenings.size(64)), SEED), self.shared)
        made.clear()
        return made

    def fork(self, column, work):
        """A process that does *work* and then waits to be killed; what work returns, as a byte."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, bytes([work(self.throttle(column))]))
                signal.pause()
            finally:
                os._exit(1)
        os.close(writing)
        return pid, reading


def result(child):
    with open(child[1], "rb", buffering=0) as file:
        return file.read(1)[0]


def kill(child):
    os.kill(child[0], signal.SIGKILL)
    os.waitpid(child[0], 0)


def test_several_processes_never_let_in_more_than_one_would():
    """All at the same time, each trying for all there is."""
    fleet, rules = Fleet(4), [("4:1", Limits((50, 0), Rate(1000, 3600)))]
    children = [fleet.fork(column, lambda one: sum(
        [one.begin(f"{n}", rules, 999, 999, 0.0) == "" for n in range(100)])) for column in range(4)]
    try:
        assert sum([result(child) for child in children]) == 50
    finally:
        for child in children:
            kill(child)


def test_a_process_that_is_killed_gives_its_sessions_back():
    fleet, rules = Fleet(2), [("4:1", Limits((3, 0)))]
    ours = fleet.throttle(0)
    assert ours.begin("a", rules, 99, 99, 0.0) == ""
    child = fleet.fork(1, lambda one: sum(
        [one.begin(f"{n}", rules, 99, 99, 0.0) == "" for n in range(9)]))
    try:
        assert result(child) == 2
        assert ours.begin("b", rules, 99, 99, 0.0) == "sessions of the client"
    finally:
        kill(child)
    fleet.throttle(1)           # whoever takes its place
    assert [ours.begin(name, rules, 99, 99, 0.0) for name in "bcd"] == ["", "", "sessions of the client"]


def test_a_process_that_is_killed_gives_the_lock_back():
    fleet = Fleet(2)

    def hold(_throttle):
        fleet.shared.__enter__()
        return 1

    child = fleet.fork(1, hold)
    assert result(child) == 1
    os.kill(child[0], signal.SIGKILL)
    assert fleet.throttle(0).begin("a", [], 9, 9, 0.0) == ""
    os.waitpid(child[0], 0)


# --- pressure ---

def feel(pressure, *waiting, marks=Marks(1000, 50, 75, 100)):  # noqa: B008  a value cannot change
    stages = []
    for number in waiting:
        pressure.feel_queue(number, marks)
        stages.append(pressure.stage)
    return stages


def test_stages_come_at_their_marks_and_go_a_tenth_below():
    assert feel(Pressure(), 499, 500, 451, 449, 750, 700, 674, 1000, 901, 899, 0) == [
        CALM, SLOW, SLOW, CALM, FEWER, FEWER, SLOW, REFUSE, REFUSE, FEWER, CALM]


def test_the_pause_grows_and_the_share_shrinks():
    pressure, seen = Pressure(), []
    for waiting in (0, 500, 625, 750, 875, 1000, 0):
        feel(pressure, waiting)
        seen.append((pressure.pause, round(pressure.share, 2)))
    assert seen == [(0.0, 1.0), (0.5, 1.0), (2.75, 1.0), (5.0, 1.0), (5.0, 0.55), (5.0, 0.1), (0.0, 1.0)]


def test_zero_messages_as_full_look_at_nothing():
    assert feel(Pressure(), 10 ** 9, marks=Marks(0)) == [CALM]


def test_a_disk_is_low_until_there_is_enough():
    floor = Floor()
    assert [floor.feel(free, 100, 150) for free in (100, 99, 120, 149, 150, 120, 99)] == [
        False, True, True, True, False, False, True]
    assert [Floor().feel(free, 100, 0) for free in (99, 100)] == [True, False]


@pytest.mark.parametrize("text", ["full x", "slow 5", "fewer 10%", "refuse 1%", "slow 0%", "fast 3%",
                                  "full 5\nfull 6", "slow 90%", "full 1_0"])
def test_pressure_that_makes_no_sense_is_named(text):
    with pytest.raises(Exception, match="^pressure line "):
        lines.parse("pressure", text.encode(), parse_pressure, "")


# --- the checks ---

class Control:
    def __init__(self, text, total=10):
        self.throttles = throttles(text)
        self.concurrencyincoming = total


class Services:
    inflow = None


def inflow(pressure=None):
    paused = []

    def pause(seconds):
        paused.append(seconds)
        waiter = Waiter()
        waiter.set()
        return waiter

    made = Inflow(throttle(), pressure or Pressure(), lambda: 0.0, pause)
    return made, paused


def facts(session, ip="192.0.2.1"):
    return Facts(session, ip=ip)


def asked(check, *arguments, **more):
    said = check.look(facts(*arguments, **more))
    if hasattr(said, "action"):
        return said

    async def waited():
        return await said
    return run(waited())


def test_a_session_too_many_hears_421():
    service, _ = inflow()
    check = NewSession(Control("* sessions=1\n"), service)
    assert check.look(facts("a")) == NO_OPINION
    said = check.look(facts("b"))
    assert (said.action, said.reply.code, said.reply.status) == (LIMIT, 421, "4.7.0")
    assert said.reply.text == "too many sessions of the client, come back later"
    service.end("b")
    assert check.look(facts("b")).action == LIMIT
    service.end("a")
    assert check.look(facts("b")) == NO_OPINION


def test_who_is_free_is_bound_by_the_number_of_all_alone():
    service, _ = inflow()
    check = NewSession(Control("* sessions=1\n192.0.2.1 free\n", total=3), service)
    assert [check.look(facts(name)).action for name in "abcd"] == ["next"] * 3 + [LIMIT]


def test_a_local_user_is_free_and_who_has_no_address_is_not():
    service, _ = inflow()
    check = NewSession(Control("* sessions=1\n"), service)
    assert [check.look(facts(name, ip="")).action for name in "ab"] == ["next", LIMIT]
    assert check.look(facts("c", ip="")).reply.text.startswith("too many sessions of clients without an")
    local = [facts(name, ip="") for name in "de"]
    for one in local:
        one.local = True
    assert [check.look(one) for one in local] == [NO_OPINION] * 2


def test_under_pressure_some_room_is_left_for_users():
    pressure = Pressure()
    feel(pressure, 875)
    check = NewSession(Control("", total=20), inflow(pressure)[0])
    assert [check.look(facts(f"{n}")).action for n in range(12)] == ["next"] * 11 + [LIMIT]
    users = [facts(f"u{n}") for n in range(3)]
    for one in users:
        one.role = "submission"
    assert [check.look(one).action for one in users] == ["next"] * 2 + [LIMIT]


@pytest.mark.parametrize(("kind", "word"), [(NewMessage, "messages"), (NewRecipient, "recipients")])
def test_a_message_or_recipient_too_many_hears_451(kind, word):
    check = kind(Control(f"* {word}=2/1h\n"), inflow()[0])
    assert [check.look(facts("a")) for _ in range(2)] == [NO_OPINION] * 2
    said = check.look(facts("a"))
    assert (said.action, said.reply.code, said.reply.status) == (LIMIT, 451, "4.7.0")
    assert said.reply.text == f"too many {word} of the client, try again later"
    assert check.look(facts("a", ip="192.0.2.2")) == NO_OPINION


def test_under_pressure_answers_wait_then_sessions_are_fewer_then_none():
    pressure = Pressure()
    service, paused = inflow(pressure)
    control = Control("192.0.2.9 free\n* rate=99/1s\n")
    session, new, mail = PressedSession(control, service), NewSession(control, service), \
        PressedMessage(control, service)
    assert (asked(session, "a"), asked(mail, "a"), paused) == (NO_OPINION, NO_OPINION, [])
    feel(pressure, 625)
    assert (asked(session, "a"), asked(mail, "a"), paused) == (NO_OPINION, NO_OPINION, [2.75] * 2)
    feel(pressure, 875)
    assert [new.look(facts(f"{n}")).action for n in range(6)] == ["next"] * 5 + [LIMIT]
    assert new.look(facts("free", ip="192.0.2.9")) == NO_OPINION
    feel(pressure, 1000)
    assert (asked(session, "a").reply.code, asked(mail, "a").reply.code) == (421, 451)
    assert asked(session, "a", ip="192.0.2.9") == asked(mail, "a", ip="192.0.2.9") == NO_OPINION
    assert len(paused) == 2


def test_a_disk_that_is_too_full_refuses_everybodys_messages():
    pressure = Pressure()
    check = PressedMessage(Control("192.0.2.9 free\n"), inflow(pressure)[0])
    pressure.feel_disk(99, 100, 150)
    for ip in ("192.0.2.1", "192.0.2.9"):
        assert asked(check, "a", ip=ip).reply.encode()[:9] == b"452 4.3.1"
    pressure.feel_disk(150, 100, 150)
    assert asked(check, "a") == NO_OPINION


def test_a_process_with_one_session_has_no_such_checks():
    services = Services()
    factories = [make for name, make in known.FACTORIES if name in ("throttle", "pressure")]
    assert [make(Control(""), services) for make in factories] == [None] * 5
    services.inflow = inflow()[0]
    assert [type(make(Control(""), services)) for make in factories] == list(KINDS)
