"""What became of accepted mail, told to mq-auth: how many recipients of each login were refused.

Nobody waits for it, and none of it is worth a bounce: what mq-auth does not take now is told later or,
of more than MOST_LOGINS logins, not at all.
"""

from __future__ import annotations

from mqmail.base import log, program, xtext
from mqmail.base.waiter import Running
from mqmail.net.session import Session
from mqmail.net.stream import connect_unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from mqmail.net.stream import Deadlines

SOCKET = "run/auth.sock"
SOON = 1.0              # seconds in which what comes is told together
LATER = 60.0            # after mq-auth did not take it
TIMEOUT = 10.0          # for each of its answers
MOST_LOGINS = 1000
MOST = 1_000_000        # recipients that mq-auth hears of at a time


class News:
    """The process's. *name*: ours, for EHLO."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, name: str) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._name = name
        self._refused: dict[str, int] = {}
        self._busy = False          # it is being told, or a timer runs

    def note(self, login: str, refused: int) -> None:
        """So many more recipients of *login* were refused for good."""
        if not refused or login not in self._refused and len(self._refused) >= MOST_LOGINS:
            return
        self._refused[login] = min(self._refused.get(login, 0) + refused, MOST)
        if not self._busy:
            self._tell_in(SOON)

    def _tell_in(self, seconds: float) -> None:
        self._busy = True
        self._loop.call_later(seconds, lambda: Running(self._tell(), self._told))

    def _told(self, trouble: str, error: BaseException | None) -> None:
        if error is not None:
            program.bug(error)
        elif trouble:
            log.event("accounts_not_told", logins=len(self._refused), error=trouble)
        self._busy = False
        if self._refused:
            self._tell_in(LATER if trouble or error is not None else SOON)

    async def _tell(self) -> str:
        """Why not all could be told, or ""."""
        try:
            stream = await connect_unix(self._loop, self._deadlines, SOCKET)
        except OSError as error:
            return error.strerror or str(error)
        session = Session(stream, "smtp", self._name, TIMEOUT)
        try:
            if await session.open():
                while self._refused and not session.broken:
                    await self._tell_of(session, next(iter(self._refused)))
            return session.broken
        finally:
            session.close()

    async def _tell_of(self, session: Session, login: str) -> None:
        """Of one login. 450, it is stopped, is no less an answer than 250; what mq-auth finds no sense
        in is not said again."""
        refused = self._refused.pop(login)
        try:
            answer = await session.tell(xtext.facts({"login": login, "refused": refused}))
        except ValueError:
            return                  # no login is as long as that
        if answer is None:
            self._refused[login] = refused + self._refused.get(login, 0)
