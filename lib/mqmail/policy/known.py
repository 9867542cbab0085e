"""Which checks there are: name -> how one is made."""

from __future__ import annotations

import os

from mqmail.control.optionsets import LIMITS
from mqmail.policy import dnschecks
from mqmail.policy.accounts import Accounts
from mqmail.policy.facts import STAGES
from mqmail.policy.stages import Check
from mqmail.policy.verdict import NO_OPINION, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.policy.facts import Facts

    Factory = Callable[[Control, Any], Check | None]


def _late(module: str, is_needed: Callable[[Control, Any], bool], *kind: object) -> Factory:
    """What ``module.make`` is, or with *kind* gives, when *is_needed* says so: not imported before, for
    a process may live for one session."""
    def factory(control: Control, services: Any) -> Check | None:
        if not is_needed(control, services):
            return None
        make: Any = __import__(f"mqmail.policy.{module}", fromlist=["*"]).make
        found: Check | None = (make(*kind) if kind else make)(control, services)
        return found

    return factory


def _counts(_control: Control, services: Any) -> bool:
    """Where a process has but one session there is nothing to count."""
    return services.inflow is not None


def _there(*names: str) -> Callable[[Control, Any], bool]:
    return lambda _control, _services: any([os.path.lexists(f"control/{name}") for name in names])


class _Unmade(Check):
    """Stands for what *make* makes when it is first asked; that may be None."""

    def __init__(self, name: str, stage: str, make: Callable[[], Check | None]) -> None:
        self.name = name
        self.stage = stage
        self.limit = name in LIMITS
        self._make = make
        self._check: Check | None = None
        self._is_made = False

    def look(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """As it says."""
        if not self._is_made:
            self._check, self._is_made = self._make(), True
        return NO_OPINION if self._check is None else self._check.look(facts)


def _when_met(name: str, stage: str, factory: Factory) -> Factory:
    """*factory*'s check, in a process for one session not made before a message comes: what these need
    takes longer than a short session."""
    def late(control: Control, services: Any) -> Check | None:
        if services.loop is not None:
            return factory(control, services)
        return _Unmade(name, stage, lambda: factory(control, services))

    return late


def _senders(control: Control, _services: Any) -> Check | None:
    from mqmail.policy.senders import Senders
    return Senders(control.logins)


def _authors(control: Control, _services: Any) -> Check | None:
    from mqmail.policy.senders import Authors
    return Authors(control.logins, control.optionsets)


def _header(control: Control, services: Any) -> Check | None:
    from mqmail.policy.header import make
    return make(control, services)


# Control files that the checks read: xmtpd loads them for all its sessions.
CONTROL: tuple[str, ...] = ("logins", "access", "detaildelimiter", "verify", "destinations", "throttles",
                            "concurrencyincoming", "headerchecks", *dnschecks.CONTROL)

# The limits first, the others in the order in which they are asked if an option set says no other: that
# of control/optionsets.CHECKS, but for the look-up of a name at connect. A factory gets the control
# files and the services of the process (prog/xmtpd/services.py), and returns None when there is
# nothing to check. A name may stand for a check in several stages: one entry each.
FACTORIES: tuple[tuple[str, Factory], ...] = (
    *[(name, _late("inflow", _counts, name, stage)) for name, stage in (
        ("throttle", "connect"), ("throttle", "mail"), ("throttle", "rcpt"),
        ("pressure", "connect"), ("pressure", "mail"))],
    ("senders", _when_met("senders", "mail", _senders)),
    ("senders", _when_met("senders", "header", _authors)),
    ("accounts", lambda _control, services: Accounts(services.book, "messages")),
    ("accounts", lambda _control, services: Accounts(services.book, "recipients")),
    ("reversename", dnschecks.reverse_name),
    *[("access", _late("access", _there("access", "access.cdb", "access.sqlite"), stage))
      for stage in STAGES[:4]],
    *dnschecks.FACTORIES,
    ("verify", _late("verify", _there("verify"))),
    ("header", _when_met("header", "header", _header)),
    *[("hooks", _late("hooks", _there("hooks.py"), stage)) for stage in STAGES],
)

# What is imported when it is first needed: a program that gives up the right to read its modules does so
# before.
LATE_IMPORTS = (*[f"mqmail.policy.{name}" for name in (
    "access", "asking", "cdb", "header", "hooks", "inflow", "rewrite", "senders", "sqlitemap",
    "verify")],
    *dnschecks.LATE_IMPORTS)


def import_late() -> None:
    """All of them."""
    for name in LATE_IMPORTS:
        __import__(name)


def make_checks(control: Control, services: Any) -> list[Check]:
    """The checks of one process, in order."""
    made = [factory(control, services) for _, factory in FACTORIES]
    return [check for check in made if check is not None]
