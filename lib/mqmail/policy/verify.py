"""Recipients are asked for at the service that will get their mail, before we take it: at any LMTP
server, by MAIL, RCPT and RSET. What it says is remembered for a short while.
"""

from __future__ import annotations

import time

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.control.verify import ACCEPT, unknown_destinations
from mqmail.mail.address import domain_of, lower_ascii
from mqmail.policy.access import held_against
from mqmail.policy.stages import Check
from mqmail.policy.verdict import DEFER, NO_OPINION, REJECT, RELAY, Verdict
from mqmail.xmtp.reply import Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from mqmail.control.destinations import Destination, Destinations
    from mqmail.control.reader import Control
    from mqmail.control.verify import Verification, Verify
    from mqmail.policy.facts import Facts

    Key = tuple[Destination, str]

CONTROL = ("me", "verify", "destinations")
MOST = 10000            # answers that are remembered
GOOD = 600.0            # seconds for which a recipient is known to be there
BAD = 60.0              # seconds for which one is known not to be there
AWAY = 5.0              # seconds for which nobody asks a service that did not answer
_LONGEST_TEXT = 400
_OURS = (500, 501, 502, 503, 504, 521, 530, 555)    # what a server says when we are wrong
_LATER = reply(451, "4.4.3", "this recipient cannot be verified now, try again later")


class Memory:
    """What services said: (service, address) to the refusal, None for a recipient that is there, as long
    as it is new. A destination that is served elsewhere now is another service. *now* gives seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self._now = now
        self._most = most
        self._known: dict[Key, tuple[float, Reply | None]] = {}
        self._away: dict[Destination, float] = {}

    def known(self, key: Key) -> tuple[Reply | None] | None:
        """(the refusal or None); None when nothing is known."""
        found = self._known.get(key)
        if found is None:
            return None
        if found[0] > self._now():
            return (found[1],)
        del self._known[key]
        return None

    def learn(self, key: Key, refusal: Reply | None) -> None:
        """Of those that are too many the oldest goes."""
        self._known.pop(key, None)
        while len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[key] = self._now() + (GOOD if refusal is None else BAD), refusal
        self._away.pop(key[0], None)

    def is_away(self, service: Destination) -> bool:
        """Whether it did not answer a moment ago."""
        return self._away.get(service, 0.0) > self._now()

    def failed(self, service: Destination) -> None:
        """It does not answer."""
        self._away[service] = self._now() + AWAY


class Verified(Check):
    """*domains*: whose recipients are verified, and where; *memory*: what is known; *ask*: Asker's."""

    name = "verify"
    stage = "rcpt"

    def __init__(self, domains: Verify, destinations: Destinations, memory: Memory,
                 ask: Callable[..., Awaitable[Reply | str]]) -> None:
        self._domains = domains
        self._destinations = destinations
        self._memory = memory
        self._ask = ask

    def look(self, facts: Facts) -> Verdict | Awaitable[Verdict]:
        """No opinion on whom the service takes."""
        wanted = self._domains.lookup(domain_of(facts.recipient)) if "@" in facts.recipient else None
        if wanted is None:
            return NO_OPINION
        service = self._destinations.lookup(wanted.destination)
        assert service is not None      # make() has looked
        key = service, lower_ascii(facts.recipient)
        known = self._memory.known(key)
        if known is not None:
            return _verdict(facts, wanted, known[0])
        if self._memory.is_away(service):
            return _trouble(facts, wanted)
        return self._look(facts, wanted, key)

    async def _look(self, facts: Facts, wanted: Verification, key: Key) -> Verdict:
        answer = await self._ask(key[0], facts.recipient, float(wanted.timeout))
        if isinstance(answer, str):
            self._memory.failed(key[0])
            return self._unknown(facts, wanted, answer)
        if 400 <= answer.code < 500 or answer.code in _OURS:
            return self._unknown(facts, wanted, answer.said())
        refusal = answer if answer.code >= 500 and not _is_elsewhere(answer) else None
        self._memory.learn(key, refusal)
        return _verdict(facts, wanted, refusal)

    def _unknown(self, facts: Facts, wanted: Verification, why: str) -> Verdict:
        log.event("verify_failed", session=facts.session, destination=wanted.destination,
                  recipient=facts.recipient, said=why[:_LONGEST_TEXT])
        return _trouble(facts, wanted)


def _is_elsewhere(answer: Reply) -> bool:
    """551 with a path: mail for this recipient is taken, and goes on to another address."""
    return answer.code == 551 and "<" in answer.text


def _verdict(facts: Facts, wanted: Verification, refusal: Reply | None) -> Verdict:
    if refusal is None:
        relays = wanted.relay and not held_against(facts)
        return Verdict(RELAY, why="verified") if relays else NO_OPINION
    text = refusal.lines[0][:_LONGEST_TEXT] or "no such recipient"
    return Verdict(REJECT, Reply(refusal.code, (text,), refusal.status or "5.1.1"), why="not verified")


def _trouble(facts: Facts, wanted: Verification) -> Verdict:
    """Taken as if verified, or put off."""
    if wanted.trouble == ACCEPT:
        return _verdict(facts, wanted, None)
    return Verdict(DEFER, _LATER, why="cannot be verified")


def make(control: Control, services: Any) -> Check | None:
    """The factory, see policy/known.py. Raises BadFile for a destination that is not there."""
    for text in unknown_destinations("control/verify", control.verify, control.destinations):
        raise BadFile(text)
    if not control.verify.domains:
        return None
    kept = services.kept.get("verify")
    if kept is None:
        from mqmail.policy.asking import Asker  # dear
        kept = services.kept["verify"] = Memory(), Asker(services, control.me)
    return Verified(control.verify, control.destinations, kept[0], kept[1].ask)
