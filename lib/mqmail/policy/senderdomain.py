"""Whether an answer to a message could ever be sent: the domain in MAIL FROM takes mail."""

from __future__ import annotations

from mqmail.mail.address import written_domain_of
from mqmail.mail.mxlist import FAILED, FOUND, UNKNOWN
from mqmail.policy.strangers import StrangerCheck
from mqmail.policy.verdict import DEFER, NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from mqmail.control.networks import Networks
    from mqmail.mail.mxlist import Answer
    from mqmail.net.asker import Asker, BlockingAsker
    from mqmail.policy.facts import Facts

SECONDS = 8.0               # for each of the two steps


def judge_mx(answer: Answer) -> str:
    """"" for a domain with MX hosts, "nullmx", "missing", "unknown" (DNS fails), or "addresses": those
    decide (RFC 5321 section 5.1, RFC 7505 section 3)."""
    if answer.kind == FOUND:
        return "nullmx" if [name for _, name in answer.records] == ["."] else ""
    return {FAILED: "unknown", UNKNOWN: "missing"}.get(answer.kind, "addresses")


def judge_addresses(answers: Sequence[Answer]) -> str:
    """The same of the answers to A and AAAA of a domain without MX."""
    if any([answer.kind == FOUND for answer in answers]):
        return ""
    return "unknown" if any([answer.kind == FAILED for answer in answers]) else "missing"


class SenderDomain(StrangerCheck):
    """*what*: mark; reject domains that take no mail; strict: and put off those that DNS knows nothing
    of now. The mark ``senderdomain``: nullmx, missing, unknown."""

    name = "senderdomain"
    stage = "mail"

    def __init__(self, what: str, trusted: Networks, dns: Asker | BlockingAsker) -> None:
        super().__init__(trusted)
        self._what = what
        self._dns = dns

    def judge(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """See the class."""
        domain = ascii_domain_of(facts.sender or "")
        if domain[:1] in ("", "["):
            return NO_OPINION
        return self._find(domain, facts)

    async def _find(self, domain: str, facts: Facts) -> Verdict:
        found = judge_mx(await self._dns.ask(domain, "MX", SECONDS))
        if found == "addresses":
            both = [(domain, "A"), (domain, "AAAA")]
            found = judge_addresses(await self._dns.ask_all(both, SECONDS))
        if found:
            facts.marks["senderdomain"] = found
        return self._verdict(domain, found)

    def _verdict(self, domain: str, found: str) -> Verdict:
        if not found or self._what == "mark" or found == "unknown" and self._what != "strict":
            return NO_OPINION
        if found == "unknown":
            answer = reply(451, "4.4.3", f"the sender's domain {domain} cannot be looked up now")
            return Verdict(DEFER, answer, why=found)
        if found == "nullmx":       # RFC 7505 section 4.2
            answer = reply(550, "5.7.27", f"the sender's domain {domain} takes no mail (null MX)")
        else:                       # RFC 3463 section 3.2
            answer = reply(550, "5.1.8", f"the sender's domain {domain} does not exist")
        return Verdict(REJECT, answer, why=found)


def ascii_domain_of(address: str) -> str:
    """As DNS has it; "" for the null sender and for what has no such form."""
    domain = written_domain_of(address)
    if domain.isascii():
        return domain
    from mqmail.net.mx import to_ascii
    try:
        return to_ascii(domain)
    except UnicodeError:
        return ""
