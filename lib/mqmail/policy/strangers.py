"""Checks of clients that nobody vouches for."""

from __future__ import annotations

from mqmail.policy.stages import Check
from mqmail.policy.verdict import NO_OPINION, OK, RELAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mqmail.control.networks import Networks
    from mqmail.policy.facts import Facts
    from mqmail.policy.verdict import Verdict



def is_this_host(facts: Facts) -> bool:
    """Whether the client is a local user or comes over the loopback."""
    return facts.local or facts.ip in ("127.0.0.1", "::1")


def is_stranger(facts: Facts, trusted: Networks) -> bool:
    """Whether the client is another mail host as far as we know: it has come to a listener for them, has
    not logged in, may not relay, is not in *trusted*, and nothing at connect has said OK."""
    if facts.role != "mx" or facts.login or facts.relay or is_this_host(facts):
        return False
    said = facts.said.get("connect", NO_OPINION).action
    return said not in (OK, RELAY) and not trusted.contains(facts.ip)


class StrangerCheck(Check):
    """Has no opinion on others. *trusted*: control/relayclients."""

    def __init__(self, trusted: Networks) -> None:
        self._trusted = trusted

    def look(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """See Check."""
        return self.judge(facts) if is_stranger(facts, self._trusted) else NO_OPINION

    def judge(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """The verdict on a stranger."""
        raise NotImplementedError
