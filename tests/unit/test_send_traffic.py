"""mq-send's way to a service of ``remote``: who is asked about, in which order, and what is put off."""

import asyncio
import os
import threading
import time

import pytest

from mqmail.control.destinations import Destination
from mqmail.net.stream import Deadlines
from mqmail.prog.mq_send import outlet, traffic
from mqmail.prog.mq_send.job import Job, domain_of
from mqmail.prog.mq_send.verdicts import Verdict, of_reply
from mqmail.queue import ids
from mqmail.queue.record import Envelope, Recipient, State
from support.lmtpservice import CLOSE, LmtpService

SECONDS = 20
START = 1732252800_000000


class Way:
    """An Outlet, and messages for it, without records. ``said``: (address, verdict or Hold, why)."""

    def __init__(self, path, limit, destination="remote"):
        self.loop = asyncio.new_event_loop()
        self._deadlines = Deadlines(self.loop)
        self._body = os.open(os.devnull, os.O_RDONLY)
        self.said = []
        self.brought = []
        self._made = 0
        self._destination = destination
        self.outlet = outlet.Outlet(self.loop, self._deadlines, "here",
                                    Destination(destination, path=str(path), timeout=SECONDS), limit,
                                    self.brought.extend)

    def close(self):
        for stream in list(self._deadlines.streams):
            stream.close()
        self.loop.close()
        os.close(self._body)

    def submit(self, *addresses, forced=0.0):
        """A message to *addresses*; its id."""
        self._made += 1
        envelope = Envelope(ids.make(START + self._made, 7), 1732252800.0, 0, False, False,
                            "a@example.org", "", "", {})
        states = [State(Recipient(str(n), self._destination, address), active=True)
                  for n, address in enumerate(addresses, 1)]
        job = Job(envelope, "a@example.org", self._destination, states,
                  lambda *said: self._answered(envelope.id, *said), lambda: self._body, None,
                  self._put_off, forced)
        self.outlet.submit(job)
        return envelope.id

    def _answered(self, id, state, answer, why):
        verdict = of_reply(answer, why) if answer is not None else Verdict("wait", broken=True)
        address = state.recipient.address
        self.outlet.heard(domain_of(address), id, state.recipient.seq, verdict, time.time())
        self.said.append((address, verdict, why))

    def _put_off(self, state, hold):
        self.said.append((state.recipient.address, hold, ""))

    def run_until(self, condition):
        """Run the loop until *condition()* holds."""
        deadline = self.loop.time() + SECONDS

        def look():
            if condition() or self.loop.time() > deadline:
                self.loop.stop()
            else:
                self.loop.call_later(0.005, look)

        self.loop.call_soon(look)
        self.loop.run_forever()
        assert condition(), self.said

    def kinds(self):
        """Address to what was said: done, wait, fail, or the status of a Hold."""
        return {address: getattr(said, "kind", None) or said.status for address, said, _ in self.said}


@pytest.fixture
def way(tmp_path):
    """A function that makes a Way to a service: arguments as LmtpService's, and limit."""
    made = []

    def make(answer, limit=20, destination="remote", **options):
        path = tmp_path / f"{len(made)}.sock"
        service = LmtpService(path, answer, **options)
        made.append((service, Way(path, limit, destination)))
        return made[-1]

    yield make
    for service, one in made:
        one.close()
        service.__exit__()


def dead_or_good(ask):
    if "dead" in ask.address:
        return "451 4.4.1 site=mx.dead retry=300 host=mx.dead said=no+20answer"
    return f"250 2.0.0 site=mx.{domain_of(ask.address)}"


def test_a_service_is_asked_about_a_dead_site_once(way):
    service, one = way(dead_or_good)
    begun = time.time()
    one.submit("x@dead.example")
    one.run_until(lambda: one.said)
    for number in range(50):
        one.submit(f"u{number}@dead.example", f"u{number}@good.example")
    one.run_until(lambda: len(one.said) == 101)
    assert sorted(service.addresses()) == sorted(["x@dead.example", *[f"u{n}@good.example"
                                                                       for n in range(50)]])
    hold = next(said for address, said, _ in one.said if address == "u7@dead.example")
    assert (hold.status, hold.host, hold.said) == ("4.4.1", "mx.dead", "no answer")
    assert hold.until - begun >= 329.0
    assert hold.until - time.time() <= 392.0


