"""How much who has logged in may send (control/accountlimits): a message, and each recipient, is asked
for before it is taken. Who keeps the count is in a process that all share."""

from __future__ import annotations

from mqmail.policy.stages import Check
from mqmail.policy.verdict import LIMIT, NO_OPINION, REJECT, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Protocol

    from mqmail.policy.facts import Facts
    from mqmail.xmtp.reply import Reply

    class Book(Protocol):
        """Who counts: None if so many more may be sent, else what to say."""

        async def ask(self, facts: Facts, **counts: int) -> Reply | None: ...


class Accounts(Check):
    """One kind of count, at its stage: *kind* messages (at mail) or recipients (at rcpt)."""

    name = "accounts"
    limit = True

    def __init__(self, book: Book, kind: str) -> None:
        self.stage = "mail" if kind == "messages" else "rcpt"
        self._book = book
        self._kind = kind

    def look(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """No opinion on who has not logged in."""
        return self._ask(facts) if facts.login else NO_OPINION

    async def _ask(self, facts: Facts) -> Verdict:
        said = await self._book.ask(facts, **{self._kind: 1})
        if said is None:
            return NO_OPINION
        return Verdict(LIMIT if said.code < 500 else REJECT, said, why="account limit")
