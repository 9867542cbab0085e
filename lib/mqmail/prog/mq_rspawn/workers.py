"""Sessions with the workers (mq-remote): each is given a host, and later another one."""

from __future__ import annotations

from mqmail.base.waiter import Running
from mqmail.net.session import Session
from mqmail.net.stream import connect_unix
from mqmail.remote.carrier import NOT_REACHED
from mqmail.remote.opening import Unreachable
from mqmail.remote.verdicts import NOBODY, marked, put_off

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from mqmail.net.stream import Deadlines
    from mqmail.xmtp.reply import Reply

SOCKET = "run/transfer.sock"    # where the workers listen
MOST_SPARE = 50                 # sessions without a host
_REFUSES = (501, 502, 503, 554)


class NoWorker(Unreachable):
    """Nothing is known about the host: a worker of ours did not do its work."""

    def __init__(self, why: str) -> None:
        super().__init__(put_off("4.3.0", NOBODY, f"mq-remote: {why}"))


class Workers:
    """``reach`` gives a session through which a host has been reached; ``let_go`` takes it back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._spare: list[Session] = []

    async def reach(self, facts: str, name: str, seconds: float) -> Session:
        """A session that has reached the host of XHOP *facts*. *name* for LHLO, *seconds* for a step.
        Raises Unreachable, NoWorker."""
        while True:
            spare = self._take_spare()
            session = spare or await self._open(name, seconds)
            answer = await _hop(session, facts)
            if answer is None and spare is not None and not session.expired:
                continue                    # its worker had ended meanwhile
            if answer is None or answer.code in _REFUSES:
                session.close()
                raise NoWorker(session.broken if answer is None else "it refuses XHOP")
            if answer.code >= 400:
                self._keep(session, answer)
                raise Unreachable(marked(answer, NOT_REACHED))
            return session

    def _take_spare(self) -> Session | None:
        while self._spare:
            session = self._spare.pop()
            if session.alive():
                return session
            session.close()
        return None

    async def _open(self, name: str, seconds: float) -> Session:
        try:
            stream = await connect_unix(self._loop, self._deadlines, SOCKET)
        except OSError as error:
            raise NoWorker(f"no worker answers: {error.strerror}") from None
        session = Session(stream, "lmtp", name, seconds)
        if not await session.open():
            session.close()
            raise NoWorker(session.broken)
        return session

    def let_go(self, session: Session) -> None:
        """The worker is to end its session with the host."""
        if session.broken or not session.client.idle or len(self._spare) >= MOST_SPARE:
            session.close()
        else:
            Running(_hop(session, ""), lambda answer, _error: self._keep(session, answer))

    def _keep(self, session: Session, answer: Reply | None) -> None:
        """Without a host."""
        if answer is None or answer.code in _REFUSES or len(self._spare) >= MOST_SPARE:
            session.close()
        else:
            self._spare.append(session)

    def close(self) -> None:
        """Close all that have no host."""
        while self._spare:
            self._spare.pop().close()


async def _hop(session: Session, facts: str) -> Reply | None:
    """The answer to XHOP *facts*; None: the session broke."""
    try:
        return await session.hop(facts)
    except BaseException:
        session.close()
        raise
