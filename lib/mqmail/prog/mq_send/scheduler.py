"""The scheduler: learns of messages, begins them in turn, gives their jobs to the services.

It learns of new messages by datagrams to run/trigger, and because datagrams are only hints it looks
through ``queue/new`` when it starts and every five minutes; so none is missed, whoever was down and
whatever buffer was full. At the start it reads names and times of waiting records, not their contents,
a few hundred at a time between other work: new mail is delivered meanwhile.
"""

from __future__ import annotations

import errno
import os
import time

from mqmail.base import log, program
from mqmail.base.waiter import Running, Waiter
from mqmail.control import reader
from mqmail.control.destinations import BUILT_IN
from mqmail.control.values import account_deliveries
from mqmail.mail.retry import SET_BACK, next_attempt
from mqmail.net import trigger
from mqmail.net.stream import Deadlines
from mqmail.net.threads import Threads
from mqmail.prog.mq_send.agenda import Agenda
from mqmail.prog.mq_send.job import Job, domain_of
from mqmail.prog.mq_send.message import Message
from mqmail.prog.mq_send.nodes import LONGEST, Nodes
from mqmail.prog.mq_send.outlet import Outlet
from mqmail.prog.mq_send.removal import Removal
from mqmail.prog.mq_send.turns import OWNED
from mqmail.queue import ids, orphans, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Iterator

    from mqmail.base import unix
    from mqmail.control.destinations import Destination
    from mqmail.prog.mq_send.verdicts import Verdict
    from mqmail.queue.record import Recipient

CONTROL = ("me", "destinations", "queuelifetime", "delaywarn", "concurrencylocal", "concurrencyremote",
           "detaildelimiter")
MOST_ACTIVE = 500           # messages in memory
SCAN_STEP = 200             # directory entries looked at in one go
RESCAN = 300.0              # seconds between looks through queue/new
CLEAN = 3600.0              # seconds between looks for what was never acknowledged
GRACE = 15.0                # seconds for what is being delivered when we are told to stop
_AFTER_BUG = 300.0          # seconds until a message that met a bug of ours is tried again
_SOON = 2.0                 # seconds until one that the system's trouble met is, at first
_NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
_ROOM_PAUSE = 1.0           # seconds in which nothing is begun for want of descriptors or memory
_PAUSE = 0.005              # seconds between two steps of a scan: others get their turn
_LOOK_PAUSE = 0.5           # seconds in which all who ask for a look through queue/new ask for one
_DATAGRAMS = 100            # read in one go
_CONCURRENCY = {"remote": "concurrencyremote", "mailbox": "concurrencylocal"}
_DEFAULT_CONCURRENCY = 10


