"""Asking Dovecot's auth service (its "auth-client" socket, protocol 1): one connection for everybody.

https://doc.dovecot.org, "Dovecot Authentication Protocol". Lines with tabs between the fields; each
request has a number, answers come in any order.
"""

from __future__ import annotations

import os
from binascii import Error, a2b_base64, b2a_base64

from mqmail.base import log
from mqmail.base.failure import Temporary
from mqmail.base.value import value
from mqmail.base.waiter import Running, Waiter
from mqmail.net.expired import Expired
from mqmail.net.stream import connect_unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from mqmail.net.stream import Deadlines, Stream

SECONDS = 30.0          # for an answer; Dovecot itself waits before it tells a failure
IDLE = 60.0             # seconds without a question; a Dovecot that is to end waits for us to hang up
MOST_WAITING = 1000
_LONGEST = 16384        # octets of a line
_ESCAPES = {"\1": "\x011", "\t": "\x01t", "\r": "\x01r", "\n": "\x01n", "\0": "\x010"}


@value
class Said:
    """An answer: ``OK`` with the login in *text*, ``FAIL`` (*temporary* if it cannot say), or ``CONT``
    with a challenge in *data*. *number* is the request's."""

    kind: str
    number: int
    text: str = ""
    data: bytes = b""
    temporary: bool = False


class Dovecot:
    """The service at the socket *path*, which has so many *seconds* for an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, path: str,
                 seconds: float = SECONDS) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._path = path
        self._seconds = seconds
        self._stream: Stream | None = None
        self._ready = False                         # greeted
        self._connecting: list[Waiter] = []
        self._waiting: dict[int, Waiter] = {}
        self._last = 0
        self._asked = 0.0       # when the last question was
        self._heard = 0.0       # when it last said anything
        self._silent = False    # and that was too long ago
        self.mechanisms: frozenset[str] = frozenset()

    async def begin(self, mechanism: str, first: bytes | None, ip: str) -> Said:
        """Start an exchange; *first* is the initial response, None without one. Raises Temporary."""
        await self._connected()
        if mechanism not in self.mechanisms:
            raise Temporary(f"{self._path}: Dovecot does not offer {mechanism}")
        self._last = self._last % 0x7fffffff + 1
        fields = ["AUTH", str(self._last), mechanism, "service=smtp", "secured"]
        if ip:
            fields.append("rip=" + _escaped(ip))
        if first is not None:
            fields.append("resp=" + _base64(first))     # the last, always
        return await self._ask(self._last, fields)

    async def go_on(self, number: int, response: bytes) -> Said:
        """The client's response to a challenge. Raises Temporary."""
        return await self._ask(number, ["CONT", str(number), _base64(response)])

    async def _ask(self, number: int, fields: list[str]) -> Said:
        if self._stream is None or len(self._waiting) >= MOST_WAITING:
            raise Temporary(f"{self._path}: Dovecot has ended, or has too much to do")
        self._asked = self._loop.time()
        waiter = self._waiting[number] = Waiter()
        self._stream.write("\t".join(fields).encode() + b"\n")
        timer = self._loop.call_later(self._seconds, self._no_answer, waiter, self._stream, self._asked)
        try:
            return await waiter         # type: ignore[no-any-return]
        finally:
            timer.cancel()
            self._waiting.pop(number, None)

    def _no_answer(self, waiter: Waiter, stream: Stream, since: float) -> None:
        """One that has said nothing to anybody since then is not asked again by this connection."""
        if self._heard <= since:        # the greeting, at the most
            self._silent = True
            stream.close()              # which is told to all who wait
        else:
            waiter.fail(Temporary(f"{self._path}: no answer"))

    async def _connected(self) -> None:
        """Connect and shake hands, unless that is done; several may wait for it."""
        if self._ready:
            return
        waiter = Waiter()
        self._connecting.append(waiter)
        if len(self._connecting) == 1:
            Running(self._serve(), self._ended)
        await waiter
        if not self._ready:
            raise Temporary(f"{self._path}: Dovecot does not answer")

    async def _serve(self) -> None:
        """Read answers until the connection is lost."""
        stream = self._stream = await connect_unix(self._loop, self._deadlines, self._path)
        stream.expire_after(self._seconds)
        stream.write(b"VERSION\t1\t1\nCPID\t%d\n" % os.getpid())
        rest = b""
        while data := await stream.read():
            self._heard = self._loop.time()
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LONGEST:
                return
            for line in lines:
                self._line(line.decode("utf-8", "replace").split("\t"))

    def _line(self, fields: list[str]) -> None:
        kind = fields[0]
        if kind == "MECH" and len(fields) > 1:
            self.mechanisms |= {fields[1].upper()}
        elif kind == "DONE" and self._stream is not None:
            self._stream.expire_after(0.0)
            self._ready = True
            self._wake()
            self._loop.call_later(IDLE, self._hang_up, self._stream)
        elif kind in ("OK", "FAIL", "CONT"):
            said = _said(fields)
            waiter = self._waiting.get(said.number)
            if waiter is not None:
                waiter.set(said)

    def _ended(self, _none: None, error: BaseException | None) -> None:
        """Whoever waits is told; the next question connects anew."""
        why = "no greeting" if isinstance(error, Expired) else str(error) if error else \
            "no answer" if self._silent else "closed"
        self._silent = False
        if error is not None or self._waiting:
            log.event("auth_unavailable", backend="dovecot", error=why)
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self.mechanisms = frozenset()
        self._ready = False
        waiting, self._waiting = self._waiting, {}
        self._wake()            # first: whoever is told may ask anew at once
        for waiter in waiting.values():
            waiter.fail(Temporary(f"{self._path}: {why}"))

    def _hang_up(self, stream: Stream) -> None:
        """If nobody has asked for a while."""
        left = self._asked + IDLE - self._loop.time()
        if left > 0.0 or self._waiting:
            self._loop.call_later(max(left, 1.0), self._hang_up, stream)
        else:
            stream.close()

    def _wake(self) -> None:
        connecting, self._connecting = self._connecting, []
        for waiter in connecting:
            waiter.set()

    def close(self) -> None:
        """No more questions."""
        if self._stream is not None:
            self._stream.close()


def _said(fields: list[str]) -> Said:
    number = fields[1] if len(fields) > 1 else ""
    if not (number.isascii() and number.isdigit() and len(number) < 11):
        return Said("FAIL", -1)
    kind, rest = fields[0], fields[2:]
    if kind == "CONT":
        try:
            return Said(kind, int(number), data=a2b_base64("".join(rest[:1]), strict_mode=True))
        except Error:
            return Said("FAIL", int(number), temporary=True)
    users = [field[5:] for field in rest if field.startswith("user=")]
    return Said(kind, int(number), _unescaped("".join(users[:1])), temporary="temp" in rest)


def _escaped(text: str) -> str:
    return "".join([_ESCAPES.get(char, char) for char in text])


def _unescaped(text: str) -> str:
    for char, coded in reversed(_ESCAPES.items()):
        text = text.replace(coded, char) if char != "\1" else text
    return text.replace("\x011", "\1")


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")
