"""A message's header, looked at before it is taken; and what submission adds to it and removes."""

from __future__ import annotations

from mqmail.base import log
from mqmail.control import headerchecks
from mqmail.mail import header as fields
from mqmail.mail import headerrules
from mqmail.mail.complete import REMOVED
from mqmail.mail.date import format_date
from mqmail.policy.facts import SUBMISSION
from mqmail.policy.stages import Check
from mqmail.policy.verdict import DEFER, NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.policy.facts import Facts


class HeaderRules(Check):
    """*actions*: rule to what is done, of control/headerchecks."""

    name = "header"
    stage = "header"

    def __init__(self, actions: dict[str, str]) -> None:
        self._actions = actions
        self._wanted = _wanted(actions)

    def look(self, facts: Facts) -> Verdict:
        """The first rule that rejects, else the first that defers; what is broken else is logged."""
        broken = headerrules.broken(facts.header, facts.utf8, self._wanted, facts.role in SUBMISSION)
        for action, code, status in ((REJECT, 550, "5.6.0"), (DEFER, 451, "4.6.0")):
            for rule in broken:
                if self._actions[rule] == action:
                    if rule == "size":
                        code, status = code // 100 * 100 + 52, status[0] + ".3.4"
                    answer = reply(code, status, f"the header has {headerrules.RULES[rule]}")
                    return Verdict(action, answer, why=rule)
        if broken:
            log.event("header_marked", session=facts.session, ip=facts.ip, sender=facts.sender or "<>",
                      rules=",".join(broken))
        return NO_OPINION


def make(control: Control, _services: Any) -> Check | None:
    """For policy/known.py."""
    return HeaderRules(control.headerchecks) if _wanted(control.headerchecks) else None


def _wanted(actions: dict[str, str]) -> frozenset[str]:
    return frozenset([rule for rule, action in actions.items() if action != headerchecks.OFF])


def submission_header(header: bytes, facts: Facts, now: float, id: str) -> bytes:
    """*header* (as in ``Facts.header``) without Bcc and what else is not for others to see, and with the
    Date, Message-ID and From that it lacks on top (RFC 6409 section 8). All else stays as it is.
    *now*: seconds since the epoch; *id*: what stands between ``<`` and ``>``, unique in the world. From
    is the envelope sender."""
    kept, names = _split(header)
    added = []
    if b"date" not in names:
        added.append(fields.make("Date", format_date(now)))
    if b"message-id" not in names:
        added.append(fields.make("Message-ID", f"<{id}>"))
    if b"from" not in names and facts.sender:
        added.append(fields.make("From", f"<{facts.sender}>"))
    return fields.write(added) + b"".join(kept)


def _split(header: bytes) -> tuple[list[bytes], set[bytes]]:
    """(the lines that stay, the names of the fields in them)."""
    kept: list[bytes] = []
    names: set[bytes] = set()
    stays = True
    for line in _lines(header):
        if line[:1] not in (b" ", b"\t"):
            name = line.partition(b":")[0].rstrip(b" \t").lower() if fields.is_field(line[:-2]) else b""
            stays = name not in REMOVED
            names.add(name)
        if stays:
            kept.append(line)
    return kept, names


def _lines(header: bytes) -> list[bytes]:
    """With their ends; CRLF alone is one."""
    return [line + b"\r\n" for line in header.removesuffix(b"\r\n").split(b"\r\n")] if header else []
