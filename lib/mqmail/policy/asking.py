"""Questions to LMTP services about recipients: sessions are kept for the next one, but for those with
services of ours, of which each has a process."""

from __future__ import annotations

from _socket import getaddrinfo
from errno import EHOSTUNREACH, ETIMEDOUT

from mqmail.base.waiter import Waiter
from mqmail.control.destinations import BUILT_IN
from mqmail.mail.address import needs_utf8
from mqmail.net.expired import Expired
from mqmail.net.session import Session
from mqmail.net.stream import connect_tcp
from mqmail.net.tcp import connect_blocking
from mqmail.xmtp.client import ASK, Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from mqmail.control.destinations import Destination
    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream
    from mqmail.xmtp.reply import Reply

MOST_IDLE = 2           # sessions to one destination that wait for the next question
_MOST_LINES = 100       # of a reply


class Asker:
    """*services*: those of prog/xmtpd/services.py. *name* is said in LHLO."""

    def __init__(self, services: Any, name: str) -> None:
        self._services = services
        self._name = name
        self._idle: dict[Destination, list[Session]] = {}

    async def ask(self, service: Destination, address: str, timeout: float) -> Reply | str:
        """What *service* says to RCPT for *address*, by the null sender; if it does not answer within
        *timeout* seconds for each step, or wants no mail at all, words why."""
        kept = self._take(service)
        if kept is not None:
            answer = await self._carry_out(kept, service, address)
            if not isinstance(answer, str) or kept.expired or not kept.broken:
                return answer       # a session that was closed while it was idle is no answer
        session = await self._open(service, timeout)
        return session if isinstance(session, str) else await self._carry_out(session, service, address)

    def _take(self, service: Destination) -> Session | None:
        idle = self._idle.get(service, [])
        while idle:
            session = idle.pop()
            if session.alive():
                return session
            session.close()
        return None

    async def _carry_out(self, session: Session, service: Destination, address: str) -> Reply | str:
        parameters = ["SMTPUTF8"] if needs_utf8(address) and "SMTPUTF8" in session.features else []
        transaction = Transaction("", [(address, ())], parameters, ASK)
        try:
            await session.ask([transaction])
        except ValueError:
            session.close()
            return "the address does not fit into a command"
        idle = self._idle.setdefault(service, [])
        if session.broken or len(idle) >= MOST_IDLE or service == BUILT_IN.get(service.name):
            session.close()         # of our own services each session has a process
        else:
            idle.append(session)
        if transaction.refused is not None:
            return transaction.refused.said()
        return transaction.verdicts[0] or session.broken

    def _leave_former(self, service: Destination) -> None:
        """The sessions to where a destination was before it became *service* are over."""
        for former in [one for one in self._idle if one.name == service.name and one != service]:
            for session in self._idle.pop(former):
                session.close()

    async def _open(self, service: Destination, timeout: float) -> Session | str:
        self._leave_former(service)
        try:
            stream = await self._connect(service, timeout)
        except (OSError, Expired) as error:
            return getattr(error, "strerror", "") or str(error) or "no connection in time"
        session = Session(stream, "lmtp", self._name, timeout, _MOST_LINES)
        return session if await session.open() else session.broken

    async def _connect(self, service: Destination, timeout: float) -> Stream | BlockingStream:
        services = self._services
        if service.path:
            stream: Stream | BlockingStream = await services.connect(service.path)
            return stream
        if services.loop is None:
            ip = _first(getaddrinfo(service.host, service.port))
            return connect_blocking(ip, service.port, timeout)
        ip = await _look_up(services.loop, service.host, service.port, timeout)
        return await connect_tcp(services.loop, services.deadlines, ip, service.port, timeout)


async def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int, timeout: float) -> str:
    """The first address that the system's resolver gives."""
    waiter = Waiter()
    timer = loop.call_later(timeout, waiter.fail, OSError(ETIMEDOUT, "no address in time"))
    task = loop.create_task(loop.getaddrinfo(host, port))

    def done(found: asyncio.Task[Any]) -> None:
        error = found.exception()
        waiter.set(None if error else found.result())

    task.add_done_callback(done)
    try:
        return _first(await waiter)
    finally:
        timer.cancel()


def _first(found: Any) -> str:
    """Of getaddrinfo()'s answers."""
    if not found:
        raise OSError(EHOSTUNREACH, "the host has no address")
    return str(found[0][4][0])
