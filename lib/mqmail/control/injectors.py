"""injectors: which accounts of this host may put mail into the queue."""

from __future__ import annotations

import os
import pwd

from mqmail.base.value import value
from mqmail.control.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

TRUSTED = "trusted"   # a program of ours: may say where a message came from (XVIA)
LOCAL = "local"       # a local user: may submit mail
NONE = "none"         # nobody we take mail from
_LEVELS = (NONE, LOCAL, TRUSTED)


@value
class Injectors:
    """Uid to level, and the level of all others."""

    levels: dict[int, str]
    others: str

    def level(self, uid: int) -> str:
        """TRUSTED, LOCAL or NONE."""
        return self.levels.get(uid, self.others)


def parse_injectors(lines: Lines, _me: str) -> Injectors:
    """Lines ``USER level``, ``UID level``, ``* level`` (all others; none without such a line). Root and
    our own uid are always trusted."""
    levels: dict[int, str] = {}
    others = ""
    for line in lines:
        words = line.split()
        if len(words) != 2 or words[1] not in _LEVELS:
            raise ValueError(f"{line[:60]!a}: write a user, a uid or *, and then local, trusted or none")
        who, level = words
        uid = None if who == "*" else _uid(who)
        if (uid is None and others) or uid in levels:
            raise ValueError(f"{who} is given twice: remove one of the lines")
        if uid is None:
            others = level
        else:
            levels[uid] = level
    levels.update({0: TRUSTED, os.geteuid(): TRUSTED})
    return Injectors(levels, others or NONE)


def _uid(text: str) -> int:
    if is_number(text) and int(text) < 1 << 32:
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ValueError(f"this host has no account {text!a}: write an account or a uid") from None
