"""Whatever the checks say, and in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from mqmail.base.waiter import run
from mqmail.policy.facts import Facts
from mqmail.policy.stages import Check, Stages, for_recipient
from mqmail.policy.verdict import DEFER, DISCARD, NEXT, OK, REJECT, RELAY, Verdict

ACTIONS = st.sampled_from((OK, RELAY, REJECT, DEFER, DISCARD, NEXT))
FINAL = (OK, RELAY, REJECT, DISCARD)


class Says(Check):
    stage = "mail"

    def __init__(self, number, action):
        self.name, self._action = str(number), action

    def look(self, facts):
        return Verdict(self._action)


@given(st.lists(ACTIONS, max_size=8))
def test_the_first_final_verdict_wins_else_the_first_deferral(actions):
    checks = [Says(number, action) for number, action in enumerate(actions)]
    facts = Facts("s")
    said = run(Stages(checks, lambda _name: None, lambda _c, _e: None).run("mail", facts))
    final = [(a, str(n)) for n, a in enumerate(actions) if a in FINAL]
    deferred = [(a, str(n)) for n, a in enumerate(actions) if a == DEFER]
    assert (said.action, said.check) == (final + deferred + [(NEXT, "")])[0]
    assert facts.said["mail"] == said


@given(st.dictionaries(st.sampled_from(("connect", "helo", "mail")), ACTIONS), ACTIONS)
def test_who_takes_all_is_reached_and_nothing_else_is_forgotten(kept, own):
    facts = Facts("s")
    facts.said.update({stage: Verdict(action) for stage, action in kept.items()})
    holds = for_recipient(facts, Verdict(own)).action
    if own in FINAL:
        assert holds == own
    elif REJECT in kept.values():
        assert holds == REJECT
    else:
        against = {DISCARD, DEFER} & {*kept.values(), own}
        assert holds == (DISCARD if DISCARD in against else DEFER if against else NEXT)
