"""A message put into seven bits for a host without 8BITMIME (RFC 6152 section 3), or because it has
lines of more than 998 octets. docs/decisions/0013-recoding.md has the rules and reasons.

What a part is given can only be known at its end, but must be said in its header. So a message is
read twice: ``check`` makes the plan, ``recode`` follows it. Both take the same octets in any pieces.
"""

from __future__ import annotations

from codecs import getincrementaldecoder

from mqmail.base.value import value
from mqmail.mail import mimeheader, mimewalk
from mqmail.mail.crlf import LONGEST_LINE
from mqmail.mail.mimecode import Base64, QuotedPrintable
from mqmail.mail.mimewalk import CONTENT, FENCE, HEADER, CannotRecode, Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ASCII = bytes(range(128))
_QP, _B64, _INSIDE, _UTF8 = 1, 2, 4, 8      # _INSIDE: something in this message is encoded
_CODED = _QP | _B64

__all__ = ["CannotRecode", "Plan", "check", "needs_recoding", "recode", "recoded_size"]


@value
class Plan:
    """What becomes of each section of a message, by its number."""

    actions: bytes


class _Measure:
    """What there is in a content: ``size``, ``high`` octets, ``long`` lines, ``odd`` octets (NUL, CR
    or LF alone). ``utf8``: all of it is UTF-8, if that was asked."""

    def __init__(self, ask_utf8: bool = False) -> None:
        self.size = self.high = 0
        self.long = self.odd = False
        self.utf8 = ask_utf8
        self._decoder = getincrementaldecoder("utf-8")()
        self._column = 0

    def feed(self, data: bytes) -> None:
        """Look at the next octets; they never end between CR and LF."""
        self.size += len(data)
        lines = data.split(b"\r\n")
        self.long = self.long or self._column + len(lines[0]) > LONGEST_LINE \
            or max(map(len, lines)) > LONGEST_LINE
        self._column = len(lines[-1]) + (0 if len(lines) > 1 else self._column)
        ends = len(lines) - 1
        self.odd = self.odd or b"\0" in data or data.count(b"\r") != ends or data.count(b"\n") != ends
        if not data.isascii():
            self.high += len(data.translate(None, _ASCII))
        if self.utf8:
            self._decode(data)

    def _decode(self, data: bytes, final: bool = False) -> None:
        try:
            self._decoder.decode(data, final)
        except UnicodeDecodeError:
            self.utf8 = False

    def end(self) -> None:
        """No more comes."""
        if self.utf8:
            self._decode(b"", True)


def needs_recoding(pieces: Iterable[bytes]) -> bool:
    """Whether a message has octets above 127 or lines of more than 998. MIME is not looked at."""
    measure = _Measure()
    for chunk in mimewalk.chunks(pieces, mimewalk.CHUNK):
        measure.feed(chunk)
        if measure.high or measure.long:
            return True
    return False


def check(pieces: Iterable[bytes], size: int = mimewalk.CHUNK) -> Plan:
    """The plan for a message that ``needs_recoding``. Raises CannotRecode. *size* is for tests."""
    actions = bytearray()
    section, measure = None, _Measure()
    for event in mimewalk.walk(pieces, size):
        if event.what != CONTENT:
            _judge(actions, section, measure)
            section = None
            continue
        if section is None:
            section = event.section
            measure = _Measure(section.is_message and section.head is not None
                               and not section.head.typed and not section.head.mime)
        measure.feed(event.data)
    _judge(actions, section, measure)
    return Plan(bytes(actions))


def _judge(actions: bytearray, section: Section | None, measure: _Measure) -> None:
    """Decide on a section that has ended."""
    wrong = measure.high or measure.long
    if section is None or not (wrong or measure.odd):
        return
    if section.why or section.head is None:
        if wrong and section.why:
            raise CannotRecode(f"{section.why} has 8-bit characters or lines of over "
                               f"{LONGEST_LINE} octets")
        if wrong:
            _note(actions, section.number, _QP)
        return
    measure.end()
    is_text = section.head.kind.startswith("text/")
    quoted = is_text and 3 * measure.high <= measure.size    # else unreadable, and larger
    _note(actions, section.number, (_QP if quoted else _B64) | (_UTF8 if measure.utf8 else 0))
    for number in section.messages:
        _note(actions, number, _INSIDE)


def _note(actions: bytearray, number: int, action: int) -> None:
    actions.extend(bytes(max(number + 1 - len(actions), 0)))
    actions[number] |= action


def recode(pieces: Iterable[bytes], plan: Plan, size: int = mimewalk.CHUNK) -> Iterator[bytes]:
    """The message in seven bits, lines within 998 octets. *plan* is what ``check`` said of it."""
    encoder: QuotedPrintable | Base64 | None = None
    for event in mimewalk.walk(pieces, size):
        action = _action(plan, event.section.number)
        if event.what == CONTENT and action & _CODED:
            if encoder is None:
                encoder = QuotedPrintable() if action & _QP else Base64()
            yield encoder.feed(event.data)
            continue
        if encoder is not None:
            yield encoder.end(event.what == FENCE)
            encoder = None
        yield _header(event, action) if event.what == HEADER else event.data
    if encoder is not None:
        yield encoder.end(False)


def recoded_size(pieces: Iterable[bytes], plan: Plan) -> int:
    """How many octets ``recode`` gives. Costs as much."""
    return sum(map(len, recode(pieces, plan)))


def _action(plan: Plan, number: int) -> int:
    return plan.actions[number] if number < len(plan.actions) else 0


def _header(event: mimewalk.Event, action: int) -> bytes:
    """A header with the encoding that its content has now: other fields stay as they are."""
    section, head = event.section, event.section.head
    assert head is not None
    if action & _CODED:
        encoding = b"quoted-printable" if action & _QP else b"base64"
    elif head.clear and head.encoding in ("8bit", "binary"):
        encoding = b"7bit"          # RFC 2045 6.4: nothing in a 7bit whole may say 8bit
    else:
        encoding = b""
    more = b""
    if section.is_message and action & _INSIDE and not head.mime:
        more = b"MIME-Version: 1.0\r\n"
        if not head.typed:
            more += _content_type(action)
    if encoding or more:
        return mimeheader.rewrite(event.data, head, encoding, more)
    return event.data


def _content_type(action: int) -> bytes:
    """RFC 1428 section 3: the best that is known of the character set."""
    charset = b"utf-8" if action & _UTF8 else b"unknown-8bit"
    return b"Content-Type: text/plain; charset=" + charset + b"\r\n"
