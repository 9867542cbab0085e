"""What the header of a message or part says of its content: Content-Type and
Content-Transfer-Encoding (RFC 2045 sections 5 and 6), and the writing of the latter.

What is said twice, or in a syntax that programs read differently, is not *clear*: whoever changes
a content must leave such a one alone.
"""

from __future__ import annotations

from mqmail.base.value import value

IDENTITY = ("7bit", "8bit", "binary")     # RFC 2045 6.2: content as it is
_TOKEN = bytes(c for c in range(33, 127) if c not in b'()<>@,;:\\"/[]?=')  # RFC 2045 5.1
_WSP = b" \t"


@value
class MimeHeader:
    """*kind* is ``type/subtype`` in lower case, *boundary* empty if there is none, *encoding* in
    lower case. *mime*: there is a MIME-Version; *typed*: a Content-Type; *ended*: a blank line after
    the fields. *coded* is where the field Content-Transfer-Encoding begins and ends, (-1, -1) if it is
    not there. *fields* is where all fields end."""

    kind: str
    boundary: bytes
    encoding: str
    mime: bool
    typed: bool
    clear: bool
    ended: bool
    coded: tuple[int, int]
    fields: int


def read(raw: bytes, default: str = "text/plain") -> MimeHeader:
    """The header block *raw*, with CRLF line ends and perhaps the blank line after it. *default* is
    the kind of what has no Content-Type."""
    spots, fields = _spots(raw)
    types = spots.get(b"content-type", [])
    codings = spots.get(b"content-transfer-encoding", [])
    kind, boundary, clear = default, b"", len(types) <= 1 and len(codings) <= 1
    if types:
        try:
            kind, boundary = content_type(_content(raw, types[0]))
        except ValueError:
            clear = False
    encoding = _encoding(_content(raw, codings[0])) if codings else "7bit"
    return MimeHeader(kind, boundary, encoding, b"mime-version" in spots, bool(types), clear,
                      fields < len(raw), codings[0] if codings else (-1, -1), fields)


def _spots(raw: bytes) -> tuple[dict[bytes, list[tuple[int, int]]], int]:
    """Where the fields we know begin and end, by their names in lower case, and where all end."""
    spots: dict[bytes, list[tuple[int, int]]] = {}
    start, name = 0, b""
    for at, line in _lines(raw):
        if line[:1] in (b" ", b"\t"):
            continue
        if name.startswith((b"content-t", b"mime-version")):
            spots.setdefault(name, []).append((start, at))
        start, name = at, line.partition(b":")[0].rstrip(_WSP).lower()
        if not line:
            break
    return spots, start


def _lines(raw: bytes) -> list[tuple[int, bytes]]:
    """Each line with its place, and an empty one at the end."""
    lines, at = [], 0
    for line in raw.split(b"\r\n"):
        lines.append((min(at, len(raw)), line))
        at += len(line) + 2
    if lines[-1][1]:
        lines.append((len(raw), b""))
    return lines


def _content(raw: bytes, spot: tuple[int, int]) -> bytes:
    """The field's content, unfolded (RFC 5322 2.2.3)."""
    return raw[slice(*spot)].partition(b":")[2].replace(b"\r\n", b"")


def content_type(content: bytes) -> tuple[str, bytes]:
    """(kind, boundary or nothing) of a Content-Type field's content. A type without subtype counts
    for text/plain (RFC 2045 5.2). Raises ValueError when the syntax is not clear."""
    main, *params = _cut(content)
    kind = b"".join(main.split()).lower()
    if b"/" not in kind and not kind.translate(None, _TOKEN):
        return "text/plain", b""
    major, _, minor = kind.partition(b"/")
    if not major or not minor or (major + minor).translate(None, _TOKEN):
        raise ValueError("no type and subtype")
    boundaries = [v for name, v in map(_parameter, params) if name == b"boundary"]
    if len(boundaries) > 1:
        raise ValueError("two boundaries")
    return kind.decode("ascii"), boundaries[0].rstrip(_WSP) if boundaries else b""


def _parameter(text: bytes) -> tuple[bytes, bytes]:
    """Name in lower case and value of ``name=value``."""
    name, _, content = text.partition(b"=")
    name, content = name.strip(_WSP).lower(), content.strip(_WSP)
    if name != b"boundary":
        return name, content
    if content.startswith(b'"'):
        return name, _unquoted(content)
    if b'"' in content or b" " in content or b"\t" in content:
        raise ValueError("a boundary of several words")
    return name, content


def _unquoted(text: bytes) -> bytes:
    """What a quoted string means (RFC 5322 3.2.4)."""
    inner, meant, at = text[1:-1], bytearray(), 0
    while at < len(inner):
        if inner[at] == 34:
            raise ValueError("more than a quoted string")
        at += inner[at] == 92
        meant += inner[at:at + 1]
        at += 1
    if len(text) < 2 or text[-1] != 34 or at > len(inner):
        raise ValueError("a quoted string without end")
    return bytes(meant)


def _encoding(content: bytes) -> str:
    """The mechanism of RFC 2045 6.1; ``?`` when it is not one word."""
    try:
        first, *more = _cut(content)
    except ValueError:
        return "?"
    word = first.strip(_WSP).lower()
    return "?" if more or not word or word.translate(None, _TOKEN) else word.decode("ascii")


def _cut(content: bytes) -> list[bytes]:
    """*content* cut at its semicolons, a blank for each comment (RFC 5322 3.2.2)."""
    parts, quoted, depth, at = [bytearray()], False, 0, 0
    while at < len(content):
        char, width = content[at], 1
        if char == 92 and (quoted or depth):
            width = 2
        elif char == 34 and not depth:
            quoted = not quoted
        if depth or (char == 40 and not quoted):
            depth += (char == 40) - (char == 41)
            if not depth:
                parts[-1] += b" "
        elif char == 59 and not quoted:
            parts.append(bytearray())
        else:
            parts[-1] += content[at:at + width]
        at += width
    if quoted or depth:
        raise ValueError("a quoted string or comment without end")
    return [bytes(part) for part in parts]


def rewrite(raw: bytes, header: MimeHeader, encoding: bytes, more: bytes = b"") -> bytes:
    """*raw*, of which *header* was read, with *encoding* instead of its own, or added; if *encoding* is
    empty it keeps what it has. *more* are whole fields to be added. A blank line is at the end."""
    start, end = header.coded
    field = b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b""
    fields = raw[:header.fields]
    if field and start >= 0:
        return fields[:start] + field + fields[end:] + more + b"\r\n"
    return fields + more + field + b"\r\n"
