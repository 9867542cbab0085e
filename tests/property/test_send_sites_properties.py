"""Sites, whatever services say: nobody is held back for long, and the counts stay right."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.prog.mq_send.agenda import Agenda
from mqmail.prog.mq_send.sites import PROBE, Sites, later

NOW = 1_732_252_800.0
MOST = 86400.0

domains = st.sampled_from([f"{c}.example" for c in "abcde"])
names = st.sampled_from(["mx1", "mx2", "mx3", "@a.example", ""])
ids = st.sampled_from("stuvwxyz")
seqs = st.sampled_from(["1", "2", "2.1"])
fuzzes = st.floats(0, 1, exclude_max=True)
steps = st.lists(st.tuples(
    st.sampled_from(["fell", "answered", "hold", "wait", "release"]), domains, names, ids, seqs,
    st.floats(-MOST, MOST), st.integers(1, int(MOST)), fuzzes), max_size=40)


@settings(deadline=None)
@given(steps, st.integers(1, 5), st.integers(1, 8))
def test_times_are_bounded_and_so_is_what_is_known(history, most, most_waiting):
    sites, now = Sites(most, most_waiting), NOW
    for kind, domain, name, id, seq, passed, retry, fuzz in history:
        now += passed
        if kind == "fell" and name:
            until, _ = sites.fell(domain, name, id, now, float(retry), fuzz, "", "")
            assert now < until <= now + retry + 2.0 + later(MOST, fuzz)
        elif kind == "answered":
            sites.answered(domain, name, id, seq)
            assert not name or sites.is_open(domain, now)
        elif kind == "hold":
            hold = sites.hold(domain, id, now, fuzz)
            assert hold is None or now < hold.until <= now + MOST + 2.0 + later(MOST, fuzz)
        elif kind == "wait":
            sites.wait(domain, id, {seq})
        else:
            found = sites.release(domain, 2)
            assert found == sorted(found, key=lambda one: one[0])
            assert len(found) <= 2
        held = [len(s) for site in sites._sites.values() for s in site.waiting.values()]
        assert sites._waiting == sum(held) <= most_waiting
        assert all(held)
        assert len(sites._sites) <= most
        assert len(sites._domains) <= most


@settings(deadline=None)
@given(st.lists(st.tuples(ids, domains, fuzzes), min_size=1, max_size=60), st.integers(1, 10000))
def test_a_dead_site_is_asked_after_once_in_its_time(messages, retry):
    """Whoever comes while it is down, and however often: one question each time."""
    sites, now, asked = Sites(), NOW, 0
    for domain in {domain for _, domain, _ in messages}:
        sites.answered(domain, "mx", "", "")
    due = sorted((now + 1.0 + number, f"{id}{number}", domain, fuzz)
                 for number, (id, domain, fuzz) in enumerate(messages))
    end = now + 4 * retry
    while due and due[0][0] <= end:
        now, id, domain, fuzz = due.pop(0)
        hold = sites.hold(domain, id, now, fuzz)
        if hold is None:
            asked += 1
            at, _ = sites.fell(domain, "mx", id, now, float(retry), fuzz, "", "")
        else:
            at = hold.until
        assert at > now
        due = sorted([*due, (at, id, domain, fuzz)])
    assert 1 <= asked <= 5


@settings(deadline=None)
@given(ids, domains, st.integers(1, 86400), fuzzes)
def test_without_the_one_that_asks_first_the_others_come_by_themselves(id, domain, retry, fuzz):
    sites = Sites()
    sites.fell(domain, "mx", "first", NOW, float(retry), fuzz, "", "")
    hold = sites.hold(domain, id, NOW + 0.5, fuzz)
    assert sites.hold(domain, id, hold.until, fuzz) is None
    sites.hold(domain, "another", hold.until + PROBE, fuzz)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["due", "bring", "next", "all", "fresh"]), ids,
                          st.integers(0, 20)), max_size=60))
def test_no_waiting_message_is_ever_forgotten(history):
    """Whatever is brought forward, an id that waits comes by its own time at the latest."""
    agenda, times, now = Agenda(), {}, 0.0
    for kind, id, number in history:
        if kind == "due" and id not in times:
            times[id] = now + number
            agenda.add_due(id, times[id])
        elif kind == "bring":
            agenda.bring([(id, frozenset("1"))])
        elif kind == "all":
            agenda.force_all()
        elif kind == "fresh":
            agenda.add_fresh(id)
        else:
            now += 1.0
            while (found := agenda.next(now)) is not None:
                again = found[0] in times and number > 10
                agenda.finished(found[0], gone=not again)
                times.pop(found[0], None)
                if again:
                    times[found[0]] = now + number
                    agenda.add_due(found[0], times[found[0]])
            assert all(at > now for at in times.values())