class Scheduler:
    """One per queue. ``start``, then the loop runs it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.stopping = False
        self.forced_at = 0.0        # when somebody wanted all to be tried
        self.disk = Threads(loop)
        self.removal = Removal(self.disk)
        self._deadlines = Deadlines(loop)
        self._agenda = Agenda()
        self._active: dict[str, Message] = {}
        self._outlets: dict[str, Outlet] = {}
        self._stopped: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._control = reader.load(".", CONTROL)
        self._pumping = False
        self._room_at = 0.0         # when, by the loop's clock, something may be begun again
        self._asked_to_look = False
        self._nodes = Nodes(loop, self.disk, time.time, self._bring)
        self._clock = time.time() - time.monotonic()

    @property
    def lifetime(self) -> float:
        """Seconds a recipient is tried."""
        return float(self._control.queuelifetime)

    @property
    def delaywarn(self) -> float:
        """Seconds after which the sender hears of a recipient that waits; 0: never."""
        return float(self._control.delaywarn)

    def start(self, listener: unix.socket, etrn: unix.socket) -> None:
        """Listen for new ids, and for domains that mail is wanted for; then look through the queue."""
        self._trigger, self._etrn = listener, etrn
        for sock, heard in ((listener, self._triggered), (etrn, self._asked_for)):
            sock.setblocking(False)
            self.loop.add_reader(sock.fileno(), heard)
        self._rescan()
        self._scan_waiting()
        self.loop.call_later(60.0, self._clean)

    def reload(self) -> None:
        """Read the control files again; raises BadFile and changes nothing when one is wrong."""
        self._control = reader.load(".", CONTROL)
        for name, outlet in self._outlets.items():
            service = self._control.destinations.lookup(name)
            if service is not None:
                outlet.configure(service, self._limit(service), self._control.detaildelimiter)

    # --- learning of messages ---

    def _triggered(self) -> None:
        for _ in range(_DATAGRAMS):     # whatever is left brings us here again, after the others' turn
            try:
                data = self._trigger.recv(trigger.LONGEST)
            except OSError:
                break
            words = data.decode("ascii", "replace").split("\n")
            for word in words:
                if ids.is_id(word):
                    self._agenda.add_fresh(word)
            if "*run" in words:
                self.run_all()
            if "*scan" in words:
                self._look_soon()
        self.pump()

    def _asked_for(self) -> None:
        """ETRN: at most a datagram a turn."""
        try:
            self._nodes.ask(self._etrn.recv(LONGEST))
        except OSError:
            pass

    def _look_soon(self) -> None:
        """Look through ``new``: once, however many ask."""
        if not self._asked_to_look:
            self._asked_to_look = True
            self.loop.call_later(_LOOK_PAUSE, self._look)

    def _look(self) -> None:
        self._asked_to_look = False
        self._scan(self._new_records())

    def run_all(self) -> None:
        """Try all waiting messages now."""
        log.event("run_all", waiting=len(self._agenda))
        self.forced_at = time.time()
        self._agenda.force_all()
        self.pump()

    def _rescan(self) -> None:
        if not self.stopping:
            self._scan(self._new_records())
            self.loop.call_later(RESCAN, self._rescan)

    def _new_records(self) -> Iterator[object]:
        for id, _ in store.scan_names("new", stat=False):
            self._agenda.add_fresh(id)
            yield id

    def _waiting_records(self) -> Iterator[object]:
        """Those of the start. None is to wait longer than the schedule's longest interval, but for a
        clock that was set back."""
        found, now = 0, time.time()
        latest = now + next_attempt(0.0, self.lifetime, fuzz=1.0) - self.lifetime
        for id, at in store.scan_names("wait"):
            self._agenda.add_due(id, at if at <= latest else now)
            found += 1
            yield id
        log.event("scanned", waiting=found)

    def _scan_waiting(self) -> None:
        """At the start; and again when the disk refused, for nobody else will tell of these."""
        self._scan(self._waiting_records(), again=self._scan_waiting)

    def _scan(self, steps: Iterator[object], again: Callable[[], None] | None = None) -> None:
        """Go through *steps* a few hundred at a time; if that fails, *again* is called later."""
        try:
            for count, _ in enumerate(steps, 1):
                if count == SCAN_STEP:
                    self.loop.call_later(_PAUSE, self._scan, steps, again)
                    break
        except OSError as error:
            log.event("scan_failed", error=program.describe(error))
            if again is not None:
                self.loop.call_later(RESCAN, again)
        self.pump()

    def _clean(self) -> None:
        """Remove what was never acknowledged, in small steps."""
        if not self.stopping:
            self._scan(orphans.remove_orphans(time.time()))
            self.loop.call_later(CLEAN, self._clean)

    # --- beginning messages ---

    def pump(self) -> None:
        """Begin what can be begun; ask to be woken for what is due later."""
        if self._pumping or self.stopping or not self._has_room():
            return
        self._pumping = True
        self._look_at_clock()
        try:
            while len(self._active) < MOST_ACTIVE and self._has_room():
                found = self._agenda.next(time.time())
                if found is None:
                    break
                self._begin(*found)
        finally:
            self._pumping = False
        self._set_timer()

    def _has_room(self) -> bool:
        return self.loop.time() >= self._room_at

    def _look_at_clock(self) -> None:
        """One that is set back must not make anything wait longer than it was to."""
        offset = time.time() - time.monotonic()
        back, self._clock = self._clock - offset, offset
        if back > SET_BACK:
            log.event("clock_set_back", seconds=int(back))
            self._agenda.shift(-back)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._agenda.wake_at()
        if at is not None and len(self._active) < MOST_ACTIVE:
            self._timer = self.loop.call_later(min(max(at - time.time(), 0.01), 60.0), self.pump)

    def _begin(self, id: str, place: str, force: Collection[str]) -> None:
        message = Message(self, id, place, force)
        self._active[id] = message
        Running(message.attempt(), lambda due, error: self._ended(message, due, error))

    def _ended(self, message: Message, due: float | None, error: BaseException | None) -> None:
        """An attempt is over. Trouble of the system's or ours costs time, never the message."""
        id = message.id
        self._active.pop(id, None)
        self._agenda.finished(id, gone=error is None and due is None)
        if error is not None:
            self._trouble(message, error)
        elif due is not None:
            self._wait(message, due)
        if self.stopping:
            self._check_stopped()
        else:
            self.pump()

    def _wait(self, message: Message, due: float) -> None:
        if message.place != "wait":         # it could not be moved
            return self._again(message, pause_of(message.id, time.time()))
        self._agenda.add_due(message.id, due)
        for (destination, domain), seqs in message.waits.items():
            self._outlets[destination].wait(domain, message.id, seqs)
        return None

    def _bring(self, messages: Iterable[tuple[str, frozenset[str]]]) -> None:
        """What waited for a site, or is wanted, waits no longer; it takes turns with what is due."""
        self._agenda.bring(messages)
        self.loop.call_soon(self.pump)

    def _trouble(self, message: Message, error: BaseException) -> None:
        message.rescue()
        if isinstance(error, OSError):
            log.event("message_trouble", id=message.id, error=program.describe(error))
            if error.errno in _NO_ROOM and self._has_room():
                self._room_at = self.loop.time() + _ROOM_PAUSE
                self.loop.call_at(self._room_at, self.pump)
            self._again(message, pause_of(message.id, time.time()))
        else:
            program.bug(error, id=message.id)
            self._again(message, _AFTER_BUG)

    def _again(self, message: Message, pause: float) -> None:
        """Look at it again after *pause* seconds, wherever its record is."""
        if message.place == "wait":
            self._agenda.add_due(message.id, time.time() + pause)
        else:
            self.loop.call_later(pause, self._fresh_again, message.id)

    def _fresh_again(self, id: str) -> None:
        self._agenda.add_fresh(id)
        self.pump()

    # --- services ---

    def submit(self, destination: str, job: Job) -> Waiter:
        """Give *job* to its destination's service; the Waiter comes when it is over."""
        outlet = self._outlets.get(destination) or self._make_outlet(destination)
        if outlet is None or self.stopping:
            why = f"no service for destination {destination}" if outlet is None else "closing down"
            job.finish(why, None)
            return job.done
        return outlet.submit(job)

    def heard(self, destination: str, id: str, recipient: Recipient, verdict: Verdict,
              now: float) -> float:
        """What a verdict means for the recipient's site; see ``Outlet.heard``."""
        outlet = self._outlets.get(destination)
        if outlet is None:
            return 0.0
        return outlet.heard(domain_of(recipient.address), id, recipient.seq, verdict, now)

    def is_lspawn(self, destination: str) -> bool:
        """Whether this is one of mq-lspawn's, whose processes deliver at the same time."""
        if destination not in OWNED:
            return False
        service = self._control.destinations.lookup(destination)
        return service is not None and service.path == BUILT_IN[destination].path

    def _make_outlet(self, name: str) -> Outlet | None:
        service = self._control.destinations.lookup(name)
        if service is None:
            log.event("no_service", destination=name)
            return None
        outlet = Outlet(self.loop, self._deadlines, self._control.me, service, self._limit(service),
                        self._bring, self._control.detaildelimiter)
        self._outlets[name] = outlet
        return outlet

    def _limit(self, service: Destination) -> int:
        if service.concurrency is not None:
            return service.concurrency
        if service.name == "local":
            return account_deliveries(self._control.concurrencylocal)
        name = _CONCURRENCY.get(service.name)
        return int(self._control[name]) if name else _DEFAULT_CONCURRENCY

    def sleep(self, seconds: float) -> Waiter:
        """A Waiter that comes after *seconds*."""
        waiter = Waiter()
        self.loop.call_later(seconds, waiter.set)
        return waiter

    # --- the end ---

    def stop(self, stopped: Callable[[], None]) -> None:
        """Begin nothing more; what is with a service may end; then call *stopped*."""
        self.stopping = True
        self._stopped = stopped
        self.loop.remove_reader(self._trigger.fileno())
        self.loop.remove_reader(self._etrn.fileno())
        for outlet in self._outlets.values():
            outlet.give_up()
        self.loop.call_later(GRACE, self._rescue)
        self._check_stopped()

    def _check_stopped(self) -> None:
        if not self._active and self._stopped is not None:
            stopped, self._stopped = self._stopped, None
            for outlet in self._outlets.values():
                outlet.close_idle()
            for sock, path in ((self._trigger, trigger.PATH), (self._etrn, trigger.ETRN)):
                sock.close()
                try:
                    os.unlink(path)         # nobody waits for a dead socket's queue to empty
                except OSError:
                    pass
            stopped()

    def _rescue(self) -> None:
        """Some services did not finish in time: save what is known, and end."""
        for message in self._active.values():
            message.rescue()
        self._active.clear()
        self._check_stopped()


def pause_of(id: str, now: float) -> float:
    """Seconds until a message that the system had no descriptors, memory or the like for is looked at
    again: a few for a new one, later a quarter of its age, at most RESCAN."""
    return min(max((now - ids.microseconds(id) / 1e6) / 4, _SOON), RESCAN)
