"""Quoted-printable and base64 (RFC 2045 sections 6.7 and 6.8), streaming. An encoder is fed a
content in pieces that never part a CR from its LF; what it gives does not hang on how it was cut.
"""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp

WIDTH = 76                  # RFC 2045 6.7 (5) and 6.8
_BLOCK = 4096               # octets of a line that are encoded at once
_BATCH = 57 * 1024
_PLAIN = bytes(c for c in range(32, 127) if c != 61) + b"\t"
_GUARDED = (b"--", b".", b"From ")     # boundaries; RFC 2049 section 3, items 4 and 6


class QuotedPrintable:
    """Keeps CRLF as line ends; CR or LF alone are octets like others. No line of it can be a
    boundary, a lone dot or an mbox's From line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that *data* completes."""
        *lines, rest = (self._rest + data).split(b"\r\n")
        made = [_quoted(line) + b"\r\n" for line in lines]
        while len(rest) > _BLOCK:
            made.append(_quoted(rest[:_BLOCK], True))
            rest = rest[_BLOCK:]
        self._rest = rest
        return b"".join(made)

    def end(self, fenced: bool) -> bytes:
        """The last line, if it has no end; *fenced* or not."""
        return _quoted(self._rest)


def _quoted(line: bytes, goes_on: bool = False) -> bytes:
    """One line encoded, in as many as it takes; *goes_on*: it does not end here."""
    if len(line) <= WIDTH and not goes_on and not line.translate(None, _PLAIN) \
            and not line.startswith(_GUARDED) and line[-1:] not in (b" ", b"\t"):
        return line
    made = []
    for start in range(0, max(len(line), 1), _BLOCK):
        last = start + _BLOCK >= len(line) and not goes_on
        made += _folded(line[start:start + _BLOCK], last)
    return b"\r\n".join(made) + (b"\r\n" if goes_on else b"")


def _folded(block: bytes, last: bool) -> list[bytes]:
    """Lines of at most WIDTH for *block*, all with a soft line break but perhaps the *last*."""
    text = b2a_qp(block, istext=False).replace(b"=\n", b"")     # its folding knows no guards
    lines, at = [], 0
    while True:
        lead = b""
        if text.startswith(_GUARDED, at):
            lead, at = b"=%02X" % text[at], at + 1
        room = WIDTH - 1 - len(lead)
        if len(text) - at <= room + last:
            lines.append(lead + text[at:] + (b"" if last else b"="))
            return lines
        cut = at + room
        equals = text.rfind(b"=", cut - 2, cut)
        if equals >= 0:
            cut = equals
        lines.append(lead + text[at:cut] + b"=")
        at = cut


class Base64:
    """Lines of WIDTH with CRLF between them, and after the last one only if no fence follows."""

    def __init__(self) -> None:
        self._rest = b""
        self._lead = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that *data* completes."""
        data = self._rest + data
        whole = len(data) - len(data) % 57
        self._rest = data[whole:]
        return b"".join([self._lines(data[at:min(at + _BATCH, whole)])
                         for at in range(0, whole, _BATCH)])

    def _lines(self, data: bytes) -> bytes:
        text = b2a_base64(data, newline=False)
        lead, self._lead = self._lead, b"\r\n"
        return lead + b"\r\n".join([text[at:at + WIDTH] for at in range(0, len(text), WIDTH)])

    def end(self, fenced: bool) -> bytes:
        """The last line. *fenced*: a boundary follows and brings the line end with it."""
        last = self._lines(self._rest) if self._rest else b""
        return last if fenced else last + b"\r\n"
