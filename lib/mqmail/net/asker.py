"""DNS for the checks of a session: several questions side by side, an end to the waiting, under either
shell. Nothing is loaded before the first question.
"""

from __future__ import annotations

from mqmail.base.waiter import Running, Waiter
from mqmail.mail.mxlist import FAILED, Answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from mqmail.net.miniloop import MiniLoop
    from mqmail.net.stream import Deadlines

    Question = tuple[str, str]
    Server = tuple[str, int]

_LATE = Answer(FAILED, why="no answer in time")


class Asker:
    """In the event loop *loop*. *servers*: those of control/resolvers; none: the system's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines,
                 servers: Sequence[Server]) -> None:
        from mqmail.net.dns import Resolver, system_servers
        self._loop = loop
        self._resolver = Resolver(loop, deadlines, list(servers) or system_servers())

    def known(self, name: str, kind: str) -> Answer | None:
        """The answer that need not be asked for: the same object as long as it holds."""
        return self._resolver.known(name, kind)

    async def ask(self, name: str, kind: str, seconds: float) -> Answer:
        """What there is of *kind* at *name*, ASCII; FAILED if nobody says so within *seconds*."""
        known = self._resolver.known(name, kind)
        return known if known is not None else (await self.ask_all([(name, kind)], seconds))[0]

    async def ask_all(self, questions: Sequence[Question], seconds: float) -> list[Answer]:
        """The answers to all, asked together; FAILED those that take longer than *seconds*. What comes
        later is still kept for the next who asks."""
        found = [self._resolver.known(name, kind) for name, kind in questions]
        missing = [place for place, answer in enumerate(found) if answer is None]
        if missing:
            await self._ask_missing(questions, missing, found, seconds)
        return [answer or _LATE for answer in found]

    async def _ask_missing(self, questions: Sequence[Question], missing: list[int],
                           found: list[Answer | None], seconds: float) -> None:
        done = Waiter()
        left = len(missing)

        def one(place: int) -> None:
            def ended(answer: Answer, error: BaseException | None) -> None:
                nonlocal left
                found[place] = answer if error is None else Answer(FAILED, why="internal trouble")
                left -= 1
                if not left:
                    done.set()
            Running(self._resolver.ask(*questions[place]), ended)

        timer = self._loop.call_later(max(seconds, 0.0), done.set)
        for place in missing:
            one(place)
        await done
        timer.cancel()


class BlockingAsker:
    """The same for one session on fd 0/1: it waits within a call, so what awaits it never suspends."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._made: tuple[MiniLoop, Asker] | None = None

    def known(self, name: str, kind: str) -> Answer | None:
        """As Asker's."""
        return self._made[1].known(name, kind) if self._made is not None else None

    async def ask(self, name: str, kind: str, seconds: float) -> Answer:
        """As Asker's."""
        return (await self.ask_all([(name, kind)], seconds))[0]

    async def ask_all(self, questions: Sequence[Question], seconds: float) -> list[Answer]:
        """As Asker's."""
        loop, asker = self._made = self._made or self._make()
        found: list[Answer] = loop.complete(asker.ask_all(questions, seconds))
        return found

    def _make(self) -> tuple[MiniLoop, Asker]:
        from mqmail.net.miniloop import MiniLoop
        from mqmail.net.stream import Deadlines
        loop = MiniLoop()
        return loop, Asker(loop, Deadlines(loop), self._servers)  # type: ignore[arg-type]
