"""Checks that let in no more than control/throttles says, and less while the queue is behind."""

from __future__ import annotations

from mqmail.policy.facts import SUBMISSION
from mqmail.policy.pressure import REFUSE
from mqmail.policy.stages import Check
from mqmail.policy.verdict import LIMIT, NO_OPINION, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.policy.facts import Facts
    from mqmail.policy.pressure import Pressure
    from mqmail.policy.throttle import Rules, Throttle

FOR_USERS = 0.1         # of all sessions: who submits mail may have so many more under pressure
_BUSY = reply(421, "4.3.2", "too busy, come back later")
_LATER = reply(451, "4.3.2", "too busy, try again later")
_NO_SPACE = reply(452, "4.3.1", "not enough disk space, try again later")


class Inflow:
    """What the checks of a process share: *throttle*, *pressure*, *clock* (seconds, never back) and
    *pause*, to be awaited for so many seconds."""

    def __init__(self, throttle: Throttle, pressure: Pressure, clock: Callable[[], float],
                 pause: Callable[[float], Awaitable[object]]) -> None:
        self.throttle = throttle
        self.pressure = pressure
        self.clock = clock
        self.pause = pause

    def end(self, session: str) -> None:
        """To be called when a session is over."""
        self.throttle.end(session)


class _Inflow(Check):
    """*control* has throttles and concurrencyincoming."""

    limit = True

    def __init__(self, control: Control, inflow: Inflow) -> None:
        self._throttles = control.throttles
        self._total: int = control.concurrencyincoming
        self._inflow = inflow

    def _rules(self, facts: Facts) -> Rules | None:
        """What holds for the client; None: it is free, as local users are."""
        return None if facts.local else self._throttles.of(facts.ip)


class NewSession(_Inflow):
    """Counts sessions. One that is refused must end: the reply says so."""

    name = "throttle"
    stage = "connect"

    def look(self, facts: Facts) -> Verdict:
        """421, or no opinion."""
        rules = self._rules(facts)
        share = 1.0 if rules is None else self._inflow.pressure.share
        if facts.role in SUBMISSION:
            share = min(1.0, share + FOR_USERS)
        why = self._inflow.throttle.begin(facts.session, rules or [], self._total,
                                          max(1, int(self._total * share)), self._inflow.clock())
        if not why:
            return NO_OPINION
        return Verdict(LIMIT, reply(421, "4.7.0", f"too many {why}, come back later"), why=why)


class _Counted(_Inflow):
    """Counts messages or recipients, as *kind* says."""

    name = "throttle"
    kind = ""

    def look(self, facts: Facts) -> Verdict:
        """451, or no opinion."""
        rules = self._rules(facts) or []
        why = self._inflow.throttle.one_more(self.kind, rules, self._inflow.clock())
        if not why:
            return NO_OPINION
        return Verdict(LIMIT, reply(451, "4.7.0", f"too many {why}, try again later"), why=why)


class NewMessage(_Counted):
    stage = "mail"
    kind = "messages"


class NewRecipient(_Counted):
    stage = "rcpt"
    kind = "recipients"


class PressedSession(_Inflow):
    """Whom the throttles leave free is not asked to wait."""

    name = "pressure"
    stage = "connect"

    def look(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """421 or, after a while, no opinion."""
        return self._answer(facts, _BUSY)

    def _answer(self, facts: Facts, busy: Any) -> Verdict | Awaitable[Verdict]:
        pressure = self._inflow.pressure
        if not pressure.stage or self._rules(facts) is None:
            return NO_OPINION
        if pressure.stage == REFUSE:
            return Verdict(LIMIT, busy, why="the queue is behind")
        return self._wait(pressure.pause)

    async def _wait(self, seconds: float) -> Verdict:
        await self._inflow.pause(seconds)
        return NO_OPINION


class PressedMessage(PressedSession):
    """The same for sessions that go on; and a disk that is too full is so for everybody."""

    stage = "mail"

    def look(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """451, 452 or, after a while, no opinion."""
        if self._inflow.pressure.low:
            return Verdict(LIMIT, _NO_SPACE, why="not enough disk space")
        return self._answer(facts, _LATER)


KINDS: tuple[type[_Inflow], ...] = (NewSession, NewMessage, NewRecipient, PressedSession, PressedMessage)


def make(name: str, stage: str) -> Callable[[Control, Any], Check | None]:
    """A factory of one of the checks (policy/known.py)."""
    [kind] = [kind for kind in KINDS if (kind.name, kind.stage) == (name, stage)]
    return lambda control, services: kind(control, services.inflow)
