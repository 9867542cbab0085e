"""One message's way through an attempt: its record, its jobs, what becomes of it.

Everything that happens to a recipient becomes a line of the record first (in memory); the lines reach
the file

* at once, without fsync, when other recipients of the message are still under way (a killed mq-send
  then repeats nobody);
* with fsync before the sender is told of a failure, and when the message has to wait (without, if
  nobody was asked: then there is nothing to forget);
* never, when all recipients succeeded in one go: the record is removed.
"""

from __future__ import annotations

import os
import random
import time
from itertools import islice

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.mail.retry import SET_BACK
from mqmail.prog.mq_send import report
from mqmail.prog.mq_send.agenda import ALL, Wanted
from mqmail.prog.mq_send.job import FEW_MAILBOXES, MOST_PLANNED, MOST_RECIPIENTS, Job, domain_of
from mqmail.prog.mq_send.places import Places
from mqmail.prog.mq_send.verdicts import Clock, Verdict, brief, due, lines_for, of_reply
from mqmail.queue import lines, store
from mqmail.queue import record as records
from mqmail.xmtp.reply import untagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from mqmail.prog.mq_send.scheduler import Scheduler
    from mqmail.prog.mq_send.sites import Hold
    from mqmail.queue.record import Envelope, Record, State
    from mqmail.xmtp.reply import Reply

_MOST_ROUNDS = 100          # replacements are followed at once, this often
_ROOM_FOR_WAITING = records.LONGEST // 2    # octets of a record; then comes only what is final, briefly
_RETRY_DISK = 5.0           # seconds until a record that could not be written is tried again
_RETRY_PENDING = 10.0
_RETRY_REPORT = 300.0       # the longest until the sender is told again: mq-bounce is near


