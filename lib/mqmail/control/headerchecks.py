"""headerchecks: what is done about a header that breaks a rule."""

from __future__ import annotations

from mqmail.mail.headerrules import RULES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

OFF, MARK, DEFER, REJECT = "off", "mark", "defer", "reject"
ACTIONS = (OFF, MARK, DEFER, REJECT)
_BAD = ("nul", "froms", "size")     # that no honest program writes


def parse_headerchecks(lines: Lines, _me: str) -> dict[str, str]:
    """Lines ``RULE ACTION``: the action of each rule."""
    found: dict[str, str] = {}
    for line in lines:
        name, *words = line.split()
        if name not in RULES or name in found:
            raise ValueError(f"{name[:40]!a}: write each rule once: {' '.join(RULES)}")
        if len(words) != 1 or words[0] not in ACTIONS:
            raise ValueError(f"{line[:60]!a}: write RULE and {', '.join(ACTIONS[:-1])} or {REJECT}")
        found[name] = words[0]
    return {rule: found.get(rule, REJECT if rule in _BAD else MARK) for rule in RULES}