def test_forced_messages_are_asked_about_and_the_service_is_told(way):
    service, one = way(dead_or_good)
    one.submit("x@dead.example")
    one.run_until(lambda: one.said)
    one.submit("y@dead.example", forced=5.0)
    one.run_until(lambda: len(one.said) == 2)
    assert [("XFORCE=" in ask.mail, ask.address) for ask in service.asked] == [
        (False, "x@dead.example"), (True, "y@dead.example")]


@pytest.mark.parametrize("destination", ["remote", "mine"])
def test_only_remote_is_told_of_connections_and_force(way, destination):
    service, one = way(lambda ask: "250 2.0.0 ok", limit=10, destination=destination)
    one.submit(*[f"u{n}@example.org" for n in range(8)], forced=5.0)
    one.run_until(lambda: len(one.said) == 8)
    words = service.asked[0].mail.split()
    assert [word in words for word in ("XCONN=5", "XFORCE=5000")] == [destination == "remote"] * 2


def test_any_service_may_name_sites(way):
    service, one = way(dead_or_good, destination="mine")
    one.submit("x@dead.example")
    one.run_until(lambda: one.said)
    one.submit("y@dead.example")
    one.run_until(lambda: len(one.said) == 2)
    assert service.addresses() == ["x@dead.example"]


def test_what_waits_for_its_turn_is_put_off_together_when_the_site_goes_down(way):
    go = threading.Event()

    def answer(ask):
        go.wait(SECONDS)
        return dead_or_good(ask)

    service, one = way(answer, limit=4)
    for number in range(30):
        one.submit(f"u{number}@dead.example")
    one.submit("slow@good.example")
    one.run_until(lambda: len(service.asked) == 4)
    go.set()
    one.run_until(lambda: len(one.said) == 31)
    assert len([a for a in service.addresses() if "dead" in a]) == 3
    assert list(one.kinds().values()).count("4.4.1") == 27
    assert one.kinds()["slow@good.example"] == "done"


def test_mail_for_others_passes_a_site_that_does_not_end(way):
    go = threading.Event()

    def answer(ask):
        if "tar" in ask.address:
            go.wait(SECONDS)
        return "250 2.0.0 ok"

    service, one = way(answer, limit=4)
    for number in range(20):
        one.submit(f"u{number}@tar.example")
    one.run_until(lambda: len(service.asked) == 3)
    for number in range(10):
        one.submit(f"u{number}@good.example")
    one.run_until(lambda: len(one.said) == 10)
    assert len(service.asked) == 13
    go.set()
    one.run_until(lambda: len(one.said) == 30)


def test_slots_become_free_with_each_verdict(way):
    go, two = threading.Event(), threading.Barrier(2)

    def answer(ask):
        if "large" not in ask.address:
            two.wait(SECONDS)       # for another one at the same time
        elif ask.number == 3:
            go.wait(SECONDS)
        return "250 2.0.0 ok"

    service, one = way(answer, limit=3)
    one.submit(*[f"u{n}@large{n}.example" for n in range(4)])
    for number in range(4):
        one.submit(f"x@other{number}.example")
    one.run_until(lambda: len(one.said) == 7)
    assert {ask.mail.split()[-1] for ask in service.asked if "large" in ask.address} == {"XCONN=2"}
    go.set()
    one.run_until(lambda: len(one.said) == 8)
    assert one.outlet._turns.busy == 0


def test_one_slow_site_does_not_fill_the_memory(way, monkeypatch):
    go = threading.Event()

    def answer(ask):
        if "tar" in ask.address:
            go.wait(SECONDS)
        return "250 2.0.0 site=mx.tar"

    monkeypatch.setattr(traffic, "CROWD", 10)
    monkeypatch.setattr(traffic, "SLOW", 0.1)
    service, one = way(answer, limit=4)
    begun = time.time()
    for number in range(30):
        one.submit(f"u{number}@tar.example")
    one.run_until(lambda: len(one.said) == 20)
    assert set(one.kinds().values()) == {"4.4.5"}
    last = [f"u{n}@tar.example" for n in range(10, 30)]
    assert sorted(one.kinds()) == sorted(last)
    id = one.submit("more@tar.example")
    hold = one.said[-1][1]
    assert hold.until - begun >= 29.0
    assert hold.until - time.time() <= 61.0
    assert not hold.tried
    one.outlet.wait("tar.example", id, {"1"})
    assert one.brought == []
    go.set()
    one.run_until(lambda: len(one.said) == 31)
    assert one.brought == [(id, {"1"})]


