"""Running the checks of a stage, and what their verdicts mean for a recipient. Pure.

A check looks at the facts of a session and says a Verdict. The limits of a stage are asked first,
whatever an option set says, then the others in the order that it gives: OK, RELAY, REJECT, LIMIT and
DISCARD end the stage; DEFER is remembered, and counts if none behind it says OK or RELAY (a trouble of
one check must not refuse what another allows). Behind a check in trouble, which might have said OK,
REJECT and DISCARD are DEFER: also that of a later stage, as far as it waits for RCPT.

What connect, helo and mail say against a client is told at RCPT, recipient by recipient: whoever RCPT's
own checks take (OK, RELAY) gets mail from everybody, but no more of it than the limits allow: LIMIT is
told as DEFER is, and nobody lifts it.
"""

from __future__ import annotations

from mqmail.policy.verdict import DEFER, DISCARD, LIMIT, NEXT, NO_OPINION, OK, REJECT, RELAY, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from mqmail.policy.facts import Facts
    from mqmail.xmtp.reply import Reply

KEPT = ("connect", "helo", "mail")      # stages whose verdicts wait for RCPT
_FINAL = (OK, RELAY, REJECT, LIMIT, DISCARD)
_AGAINST = (REJECT, DISCARD)
_TROUBLE = reply(451, "4.3.0", "internal trouble, try again later")


