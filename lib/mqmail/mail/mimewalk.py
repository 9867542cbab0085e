"""A message with CRLF line ends cut into what MIME says it is made of (RFC 2045, 2046), in bounded
memory: at most CHUNK octets, one header and the open boundaries.
"""

from __future__ import annotations

from mqmail.base.failure import Permanent
from mqmail.base.value import value
from mqmail.mail import mimeheader
from mqmail.mail.crlf import LONGEST_LINE
from mqmail.mail.headerscan import is_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK = 1 << 16
LONGEST_HEADER = 1 << 18
MOST_DEPTH = 50             # multiparts and messages within each other
MOST_SECTIONS = 100_000

HEADER, CONTENT, FENCE = "header", "content", "fence"
_AMBIGUOUS = "a multipart whose boundary is also that of one around it"
_OPAQUE = ("multipart/signed", "multipart/encrypted")       # RFC 1847


class CannotRecode(Permanent):
    """The message cannot be put into seven bits, or its lines made shorter, without harm. The text
    says why."""

    status = "5.6.3"


class Section:
    """A header with the content it describes, or (*head* is None) the text before or after the parts
    of a multipart. *number* counts them. *messages* are the numbers of the messages around it, itself
    included if *is_message*. *why* says what it is if its content must not be changed."""

    __slots__ = ("head", "is_message", "messages", "number", "why")

    def __init__(self, number: int, head: mimeheader.MimeHeader | None, is_message: bool,
                 messages: tuple[int, ...], why: str = "") -> None:
        self.number = number
        self.head = head
        self.is_message = is_message
        self.messages = messages
        self.why = why


@value
class Event:
    """*what* is HEADER (*data* is the whole block), CONTENT (any part of it; never ends between CR and
    LF) or FENCE (a boundary line with the line ends around it). All *data* together are the message."""

    what: str
    section: Section
    data: bytes


@value
class _Level:
    """An open multipart. *before* is the text before its parts, *default* what a part without
    Content-Type is, *messages* and *depth* what is around it."""

    fence: bytes
    before: Section
    default: str
    messages: tuple[int, ...]
    depth: int


