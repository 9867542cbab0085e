"""Whose job is next, and how many slots it gets. Pure.

Jobs of different messages take turns, so a mailing to thousands does not hold up a note to one. Where a
service opens connections (``remote``) a job may hold several slots, which become free as its verdicts
come, and one site may not have them all: half of them while jobs for others wait, three quarters else.
Of deliveries to mailboxes a user is a site, whose programs may take ten minutes: seven eighths of the
slots when nobody else waits, and the last eighth is only for sites that have none.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.prog.mq_send.job import Job

OWNED = frozenset(("mailbox", "local"))     # destinations whose sites are users of ours
SEVERAL = "several"     # the site of their jobs that are for more than one user


class Turns:
    """Jobs that wait, and the slots in use. *limit*: slots there are; *busy*: those in use. True while
    a job waits. *owned*: the sites are users of ours."""

    def __init__(self, owned: bool = False) -> None:
        self.limit = 1
        self._owned = owned
        self.busy = 0
        self._messages: deque[deque[Job]] = deque()
        self._by_id: dict[str, deque[Job]] = {}
        self._count = 0
        self._crowd: dict[str, int] = {}        # jobs of a site, with those under way
        self._waiting: dict[str, int] = {}      # jobs that wait, by site, "" too
        self._held: dict[str, int] = {}         # slots in use for a site

    def __bool__(self) -> bool:
        return bool(self._messages)

    def crowd(self, site: str) -> int:
        """How many jobs for *site* wait or are under way."""
        return self._crowd.get(site, 0)

    def add(self, job: Job) -> None:
        """*job* waits for its turn."""
        jobs = self._by_id.get(job.id)
        if jobs is None:
            jobs = self._by_id[job.id] = deque()
            self._messages.append(jobs)
        jobs.append(job)
        self._count += 1
        _add(self._waiting, job.site, 1)
        if job.site:
            _add(self._crowd, job.site, 1)

    def ready(self) -> bool:
        """Whether a job may begin now; ``take`` gives it."""
        if self.busy >= self.limit or not any(map(self._may, self._waiting)):     # few are ever full
            return False
        for _ in range(len(self._messages)):
            if self._may(self._messages[0][0].site):
                return True
            self._messages.rotate(-1)
        return False

    def _may(self, site: str) -> bool:
        return not site or self._room(site) > 0

    def _room(self, site: str) -> int:
        """Slots that *site* may have in addition."""
        others = self._count > self._waiting.get(site, 0)
        held = self._held.get(site, 0)
        kept = (self.limit + 7) // 8 if self._owned else self.limit // 4
        share = (self.limit + 1) // 2 if others else self.limit - kept
        room = max(share, 1) - held
        return min(room, self.limit - kept - self.busy) if self._owned and held else room

    def take(self) -> Job:
        """The next job, which waits no longer. Gives up its turn or is to ``begin``."""
        jobs = self._messages.popleft()
        job = jobs.popleft()
        if jobs:
            self._messages.append(jobs)
        else:
            del self._by_id[job.id]
        self._count -= 1
        _add(self._waiting, job.site, -1)
        return job

    def begin(self, job: Job, several: bool) -> None:
        """Give *job* its slots, in ``job.slots``: one, or with *several* as many as it has recipients,
        but at most half of what is free, so that the largest mailing leaves some to others."""
        slots = 1
        if several:
            slots = min(job.left, (self.limit - self.busy + 1) // 2)
            if job.site:
                slots = min(slots, self._room(job.site))
        job.slots = max(slots, 1)
        self.busy += job.slots
        if job.site:
            _add(self._held, job.site, job.slots)

    def shrink(self, job: Job) -> bool:
        """A verdict has come: *job* needs no more slots than it has recipients without one, and one
        until its end. Whether a slot is free now."""
        spare = job.slots - max(job.left, 1)
        if spare <= 0:
            return False
        self._release(job, spare)
        return True

    def end(self, job: Job) -> None:
        """*job* is over, or (with no slots) will not begin."""
        self._release(job, job.slots)
        if job.site:
            _add(self._crowd, job.site, -1)

    def _release(self, job: Job, slots: int) -> None:
        job.slots -= slots
        self.busy -= slots
        if job.site and slots:
            _add(self._held, job.site, -slots)

    def jobs(self) -> Iterator[Job]:
        """All that wait."""
        for jobs in self._messages:
            yield from jobs

    def drop_empty(self) -> list[Job]:
        """Take out the jobs that have no recipients left."""
        empty = []
        for _ in range(self._count):
            job = self.take()
            if job.states:
                self._return(job)
            else:
                self.end(job)
                empty.append(job)
        return empty

    def _return(self, job: Job) -> None:
        if job.site:
            _add(self._crowd, job.site, -1)
        self.add(job)


def _add(counts: dict[str, int], site: str, number: int) -> None:
    found = counts.get(site, 0) + number
    if found:
        counts[site] = found
    else:
        counts.pop(site, None)
