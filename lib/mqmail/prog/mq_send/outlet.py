"""A destination's service: its sessions, its limit, and the jobs that wait for them.

A job is one transaction: some recipients of one message. Jobs of different messages take turns, so a
mailing to thousands does not hold up a note to one. Sessions stay open and are used again. A service
that does not answer is tried again after a short while; when it stays away, the jobs are handed back
without verdicts, which means: later.
"""

from __future__ import annotations

from collections import deque

from mqmail.base import log
from mqmail.base.waiter import Running, Waiter
from mqmail.control.destinations import Destination
from mqmail.net.expired import Expired
from mqmail.net.session import Session
from mqmail.net.stream import Deadlines, connect_tcp, connect_unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from mqmail.prog.mq_send.job import Job

PATIENCE = 10.0         # seconds a service may be away before jobs are handed back
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)
_ASKED_AT_ONCE = 100    # jobs without a body in one burst
_CONNECT = 60.0
STALLED = 60.0          # seconds in which no job ends, after which those that wait are handed back


class Outlet:
    """The service of one destination. *limit*: sessions (or, for ``remote``, connections) at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, host: str,
                 service: Destination, limit: int) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._host = host
        self.name = service.name
        self._asks = service.name == "new"
        self._waiting: deque[deque[Job]] = deque()
        self._queues: dict[str, deque[Job]] = {}
        self._idle: list[Session] = []
        self._busy = 0              # slots in use
        self._asking_soon = False
        self._opening = False
        self._away_since = 0.0
        self._tries = 0
        self._moved = loop.time()   # when a job ended last
        self._watched = False
        self.configure(service, limit)

    def configure(self, service: Destination, limit: int) -> None:
        """Take new settings; open sessions go on, idle ones are closed."""
        self._service = service
        self._limit = min(limit, 2) if self._asks else limit
        self.close_idle()

    def close_idle(self) -> None:
        """Close the sessions nobody uses."""
        idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def submit(self, job: Job) -> Waiter:
        """Queue *job*; the Waiter comes when all its verdicts are in, or none will come."""
        if not self._limit:
            job.finish(f"{self.name} is held: its concurrency is 0", None)
            return job.done
        jobs = self._queues.get(job.id)
        if jobs is None:
            jobs = self._queues[job.id] = deque()
            self._waiting.append(jobs)
        jobs.append(job)
        self._watch()
        if self._asks:
            if not self._asking_soon:
                self._asking_soon = True
                self._loop.call_soon(self._ask_soon)
        else:
            self._pump()
        return job.done

    def _watch(self) -> None:
        """Messages in memory are limited: those of a service that gets nothing done must not fill it."""
        if self._waiting and not self._watched:
            self._watched = True
            self._loop.call_later(STALLED, self._look)

    def _look(self) -> None:
        self._watched = False
        if self._loop.time() - self._moved >= STALLED:
            self._hand_back(f"{self.name} is busy and has finished nothing for {STALLED:g} s")
        self._watch()

    def _ask_soon(self) -> None:
        """Jobs of this turn of the loop go in one burst."""
        self._asking_soon = False
        self._pump()

    def _next(self) -> Job | None:
        """The next job, messages taking turns."""
        if not self._waiting:
            return None
        jobs = self._waiting.popleft()
        job = jobs.popleft()
        if jobs:
            self._waiting.append(jobs)
        else:
            del self._queues[job.id]
        return job

    def _pump(self) -> None:
        """Give waiting jobs to sessions as far as the limit allows."""
        while self._waiting and self._busy < self._limit:
            session = self._take_idle()
            if session is not None:
                self._use(session)
            elif self._opening:
                return
            else:
                self._opening = True
                Running(self._open(), self._opened)

    def _take_idle(self) -> Session | None:
        while self._idle:
            session = self._idle.pop()
            if session.alive():
                return session
            session.close()
        return None

    def _use(self, session: Session) -> None:
        if self._asks:
            jobs = [job for job in (self._next() for _ in range(_ASKED_AT_ONCE)) if job is not None]
            self._busy += 1
            Running(self._ask(session, jobs), lambda _r, error: self._used(session, jobs, 1, error))
            return
        job = self._next()
        assert job is not None
        slots = self._slots(job) if self.name == "remote" else 1
        self._busy += slots
        Running(job.run(session, slots), lambda _r, error: self._used(session, [job], slots, error))

    def _slots(self, job: Job) -> int:
        """Connections for *job*: no more than it has recipients, and half of what is free, so that the
        largest mailing leaves some to others."""
        return min(len(job.states), (self._limit - self._busy + 1) // 2)

    async def _ask(self, session: Session, jobs: list[Job]) -> None:
        for job in jobs:
            job.prepare_question()
        await session.ask([job.transaction for job in jobs])
        for job in jobs:
            job.answered(session.broken)

    def _used(self, session: Session, jobs: list[Job], slots: int, error: BaseException | None) -> None:
        """The session has done its work, or something went wrong with it."""
        self._busy -= slots
        self._moved = self._loop.time()
        if error is not None or session.broken:
            session.close()
        else:
            self._idle.append(session)
        for job in jobs:
            job.finish(session.broken, error)
        self._pump()

    # --- opening ---

    async def _open(self) -> Session:
        service = self._service
        if service.path:
            stream = await connect_unix(self._loop, self._deadlines, service.path)
        else:
            found = await _look_up(self._loop, service.host, service.port)
            stream = await connect_tcp(self._loop, self._deadlines, found, service.port, _CONNECT)
        session = Session(stream, "lmtp", self._host, float(service.timeout))
        if not await session.open():
            raise OSError(0, session.broken, self.name)
        return session

    def _opened(self, session: Session | None, error: BaseException | None) -> None:
        if session is not None:
            if self._tries:
                log.event("service_back", destination=self.name)
            self._tries, self._away_since, self._opening = 0, 0.0, False
            self._idle.append(session)
            return self._pump()
        return self._away(error)

    def _away(self, error: BaseException | None) -> None:
        """Nobody answers: sessions that are open may go on; try again soon, give up after a while."""
        why = _words(error)
        now = self._loop.time()
        if not self._tries:
            self._away_since = now
            log.event("service_away", destination=self.name, said=why)
        pause = _PAUSES[min(self._tries, len(_PAUSES) - 1)]
        self._tries += 1
        if not self._busy and (now - self._away_since >= PATIENCE or isinstance(error, Expired)):
            self._hand_back(f"{self.name} does not answer: {why}")
        self._loop.call_later(pause, self._retry)

    def _retry(self) -> None:
        self._opening = False
        if self._waiting:
            self._pump()
        else:
            self._tries = max(self._tries, 1)

    def _hand_back(self, why: str) -> None:
        while (job := self._next()) is not None:
            job.finish(why, None)

    def give_up(self) -> None:
        """At the end: what has not begun will not; its recipients keep what the record says."""
        self._limit = 0
        self._hand_back("closing down")


async def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> str:
    """A literal address as it is, else the first one the system's resolver gives."""
    if host.replace(".", "").isdigit() or ":" in host:
        return host
    waiter = Waiter()
    task = loop.create_task(loop.getaddrinfo(host, port))

    def done(found: asyncio.Task[Any]) -> None:
        error = found.exception()
        if error is not None:
            waiter.fail(error if isinstance(error, OSError) else OSError(0, str(error)))
        else:
            waiter.set(str(found.result()[0][4][0]))

    task.add_done_callback(done)
    return str(await waiter)


def _words(error: BaseException | None) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "no answer in time" if isinstance(error, Expired) else repr(error)[:200]