def chunks(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same octets in chunks of *size* or one more, the last one smaller, none of which ends between
    CR and LF. So nothing hangs on how a message was cut."""
    held = bytearray()
    for piece in pieces:
        for start in range(0, len(piece), size):
            held += piece[start:start + size]
            while len(held) > size:
                cut = size + (held[size - 1:size + 1] == b"\r\n")
                yield bytes(held[:cut])
                del held[:cut]
    yield bytes(held)


def walk(pieces: Iterable[bytes], size: int = CHUNK) -> Iterator[Event]:
    """The events of a message. Raises CannotRecode for headers that are not ASCII or have long lines,
    and for what is too large, too deep or too much."""
    walker = _Walker()
    for chunk in chunks(pieces, size):
        yield from walker.feed(chunk)
    yield from walker.feed(b"", last=True)


class _Walker:
    """``_held`` from ``_at`` on is what has not been given out. ``_section`` is what the content being
    read belongs to, None while a header is read; ``_fresh``: a line begins at ``_at``."""

    def __init__(self) -> None:
        self._held = b""
        self._at = 0
        self._levels: list[_Level] = []
        self._fences: dict[bytes, int] = {}
        self._count = 0
        self._section: Section | None = None
        self._fresh = True
        self._default, self._as_message = "text/plain", True
        self._messages: tuple[int, ...] = ()
        self._depth = 0

    def feed(self, chunk: bytes, last: bool = False) -> Iterator[Event]:
        """The events that *chunk* completes; *last*: nothing follows it."""
        self._held = self._held[self._at:] + chunk
        self._at = 0
        event: Event | None
        while True:
            if self._section is None:
                event = self._header(last)
            else:
                event = self._content(self._section, last)
            if event is None:
                return
            yield event

    # Headers

    def _header(self, last: bool) -> Event | None:
        """A header ends with a blank line; also before a boundary, and before a line that is no
        field, as most programs read it."""
        end = self._header_end(last)
        if (len(self._held) if end < 0 else end) - self._at > LONGEST_HEADER:
            raise CannotRecode(f"a header is larger than {LONGEST_HEADER} octets")
        if end < 0:
            return None
        raw, self._at = self._held[self._at:end], end
        if not raw.isascii():
            raise CannotRecode("a header has 8-bit characters")
        return Event(HEADER, self._entity(mimeheader.read(raw, self._default)), raw)

    def _header_end(self, last: bool) -> int:
        """Where the header ends, -1 if that is to come."""
        held, at = self._held, self._at
        while True:
            end = held.find(b"\r\n", at)
            stop = len(held) if end < 0 else end
            if end < 0 and not last and stop - at <= LONGEST_LINE:
                return -1
            line = held[at:min(stop, at + LONGEST_LINE + 1)]
            if not line:
                return len(held) if end < 0 else end + 2
            folded = line[0] in b" \t" and at > self._at
            if self._fence(line) or not (folded or is_field(line)):
                return at
            if len(line) > LONGEST_LINE:
                raise CannotRecode(f"a line of a header has over {LONGEST_LINE} octets")
            if end < 0:
                return stop
            at = end + 2

    def _entity(self, head: mimeheader.MimeHeader) -> Section:
        """The section that a header begins; also sets what follows the header."""
        number, is_message = self._number(), self._as_message
        if is_message:
            self._messages += (number,)
        fence = b"--" + head.boundary
        why = reason(head) or (_AMBIGUOUS if self._clashes(fence) else "")
        entity = Section(number, head, is_message, self._messages, why)
        self._section, self._fresh = entity, True
        if why:
            return entity
        if head.kind.startswith("multipart/"):
            self._deeper()
            self._section = Section(self._number(), None, False, self._messages,
                                    "a multipart without parts")
            default = "message/rfc822" if head.kind == "multipart/digest" else "text/plain"
            self._set_levels([*self._levels, _Level(fence, self._section, default, self._messages,
                                                    self._depth)])
        elif head.kind == "message/rfc822":
            self._deeper()
            self._section, self._as_message, self._default = None, True, "text/plain"
        return entity

    def _clashes(self, fence: bytes) -> bool:
        """Whether a line might be a boundary of this multipart and of one around it."""
        return fence in self._fences or fence + b"--" in self._fences \
            or fence.removesuffix(b"--") in self._fences

    def _number(self) -> int:
        self._count += 1
        if self._count > MOST_SECTIONS:
            raise CannotRecode(f"the message has more than {MOST_SECTIONS} parts")
        return self._count - 1

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise CannotRecode(f"parts are nested more than {MOST_DEPTH} deep")

    def _set_levels(self, levels: list[_Level]) -> None:
        self._levels = levels
        self._fences = {level.fence: n for n, level in enumerate(levels)}

    # Contents and boundaries

    def _content(self, section: Section, last: bool) -> Event | None:
        """Content up to the next boundary, or as much as is surely content; or the boundary."""
        mark, end = self._next_fence(last)
        if mark > self._at:
            data, self._at, self._fresh = self._held[self._at:mark], mark, False
            return Event(CONTENT, section, data)
        if end < 0:
            return None
        line = self._held[mark:end].removeprefix(b"\r\n").removesuffix(b"\r\n")
        data, self._at = self._held[mark:end], end
        event = Event(FENCE, section, data)
        self._pass(line)
        return event

    def _next_fence(self, last: bool) -> tuple[int, int]:
        """(where content ends for now, where the boundary's line ends or -1 if there is none yet)."""
        held, at = self._held, self._at
        if not self._fences:
            return len(held), -1
        fresh = self._fresh
        while True:
            if fresh and (held.startswith(b"--", at) or (len(held) - at < 2 and not last)):
                mark = line = at
            else:
                mark = held.find(b"\r\n--", at)
                line = mark + 2
            if mark < 0:
                return self._sure(last), -1
            end = held.find(b"\r\n", line)
            stop = len(held) if end < 0 else end
            if end < 0 and not last and stop - line <= LONGEST_LINE:
                return mark, -1
            if self._fence(held[line:min(stop, line + LONGEST_LINE + 1)]):
                return mark, min(stop + 2, len(held))
            if end < 0:
                return self._sure(last), -1
            at, fresh = end, False

    def _sure(self, last: bool) -> int:
        """The end of what is held, without what may be the beginning of a boundary."""
        if not last:
            for start in (b"\r\n-", b"\r\n", b"\r"):
                if self._held.endswith(start, self._at):
                    return len(self._held) - len(start)
        return len(self._held)

    def _fence(self, line: bytes) -> tuple[int, bool] | None:
        """(level, whether it closes it) of a boundary line (RFC 2046 5.1.1: only white space may
        follow)."""
        if not line.startswith(b"--"):
            return None
        text = line.rstrip(b" \t")
        closes = text not in self._fences
        level = self._fences.get(text.removesuffix(b"--") if closes else text)
        if level is None:
            return None
        if len(line) > LONGEST_LINE:
            raise CannotRecode(f"a boundary line has over {LONGEST_LINE} octets")
        return level, closes

    def _pass(self, line: bytes) -> None:
        """Go on behind a boundary line: to a part's header, or to the text after the parts."""
        found = self._fence(line)
        assert found is not None
        index, closes = found
        level = self._levels[index]
        if not closes:
            level.before.why = ""
        self._set_levels(self._levels[:index + (not closes)])
        self._messages, self._depth = level.messages, level.depth - closes
        self._default, self._as_message, self._fresh = level.default, False, True
        self._section = None
        if closes:
            self._section = Section(self._number(), None, False, self._messages, level.before.why)


def reason(head: mimeheader.MimeHeader) -> str:
    """What an entity is, if its content must be left as it is; else nothing."""
    kind = head.kind
    is_multipart, is_message = kind.startswith("multipart/"), kind == "message/rfc822"
    if not head.clear or ((is_multipart or is_message) and not head.ended):
        return "a part whose header is not clear"
    if kind in _OPAQUE:
        return f"a part of type {kind}"
    if head.encoding not in mimeheader.IDENTITY:
        return f"a part in {head.encoding}"         # multipart and message: against RFC 2045 6.4
    if is_multipart and not head.boundary:
        return "a multipart without boundary"
    if kind.startswith("message/") and not is_message:
        return f"a part of type {kind}"             # RFC 2046 5.2.2, 5.2.3; RFC 3464 2.1
    return ""
