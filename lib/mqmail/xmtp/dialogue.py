"""Command lines in, replies out, each in its turn: what a session has whatever its commands are.

Input is cut into lines (RFC 5321 sections 2.3.8 and 4.5.3.1), output leaves in the order of the
commands (RFC 2920 section 3.2) even when an application answers later commands first. Errors are
counted. Nothing is kept of the input beyond one command line and what one feed brought.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.xmtp import events
from mqmail.xmtp.reply import LONGEST_LINE, LONGEST_LINE_XMQ, ProtocolError, Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

MOST_DESCRIPTORS = 64
AGAIN = object()        # a step that gave no event: go on

_TOO_LONG = reply(500, "5.5.2", "line too long")
_BAD_END = reply(500, "5.5.2", "lines end with CR LF")


@value
class Limits:
    """What one session may use. *size* 0: no limit. *idle* 0: NOOP, RSET and their like are free.
    *errors* do not count with XMQ, nor do *refused* recipients."""

    size: int = 0
    recipients: int = 1000          # per transaction; RFC 5321 4.5.3.1.8 wants at least 100
    errors: int = 20                # commands that were wrong, and AUTH and MAIL refused with 5xx
    refused: int = 100              # recipients answered 5xx by the application
    idle: int = 100                 # commands without progress since the last message, empty chunks too
    command: int = 512              # octets with CRLF (RFC 5321 4.5.3.1.4)
    extended: int = 2048            # the same for MAIL, RCPT and XCLIENT with their extensions
    line: int = 998


class Dialogue:
    """Base of Server. A derived class has ``_dispatch(text, octets)``, ``_room_for_recipients()``
    and ``_takes_files()``."""

    __slots__ = ("_at", "_buffer", "_errors", "_fds", "_limits", "_long", "_longest", "_mode", "_most",
                 "_out", "_owed", "_spare", "_stray", "closed", "xmq")

    def __init__(self, limits: Limits, xmq: bool) -> None:
        self.closed = False
        self.xmq = xmq
        self._limits = limits
        self._longest = LONGEST_LINE_XMQ if xmq else LONGEST_LINE                 # of a reply line
        self._most = LONGEST_LINE_XMQ if xmq else max(limits.command, limits.extended)  # of a command
        self._out: list[bytes] = []
        self._owed: list[list[Any]] = []            # [event or None, reply or None], in order
        self._buffer, self._at = b"", 0
        self._fds: list[int] = []
        self._spare: list[int] = []
        self._long = False                          # inside a line that is too long
        self._stray = False                         # behind an LF that ended no line
        self._errors = 0
        self._mode: Callable[[], Any] | None = self._command

    # --- what the shell calls ---

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Octets, and descriptors, from the peer. Raises ProtocolError on a flood of descriptors.

        To be called when ``next_event`` has returned None and no answer is owed; a shell that reads
        ahead of that watches ``buffered``.
        """
        if fds:
            self._take_in(fds)
        if self._mode is not None and not self.closed:
            self._buffer = self._buffer[self._at:] + data if self._at < len(self._buffer) else data
            self._at = 0

    def _take_in(self, fds: Sequence[int]) -> None:
        (self._fds if self._takes_files() and not self.closed else self._spare).extend(fds)
        if len(self._fds) > MOST_DESCRIPTORS:
            raise ProtocolError("too many descriptors")

    @property
    def buffered(self) -> int:
        """Octets that are held and not yet understood."""
        return len(self._buffer) - self._at

    def take_output(self) -> bytes:
        """What is to be written now."""
        if not self._out:
            return b""
        out, self._out = b"".join(self._out), []
        return out

    def take_descriptors(self, everything: bool = False) -> list[int]:
        """Descriptors that nobody will use: the shell closes them (*everything* at the end)."""
        spare, self._spare = self._spare, []
        if everything:
            spare += self._fds
            self._fds = []
        return spare

    @property
    def owing(self) -> bool:
        """Whether an answer is owed to the client."""
        return bool(self._owed)

    def next_event(self) -> Any:
        """The next event, or None: more octets or an answer is needed, or the session is over."""
        while self._mode is not None and not self.closed:
            event = self._mode()
            if event is not AGAIN:
                return event
        return None

    def close(self, answer: Reply) -> None:
        """Say *answer* (421) and end the session. Answers that come later are for nobody."""
        if not self.closed:
            self._owed.clear()
            self._put(answer)
            self._end()

    # --- replies ---

    def _put(self, answer: Reply) -> None:
        self._out.append(answer.encode(self._longest))

    def _say(self, answer: Reply, error: bool = True) -> Any:
        """A reply of the core's own, in its turn."""
        if error and answer.code >= 500:
            self._count_error()
        if self.closed:
            return None
        if self._owed:
            self._owed.append([None, answer])
        else:
            self._put(answer)
        return AGAIN

    def _count_error(self) -> None:
        """One more; too many end the session with 421 in place of the reply (RFC 5321 section 7.8)."""
        self._errors += 1
        if self._errors > self._limits.errors and not self.xmq:
            self.close(reply(421, "4.7.0", "too many errors"))

    def _owe(self, event: Any) -> Any:
        self._owed.append([event, None])
        return event

    def _flush(self) -> None:
        while self._owed and self._owed[0][0] is None and self._owed[0][1] is not None:
            self._put(self._owed.pop(0)[1])

    def _end(self) -> None:
        self.closed = True
        self._mode = None
        self._buffer, self._at = b"", 0

    # --- lines ---

    def _command(self) -> Any:
        """The step between bodies: the next command line."""
        if self._owed and not self._may_ask_on():
            return None
        line = self._cut(self._most, _TOO_LONG)
        if type(line) is not bytes:
            return line
        try:
            text = line.rstrip(b" \t").decode("utf-8")      # RFC 5321 4.1.1: trailing space is borne
        except UnicodeDecodeError:
            return self._say(reply(500, "5.5.2", "not UTF-8"))
        if not text.isprintable():
            return self._say(reply(500, "5.5.2", "control character in a command"))
        return self._dispatch(text, len(line) + 2)

    def _may_ask_on(self) -> bool:
        """While answers are owed only RCPT after RCPT goes on, as long as all may be accepted."""
        return type(self._owed[0][0]) is events.Rcpt and self._room_for_recipients() \
            and self._buffer[self._at:self._at + 5].upper() == b"RCPT "

    def _cut(self, most: int, too_long: Reply) -> Any:
        """The next line, without CRLF; None when it has not all come; AGAIN when it was refused.

        Only CRLF ends a line (RFC 5321 2.3.8). What an LF alone ends is refused at once, so that who
        knows no better learns why, and what follows it up to CRLF is no command either.
        """
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at)
        if self._long or (end + 1 if end >= 0 else len(buffer)) - at > most:
            return self._skip(too_long)
        if end < 0:
            return None
        self._at = end + 1
        whole = end > at and buffer[end - 1] == 13
        if whole and not self._stray and buffer.find(b"\r", at) == end - 1:
            return buffer[at:end - 1]
        self._stray = not whole
        return self._say(_BAD_END)

    def _skip(self, too_long: Reply) -> Any:
        """A line that is too long: passed over up to its CRLF, then refused (RFC 5321 4.5.3.1.9)."""
        end = self._buffer.find(b"\r\n", self._at)
        self._long = end < 0
        if self._long:
            self._at = len(self._buffer) - self._buffer.endswith(b"\r")     # its LF may come
            return None
        self._at = end + 2
        self._stray = False
        return self._say(too_long)

    def _dispatch(self, text: str, octets: int) -> Any:
        raise NotImplementedError

    def _room_for_recipients(self) -> bool:
        raise NotImplementedError

    def _takes_files(self) -> bool:
        raise NotImplementedError
