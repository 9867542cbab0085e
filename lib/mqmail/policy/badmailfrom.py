"""Senders whose mail is refused, as qmail-smtpd has it."""

from __future__ import annotations

from mqmail.mail.address import address_key, domain_of
from mqmail.policy.stages import Check
from mqmail.policy.verdict import NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.policy.facts import Facts

_REFUSED = reply(553, "5.7.1", "mail from this sender is refused here")


class BadMailFrom(Check):
    """*senders*: control/badmailfrom, folded: addresses, and ``@domain`` for all of a domain."""

    name = "badmailfrom"
    stage = "mail"

    def __init__(self, senders: frozenset[str]) -> None:
        self._senders = senders

    def look(self, facts: Facts) -> Verdict:
        """Of everybody, also of who has logged in."""
        sender = (facts.sender or "").lower()
        if address_key(sender) in self._senders or f"@{domain_of(sender)}" in self._senders and sender:
            return Verdict(REJECT, _REFUSED, why=facts.sender or "")
        return NO_OPINION
