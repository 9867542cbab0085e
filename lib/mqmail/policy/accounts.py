"""How much who has logged in may send (control/accountlimits): a message, and each recipient, is asked
for before it is taken. Who keeps the count is in a process that all share; with the next question, or at
the session's end, it hears how many recipients were refused for good."""

from __future__ import annotations

from mqmail.policy.stages import Check
from mqmail.policy.verdict import LIMIT, NO_OPINION, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Protocol

    from mqmail.policy.facts import Facts
    from mqmail.xmtp.reply import Reply

    class Book(Protocol):
        """Who counts: None if so many more may be sent, else what to say, 4yz."""

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
        """Who keeps the count hears by the way how many recipients were refused."""
        said = await self._book.ask(facts, **{self._kind: 1}, **take_refused(facts))
        if said is None:
            return NO_OPINION
        return Verdict(LIMIT, said, why="account limit")


def note_refused(facts: Facts, answer: Reply) -> None:
    """A recipient is refused with *answer*: it counts if that is for good; not 530 and 551, which say
    what to do."""
    if facts.login and 550 <= answer.code < 560 and answer.code != 551:
        facts.refused += 1


def take_refused(facts: Facts) -> dict[str, int]:
    """What is to be told, once: ``refused``, if there are any."""
    refused, facts.refused = facts.refused, 0
    return {"refused": refused} if refused else {}
