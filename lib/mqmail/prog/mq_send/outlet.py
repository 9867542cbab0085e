"""A destination's service: its sessions, its slots, and the jobs that wait for them.

A job is one transaction: some recipients of one message. Whose turn it is, ``turns`` says; which
recipients nobody needs to ask about, ``traffic``. Sessions stay open and are used again. A service that
does not answer is tried again after a short while; when it stays away, the jobs are handed back without
verdicts, which means: later.
"""

from __future__ import annotations

from mqmail.base import log
from mqmail.base.waiter import Running, Waiter
from mqmail.control.destinations import Destination
from mqmail.net.expired import Expired
from mqmail.net.session import Session
from mqmail.net.stream import Deadlines, connect_tcp, connect_unix
from mqmail.prog.mq_send.traffic import Traffic
from mqmail.prog.mq_send.turns import OWNED, Turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from mqmail.prog.mq_send.job import Job
    from mqmail.prog.mq_send.traffic import Bring
    from mqmail.prog.mq_send.verdicts import Verdict

PATIENCE = 10.0         # seconds a service may be away before jobs are handed back
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)
_ASKED_AT_ONCE = 100    # jobs without a body in one burst
_CONNECT = 60.0
REST = 30.0             # seconds that a session is kept unused
STALLED = 60.0          # seconds in which no job ends, after which those that wait are handed back


class Outlet:
    """The service of one destination. *limit*: sessions (or, for ``remote``, connections) at a time.
    *bring*, *delimiters*: see ``Traffic``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, host: str,
                 service: Destination, limit: int, bring: Bring, delimiters: str = "") -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._host = host
        self.name = service.name
        self._asks = service.name == "new"
        self._remote = service.name == "remote"
        self._turns = Turns(service.name in OWNED)
        self._traffic = Traffic(loop, service.name, self._turns, bring)
        self._idle: list[Session] = []      # the last used last
        self._unused = 0            # how many of them nobody has used since somebody looked
        self._resting = False       # somebody will look
        self._asking_soon = False
        self._opening = False
        self._away_since = 0.0
        self._tries = 0
        self._moved = loop.time()   # when a job ended, or a job of many slots got a verdict, last
        self._watched = False
        self.configure(service, limit, delimiters)

    def configure(self, service: Destination, limit: int, delimiters: str = "") -> None:
        """Take new settings; open sessions go on, idle ones are closed."""
        self._service = service
        self._traffic.delimiters = delimiters
        self._turns.limit = min(limit, 2) if self._asks else limit
        self.close_idle()

    def close_idle(self) -> None:
        """Close the sessions nobody uses."""
        self._close_first(len(self._idle))

    def _close_first(self, count: int) -> None:
        closed, self._idle = self._idle[:count], self._idle[count:]
        for session in closed:
            session.close()

    def _rest(self, session: Session) -> None:
        """The session is not needed now."""
        self._idle.append(session)
        if not self._resting:
            self._resting = True
            self._unused = 0
            self._loop.call_later(REST, self._look_at_idle)

    def _look_at_idle(self) -> None:
        """Close those that were not used: the service may need no process for them then."""
        self._close_first(self._unused)
        self._unused = len(self._idle)
        self._resting = self._unused > 0
        if self._resting:
            self._loop.call_later(REST, self._look_at_idle)

    def submit(self, job: Job) -> Waiter:
        """Queue *job*; the Waiter comes when all its verdicts are in, or none will come."""
        if not self._turns.limit:
            job.finish(f"{self.name} is held: its concurrency is 0", None)
            return job.done
        if self._traffic:
            self._traffic.sort(job)
            if not job.states:
                job.finish("", None)
                return job.done
        self._turns.add(job)
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
        if self._turns and not self._watched:
            self._watched = True
            self._loop.call_later(STALLED, self._look)

    def _look(self) -> None:
        self._watched = False
        if self._loop.time() - self._moved >= STALLED:
            self._hand_back(f"{self.name} is busy and has finished nothing for {STALLED:g} s")
        self._watch()

    def heard(self, domain: str, id: str, seq: str, verdict: Verdict, now: float) -> float:
        """See ``Traffic.heard``."""
        return self._traffic.heard(domain, id, seq, verdict, now)

    def wait(self, domain: str, id: str, seqs: set[str]) -> None:
        """See ``Traffic.wait``."""
        self._traffic.wait(domain, id, seqs)

    # --- giving jobs to sessions ---

    def _ask_soon(self) -> None:
        """Jobs of this turn of the loop go in one burst."""
        self._asking_soon = False
        self._pump()

    def _pump(self) -> None:
        """Give waiting jobs to sessions as far as the limit allows."""
        while self._turns.ready():
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
            self._unused = min(self._unused, len(self._idle))
            if session.alive():
                return session
            session.close()
        return None

    def _use(self, session: Session) -> None:
        if self._asks:
            jobs: list[Job] = []
            while self._turns and len(jobs) < _ASKED_AT_ONCE:
                jobs.append(self._turns.take())
            self._turns.busy += 1
            Running(self._ask(session, jobs), lambda _r, error: self._asked(session, jobs, error))
            return
        job = self._turns.take()
        self._traffic.put_off_down(job)
        if not job.states:
            self._rest(session)
            self._turns.end(job)
            job.finish("", None)
            return
        self._turns.begin(job, self._remote)
        job.progress = (lambda: self._progressed(job)) if job.slots > 1 else None
        Running(job.run(session), lambda _r, error: self._used(session, [job], error))

    def _progressed(self, job: Job) -> None:
        """A verdict has come: slots may be free for others."""
        self._moved = self._loop.time()
        if self._turns.shrink(job):
            self._pump()

    async def _ask(self, session: Session, jobs: list[Job]) -> None:
        for job in jobs:
            job.prepare_question()
        await session.ask([job.transaction for job in jobs])
        for job in jobs:
            job.answered()

    def _asked(self, session: Session, jobs: list[Job], error: BaseException | None) -> None:
        self._turns.busy -= 1
        self._used(session, jobs, error)

    def _used(self, session: Session, jobs: list[Job], error: BaseException | None) -> None:
        """The session has done its work, or something went wrong with it."""
        self._moved = self._loop.time()
        if error is not None or session.broken:
            session.close()
        else:
            self._rest(session)
        for job in jobs:
            self._turns.end(job)
            self._traffic.ended(job)
        for job in jobs:
            if error is None and self._turns.limit and _for_nothing(session, job):
                job.again = True
                self._turns.add(job)
            else:
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
            self._rest(session)
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
        if not self._turns.busy and (now - self._away_since >= PATIENCE or isinstance(error, Expired)):
            self._hand_back(f"{self.name} does not answer: {why}")
        self._loop.call_later(pause, self._retry)

    def _retry(self) -> None:
        self._opening = False
        if self._turns:
            self._pump()
        else:
            self._tries = max(self._tries, 1)

    def _hand_back(self, why: str) -> None:
        while self._turns:
            job = self._turns.take()
            self._turns.end(job)
            job.finish(why, None)

    def give_up(self) -> None:
        """At the end: what has not begun will not; its recipients keep what the record says."""
        self._turns.limit = 0
        self._hand_back("closing down")


def _for_nothing(session: Session, job: Job) -> bool:
    """Whether *job* met a session that had been idle and was closed at that moment, as when a service
    is restarted, and can do no harm when it is begun once more: the service never had the body."""
    lost = session.broken and session.used > 1 and not session.expired
    return bool(lost) and not (job.begun or job.again) and job.left == len(job.states)


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