class Check:
    """One rule. *name* is what an option set's ``checks=`` calls it, *stage* one of facts.STAGES. A
    *limit* is asked of everybody, and nobody lifts a trouble with it. What *leads* is asked before the
    others that an option set names. *sees_taken*: at RCPT it wants to know who has been taken before."""

    name = ""
    stage = ""
    limit = False
    leads = False
    sees_taken = False

    def look(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """What it says, at once or awaited; NO_OPINION for most. An exception is a bug: the client is
        told to come again. Under the blocking shell nothing that is awaited may suspend."""
        raise NotImplementedError


class Stages:
    """The *checks* there are, limits first. *chosen* gives the names of those that the option set in
    force wants, in its order, None for all as they stand; *failed* is told of a check's exception."""

    def __init__(self, checks: Iterable[Check], chosen: Callable[[Facts], tuple[str, ...] | None],
                 failed: Callable[[Check, Exception], None]) -> None:
        self._checks: dict[str, list[Check]] = {}
        for check in checks:
            self._checks.setdefault(check.stage, []).append(check)
        self._orders: dict[tuple[str, ...] | None, dict[str, tuple[Check, ...]]] = {}
        self._chosen = chosen
        self._failed = failed
        self.sees_taken = any([check.sees_taken for check in self._checks.get("rcpt", ())])

    def has(self, stage: str) -> bool:
        """Whether anything is to be asked."""
        return stage in self._checks

    def order(self, stage: str, facts: Facts) -> tuple[Check, ...]:
        """The checks of *stage* that the option set in force wants."""
        wanted = self._chosen(facts)
        found = self._orders.get(wanted)
        if found is None:       # once for each option set
            found = self._orders[wanted] = {
                name: _in_order(checks, wanted) for name, checks in self._checks.items()}
        return found.get(stage, ())

    async def run(self, stage: str, facts: Facts) -> Verdict:
        """The verdict of *stage*, noted in ``facts.said`` unless it is RCPT's. An option set is in force
        (``facts.options``) from the check on that names it; *fields* are those of all checks."""
        deferred = trouble = NO_OPINION
        fields: tuple[str, ...] = ()
        recipients: tuple[tuple[str, Reply], ...] = ()
        order, asked = self.order(stage, facts), 0
        while asked < len(order):
            check = order[asked]
            asked += 1
            try:
                said = check.look(facts)
                if said is NO_OPINION:          # nearly always
                    continue
                if not isinstance(said, Verdict):
                    said = await said
            except Exception as error:  # noqa: BLE001  one check's bug is temporary, and not the session's end
                self._failed(check, error)
                said = Verdict(LIMIT if check.limit else DEFER, _TROUBLE, why="bug", trouble=True)
            if said is NO_OPINION:
                continue
            said = _behind(trouble, _signed(said, check))
            trouble = trouble if trouble.trouble else said
            fields += said.fields
            recipients += said.recipients
            if said.options:
                facts.options = said.options
                over = order[:asked]
                order = (*over, *[one for one in self.order(stage, facts) if one not in over])
            if said.action in _FINAL:
                return _note(stage, facts, said, fields, recipients)
            if said.action == DEFER and deferred is NO_OPINION:
                deferred = said
        return _note(stage, facts, _in_doubt(deferred, trouble), fields, recipients)


def _signed(said: Verdict, check: Check) -> Verdict:
    """With the name of who says it."""
    if said.action == NEXT and not said.trouble or said.check:
        return said
    return Verdict(said.action, said.reply, check.name, said.why, said.options, said.fields,
                   said.recipients, said.trouble)


def _in_order(checks: list[Check], wanted: tuple[str, ...] | None) -> tuple[Check, ...]:
    if wanted is None:
        return tuple(checks)
    limits = [check for check in checks if check.limit]
    others = [check for check in checks if check.name in wanted and not check.limit]
    others.sort(key=lambda check: -1 if check.leads else wanted.index(check.name))
    return (*limits, *others)


def _note(stage: str, facts: Facts, said: Verdict, fields: tuple[str, ...],
          recipients: tuple[tuple[str, Reply], ...]) -> Verdict:
    """*said* with all *fields* and *recipients*; kept if it is one that is looked at again."""
    found = said
    if said is not NO_OPINION or fields or recipients or facts.options:
        found = Verdict(said.action, said.reply, said.check, said.why, facts.options, fields, recipients,
                        said.trouble)
    if stage != "rcpt":
        facts.said[stage] = found
    return found


def _behind(trouble: Verdict, said: Verdict) -> Verdict:
    """*said*, by a check behind one that may have been in *trouble*."""
    if not trouble.trouble or said.action not in _AGAINST:
        return said
    return Verdict(DEFER, trouble.reply, trouble.check, trouble.why, said.options, said.fields,
                   trouble=True)


def _in_doubt(deferred: Verdict, trouble: Verdict) -> Verdict:
    """What a stage says with *deferred*, if a check may have been in *trouble*."""
    if not trouble.trouble or deferred.trouble:
        return deferred
    return Verdict(deferred.action, deferred.reply or trouble.reply, deferred.check,
                   deferred.why or trouble.why, trouble=True)


def for_recipient(facts: Facts, said: Verdict) -> Verdict:
    """What holds for a recipient of whom RCPT's checks say *said*: theirs, if it is final and no LIMIT
    is kept; else what was kept against the client: the first REJECT, else LIMIT, DISCARD, DEFER. The
    option set is in any case RCPT's: what was kept is older."""
    kept = [facts.said[stage] for stage in KEPT if stage in facts.said]
    if said.action in (REJECT, LIMIT):
        return said
    if said.action in _FINAL:
        return next((one for one in kept if one.action == LIMIT), said)
    trouble = next((one for one in kept if one.trouble), NO_OPINION)
    first = kept.index(trouble) if trouble.trouble else 0
    kept[first + 1:] = [_behind(trouble, one) for one in kept[first + 1:]]
    for action in (REJECT, LIMIT, DISCARD, DEFER):
        for one in (*kept, said):
            if one.action == action:
                return Verdict(one.action, one.reply, one.check, one.why, said.options)
    return said


def may_relay(facts: Facts, said: Verdict) -> bool:
    """Whether the recipient of whom RCPT's checks say *said* may be anywhere."""
    return facts.relay or said.action == RELAY or any(
        [facts.said[stage].action == RELAY for stage in KEPT if stage in facts.said])


def fields_of(facts: Facts) -> tuple[str, ...]:
    """The header fields that the stages so far want added: those of the last stage first."""
    found: tuple[str, ...] = ()
    for stage in (*KEPT, "header", "body"):
        if stage in facts.said:
            found = facts.said[stage].fields + found
    return found
