"""SPF at MAIL: the field Received-SPF, and who is refused (RFC 7208 sections 8 and 9)."""

from __future__ import annotations

from mqmail.policy.senderdomain import ascii_domain_of
from mqmail.policy.spf import FAIL, NONE, PASS, PERMERROR, SOFTFAIL, TEMPERROR, Question, check_host
from mqmail.policy.strangers import StrangerCheck
from mqmail.policy.verdict import NEXT, NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mqmail.control.networks import Networks
    from mqmail.mail.mxlist import Answer
    from mqmail.net.asker import Asker, BlockingAsker
    from mqmail.policy.facts import Facts
    from mqmail.policy.spf import Result

SECONDS = 20.0              # for all questions (RFC 7208 section 4.6.4)
LONGEST = 300               # characters of a value
_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.!#$%&'*+-/=?^_`{|}~")
_COMMENTS = {
    PASS: "{domain} permits {ip}", FAIL: "{domain} does not permit {ip}",
    SOFTFAIL: "{domain} does not wholly permit {ip}", NONE: "{domain} has no SPF record",
    TEMPERROR: "DNS fails for {domain}", PERMERROR: "the SPF record of {domain} is wrong",
}


class SpfCheck(StrangerCheck):
    """*refuses*: what the domain forbids is refused with 550 5.7.23 (RFC 7372 section 3.2). In any case
    the message gets a Received-SPF field, and the mark ``spf`` has the result. *host*: our name; *now*:
    seconds of a monotonic clock; *time*: seconds since the epoch."""

    name = "spf"
    stage = "mail"

    def __init__(self, refuses: bool, host: str, trusted: Networks, dns: Asker | BlockingAsker,
                 now: Callable[[], float], time: Callable[[], float]) -> None:
        super().__init__(trusted)
        self._refuses = refuses
        self._host = host
        self._dns = dns
        self._now = now
        self._time = time

    async def judge(self, facts: Facts) -> Verdict:
        """MAIL FROM's domain is asked about; HELO's for the null sender (section 2.4)."""
        if not facts.ip:
            return NO_OPINION
        end = self._now() + SECONDS

        async def lookup(name: str, kind: str) -> Answer:
            return await self._dns.ask(name, kind, end - self._now())

        sender = question_sender(facts)
        question = Question(facts.ip, sender, facts.helo, self._host, int(self._time()))
        found = await check_host(question, lookup)
        facts.marks["spf"] = found.result
        fields = (received_spf(found, sender, facts, self._host),)
        if found.result != FAIL or not self._refuses:
            return Verdict(NEXT, fields=fields)
        return Verdict(REJECT, refusal(found, facts.ip, sender.rpartition("@")[2]), why=found.mechanism,
                       fields=fields)


def question_sender(facts: Facts) -> str:
    """MAIL FROM's address, or postmaster at the HELO name, its domain in ASCII."""
    if not facts.sender:
        return f"postmaster@{facts.helo}"
    return f"{facts.sender.rpartition('@')[0]}@{ascii_domain_of(facts.sender)}"


def refusal(found: Result, ip: str, domain: str) -> Reply:
    """It says whose the explanation is (section 8.4)."""
    lines = [f"SPF: {domain} does not permit {ip} to send its mail"]
    if found.explanation:
        lines += [f"{domain} explains:", found.explanation]
    return Reply(550, tuple(lines), "5.7.23")


def received_spf(found: Result, sender: str, facts: Facts, host: str) -> str:
    """The field (section 9.1), in lines of bounded length, without the last line end."""
    domain = sender.rpartition("@")[2]
    comment = _COMMENTS.get(found.result, "{domain} says nothing of {ip}")
    comment = comment.format(domain=_comment(domain), ip=facts.ip)
    identity = "mailfrom" if facts.sender else "helo"
    pairs = {"client-ip": facts.ip, "envelope-from": facts.sender or "", "helo": facts.helo,
             "identity": identity, "mechanism": found.mechanism, "problem": found.why, "receiver": host}
    shown = [f"{name}={_value(text)}" for name, text in pairs.items() if text or name == "envelope-from"]
    return "\r\n\t".join([f"Received-SPF: {found.result} ({host}: {comment})",
                          *[f"{pair};" for pair in shown[:-1]], shown[-1]])


def _comment(text: str) -> str:
    """What would end a comment or a line becomes a question mark."""
    return "".join([char if char in _ATEXT else "?" for char in text[:LONGEST]])


def _value(text: str) -> str:
    """A dot-atom, or a quoted-string (RFC 5322 section 3.2)."""
    text = text[:LONGEST]
    if text and _ATEXT.issuperset(text) and text[0] != "." and text[-1] != "." and ".." not in text:
        return text
    shown = "".join([char if char.isprintable() else "?" for char in text])
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
