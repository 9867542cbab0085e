"""Who has logged in uses the senders that control/logins gives the login, and no others: in the
envelope, and in the header."""

from __future__ import annotations

from mqmail.mail import headerrules, headerscan, mailboxes
from mqmail.mail.address import parse_address, quote_local
from mqmail.policy.stages import Check
from mqmail.policy.verdict import NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.logins import Logins
    from mqmail.control.optionsets import OptionSets
    from mqmail.policy.facts import Facts

_LONGEST = 400      # characters of an answer


class Senders(Check):
    """*logins*: the table."""

    name = "senders"
    stage = "mail"
    limit = True

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    def look(self, facts: Facts) -> Verdict:
        """No opinion on who has not logged in."""
        sender = facts.sender or ""
        if not facts.login or self._logins.may_send(facts.login, sender):
            return NO_OPINION
        return Verdict(REJECT, reply(553, "5.7.1", f"{facts.login} may not send as {sender}"[:_LONGEST]),
                       why="not a sender of this login")


class Authors(Check):
    """From, or else Sender, is of the login. *logins*: the table; *sets*: who wants that (checkfrom)."""

    name = "senders"
    stage = "header"
    limit = True

    def __init__(self, logins: Logins, sets: OptionSets) -> None:
        self._logins = logins
        self._sets = sets

    def look(self, facts: Facts) -> Verdict:
        """No opinion on who has not logged in, nor on a message that says nothing of its author."""
        if not facts.login or not self._sets.options(facts.role, facts.options).checkfrom \
                or self._logins.may_send_any(facts.login):
            return NO_OPINION
        why = self._wrong(facts)
        if not why:
            return NO_OPINION
        text = f"{facts.login} {why}: From, or else Sender, has to be an address of this login"
        return Verdict(REJECT, reply(550, "5.7.1", text[:_LONGEST]), why="not an author of this login")

    def _wrong(self, facts: Facts) -> str:
        """Why the header is not of the login; "". Without From, readers are shown Sender."""
        if len(facts.header) > headerscan.LARGEST_JUDGED:       # it may go on behind what we see
            return "wrote a header that is too large to be looked at"
        fields = headerrules.read(facts.header.removesuffix(b"\r\n").split(b"\r\n"))
        if b"from" not in fields:
            return self._objection(facts.login, fields[b"sender"]) if b"sender" in fields else ""
        why = self._objection(facts.login, fields[b"from"])
        return "" if why and self._is_sent_by(facts.login, fields) else why

    def _objection(self, login: str, contents: list[bytes]) -> str:
        """Why *contents*, of all fields of one name, are not addresses of *login* alone; ""."""
        try:
            found = addresses(contents)
        except ValueError as error:
            return f"wrote a From field that cannot be read ({error})"
        if not found:
            return "wrote a From field without an address"
        others = [address for address in found if not self._logins.may_send(login, address)]
        return f"may not write as {others[0]}" if others else ""

    def _is_sent_by(self, login: str, fields: headerrules.Fields) -> bool:
        """Whether *login* says that it sends what others have written (RFC 5322 section 3.6.2), or sends
        it again: the first of the Resent fields are those of the last who did (section 3.6.6)."""
        sender = fields.get(b"sender", [])
        if len(sender) == 1 and not self._objection(login, sender):
            return True
        resent = fields.get(b"resent-sender") or fields.get(b"resent-from") or []
        return not self._objection(login, resent[:1])


def addresses(contents: list[bytes]) -> list[str]:
    """All addresses of some fields, in canonical form. Raises ValueError for what is no list of complete
    addresses, or too long to be looked at."""
    found = []
    for content in contents:
        if len(content) > headerrules.MOST_PARSED:
            raise ValueError("too long")
        for box in mailboxes.parse(content.decode("utf-8", "surrogateescape")):
            found.append(parse_address(f"{quote_local(box.local)}@{box.domain}"))
    return found