def test_a_mailbox_whose_program_hangs_fills_neither_slots_nor_memory(way, monkeypatch):
    go = threading.Event()

    def answer(ask):
        if "slow" in ask.address:
            go.wait(SECONDS)
        return "250 2.0.0 ok"

    monkeypatch.setattr(traffic, "CROWD", 10)
    monkeypatch.setattr(traffic, "SLOW", 0.1)
    _, one = way(answer, limit=4, destination="mailbox")
    for _ in range(30):
        one.submit("slow@here.example")
    one.run_until(lambda: len(one.said) == 20)
    assert {(hold.status, hold.until, hold.tried) for _, hold, _ in one.said} == {("4.4.5", 0.0, False)}
    for number in range(10):
        one.submit(f"u{number}@here.example")
    one.run_until(lambda: len(one.said) == 30)
    assert {address: verdict.kind for address, verdict, _ in one.said[20:]} == {
        f"u{number}@here.example": "done" for number in range(10)}
    go.set()
    one.run_until(lambda: len(one.said) == 40)


def test_a_large_but_fast_crowd_stays(way, monkeypatch):
    monkeypatch.setattr(traffic, "CROWD", 10)
    monkeypatch.setattr(traffic, "SLOW", 5.0)
    _, one = way(lambda ask: "250 2.0.0 ok", limit=4)
    for number in range(100):
        one.submit(f"u{number}@example.org")
    one.run_until(lambda: len(one.said) == 100)
    assert set(one.kinds().values()) == {"done"}


def test_what_waits_is_brought_forward_when_the_site_answers_more_and_more(way):
    up = threading.Event()

    def answer(ask):
        return "250 2.0.0 site=mx.dead" if up.is_set() else dead_or_good(ask)

    _, one = way(answer)
    one.submit("x@dead.example")
    one.run_until(lambda: one.said)
    waiting = [one.submit(f"u{n}@dead.example") for n in range(60)]
    for id in reversed(waiting):
        one.outlet.wait("dead.example", id, {"1"})
    assert one.brought == []
    up.set()
    one.submit("y@dead.example", forced=5.0)
    one.run_until(lambda: one.brought)
    assert one.brought == [(id, {"1"}) for id in waiting[:traffic.FIRST_BROUGHT]]
    one.submit("z@dead.example")
    one.run_until(lambda: len(one.brought) > traffic.FIRST_BROUGHT)
    assert len(one.brought) == traffic.FIRST_BROUGHT + traffic.MORE_BROUGHT
    one.outlet.wait("dead.example", "late", {"2"})
    assert one.brought[-1] == ("late", {"2"})


def close_second(count):
    return CLOSE if count == 2 else None


@pytest.mark.parametrize(("destination", "xmq"), [("remote", False), ("new", True)])
def test_a_session_closed_while_idle_costs_nothing_if_the_body_was_not_given(way, destination, xmq):
    service, one = way(lambda ask: "250 2.0.0 ok", limit=1, xmq=xmq, on_mail=close_second,
                       destination=destination)
    one.submit("a@example.org")
    one.run_until(lambda: one.said)
    one.submit("b@example.org")
    one.run_until(lambda: len(one.said) == 2)
    assert one.kinds() == {"a@example.org": "done", "b@example.org": "done"}
    assert service.sessions == 2


@pytest.mark.parametrize(("xmq", "on_mail"), [
    (True, close_second), (False, lambda count: CLOSE)])
def test_else_it_costs_a_while(way, xmq, on_mail):
    """The service may have the body; or it closes sessions that are new."""
    _, one = way(lambda ask: "250 2.0.0 ok", limit=1, xmq=xmq, on_mail=on_mail)
    one.submit("a@example.org")
    one.run_until(lambda: one.said)
    one.submit("b@example.org")
    one.run_until(lambda: len(one.said) == 2)
    assert one.kinds()["b@example.org"] == "wait"
    assert one.said[-1][1].broken
