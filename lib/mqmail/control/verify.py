"""verify: domains whose recipients are asked for at the service that will get their mail."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.domains import domain_pattern, suffixes
from mqmail.control.values import facts, number
from mqmail.mail.address import is_destination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

DEFER, ACCEPT = "defer", "accept"
DEFAULT_TIMEOUT = 15        # seconds: a client waits 300 for RCPT's answer (RFC 5321 4.5.3.2.3)
_ALL = "*"
_FORM = "write DOMAIN DESTINATION [trouble=defer|accept] [timeout=SECONDS]"


@value
class Verification:
    """*destination*: whose service is asked. *trouble*: what becomes of recipients while it does not
    answer. *timeout* in seconds for each step."""

    destination: str
    trouble: str = DEFER
    timeout: int = DEFAULT_TIMEOUT


@value
class Verify:
    """Domain, ``.domain`` or "" (all) to Verification."""

    domains: dict[str, Verification]

    def lookup(self, domain: str) -> Verification | None:
        """For a *domain* in lower case: its own, that of the next parent with a dot, that for all."""
        for name in (*suffixes(domain), ""):
            if name in self.domains:
                return self.domains[name]
        return None


def parse_verify(lines: Lines, _me: str) -> Verify:
    """Lines ``DOMAIN DESTINATION [trouble=defer|accept] [timeout=SECONDS]``."""
    found: dict[str, Verification] = {}
    for line in lines:
        name, *words = line.split()
        key = "" if name == _ALL else domain_pattern(name)
        if key in found:
            raise ValueError(f"{name} is given twice: remove one of the lines")
        found[key] = _parse(words)
    return Verify(found)


def _parse(words: list[str]) -> Verification:
    if not words or not is_destination(words[0]):
        raise ValueError(f"no destination: {_FORM}")
    options = facts(words[1:], ("trouble", "timeout"))
    trouble = options.get("trouble", DEFER)
    if trouble not in (DEFER, ACCEPT):
        raise ValueError(f"trouble={trouble}: {_FORM}")
    timeout = number(options["timeout"], "seconds", 1, 120) if "timeout" in options else DEFAULT_TIMEOUT
    return Verification(words[0], trouble, timeout)
