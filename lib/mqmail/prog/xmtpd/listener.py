"""Many sessions in a few processes: they share the listening sockets, and each has one session to
mq-resolve and a few to mq-queue."""

from __future__ import annotations

import importlib

from mqmail.base import files, log, ready
from mqmail.base.failure import BadFile, Failure, Usage
from mqmail.control.access import unknown_sets
from mqmail.control.hosts import parse_listener, split_port
from mqmail.control.listeners import Listener
from mqmail.control.verify import unknown_destinations
from mqmail.net import daemon
from mqmail.net.identd import Identd
from mqmail.net.owner import as_owner, give_up_root, import_late, owner_of
from mqmail.net.service import Service
from mqmail.net.stream import Deadlines, connect_unix
from mqmail.policy import hooks, known
from mqmail.prog.xmtpd import inflow, peer, pool, resolver, settings
from mqmail.prog.xmtpd.dialogue import Dialogue, SessionIds
from mqmail.prog.xmtpd.services import Services
from mqmail.prog.xmtpd.session import Session
from mqmail.prog.xmtpd.shares import Shares, share_of
from mqmail.prog.xmtpd.sockets import Sockets
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mqmail.net.stream import Stream
    from mqmail.prog.xmtpd import Options
    from mqmail.prog.xmtpd.settings import Settings
    from mqmail.xmtp.server import Server

    Make = Callable[[Stream], tuple[Server, Dialogue, Callable[[str], None]]]

MORE = ("processesincoming", "listeners", *inflow.CONTROL)
GRACE = 15.0            # seconds for messages on their way when we are stopped
_TIDY = 15.0            # seconds between looks at idle sessions to mq-queue
_DOORMEN = 32           # sessions above our share that hear 421
_BUSY = reply(421, "4.3.2", "too many sessions, come back later")


def serve(options: Options) -> int:
    """Listen until TERM."""
    daemon.enter(options.home)
    daemon.become("xmtpd")
    import_late()
    known.import_late()
    importlib.import_module("mqmail.net.servertls")
    parent = Parent(options)
    give_up_root("xmtpd")
    hooks.prepare(parent.settings.control)
    workers = daemon.Workers("xmtpd", parent.processes, lambda number: Worker(parent, number).run(),
                             parent.reload)
    workers.run(lambda: ready.announce(options.ready_fd))
    return 0


class Parent:
    """What all workers are forked with: sockets, settings."""

    def __init__(self, options: Options) -> None:
        self._follows = "" in options.listen        # control/listeners says where to listen
        self._other = options.listener()
        self._explicit: dict[str, Listener] = {}
        with as_owner(owner_of(".")):       # keys too: it has to read them when we are told to reload
            self.settings = self._load(None)
        self.processes: int = self.settings.control.processesincoming
        self.together = inflow.Together(self.processes, self.settings.control.concurrencyincoming)
        self.sockets = Sockets(self.processes)
        self._open(options)

    def _open(self, options: Options) -> None:
        """Those we were given, those of the command line, those of the file; where port 0 was asked for,
        the real one is printed."""
        lines = self.settings.control.listeners
        for line in self.sockets.take(options.sockets, lines, self._other):
            if not self._follows:
                self._explicit[line.place] = line
        for wanted in [_address(text, self._other) for text in options.listen if text]:
            [line] = self.sockets.make([wanted])
            self._explicit[line.place] = line
            if wanted.port == 0:
                files.write_all(1, f"{line.place}\n".encode())
        if self._follows and options.sockets:
            self.sockets.change(self.wanted(self.settings))
        elif self._follows:
            self.sockets.make(lines)

    def _load(self, old: Settings | None) -> Settings:
        found = settings.load(None, old, (*settings.OF_CLIENTS, *MORE))
        found.make_tls()
        control = found.control
        for text in (*unknown_sets("control/access", control.access, control.optionsets),
                     *unknown_destinations("control/verify", control.verify, control.destinations)):
            raise BadFile(text)         # workers would say so again and again
        found.check_listeners(found.control.listeners if self._follows else [self._other])
        return found

    def wanted(self, found: Settings) -> list[Listener]:
        """Where to listen."""
        lines = found.control.listeners if self._follows else ()
        return [*self._explicit.values(), *[line for line in lines if line.place not in self._explicit]]

    def reload(self) -> None:
        """All files are read before anything changes. Raises BadFile."""
        found = self._load(self.settings)
        hooks.prepare(found.control)
        self.settings = found
        self.sockets.change(self.wanted(self.settings))


