"""Domains that somebody wants mail for now (ETRN, RFC 1985): what waits for them is brought forward.

They come by datagrams to run/etrn, from xmtpd, and are hints as those to run/trigger: the most that a
liar gets is attempts. Which mail waits for a domain is written in the records alone, so all of
``queue/wait`` is looked through, once for all domains that were asked for meanwhile, in small steps, by
a thread; and seldom, however often somebody asks.
"""

from __future__ import annotations

from itertools import islice

from mqmail.base import log, program
from mqmail.base.failure import BadFile
from mqmail.base.waiter import Running
from mqmail.control.domains import suffixes
from mqmail.mail.address import BadAddress, check_domain, domain_of, lower_ascii
from mqmail.prog.mq_send.agenda import Wanted
from mqmail.queue import record as records
from mqmail.queue import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from mqmail.base.waiter import Waiter
    from mqmail.net.threads import Threads

    Bring = Callable[[Iterable[tuple[str, Wanted]]], None]

LONGEST = 512           # octets of a datagram: a domain, and all below it; the rest is not heard
MOST = 1000             # domains at a time; more are not heard
AGAIN = 60.0            # seconds until the same domain is looked for again
STEP = 100              # records that a thread reads in one go
PAUSE = 1.0             # seconds between two looks, and
SHARE = 9               # this many times what the last one took: a tenth of a thread's time at most


class Nodes:
    """*now* gives seconds since the epoch; *disk* the threads; *bring* is given ids with recipients."""

    def __init__(self, loop: asyncio.AbstractEventLoop, disk: Threads, now: Callable[[], float],
                 bring: Bring) -> None:
        self._loop = loop
        self._disk = disk
        self._now = now
        self._bring = bring
        self._asked: dict[str, float] = {}      # domain: not before (the loop's clock)
        self._looked: dict[str, float] = {}     # domain: when it may be looked for again
        self._looking = False
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, data: bytes) -> None:
        """A datagram has come."""
        now = self._loop.time()
        for name in names_of(data):
            if len(self._asked) >= MOST:
                log.event("wanted_ignored", node=name)
                break
            self._asked.setdefault(name, self._looked.get(name, now))
        self._look_when_due()

    def _look_when_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._asked and not self._looking:
            at = max(self._not_before, min(self._asked.values()))
            if at > self._loop.time():
                self._timer = self._loop.call_at(at, self._look_when_due)
            else:
                self._begin()

    def _begin(self) -> None:
        """Look for all that are due."""
        now = self._loop.time()
        names = frozenset([name for name, at in self._asked.items() if at <= now])
        self._asked = {name: at for name, at in self._asked.items() if name not in names}
        self._looked = {name: at for name, at in self._looked.items() if at > now}
        self._looked.update(dict.fromkeys(names, now + AGAIN))
        self._looking = True
        Running(self._look(names), lambda found, error: self._ended(now, names, found, error))

    def _ended(self, began: float, names: frozenset[str], found: int | None,
               error: BaseException | None) -> None:
        if isinstance(error, OSError):
            log.event("scan_failed", error=program.describe(error))
        elif error is not None:
            program.bug(error)
        else:
            log.event("wanted", nodes=",".join(sorted(names))[:300], waiting=found)
        now = self._loop.time()
        self._looking, self._not_before = False, now + max(PAUSE, SHARE * (now - began))
        self._look_when_due()

    async def _look(self, names: frozenset[str]) -> int:
        """How many messages were brought forward."""
        asked, total = self._now(), 0
        ids = store.scan_names("wait", stat=False)
        while True:
            found: list[tuple[str, Wanted]] | None = await self._step(ids, names)
            if found is None:
                return total
            for _, seqs in found:
                seqs.at = asked
            total += len(found)
            if found:
                self._bring(found)

    def _step(self, ids: Iterator[tuple[str, float]], names: frozenset[str]) -> Waiter:
        return self._disk.do(_find, ids, names)


def names_of(data: bytes) -> list[str]:
    """The domains and ``.domains`` in a datagram, in lower case; what is none of them is left out."""
    found = []
    for line in data[:LONGEST].decode("ascii", "replace").split("\n"):
        try:
            check_domain(line.removeprefix("."))
        except BadAddress:
            continue
        if line.isascii():
            found.append(lower_ascii(line))
    return found


def _find(ids: Iterator[tuple[str, float]], names: frozenset[str]) -> list[tuple[str, Wanted]] | None:
    """In a thread: those of the next STEP messages that wait for one of *names*; None at the end."""
    step = [id for id, _ in islice(ids, STEP)]
    if not step:
        return None
    found = []
    for id in step:
        try:
            seqs = waiting_for(store.read("wait", id), names)
        except (FileNotFoundError, BadFile):        # who tries it will see
            continue
        if seqs:
            found.append((id, seqs))
    return found


def waiting_for(data: bytes, names: frozenset[str]) -> Wanted:
    """The sequence numbers of the recipients in one of the domains *names* that wait, by the record
    *data*. Raises BadFile."""
    lower = data.lower()
    if data.isascii() and not any([name.encode() in lower for name in names]):
        return Wanted()
    record = records.parse(data)
    return Wanted([state.recipient.seq for state in record.current()
                   if state.kind == "wait" and _is_in(domain_of(state.recipient.address), names)])


def _is_in(domain: str, names: frozenset[str]) -> bool:
    return any([name in names for name in suffixes(domain) if name])
