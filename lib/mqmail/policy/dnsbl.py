"""Lists of addresses in DNS, bad and good (RFC 5782): all are asked at once, and their answers weighed.

A list that does not answer in time, fails or refuses counts nothing. One that fails again and again is
left alone for a while: its questions would take the place of the others'.
"""

from __future__ import annotations

from mqmail.base import log
from mqmail.base.value import value
from mqmail.control.dnsbl import HIGHEST
from mqmail.control.networks import parse_ip
from mqmail.mail.mxlist import FAILED, Answer
from mqmail.policy.reverse import reversed_ip
from mqmail.policy.strangers import StrangerCheck
from mqmail.policy.verdict import DEFER, NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mqmail.control.dnsbl import ListedBy, Lists
    from mqmail.control.networks import Networks
    from mqmail.net.asker import Asker, BlockingAsker
    from mqmail.policy.facts import Facts

SECONDS = 4.0               # for all lists
TEXT_SECONDS = 2.0          # for what a list says of a client
LOG_EVERY = 3600.0          # seconds
LONGEST_SAID = 300
MOST_FAILURES = 10          # of a list, one after the other
REST = 30.0                 # seconds for which it is not asked then
_RESTS = Answer(FAILED, why="does not answer")
_LOOPBACK = 127
_REFUSALS = 0x7FFFFF        # 127.255.255.0/24: Spamhaus and others answer so whom they do not serve
_REFUSES_WHITE = "127.0.0.255"      # dnswl.org's answer to them


@value
class Listing:
    """What the lists say of an address: the *score*, the *hits* among bad lists, zone and reason of
    those that are of no use (*troubles*). *lowest*: the score if all good lists that DNS fails for had
    it."""

    score: int
    lowest: int = 0
    hits: tuple[ListedBy, ...] = ()
    troubles: tuple[tuple[str, str], ...] = ()


def judge(lists: Sequence[ListedBy], answers: Sequence[Answer]) -> Listing:
    """*answers*: those of *lists*, in their order."""
    score, cleared, doubt = 0, False, 0
    hits: list[ListedBy] = []
    troubles: list[tuple[str, str]] = []
    for one, answer in zip(lists, answers, strict=True):
        if not answer.records and answer.kind != FAILED:        # nearly always
            continue
        trouble = answer.why if answer.kind == FAILED else _refusal(one, answer)
        if trouble:
            troubles.append((one.zone, trouble))
            if one.white and answer.kind == FAILED:
                doubt += one.weight or HIGHEST * len(lists)
        elif any([_counts(one, ip) for ip in answer.records]):
            score += -one.weight if one.white else one.weight
            cleared = cleared or one.white and not one.weight
            if not one.white:
                hits.append(one)
    score = 0 if cleared else score
    return Listing(score, score - doubt, tuple(hits), tuple(troubles))


def _refusal(one: ListedBy, answer: Answer) -> str:
    """The answer by which a list says that it does not serve us, or ""."""
    for ip in answer.records:
        if parse_ip(ip)[1] >> 8 == _REFUSALS or one.white and ip == _REFUSES_WHITE:
            return f"refuses us: {ip}"
    return ""


def _counts(one: ListedBy, ip: str) -> bool:
    """Whether an answer means a listing: only addresses in 127.0.0.0/8 do, and 127.0.0.1 never stands
    for one (RFC 5782 section 2.1). A domain that somebody parks answers with the parking host."""
    if parse_ip(ip)[1] >> 24 != _LOOPBACK or ip == "127.0.0.1":
        return False
    return one.answers is None or one.answers.contains(ip)


class Dnsbl(StrangerCheck):
    """control/dnsbl, at MAIL: who logs in is not looked up. *now*: seconds of a monotonic clock."""

    name = "dnsbl"
    stage = "mail"

    def __init__(self, lists: Lists, trusted: Networks, dns: Asker | BlockingAsker,
                 now: Callable[[], float]) -> None:
        super().__init__(trusted)
        self._lists = lists
        self._dns = dns
        self._now = now
        self._logged: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._rests: dict[str, float] = {}      # until when

    async def judge(self, facts: Facts) -> Verdict:
        """550 5.7.1 from the threshold on, 451 if a good list that DNS fails for might have lowered the
        score. The mark ``dnsbl``: the lists that have the client."""
        lists, place = (self._lists.lists, reversed_ip(facts.ip)) if facts.ip else ((), "")
        names = [f"{place}.{one.zone}" for one in lists]
        answers = await self._ask(lists, names)
        found = judge(lists, answers)
        for zone, why in found.troubles:
            self._log(zone, why)
        if found.hits:
            facts.marks["dnsbl"] = ",".join([one.zone for one in found.hits])
        if not found.hits or found.score < self._lists.threshold:
            return NO_OPINION
        worst = max(found.hits, key=lambda one: one.weight)
        text = await self._text(worst, names[lists.index(worst)], facts.ip)
        if found.lowest < self._lists.threshold:
            return Verdict(DEFER, reply(451, "4.7.1", text), why=facts.marks["dnsbl"])
        return Verdict(REJECT, reply(550, "5.7.1", text), why=facts.marks["dnsbl"])

    async def _ask(self, lists: Sequence[ListedBy], names: Sequence[str]) -> list[Answer]:
        """The answers of *lists* about *names*; of those that rest FAILED."""
        now = self._now()
        asked = [number for number, one in enumerate(lists) if self._rests.get(one.zone, now) <= now]
        found = await self._dns.ask_all([(names[number], "A") for number in asked], SECONDS)
        answers = [_RESTS] * len(lists)
        for number, answer in zip(asked, found, strict=True):
            answers[number] = answer
            self._note(lists[number].zone, answer.kind == FAILED)
        return answers

    def _note(self, zone: str, failed: bool) -> None:
        if not failed:
            if self._failures:
                self._failures.pop(zone, None)
            return
        self._failures[zone] = self._failures.get(zone, 0) + 1
        if self._failures[zone] >= MOST_FAILURES:
            self._rests[zone] = self._now() + REST

    async def _text(self, one: ListedBy, name: str, ip: str) -> str:
        """Ours, or else the list's (RFC 5782 section 2.1)."""
        if one.text:
            return one.text.replace("%i", ip)
        answer = await self._dns.ask(name, "TXT", TEXT_SECONDS)
        said = b" ".join(answer.records)[:LONGEST_SAID].decode("ascii", "replace")
        said = "".join([char if " " <= char <= "~" else "?" for char in said])
        return f"{ip} is listed by {one.zone}" + (f": {said}" if said else "")

    def _log(self, zone: str, why: str) -> None:
        """Once an hour: a list that is of no use is nobody's loss but ours."""
        now = self._now()
        if zone not in self._logged or now - self._logged[zone] >= LOG_EVERY:
            self._logged[zone] = now
            log.event("dnsbl_trouble", zone=zone, why=why)