def _address(text: str, like: Listener) -> Listener:
    """ADDR:PORT of the command line; port 0 lets the system choose."""
    try:
        if split_port(text)[1] == "0":
            address, port = parse_listener(text[:-1] + "1")[0], 0
        else:
            address, port = parse_listener(text)
    except ValueError as error:
        raise Usage(f"--listen {error}") from None
    return like.at(address, port)


class Worker:
    """One process."""

    def __init__(self, parent: Parent, number: int) -> None:
        self._parent = parent
        self._number = number
        self._ids = SessionIds()
        self._shares = Shares(parent.processes)
        self._lines: dict[str, Listener] = {}
        self._services: dict[str, Service] = {}     # by place
        self._closed: list[Service] = []            # that listen no more, with sessions

    def run(self) -> None:
        """Serve until TERM."""
        self._loop: asyncio.AbstractEventLoop = daemon.new_loop()
        self._deadlines = Deadlines(self._loop)
        name = self._parent.settings.control.me
        self._identd = Identd(self._loop, self._deadlines)
        self._tools = Services(self._connect, name, self._loop, self._deadlines)
        watch = self._watch = inflow.Watch(self._loop, self._parent.settings.control)
        self._tools.inflow = inflow.make(self._parent.together, self._number, self._loop, watch)
        self._settings = self._first_settings()
        watch.control = self._settings.control
        self._resolver = resolver.SharedResolver(
            self._loop, lambda: self._connect(resolver.SOCKET), name)
        self._pool = pool.Pool(lambda: self._connect(pool.SOCKET), name)
        self._listen()
        self._tidy()
        daemon.run_loop(self._loop, self._stop, self._reload)

    async def _connect(self, path: str) -> Stream:
        return await connect_unix(self._loop, self._deadlines, path)

    def _first_settings(self) -> Settings:
        """A worker that is started anew must not bring back what HUP has replaced."""
        old = self._parent.settings
        try:
            return self._load(old)
        except (Failure, OSError) as error:
            log.event("reload_failed", error=str(error))
            return settings.Settings(old.control, self._tools, old)

    def _load(self, old: Settings) -> Settings:
        found = settings.load(self._tools, old, MORE)
        found.make_tls()
        return found

    def _reload(self) -> None:
        """For sessions that begin from now on; the number of processes stays."""
        self._settings = self._load(self._settings)
        self._watch.control = self._settings.control
        self._parent.sockets.receive(self._number)
        self._listen()

    def _listen(self) -> None:
        """Where we are to, and nowhere else."""
        self._lines = {line.place: line for line in self._parent.wanted(self._settings)}
        sockets = self._parent.sockets.open
        for place in [place for place in self._services if place not in self._lines]:
            service = self._services.pop(place)
            service.close_listener()
            self._closed.append(service)
            sockets.pop(place, None)
        for place in self._lines:
            if place in sockets and place not in self._services:
                self._services[place] = Service(
                    self._loop, self._deadlines, sockets[place][1], self._maker(place), talk=Session)
        for service in self._services.values():
            service.most = self._most() + _DOORMEN

    def _maker(self, place: str) -> Make:
        def make(stream: Stream) -> tuple[Server, Dialogue, Callable[[str], None]]:
            return self._session(stream, self._lines[place])
        return make

    def _session(self, stream: Stream, line: Listener) -> tuple[Server, Dialogue, Callable[[str], None]]:
        handler = Dialogue(self._settings, line, peer.of_socket(stream.sock), self._ids.make(),
                           self._resolver, self._pool, self._tools.auth)
        if handler.options.ident:
            handler.identd = self._identd
        name, sessions = share_of(line, handler.options, self._lines.values())
        if self._shares.full(name, sessions, self._settings.control.concurrencyincoming):
            handler.server.close(_BUSY)
        self._shares.begin(name)

        def end(why: str) -> None:
            self._shares.end(name)
            handler.end(why)
            self._tools.book.tell_refused(handler.facts)
            if self._tools.inflow is not None:
                self._tools.inflow.end(handler.facts.session)

        return handler.server, handler, end

    def _most(self) -> int:
        """Our share of concurrencyincoming: of as many processes as there are."""
        sessions: int = self._settings.control.concurrencyincoming
        return -(-sessions // self._parent.processes)

    def _tidy(self) -> None:
        self._pool.tidy()
        self._closed = [service for service in self._closed if service.sessions]
        self._loop.call_later(_TIDY, self._tidy)

    def _stop(self, stopped: Callable[[], None]) -> None:
        """When the last session of the last service is over, so are we."""
        left = [*self._services.values(), *self._closed]
        if not left:
            return stopped()

        def one_stopped() -> None:
            left.pop()
            if not left:
                self._pool.close()
                self._resolver.close()
                self._tools.close()
                stopped()

        for service in list(left):
            service.stop(GRACE, one_stopped)
        return None
