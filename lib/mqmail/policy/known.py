"""Which checks there are: name -> how one is made."""

from __future__ import annotations

import os

from mqmail.policy import dnschecks, header
from mqmail.policy.accounts import Accounts
from mqmail.policy.facts import STAGES
from mqmail.policy.senders import Authors, Senders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.policy.stages import Check

    Factory = Callable[[Control, Any], Check | None]


def _late(module: str, is_needed: Callable[[Control, Any], bool], *kind: object) -> Factory:
    """What ``module.make`` is, or with *kind* gives, when *is_needed* says so: not imported before, for a
    process may live for one session."""
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
    ("senders", lambda control, _services: Senders(control.logins)),
    ("senders", lambda control, _services: Authors(control.logins, control.optionsets)),
    ("accounts", lambda _control, services: Accounts(services.book, "messages")),
    ("accounts", lambda _control, services: Accounts(services.book, "recipients")),
    ("reversename", dnschecks.reverse_name),
    *[("access", _late("access", _there("access", "access.cdb", "access.sqlite"), stage))
      for stage in STAGES[:4]],
    *dnschecks.FACTORIES,
    ("verify", _late("verify", _there("verify"))),
    ("header", header.make),
    *[("hooks", _late("hooks", _there("hooks.py"), stage)) for stage in STAGES],
)

# What is imported when it is first needed: a program that gives up the right to read its modules does so
# before.
LATE_IMPORTS = (*[f"mqmail.policy.{name}" for name in (
    "access", "asking", "cdb", "hooks", "inflow", "sqlitemap", "verify")],
    *dnschecks.LATE_IMPORTS)


def import_late() -> None:
    """All of them."""
    for name in LATE_IMPORTS:
        __import__(name)


def make_checks(control: Control, services: Any) -> list[Check]:
    """The checks of one process, in order."""
    made = [factory(control, services) for _, factory in FACTORIES]
    return [check for check in made if check is not None]
