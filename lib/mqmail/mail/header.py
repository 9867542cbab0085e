"""The header of a message, as bytes (RFC 5322 section 2.2): read, and written with CRLF.

Reads what local programs write: LF or CRLF ends a line, and nothing else does. A CR elsewhere in a
header is no line end but a blank, so ``Subject: x<CR>Bcc: y`` stays one field. No body is looked at.
"""

from __future__ import annotations

from mqmail.base.failure import Permanent
from mqmail.base.value import value
from mqmail.mail import crlf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LARGEST = 1 << 20   # octets of a whole header

_NAME = frozenset(range(33, 127))   # RFC 5322 2.2: ftext, the colon is looked for first
_WSP = b" \t"
_MBOX = (b"From ", b">From ")


@value
class Field:
    """One field. *key* is its name in lower case, *name* as written, *content* what follows the
    colon: its lines are joined by LF and begin with a blank from the second on; no CR, no last LF."""

    key: bytes
    name: bytes
    content: bytes


def make(name: str, content: str) -> Field:
    """A field of ours: ``make("Date", "...")``."""
    raw = name.encode("ascii")
    return Field(raw.lower(), raw, b" " + content.encode("utf-8", "surrogateescape"))


def read(readline: Callable[[int], bytes]) -> tuple[list[Field], bytes]:
    """Read a header by *readline(limit)* (as a binary file's). Returns (fields, what was read of
    the body: the first line, or the beginning of it, if no blank line parted it from the header).

    A first line that is no field means that there is no header at all. mbox's ``From `` lines on
    top are dropped. Raises Permanent when the header is larger than LARGEST.
    """
    fields: list[list[bytes]] = []
    left = LARGEST
    while line := readline(left + 2):   # room for a blank line, and to see that there is too much
        text = _without_end(line)
        if text and len(line) > left and (fields or is_field(text) or text.startswith(_MBOX)):
            raise Permanent(f"the header of the message is larger than {LARGEST} octets", "5.3.4")
        if text[:1] in (b" ", b"\t") and fields:
            if text.strip(_WSP):        # RFC 5322 3.2.2: a line of blanks only is obsolete
                fields[-1].append(text)
        elif is_field(text):
            fields.append([text])
        elif fields or not text.startswith(_MBOX):
            return [_field(lines) for lines in fields], line if text else b""
        left -= len(line)
    return [_field(lines) for lines in fields], b""


def _without_end(line: bytes) -> bytes:
    """The line without its end; CRs inside are blanks."""
    return line.removesuffix(b"\n").rstrip(b"\r").replace(b"\r", b" ")


def is_field(line: bytes) -> bool:
    """Whether the line is ``name:`` and so on. Blanks before the colon are allowed
    (RFC 5322 4.5, obs-optional)."""
    name, colon, _ = line.partition(b":")
    name = name.rstrip(_WSP)
    return bool(colon and name) and _NAME.issuperset(name)


def _field(lines: list[bytes]) -> Field:
    name, _, rest = lines[0].partition(b":")
    name = name.rstrip(_WSP)
    return Field(name.lower(), name, b"\n".join([rest, *lines[1:]]))


def write(fields: Iterable[Field]) -> bytes:
    """The fields with CRLF, without the blank line that ends a header. Lines longer than 998 octets
    (RFC 5322 2.1.1) are folded at a blank, or behind a comma, or anywhere."""
    lines: list[bytes] = []
    for field in fields:
        first, *more = field.content.split(b"\n")
        for line in (field.name + b":" + first, *more):
            lines.extend(fold_line(line))
    return b"".join([line + b"\r\n" for line in lines])


def fold_line(line: bytes) -> list[bytes]:
    """A line of at most 998 octets (RFC 5322 2.1.1), or else parts of that size, each but the first
    beginning with one blank, none of blanks only. Cut at a blank, or else behind a comma: what stands
    between two of a list's is one address."""
    if len(line) <= crlf.LONGEST_LINE:
        return [line]
    lines = []
    if line[:1] in (b" ", b"\t"):
        line = b" " + line.lstrip(_WSP)
    while len(line) > crlf.LONGEST_LINE:
        cut = max(line.rfind(b" ", 1, crlf.LONGEST_LINE), line.rfind(b"\t", 1, crlf.LONGEST_LINE))
        if cut < 0:
            cut = line.rfind(b",", 1, crlf.LONGEST_LINE) + 1
        if cut <= 0:
            cut = len(crlf.break_line(line[:crlf.LONGEST_LINE + 1])[0])
        lines.append(line[:cut].rstrip(_WSP))
        line = b" " + line[cut:].lstrip(_WSP)
    if line.strip(_WSP):
        lines.append(line)
    return lines
