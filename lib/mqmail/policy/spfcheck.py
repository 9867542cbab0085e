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
_MOST_KEPT = 1000           # results that are remembered
_MOST_ASKED = 20            # questions that one came from
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
        self._kept: dict[tuple[str, str], tuple[Result, tuple[tuple[str, str, Answer], ...]]] = {}

    async def judge(self, facts: Facts) -> Verdict:
        """MAIL FROM's domain is asked about; HELO's for the null sender (section 2.4)."""
        if not facts.ip:
            return NO_OPINION
        sender = question_sender(facts)
        key = facts.ip, sender.rpartition("@")[2]
        found = self._remembered(key) or await self._evaluate(facts, sender, key)
        facts.marks["spf"] = found.result
        fields = (received_spf(found, sender, facts, self._host),)
        if found.result != FAIL or not self._refuses:
            return Verdict(NEXT, fields=fields)
        return Verdict(REJECT, refusal(found, facts.ip, sender.rpartition("@")[2]), why=found.mechanism,
                       fields=fields)


    def _remembered(self, key: tuple[str, str]) -> Result | None:
        """What evaluating it again would give: all answers of DNS that it came from still hold."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        for name, kind, answer in kept[1]:
            if self._dns.known(name, kind) is not answer:
                del self._kept[key]
                return None
        return kept[0]

    async def _evaluate(self, facts: Facts, sender: str, key: tuple[str, str]) -> Result:
        """By asking DNS; what holds for all senders of the domain is remembered."""
        end = self._now() + SECONDS
        asked: list[tuple[str, str, Answer]] = []

        async def lookup(name: str, kind: str) -> Answer:
            answer = await self._dns.ask(name, kind, end - self._now())
            asked.append((name, kind, answer))
            return answer

        question = Question(facts.ip, sender, facts.helo, self._host, int(self._time()))
        found = await check_host(question, lookup)
        if found.is_general and asked and len(asked) <= _MOST_ASKED:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = found, tuple(asked)
        return found


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
    text = text[:LONGEST]
    if _ATEXT.issuperset(text):
        return text
    return "".join([char if char in _ATEXT else "?" for char in text])


def _value(text: str) -> str:
    """A dot-atom, or a quoted-string (RFC 5322 section 3.2)."""
    text = text[:LONGEST]
    if _ATEXT.issuperset(text) and text[:1] not in ("", ".") and text[-1] != "." and ".." not in text:
        return text
    shown = "".join([char if char.isprintable() else "?" for char in text])
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
