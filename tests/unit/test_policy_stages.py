"""The checks of a stage: who is asked, who is believed, and what a recipient gets of it."""

import pytest

from mqmail.base.waiter import Waiter, run
from mqmail.control.optionsets import CHECKS, LIMITS
from mqmail.policy import dnschecks, inflow, known
from mqmail.policy.accounts import Accounts
from mqmail.policy.facts import Facts
from mqmail.policy.senders import Senders
from mqmail.policy.stages import Check, Stages, fields_of, for_recipient, may_relay
from mqmail.policy.verdict import DEFER, DISCARD, LIMIT, NEXT, NO_OPINION, OK, REJECT, RELAY, Verdict
from mqmail.xmtp.reply import reply

LATER = reply(451, "4.7.1", "later")
NEVER = reply(550, "5.7.1", "never")


class Says(Check):
    def __init__(self, said, name="it", stage="mail", waits=False):
        self.name, self.stage, self._said, self._waits = name, stage, said, waits
        self.asked = 0

    def look(self, facts):
        self.asked += 1
        return self._later() if self._waits else self._said

    async def _later(self):
        waiter = Waiter()
        waiter.set(self._said)
        return await waiter


class Breaks(Check):
    name, stage = "broken", "mail"

    def __init__(self, limit=False):
        self.limit = limit

    def look(self, facts):
        raise KeyError("x")


def stages(*checks, chosen=lambda _name: None, failed=lambda _check, _error: None):
    return Stages(checks, chosen, failed)


def ask(checks, stage="mail", facts=None, **more):
    return run(stages(*checks, **more).run(stage, facts or Facts("s")))


@pytest.mark.parametrize("action", [OK, RELAY, REJECT, LIMIT, DISCARD])
@pytest.mark.parametrize("waits", [False, True])
def test_a_final_verdict_ends_the_stage(action, waits):
    behind = Says(Verdict(OK))
    said = ask([Says(NO_OPINION), Says(Verdict(action, NEVER), "b", waits=waits), behind])
    assert (said.action, said.check, said.reply, behind.asked) == (action, "b", NEVER, 0)


@pytest.mark.parametrize(("behind", "wins"), [
    (OK, OK), (RELAY, RELAY), (REJECT, REJECT), (NEXT, DEFER), (DEFER, DEFER)])
def test_a_deferral_counts_if_nobody_decides(behind, wins):
    said = ask([Says(Verdict(DEFER, LATER), "a"), Says(Verdict(behind, NEVER), "b")])
    assert said.action == wins
    assert said.check == ("a" if wins == DEFER else "b")


def test_only_the_checks_of_the_stage_are_asked():
    other = Says(Verdict(REJECT, NEVER), stage="rcpt")
    assert ask([other]).action == NEXT
    assert not other.asked
    assert stages(other).has("rcpt")
    assert not stages(other).has("mail")


def test_a_bug_is_temporary_and_the_next_is_asked():
    failed = []
    said = ask([Breaks(), Says(NO_OPINION)], failed=lambda *what: failed.append(what))
    assert (said.action, said.reply.code, said.check) == (DEFER, 451, "broken")
    assert failed[0][0].name == "broken"
    assert isinstance(failed[0][1], KeyError)
    assert ask([Breaks(), Says(Verdict(OK))]).action == OK


def test_an_option_set_is_in_force_for_the_checks_behind():
    facts = Facts("s")
    off, on = Says(Verdict(REJECT, NEVER), "dnsbl"), Says(Verdict(DEFER, LATER), "spf")
    chosen = lambda facts: {"friends": ("spf",)}.get(facts.options)  # noqa: E731
    said = ask([Says(Verdict(options="friends")), off, on], facts=facts, chosen=chosen)
    assert (said.action, said.check, off.asked) == (DEFER, "spf", 0)
    assert facts.options == said.options == "friends"


class Limit(Says):
    limit = True


class Leader(Says):
    leads = True


def names_in_order(wanted, *checks):
    one = stages(*checks, chosen=lambda _facts: wanted)
    assert one.order("mail", Facts("s")) is one.order("mail", Facts("t"))       # found once
    return [check.name for check in one.order("mail", Facts("s"))]


@pytest.mark.parametrize(("wanted", "order"), [
    (None, "throttle access spf hooks"), (("hooks", "spf", "access"), "throttle hooks spf access"),
    (("spf",), "throttle spf"), ((), "throttle"), (("spf", "dnsbl"), "throttle spf")])
def test_an_option_set_says_the_order_but_not_that_of_limits(wanted, order):
    others = [Says(NO_OPINION, name) for name in ("access", "spf", "hooks")]
    checks = [Limit(NO_OPINION, "throttle"), *others, Says(NO_OPINION, "spf", stage="rcpt")]
    assert names_in_order(wanted, *checks) == order.split()


def test_what_leads_is_before_those_that_want_to_know():
    checks = [Leader(NO_OPINION, "reversename"), Says(NO_OPINION, "access")]
    assert names_in_order(("access", "reversename"), *checks) == ["reversename", "access"]
    assert names_in_order(("access",), *checks) == ["access"]


def test_nobody_is_asked_twice_when_the_order_changes():
    facts = Facts("s")
    access = Says(Verdict(options="friends"), "access")
    spf, hooks = Says(NO_OPINION, "spf"), Says(NO_OPINION, "hooks")
    chosen = lambda facts: {"friends": ("spf", "hooks", "access")}.get(facts.options)  # noqa: E731
    ask([hooks, access, spf], facts=facts, chosen=chosen)
    assert (access.asked, spf.asked, hooks.asked) == (1, 1, 1)