class Message:
    """An active message. ``attempt`` returns when it is due again (seconds since the epoch), or None
    when it is finished or has been set aside. *force*: the recipients that are due whatever the record
    says, ALL: all of them. ``waits``: recipients that wait for a site, by (destination, domain)."""

    def __init__(self, scheduler: Scheduler, id: str, place: str, force: Collection[str]) -> None:
        self.id = id
        self.waits: dict[tuple[str, str], set[str]] = {}
        self._scheduler = scheduler
        self._place = place
        self._force = force
        self._forced = scheduler.forced_at if force is ALL else 0.0
        if isinstance(force, Wanted):
            self._forced = force.at
        self._record: Record
        self._envelope: Envelope
        self._places: Places
        self._written = 0           # octets of the record that are in the file
        self._unwritten: list[bytes] = []
        self._final = False         # there is a final verdict in what is not written
        self._unsynced = False      # a final verdict is in the file, but perhaps not on the disk
        self._body = -1
        self._left = 0              # recipients under way
        self._flushing = False
        self._learnt = False        # somebody was asked, or told

    async def attempt(self) -> float | None:
        """Try everything that is due, tell whom to tell, and see what is left."""
        try:
            if not self._load():
                return None
            await self._try_all()
            await self._tell()
            return await self._settle()
        except BadFile as error:
            self._set_aside(error)
            return None
        finally:
            self._close_body()

    def _load(self) -> bool:
        try:
            data = self._read()
        except FileNotFoundError:
            return False            # finished already: ids may be told twice
        record = records.parse(data, f"queue/{self._place}/{self.id}")
        if not record.complete:     # never acknowledged, or still being written: its writer will tell
            log.event("record_incomplete", id=self.id)
            return False
        assert record.envelope is not None
        if record.envelope.id != self.id:
            raise BadFile(f"the record of {self.id} says it is {record.envelope.id}")
        self._record, self._envelope = record, record.envelope
        self._places = Places(record.current())
        self._written = record.good_length
        return True

    def _read(self) -> bytes:
        """The record, also when it has been moved since somebody said that it is new."""
        if self._place == "new" and store.is_taken_over(self.id):
            self._place = "wait"
        try:
            return store.read(self._place, self.id)
        except FileNotFoundError:
            self._place = "wait"
            return store.read(self._place, self.id)

    def _set_aside(self, error: BadFile) -> None:
        """One bad record must not stop the others; a person has to look at it."""
        self.rescue()
        try:
            path = store.set_aside(self._place, self.id)
        except OSError as failed:
            path = f"(not moved: {failed.strerror})"
        log.event("record_bad", id=self.id, path=path, error=error.text)

    # --- trying ---

    async def _try_all(self) -> None:
        """Rounds of jobs, until what is left has to wait (a replaced recipient is due at once)."""
        for _ in range(_MOST_ROUNDS):
            states = self._due()
            if not states or self._scheduler.stopping:
                return
            self._look_at_body(states)
            self._left = len(states)
            self._flush_soon()
            for waiter in [self._scheduler.submit(destination, job)
                           for destination, job in self._jobs(states)]:
                await waiter

    def _due(self) -> list[State]:
        """What is pending, forced, or has waited: until its time, or until the clock was set back."""
        force, self._force = self._force, ()
        now = time.time()
        return [s for s in self._record.current() if s.kind == "pending" or s.kind == "wait" and (
            s.until <= now or s.time > now + SET_BACK
            or force is ALL or s.recipient.seq in force)]

    def _jobs(self, states: list[State]) -> list[tuple[str, Job]]:
        """A job for each destination and sender, of at most 100 recipients, 1000 for ``remote``. A few
        mailboxes have one each, for mq-lspawn: none waits for another's program. Other servers of
        mailboxes may keep one copy for all."""
        groups: dict[tuple[str, str], list[State]] = {}
        for state in states:
            sender = report.sender_of(self._record, state)
            groups.setdefault((state.recipient.destination, sender), []).append(state)
        jobs = []
        for (destination, sender), part in groups.items():
            most = MOST_PLANNED if destination == "remote" else MOST_RECIPIENTS
            if len(part) <= FEW_MAILBOXES and self._scheduler.is_lspawn(destination):
                most = 1
            for i in range(0, len(part), most):
                jobs.append((destination, Job(self._envelope, sender, destination, part[i:i + most],
                                              self._said, self._open_body, None, self._put_off,
                                              self._forced)))
        return jobs

    def _look_at_body(self, states: list[State]) -> None:
        """BadFile when a body that is to be handed over is missing or damaged. Whatever else is wrong
        costs its jobs time."""
        if any([state.recipient.destination != "new" for state in states]):
            try:
                self._open_body()
            except FileNotFoundError:
                raise BadFile(f"the body of {self.id} is missing") from None
            except OSError:
                pass

    def _open_body(self) -> int:
        if self._body < 0:
            self._body = store.open_body(self.id, self._envelope.size)
        return self._body

    def _close_body(self) -> None:
        if self._body >= 0:
            body, self._body = self._body, -1
            os.close(body)

    def _said(self, state: State, answer: Reply | None, why: str) -> None:
        """A recipient's verdict has come."""
        if answer is None and self._scheduler.stopping:
            self._left -= 1
            return
        destination, now = state.recipient.destination, time.time()
        verdict = of_reply(answer, why, asked=destination == "new")
        self._learnt = True
        if verdict.site or destination == "remote":
            until = self._scheduler.heard(destination, self.id, state.recipient, verdict, now)
            if until:
                verdict = verdict.replace(until=until)  # type: ignore[attr-defined]  # of every @value
        self._take(state, verdict, now)

    def _put_off(self, state: State, hold: Hold) -> None:
        """Nobody was asked: the recipient has to wait for its site."""
        verdict = Verdict("wait", hold.status, hold.host, hold.said, until=hold.until, tried=hold.tried)
        self._take(state, verdict, time.time(), asked=False)

    def _take(self, state: State, verdict: Verdict, now: float, asked: bool = True) -> None:
        """*verdict* becomes lines of the record."""
        self._left -= 1
        recipient = state.recipient
        clock = Clock(now, self._scheduler.lifetime, random.random())  # noqa: S311  spreads load
        if self._record.good_length >= _ROOM_FOR_WAITING:
            verdict = brief(verdict)
        made = lines_for(self._record, state, verdict, clock, self._places)
        known = self._record.recipients
        before = len(known)
        records.extend(self._record, made)
        if verdict.kind == "replace":
            self._places.add(state)
            for one in islice(reversed(known.values()), len(known) - before):
                self._places.add(one)
        if state.kind != "wait" or self._written < _ROOM_FOR_WAITING:
            self._unwritten.append(made)
        if state.kind == "wait" and verdict.until:
            key = recipient.destination, domain_of(recipient.address)
            self.waits.setdefault(key, set()).add(recipient.seq)
        self._log(state, recipient.destination, recipient.address, verdict, asked)
        self._final = self._final or state.kind in ("done", "fail")
        self._flush_soon()

    def _log(self, state: State, destination: str, address: str, verdict: Verdict, asked: bool) -> None:
        if state.kind in ("replaced", "pending"):
            targets = " ".join([f"@{t.destination}:{t.address}" for t in verdict.targets])
            log.event("replaced", id=self.id, to=state.recipient.seq, destination=destination,
                      address=address, by=targets)
            return
        name = {"done": "delivered", "wait": "deferred", "fail": "failed"}[state.kind]
        until = int(state.until - time.time()) if state.kind == "wait" else None
        log.event(name, id=self.id, to=state.recipient.seq, destination=destination, address=address,
                  status=state.status, retry=until, asked=None if asked else "no", host=state.host,
                  tls=verdict.tls, secs=verdict.secs, said=state.said[:300])

    # --- the record's file ---

    def _flush_soon(self) -> None:
        """Write final verdicts when recipients are still under way."""
        if self._final and self._left and not self._flushing:
            self._flushing = True
            self._scheduler.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """To the file, not to the disk. What cannot be written now is written with the rest later."""
        self._flushing = False
        if self._unwritten and self._left:
            self._write()

    def _write(self) -> None:
        data = b"".join(self._unwritten)
        try:
            self._written = store.append(self._place, self.id, self._written, data, sync=False)
        except (OSError, BadFile) as error:
            log.event("record_not_written", id=self.id, error=str(error))
            return
        self._unwritten, self._final = [], False
        self._unsynced = True

    async def _sync(self) -> None:
        """To the disk. While that fails the message stays here: nothing may be done twice or unsaid."""
        data, self._unwritten = b"".join(self._unwritten), []
        while data or self._unsynced:
            try:
                self._written = await self._scheduler.disk.do(
                    store.append, self._place, self.id, self._written, data, True)
                self._unsynced = False
                return
            except FileNotFoundError:
                raise               # somebody removed it: there is nothing left to be done for
            except OSError as error:
                log.event("record_not_written", id=self.id, error=error.strerror or str(error))
                if self._scheduler.stopping:
                    return
                await self._scheduler.sleep(_RETRY_DISK)

    # --- telling the sender ---

    @property
    def _late_at(self) -> float:
        """When it is time to say that recipients still wait; 0: never."""
        seconds = self._scheduler.delaywarn
        return self._envelope.at + seconds if seconds else 0.0

    async def _tell(self) -> None:
        """All failures of this attempt go to the sender in one report (one for each sender), and with
        them that others are late."""
        waiting = report.to_tell(self._record, 0.0 < self._late_at <= time.time())
        if not waiting or self._scheduler.stopping:
            return
        self._look_at_body([state for states in waiting.values() for state in states])
        await self._sync()
        for sender, states in waiting.items():
            for i in range(0, len(states), report.MOST_RECIPIENTS):
                job = self._report(sender, states[i:i + report.MOST_RECIPIENTS])
                await self._scheduler.submit("error", job)

    def _report(self, sender: str, states: list[State]) -> Job:
        ends = self._envelope.at + self._scheduler.lifetime
        addresses = {s.recipient.seq: report.parameters(self._record, s, ends) for s in states}
        return Job(self._envelope, sender, "error", states, self._told, self._open_body, addresses)

    def _told(self, state: State, answer: Reply | None, why: str) -> None:
        seq = state.recipient.seq
        if answer is None or answer.code >= 300:
            said = untagged(answer).said() if answer is not None else why
            log.event("report_deferred", id=self.id, to=seq, said=said)
            return
        self._learnt = True
        action = report.action(state)
        made = lines.told_line(seq, time.time(), action)
        self._unwritten.append(made)
        records.extend(self._record, made)
        log.event("told", id=self.id, to=seq, action=action, said=untagged(answer).said()[:300])

    # --- what is left ---

    async def _settle(self) -> float | None:
        left = [s for s in self._record.all() if not _settled(s)]
        if not left:
            await self._remove()
            return None
        until = min([self._next(state) for state in left])
        if time.time() < self._late_at < until and report.late(self._record):
            until = self._late_at
        if self._learnt or self._final or self._unsynced:
            await self._sync()
        elif self._unwritten:
            self._write()
        await self._move(until)
        return until

    async def _remove(self) -> None:
        """While the disk refuses, the message stays here: nothing may be delivered again."""
        while True:
            try:
                self._close_body()
                await self._scheduler.removal.remove(self._place, self.id)
            except FileNotFoundError:
                pass                # somebody was faster
            except OSError as error:
                log.event("record_not_removed", id=self.id, error=error.strerror)
                if self._scheduler.stopping:
                    return self.rescue()
                await self._scheduler.sleep(_RETRY_DISK)
                continue
            return log.event("finished", id=self.id, seconds=f"{time.time() - self._envelope.at:.3f}")

    def _next(self, state: State) -> float:
        """When to look at this recipient again."""
        if state.kind == "wait":
            return float(state.until)
        now = time.time()
        if state.kind == "pending":         # we are stopping, or it met a bug of ours
            return now + _RETRY_PENDING
        clock = Clock(now, self._scheduler.lifetime, random.random())  # noqa: S311
        until = due(self._envelope.at, "error", Verdict("wait", broken=True), clock)
        return min(until, now + _RETRY_REPORT)

    async def _move(self, until: float) -> None:
        """To ``wait``, the time in the file's mtime. If that fails it is found where it is. In a system
        home a record is mq-queue's when it waits for the first time."""
        if self._scheduler.stopping and self._place == "new" and self._written == 0:
            return
        try:
            try:
                store.set_due(self._place, self.id, until)
            except PermissionError:
                await self._scheduler.disk.do(store.take_over, self.id, self._place, until)
                self._place = "wait"
            if self._place != "wait":
                store.move(self.id, self._place, "wait")
                self._place = "wait"
        except OSError as error:
            log.event("record_not_moved", id=self.id, error=error.strerror)

    @property
    def place(self) -> str:
        """Where the record is: ``new`` or ``wait``."""
        return self._place

    def rescue(self) -> None:
        """Save what is known, when no more of it will be learnt."""
        self._left += 1
        self._flush()


def _settled(state: State) -> bool:
    return state.kind in ("done", "fail", "replaced") and report.action(state) in ("", "none")


