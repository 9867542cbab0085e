"""Waiting, without an event loop of its own: the glue between ``async def`` code and a shell.

Application code (a session of xmtpd, a transaction of mq-send) is written once as ``async def`` and
awaits Waiters. Under the asyncio shell a Waiter is resolved by a socket's callback and the
coroutine goes on at once, in that callback: no Task and no trip through the loop. Under the
blocking shell every await is already resolved when it is reached, so ``run`` drives it to its end.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any


class Waiter:
    """One value, or one exception, that will come."""

    __slots__ = ("_callback", "_error", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callback: Callable[[], None] | None = None

    def set(self, value: Any = None) -> None:
        """Resolve with *value*; whoever awaits goes on before this returns. Later calls do nothing."""
        if not self.done:
            self._value = value
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Resolve with an exception. Later calls do nothing."""
        if not self.done:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self.done = True
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call *callback* once resolved (one callback at the most)."""
        if self.done:
            callback()
        else:
            self._callback = callback

    def result(self) -> Any:
        """The value; raises the exception if that is what came."""
        if self._error is not None:
            raise self._error
        return self._value

    def __await__(self) -> Generator[Waiter, None, Any]:
        if not self.done:
            yield self
        return self.result()


class Running:
    """A coroutine on its way; ``finished`` is called with (result, None) or (None, exception)."""

    __slots__ = ("_coroutine", "_finished", "_inside")

    def __init__(self, coroutine: Coroutine[Any, Any, Any],
                 finished: Callable[[Any, BaseException | None], None]) -> None:
        self._coroutine: Coroutine[Any, Any, Any] | None = coroutine
        self._finished = finished
        self._inside = False
        self._step()

    def _step(self) -> None:
        coroutine = self._coroutine
        while coroutine is not None:
            try:
                self._inside = True
                waiter = coroutine.send(None)
            except StopIteration as end:
                self._coroutine = None
                return self._finished(end.value, None)
            except BaseException as error:  # noqa: BLE001  handed on to whoever started it
                self._coroutine = None
                return self._finished(None, error)
            finally:
                self._inside = False
            if not waiter.done:
                waiter.when_done(self._step)
                return None
        return None

    def cancel(self) -> None:
        """Stop it where it waits; ``finished`` is not called."""
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None and not self._inside:
            coroutine.close()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Drive a coroutine whose awaits are all resolved when reached (the blocking shell)."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("waited for something under the blocking shell")
