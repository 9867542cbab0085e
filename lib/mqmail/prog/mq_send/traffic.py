"""What is done about sites: who is not asked about, what is put off, and what is brought forward.

Knows the clock; ``sites`` holds what services have said, ``turns`` the jobs that wait.
"""

from __future__ import annotations

import random
import time

from mqmail.base import log
from mqmail.control.whose import part_of
from mqmail.prog.mq_send.sites import Hold, Sites
from mqmail.prog.mq_send.turns import OWNED, SEVERAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from mqmail.prog.mq_send.job import Job
    from mqmail.prog.mq_send.turns import Turns
    from mqmail.prog.mq_send.verdicts import Verdict

    Bring = Callable[[Iterable[tuple[str, frozenset[str]]]], None]

CROWD = 125             # messages for one site in memory; a quarter of all
SLOW = 10.0             # seconds in which a site ends as many jobs as that, or it is slow
FIRST_BROUGHT = 20      # messages that are brought forward when a site answers again,
MORE_BROUGHT = 2        # and with each verdict after that
_SWEEP = 0.1            # seconds until waiting jobs for a site that went down are put off together
_CROWDED = 30.0         # seconds that mail for a crowded site is put off, at least
_PER_MESSAGE = 0.1      # and for each message that waits for it already


class Traffic:
    """The sites of destination *name*. *remote*: each domain is a site until its service says more.
    *bring* is given what is to be brought forward: ids, with the recipients. ``delimiters``: those of
    control/detaildelimiter."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, turns: Turns, bring: Bring) -> None:
        self._loop = loop
        self._name = name
        self._remote = name == "remote"
        self._owned = name in OWNED
        self._turns = turns
        self._bring = bring
        self.delimiters = ""
        self._sites = Sites()
        self._ended: dict[str, int] = {}    # crowded sites: jobs that ended since the last look
        self._slow: set[str] = set()        # those of them that have too few
        self._sweeping_soon = False

    def __bool__(self) -> bool:
        return self._remote or self._owned or bool(self._sites)

    # --- before a job is begun ---

    def sort(self, job: Job) -> None:
        """Put off who need not be asked about; see whether the rest shares a site."""
        self.put_off_down(job)
        if self._remote and job.states:
            names = {self._sites.name(domain) for domain in job.domains}
            job.site = names.pop() if len(names) == 1 else ""
        elif self._owned:
            parts = {part_of(self._name, state.recipient.address, self.delimiters)
                     for state in job.states}
            job.site = parts.pop() if len(parts) == 1 else SEVERAL
        if job.site and self._turns.crowd(job.site) >= CROWD:
            self._join_crowd(job)

    def put_off_down(self, job: Job) -> None:
        """Leave out the recipients whose site is known to be down. Forced ones are asked about."""
        if self._sites and not job.forced:
            now, sites = time.time(), self._sites
            job.put_off(lambda domain: sites.hold(domain, job.id, now, random.random()))  # noqa: S311

    # --- when the service has answered ---

    def heard(self, domain: str, id: str, seq: str, verdict: Verdict, now: float) -> float:
        """The service has given *verdict* on a recipient: when it is due again, 0.0 if that does not
        depend on its site. What waits for a site that answers is brought forward."""
        if verdict.kind == "wait" and verdict.site and verdict.retry:
            return self._fell(domain, id, verdict, now)
        if not verdict.broken:
            back = self._sites.answered(domain, verdict.site, id, seq)
            if back:
                log.event("site_back", destination=self._name, site=self._sites.name(domain),
                          waiting=self._sites.waiting(domain))
            if self._has_room(domain):
                found = self._sites.release(domain, FIRST_BROUGHT if back else MORE_BROUGHT)
                if found:
                    self._bring(found)
        return 0.0

    def _fell(self, domain: str, id: str, verdict: Verdict, now: float) -> float:
        until, news = self._sites.fell(domain, verdict.site, id, now, float(verdict.retry),
                                       random.random(), verdict.host, verdict.said)  # noqa: S311
        if news:
            log.event("site_down", destination=self._name, site=verdict.site, retry=verdict.retry,
                      host=verdict.host, said=verdict.said[:300])
            if self._turns and not self._sweeping_soon:
                self._sweeping_soon = True
                self._loop.call_later(_SWEEP, self._sweep)
        return until

    def _sweep(self) -> None:
        """Put off together what waits for a site that went down."""
        self._sweeping_soon = False
        for job in self._turns.jobs():
            self.put_off_down(job)
        self._finish_empty()

    def _finish_empty(self) -> None:
        for job in self._turns.drop_empty():
            job.finish("", None)

    def wait(self, domain: str, id: str, seqs: set[str]) -> None:
        """Recipients of a message, no longer active, wait for the domain's site."""
        if self._sites.is_open(domain, time.time()) and self._has_room(domain):
            self._bring([(id, frozenset(seqs))])
        else:
            self._sites.wait(domain, id, seqs)

    def _has_room(self, domain: str) -> bool:
        return self._turns.crowd(self._sites.name(domain)) < CROWD // 2

    # --- crowds: one site's mail must not fill the memory while it gets nothing done ---

    def _join_crowd(self, job: Job) -> None:
        if job.site in self._slow:
            self._put_off_crowded(job)
        elif job.site not in self._ended:
            self._watch(job.site)

    def _watch(self, site: str) -> None:
        self._ended[site] = 0
        self._loop.call_later(SLOW, self._look, site)

    def ended(self, job: Job) -> None:
        """*job* is over. One for many mailboxes is as much work as one for each."""
        if job.site in self._ended:
            self._ended[job.site] += len(job.states) if self._owned else 1

    def _look(self, site: str) -> None:
        """Is the crowd that wants to a site a fast one?"""
        slow = self._ended.pop(site) < CROWD
        if self._turns.crowd(site) < CROWD // 2:
            self._slow.discard(site)
            return
        self._watch(site)
        if slow:
            self._slow.add(site)
            self._thin_out(site)
        else:
            self._slow.discard(site)

    def _thin_out(self, site: str) -> None:
        """Put off those that came last."""
        jobs = [job for job in self._turns.jobs() if job.site == site]
        room = max(CROWD - (self._turns.crowd(site) - len(jobs)), 0)
        for job in jobs[room:]:
            self._put_off_crowded(job)
        self._finish_empty()

    def _put_off_crowded(self, job: Job) -> None:
        """The more waits for a site, the later this comes, if it is not brought forward. Mail for a
        mailbox comes when its schedule says."""
        said, now = f"more than {CROWD} messages for {job.site} are under way", time.time()

        def hold(domain: str) -> Hold:
            wait = _CROWDED + _PER_MESSAGE * self._sites.waiting(domain)
            until = 0.0 if self._owned else now + wait * (1.0 + random.random())  # noqa: S311  spreads load
            return Hold(until, "4.4.5", said, tried=False)

        job.put_off(hold)