def test_a_limit_that_fails_is_not_lifted():
    said = ask([Breaks(limit=True), Says(Verdict(OK))])
    assert (said.action, said.reply.code) == (LIMIT, 451)


def test_fields_of_all_checks_are_kept_last_stage_first():
    facts = Facts("s")
    one, two = Says(Verdict(fields=("A: 1", "B: 2"))), Says(Verdict(OK, fields=("C: 3",)))
    ask([one, two], facts=facts)
    ask([Says(Verdict(fields=("D: 4",)), stage="connect")], "connect", facts)
    assert fields_of(facts) == ("A: 1", "B: 2", "C: 3", "D: 4")


def with_kept(**said):
    facts = Facts("s")
    facts.said.update({stage: Verdict(action, NEVER, stage) for stage, action in said.items()})
    return facts


@pytest.mark.parametrize(("kept", "own", "holds", "of"), [
    ({}, NEXT, NEXT, ""),
    ({"connect": REJECT}, NEXT, REJECT, "connect"),
    ({"connect": REJECT}, OK, OK, ""),
    ({"connect": REJECT, "mail": DEFER}, RELAY, RELAY, ""),
    ({"connect": DEFER, "mail": REJECT}, NEXT, REJECT, "mail"),
    ({"connect": DEFER, "helo": DISCARD}, NEXT, DISCARD, "helo"),
    ({"mail": DEFER}, NEXT, DEFER, "mail"),
    ({"mail": DEFER}, REJECT, REJECT, ""),
    ({"connect": OK}, DEFER, DEFER, ""),
    ({"mail": REJECT}, DEFER, REJECT, "mail"),
])
def test_what_holds_for_a_recipient(kept, own, holds, of):
    said = for_recipient(with_kept(**kept), Verdict(own))
    assert (said.action, said.check) == (holds, of)


def test_what_was_kept_brings_no_option_set_back():
    facts = Facts("s")
    facts.said["connect"] = Verdict(DISCARD, options="old", why="x")
    assert for_recipient(facts, Verdict(options="new")) == Verdict(DISCARD, options="new", why="x")


def test_who_may_relay():
    facts = Facts("s")
    assert not may_relay(facts, NO_OPINION)
    assert may_relay(facts, Verdict(RELAY))
    assert may_relay(with_kept(connect=RELAY), NO_OPINION)
    facts.relay = True
    assert may_relay(facts, NO_OPINION)


def test_a_new_message_forgets_the_old_ones_verdicts():
    facts = with_kept(connect=DEFER, mail=REJECT, header=OK)
    facts.recipients.append("a@b")
    facts.forget_message()
    assert list(facts.said) == ["connect"]
    assert facts.recipients == []


def test_the_known_checks_are_those_that_option_sets_may_name():
    assert all(callable(factory) for _, factory in known.FACTORIES)
    names = list(dict.fromkeys([name for name, _ in known.FACTORIES]))
    limits = len(LIMITS)
    assert names[:limits] == [*LIMITS]
    names.remove("reversename")         # the look-up at connect; its place is that of the refusal
    at_mail = [name for name, _ in dnschecks.FACTORIES]
    assert names[limits:] == [name for name in CHECKS if name != "reversename"]
    assert at_mail == [name for name in CHECKS if name in at_mail]


@pytest.mark.parametrize("kind", [*inflow.KINDS, Accounts, Senders])
def test_limits_are_limits(kind):
    assert kind.limit
    assert kind.name in LIMITS


@pytest.mark.parametrize(("said", "gets"), [
    (OK, LIMIT), (RELAY, LIMIT), (DISCARD, LIMIT), (NEXT, LIMIT), (REJECT, REJECT)])
@pytest.mark.parametrize("stage", ["connect", "mail"])
def test_nobody_lifts_a_limit(stage, said, gets):
    facts = Facts("s")
    facts.said[stage] = Verdict(LIMIT, LATER)
    assert for_recipient(facts, Verdict(said)).action == gets


def test_who_is_refused_is_not_told_of_limits():
    facts = Facts("s")
    facts.said.update(connect=Verdict(REJECT, NEVER), mail=Verdict(LIMIT, LATER))
    assert for_recipient(facts, NO_OPINION).action == REJECT


def test_behind_a_check_in_trouble_nobody_is_refused_for_good():
    """It might have said OK; and whoever is behind may say so."""
    never = Verdict(REJECT, NEVER)
    said = ask([Breaks(), Says(never)])
    assert (said.action, said.reply.code, said.check) == (DEFER, 451, "broken")
    assert ask([Breaks(), Breaks(), Says(Verdict(OK)), Says(never)]).action == OK
    assert ask([Says(never), Breaks()]).action == REJECT
    assert ask([Breaks(), Says(Verdict(DISCARD))]).action == DEFER
    unsure = Says(Verdict(NEXT, LATER, trouble=True))
    assert ask([unsure]).action == NEXT
    assert ask([unsure, Says(never)]).reply == ask([Says(Verdict(DEFER, LATER)), unsure]).reply == LATER


def test_nor_at_a_later_stage():
    facts = Facts("s")
    facts.said = {"connect": Verdict(NEXT, LATER, trouble=True), "mail": Verdict(REJECT, NEVER)}
    said = for_recipient(facts, NO_OPINION)
    assert (said.action, said.reply) == (DEFER, LATER)
    assert for_recipient(facts, Verdict(OK)).action == OK
    assert for_recipient(facts, Verdict(REJECT, NEVER)).action == REJECT
    facts.said["connect"] = Verdict(REJECT, NEVER)
    assert for_recipient(facts, NO_OPINION).reply == NEVER
    facts.said = {"connect": Verdict(NEXT, LATER, trouble=True)}
    assert for_recipient(facts, NO_OPINION).action == NEXT
