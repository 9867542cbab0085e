"""accountlimits: how much who has logged in may send within an hour."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.loginnames import check_login, fold
from mqmail.control.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

OTHERS = "*"
MOST = 10_000_000
_FORM = "write LOGIN or *, and then any of messages=N recipients=N refused=N surge=N; 0 is no limit"


@value
class Limit:
    """Of one account, within an hour; 0: no limit. *messages*, *recipients*; *refused*: recipients that
    were refused for good; *surge*: so many times the recipients of its busiest hour so far."""

    messages: int = 500
    recipients: int = 2000
    refused: int = 100
    surge: int = 10


@value
class AccountLimits:
    """Login, folded, to Limit, and the limit of all others."""

    limits: dict[str, Limit]
    others: Limit

    def of(self, login: str) -> Limit:
        """The limit of *login*."""
        return self.limits.get(fold(login), self.others)


def parse_accountlimits(lines: Lines, _me: str) -> AccountLimits:
    """Lines ``LOGIN messages=N recipients=N refused=N surge=N``; ``*`` is all others, and what a line
    leaves out is as in Limit."""
    found: dict[str, Limit] = {}
    for line in lines:
        login, *words = line.split()
        name = OTHERS if login == OTHERS else check_login(login)
        if name in found:
            raise ValueError(f"{login} is given twice: remove one of the lines")
        found[name] = _limit(words)
    others = found.pop(OTHERS, Limit())
    return AccountLimits(found, others)


def _limit(words: list[str]) -> Limit:
    given: dict[str, int] = {}
    for word in words:
        name, _, number = word.partition("=")
        if name not in ("messages", "recipients", "refused", "surge") or name in given \
                or not is_number(number) or int(number) > MOST:
            raise ValueError(f"{word[:40]!a}: {_FORM}")
        given[name] = int(number)
    if not given:
        raise ValueError(f"nothing stands behind the login: {_FORM}")
    return Limit(**given)
