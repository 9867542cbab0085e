"""What a client's name is: the one that its address has, and that has this address."""

from __future__ import annotations

from mqmail.control.networks import parse_ip
from mqmail.mail.address import BadAddress, check_domain
from mqmail.mail.mxlist import FAILED
from mqmail.policy.reverse import reverse_name
from mqmail.policy.stages import Check
from mqmail.policy.strangers import StrangerCheck, is_this_host
from mqmail.policy.verdict import DEFER, NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from mqmail.mail.mxlist import Answer
    from mqmail.net.asker import Asker, BlockingAsker
    from mqmail.policy.facts import Facts

SECONDS = 5.0               # for each of the two steps
MOST_NAMES = 5              # of an address that are looked up


class ReverseName(Check):
    """Finds ``facts.host``, the name whose address is the client's, unless somebody gave it already."""

    name = "reversename"
    stage = "connect"
    leads = True        # control/access looks up the name

    def __init__(self, dns: Asker | BlockingAsker) -> None:
        self._dns = dns

    def look(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """Never against anybody; without a name the mark ``reversename`` says why: none, unconfirmed,
        unknown (DNS fails, or nobody knows the address)."""
        if facts.host or is_this_host(facts):
            return NO_OPINION
        if not facts.ip:
            facts.marks["reversename"] = "unknown"
            return NO_OPINION
        return self._find(facts)

    async def _find(self, facts: Facts) -> Verdict:
        answer = await self._dns.ask(reverse_name(facts.ip), "PTR", SECONDS)
        names = [name for name in answer.records if is_host_name(name)][:MOST_NAMES]
        kind = "AAAA" if ":" in facts.ip else "A"
        found = await self._dns.ask_all([(name, kind) for name in names], SECONDS)
        facts.host = confirmed(facts.ip, names, found)
        facts.marks.pop("reversename", None)
        if not facts.host:
            failed = answer.kind == FAILED or any([one.kind == FAILED for one in found])
            facts.marks["reversename"] = "unknown" if failed else "unconfirmed" if names else "none"
        return NO_OPINION


def is_host_name(name: str) -> bool:
    """Whether it may stand in logs, header fields and questions."""
    try:
        check_domain(name)
    except BadAddress:
        return False
    return name.isascii() and name[0] != "["


def confirmed(ip: str, names: Sequence[str], answers: Sequence[Answer]) -> str:
    """The first of *names* that has the address *ip*, or ""."""
    wanted = parse_ip(ip)
    for name, answer in zip(names, answers, strict=True):
        if any([parse_ip(one) == wanted for one in answer.records]):
            return name
    return ""


class NameRequired(StrangerCheck):
    """Refuses clients without a confirmed name: 550 5.7.25 (RFC 7372 section 3.3), 451 if DNS fails."""

    name = "reversename"
    stage = "mail"

    def judge(self, facts: Facts) -> Verdict:
        """By ReverseName's mark."""
        mark = facts.marks.get("reversename", "none")
        if facts.host:
            return NO_OPINION
        if mark == "unknown":
            text = f"the name of {facts.ip or 'your address'} cannot be looked up now"
            return Verdict(DEFER, reply(451, "4.7.25", text), why=mark)
        text = f"{facts.ip} has no name, or one that does not have this address"
        return Verdict(REJECT, reply(550, "5.7.25", text), why=mark)
