"""Who has logged in uses the senders that control/logins gives the login, and no others."""

from __future__ import annotations

from mqmail.policy.stages import Check
from mqmail.policy.verdict import NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.logins import Logins
    from mqmail.policy.facts import Facts


class Senders(Check):
    """*logins*: the table."""

    name = "senders"
    stage = "mail"
    limit = True

    def look(self, facts: Facts) -> Verdict:
        """No opinion on who has not logged in."""
        sender = facts.sender or ""
        if not facts.login or self._logins.may_send(facts.login, sender):
            return NO_OPINION
        return Verdict(REJECT, reply(553, "5.7.1", f"{facts.login} may not send as {sender}"[:400]),
                       why="not a sender of this login")

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
