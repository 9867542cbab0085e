"""What accounts have sent within an hour, and who is stopped for it. Pure.

The hour slides: of the full hour before the current one, the share that is not yet an hour ago counts.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqmail.control.accountlimits import Limit

HOUR = 3600.0
MOST_ACCOUNTS = 100_000         # then those that have been silent longest are forgotten
KINDS = ("messages", "recipients", "refused")
SURGE_FREE = 200                # recipients an hour that are no surge, however little was usual
_HALF_LIFE = 14 * 24.0          # hours after which half of a busiest hour is forgotten
_TEXTS = {"messages": "it has sent too many messages within an hour",
          "recipients": "it has sent to too many recipients within an hour",
          "refused": "too many of its recipients were refused within an hour",
          "surge": "it sends to far more recipients than usual"}


class Account:
    """One account's counts: of the hour *number* (of the epoch) and of the one before. *usual*:
    recipients of its busiest hour. *told*: what it was stopped for in this hour."""

    __slots__ = ("before", "now", "number", "told", "usual")

    def __init__(self, number: int, usual: float = 0.0) -> None:
        self.number = number
        self.before = dict.fromkeys(KINDS, 0)
        self.now = dict.fromkeys(KINDS, 0)
        self.usual = usual
        self.told: set[str] = set()

    def turn(self, number: int) -> None:
        """The clock has gone on. After one that has been set back the hour at hand is another: none that
        lies in the future is waited for."""
        passed = number - self.number
        if passed <= 0:
            self.number = number
            return
        if not self.told:
            self.usual = max(self.usual, self.now["recipients"])
        self.usual *= 0.5 ** (passed / _HALF_LIFE)
        self.before = self.now if passed == 1 else dict.fromkeys(KINDS, 0)
        self.now = dict.fromkeys(KINDS, 0)
        self.number = number
        self.told = set()

    def rate(self, kind: str, share: float) -> float:
        """Of *kind* within an hour, *share* of the current one having passed."""
        return self.before[kind] * (1.0 - share) + self.now[kind]


class Ledger:
    """All accounts'."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}     # who was silent longest first

    def count(self, login: str, counts: dict[str, int], limit: Limit, now: float) -> tuple[str, bool]:
        """Note that *login* sends so many more messages and recipients, or that so many were refused.
        Returns (why it may not, "" if it may; whether that is news). What it may not is not counted."""
        account = self._account(login, int(now // HOUR))
        share = now % HOUR / HOUR
        account.now["refused"] += counts.get("refused", 0)
        why = self._exceeded(account, counts, limit, share)
        if not why:
            for kind in ("messages", "recipients"):
                account.now[kind] += counts.get(kind, 0)
        is_news = bool(why) and why not in account.told
        if why:
            account.told.add(why)
        return why, is_news

    def _account(self, login: str, number: int) -> Account:
        account = self._accounts.pop(login, None)
        if account is None:
            account = Account(number)
            if len(self._accounts) >= MOST_ACCOUNTS:
                del self._accounts[next(iter(self._accounts))]
        self._accounts[login] = account
        account.turn(number)
        return account

    @staticmethod
    def _exceeded(account: Account, counts: dict[str, int], limit: Limit, share: float) -> str:
        if limit.refused and account.rate("refused", share) >= limit.refused:
            return "refused"
        for kind, most in (("messages", limit.messages), ("recipients", limit.recipients)):
            if most and counts.get(kind, 0) and account.rate(kind, share) + counts[kind] > most:
                return kind
        wanted = account.rate("recipients", share) + counts.get("recipients", 0)
        surge = limit.surge and wanted > max(SURGE_FREE, limit.surge * account.usual)
        return "surge" if surge and counts.get("recipients", 0) else ""

    def rates(self, login: str, now: float) -> dict[str, int]:
        """Within the last hour, for the log."""
        account = self._account(login, int(now // HOUR))
        return {kind: round(account.rate(kind, now % HOUR / HOUR)) for kind in KINDS}

    def usual(self, now: float) -> Iterable[tuple[str, int]]:
        """(login, recipients of its busiest hour) of all that have one: what is worth keeping."""
        for login, account in self._accounts.items():
            account.turn(int(now // HOUR))
            if round(account.usual):
                yield login, round(account.usual)

    def remember(self, login: str, usual: int, now: float) -> None:
        """What ``usual`` gave."""
        if len(self._accounts) < MOST_ACCOUNTS:
            self._accounts[login] = Account(int(now // HOUR), float(usual))


def text_of(why: str) -> str:
    """*why* of ``count``, for a person."""
    return _TEXTS[why]
