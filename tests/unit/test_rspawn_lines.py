"""The planner's lines, hints and hosts, where a test from outside would need luck."""

import pytest

from mqmail.mail.hostmemory import HostMemory
from mqmail.mail.mxlist import Choice, Way
from mqmail.mail.pace import Pace
from mqmail.prog.mq_rspawn.hints import LONGEST, key_of, unmarked, with_hints
from mqmail.remote.carrier import NOT_REACHED, _fitting
from mqmail.remote.sending import CUT, FINAL, Message
from mqmail.remote.verdicts import NOBODY, Host, marked, put_off
from mqmail.xmtp.events import Mail, Rcpt
from mqmail.xmtp.reply import facts_of

T = 1_700_000_000.0
BEST, BACKUP = Choice(10, "mx1.example", 25), Choice(20, "mx2.example", 25)
LATER = put_off("4.2.1", Host("mx2.example[192.0.2.2]:25"), "450 later")


def hinted(verdict, memory, choices=(BEST, BACKUP)):
    answer = with_hints(verdict, choices, memory, T)
    facts = facts_of(answer.text)
    return facts.get("site"), facts.get("retry")


def memory_of(*down):
    memory = HostMemory()
    for choice in down:
        memory.down(key_of(choice.hop), T, 0.0, "4.4.1", "h", "s")
    return memory


def test_a_verdict_of_a_host_says_that_the_site_answers():
    assert hinted(LATER, memory_of()) == ("mx1.example:25", None)


def test_backups_say_nothing_of_a_site_whose_best_host_is_down():
    assert hinted(LATER, memory_of(BEST)) == (None, None)


def test_troubles_of_our_own_say_nothing_of_a_site():
    assert hinted(put_off("4.3.0", NOBODY, "internal trouble"), memory_of()) == (None, None)


def test_where_nobody_was_reached_the_first_of_all_times_counts():
    memory = memory_of(BEST)
    memory.down(key_of(BACKUP.hop), T - 100, 0.0, "4.4.1", "h", "s")
    unreached = marked(put_off("4.4.1", Host("mx1.example[192.0.2.1]:25"), "refused"), NOT_REACHED)
    assert hinted(unreached, memory) == ("mx1.example:25", "300")
    assert hinted(unreached, memory_of()) == (None, None)


@pytest.mark.parametrize("mark", [NOT_REACHED, CUT, FINAL])
def test_what_the_worker_tells_the_planner_goes_no_further(mark):
    assert unmarked(marked(LATER, mark)) == LATER


def test_names_of_sites_are_bounded_and_still_tell_ways_apart():
    ways = [Way(tls="verify", names=tuple([f"n{i}.example" for i in range(90)] + [last]))
            for last in ("x", "y")]
    names = [key_of(("mx.example", 25, way)) for way in ways]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= LONGEST


def test_a_cap_is_kept_until_as_many_transactions_have_succeeded():
    pace = Pace(5, 20)
    pace.capped(2)
    assert pace.limit == 2
    pace.success(1.0)
    assert pace.limit == 2
    pace.success(2.0)
    assert pace.limit == 3
    pace.capped(0)
    assert pace.limit == 1


def test_an_attempt_that_was_not_made_is_left_to_the_next_and_forgets_nothing():
    memory = memory_of(BEST)
    key = key_of(BEST.hop)
    until = memory.until(key, T)
    assert memory.known(key, until) is None
    memory.not_tried(key, until + 1)
    assert memory.known(key, until + 1) is None
    assert memory.down(key, until + 2, 0.0, "4.4.1", "h", "s") - until > 600     # its second failure


class _Peer:
    def __init__(self, limits):
        self.session = self
        self.features = {"LIMITS": limits}


@pytest.mark.parametrize(("limits", "expected"), [
    ("", [0, 1, 2, 3]), ("RCPTMAX=3", [0, 1, 2]), ("RCPTDOMAINMAX=1", [0, 2]),
    ("RCPTMAX=3 RCPTDOMAINMAX=2", [0, 1, 2]), ("rcptdomainmax=9", [0, 1, 2, 3])])
def test_a_transaction_keeps_to_the_limits_that_the_host_announces(limits, expected):
    recipients = tuple([Rcpt(f"{n}@{domain}") for n, domain in enumerate(("a.x", "b.x", "A.x", "c.x"))])
    message = Message(Mail("s@a.x"), recipients, -1, 0, lambda: True)
    assert _fitting(_Peer(limits), message, {0, 1, 2, 3}) == expected
