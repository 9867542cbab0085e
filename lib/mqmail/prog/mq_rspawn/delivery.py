"""One message on its way to its recipients' hosts: look-ups and transactions, as the plan has them.

Several transactions run at a time as far as the caller allows. Each recipient gets one verdict, as soon
as it is known.
"""

from __future__ import annotations

import random
import time

from mqmail.base import program
from mqmail.base.waiter import Running, Waiter
from mqmail.mail.address import written_domain_of
from mqmail.mail.mxlist import NoHosts
from mqmail.mail.mxplan import Plan
from mqmail.prog.mq_rspawn.carrying import Carrying
from mqmail.prog.mq_rspawn.hints import with_hints
from mqmail.remote.opening import Unreachable
from mqmail.remote.verdicts import NOBODY, put_off, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from mqmail.mail.mxlist import Choice
    from mqmail.mail.mxplan import Transfer, Verdict
    from mqmail.net.mx import Finder
    from mqmail.prog.mq_rspawn.lines import Lines
    from mqmail.remote.sending import Message
    from mqmail.xmtp.reply import Reply

GATHER = 1.0        # seconds that transactions wait for slow look-ups, for theirs may be the same hosts
LONGEST = 3600.0    # seconds after which no further host is tried: mq-send does not wait for ever
_INTERNAL = put_off("4.3.0", NOBODY, "internal trouble")
_GONE = put_off("4.4.2", NOBODY, "the caller has gone away")


class Delivery:
    """*answer(number, verdict)* is called once for each recipient."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lines: Lines, finder: Finder, message: Message,
                 answer: Callable[[int, Reply], None]) -> None:
        self._loop = loop
        self._lines = lines
        self._finder = finder
        self._message = message
        self._answer = answer
        self._left = set(range(len(message.recipients)))
        self._changed = Waiter()
        self._gathered = False
        self._choices: dict[str, list[Choice]] = {}
        self._carryings: set[Carrying] = set()

    async def run(self, slots: int) -> None:
        """Send to all recipients, *slots* transactions at a time."""
        self._domains = [written_domain_of(rcpt.address) for rcpt in self._message.recipients]
        self._plan = Plan(self._domains, slots, random.choice, self._tell)
        timers = [self._loop.call_later(GATHER, self._stop_gathering),
                  self._loop.call_later(LONGEST, self._stop_trying)]
        try:
            while self._go_on():
                await self._changed
        finally:
            for timer in timers:
                timer.cancel()
            for number in sorted(self._left):
                self._tell(number, _INTERNAL)
            self._plan.release()

    def _go_on(self) -> bool:
        """Begin what can begin; whether there is something to wait for."""
        plan = self._plan
        self._changed = Waiter()
        while domains := plan.lookups():
            for domain in domains:
                known = self._finder.known(domain, self._message.mail.sender)
                if known:
                    self._found(domain, known)
                else:
                    self._start(self._look_up(domain))
        if self._gathered or not plan.looking:
            for transfer in plan.transfers():
                self._start(self._carry(transfer))
        return not plan.finished and (self._changed.done or not plan.stuck)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        def finished(_result: object, error: BaseException | None) -> None:
            if error is not None:
                program.bug(error, id=self._message.mail.xid)
            self._changed.set()

        Running(coroutine, finished)

    def _stop_gathering(self) -> None:
        self._gathered = True
        self._changed.set()

    def _stop_trying(self) -> None:
        self._plan.give_up(put_off("4.4.1", NOBODY, "no host was reached in time"))
        self._changed.set()

    async def _look_up(self, domain: str) -> None:
        found: object = None
        try:
            found = await self._finder.find(domain, self._message.mail.sender)
        finally:
            if isinstance(found, list):
                self._found(domain, found)
            else:
                self._plan.failed(domain, _no_hosts(found))

    def _found(self, domain: str, choices: list[Choice]) -> None:
        self._choices[domain] = choices
        self._plan.found(domain, choices)

    # --- transactions ---

    async def _carry(self, transfer: Transfer) -> None:
        """One transfer, whatever comes of it."""
        try:
            await self._over(transfer)
        except Unreachable as failure:
            return self._plan.unreachable(transfer, failure.verdict)
        except Exception as error:  # noqa: BLE001  the other transfers go on
            program.bug(error, id=self._message.mail.xid)
        self._told(transfer, transfer.recipients, _INTERNAL, final=True)
        return self._plan.ended(transfer)

    async def _over(self, transfer: Transfer) -> None:
        """One transaction over one line."""
        if not self._message.wanted():
            return self._told(transfer, transfer.recipients, _GONE, final=True)
        line = await self._lines.take(transfer.choice, self._message.mail.xforce / 1000.0)
        if not self._message.wanted():          # it may have taken minutes
            self._lines.give(line)
            return self._told(transfer, transfer.recipients, _GONE, final=True)
        carrying = Carrying(self._message, line, [n for n in transfer.recipients if n in transfer.open])
        self._carryings.add(carrying)
        try:
            self._plan.connected(transfer)
            self._changed.set()
            await carrying.run(lambda n, verdict, final: self._told(transfer, [n], verdict, final))
        finally:
            self._carryings.discard(carrying)
            self._lines.give(line, carrying.cut, carrying.unreached)
        if carrying.unreached is not None:
            raise Unreachable(carrying.unreached)
        return None

    def _told(self, transfer: Transfer, numbers: Iterable[int], verdict: Reply, final: bool) -> None:
        """The answer for those of *numbers* that have none."""
        for number in numbers:
            if number in transfer.open:
                self._plan.answered(transfer, number, verdict, final)

    def _tell(self, number: int, verdict: Verdict) -> None:
        self._left.discard(number)
        domain = self._domains[number]
        hinted = with_hints(verdict, self._choices.get(domain),  # type: ignore[arg-type]
                            self._lines.memory, time.time())
        self._answer(number, hinted)

    def abandon(self) -> None:
        """The caller has gone away, and will send the message again: nothing more is to be sent now."""
        for carrying in list(self._carryings):
            carrying.line.session.stream.close()


def _no_hosts(found: object) -> Reply:
    """The verdict for a domain without hosts."""
    if not isinstance(found, NoHosts):
        return _INTERNAL
    return (put_off if found.status[0] == "4" else refused)(found.status, NOBODY, found.why)
