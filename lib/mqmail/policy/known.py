"""Which checks there are: name -> how one is made."""

from __future__ import annotations

from mqmail.policy import access, dnschecks, header, hooks, inflow, verify
from mqmail.policy.accounts import Accounts
from mqmail.policy.facts import STAGES
from mqmail.policy.senders import Senders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.policy.stages import Check

    Factory = Callable[[Control, Any], Check | None]

# Control files that the checks read: xmtpd loads them for all its sessions.
CONTROL: tuple[str, ...] = ("logins", "access", "detaildelimiter", "verify", "destinations", "throttles",
                            "concurrencyincoming", "headerchecks", *dnschecks.CONTROL)

# The limits first, the others in the order in which they are asked if an option set says no other: that
# of control/optionsets.CHECKS, but for the look-up of a name at connect. A factory gets the control
# files and the services of the process (prog/xmtpd/services.py), and returns None when there is
# nothing to check. A name may stand for a check in several stages: one entry each.
FACTORIES: tuple[tuple[str, Factory], ...] = (
    *[("throttle", inflow.maker(kind)) for kind in inflow.THROTTLES],
    *[("pressure", inflow.maker(kind)) for kind in inflow.PRESSURES],
    ("senders", lambda control, _services: Senders(control.logins)),
    ("accounts", lambda _control, services: Accounts(services.book, "messages")),
    ("accounts", lambda _control, services: Accounts(services.book, "recipients")),
    ("reversename", dnschecks.reverse_name),
    *[("access", access.make(stage)) for stage in access.TAGS],
    *dnschecks.FACTORIES,
    ("verify", verify.make),
    ("header", header.make),
    *[("hooks", hooks.make(stage)) for stage in STAGES],
)

# What is imported when it is first needed: a program that gives up the right to read its modules does so
# before.
LATE_IMPORTS = ("mqmail.policy.asking", "mqmail.policy.cdb", "mqmail.policy.sqlitemap",
                *dnschecks.LATE_IMPORTS)


def import_late() -> None:
    """All of them."""
    for name in LATE_IMPORTS:
        __import__(name)


def make_checks(control: Control, services: Any) -> list[Check]:
    """The checks of one process, in order."""
    made = [factory(control, services) for _, factory in FACTORIES]
    return [check for check in made if check is not None]
