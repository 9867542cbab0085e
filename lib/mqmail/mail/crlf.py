"""The text of a message into the one form the queue knows: every line ends in CRLF and is bounded.

RFC 5322 section 2.3: CR and LF occur only together, and a line has at most 998 octets before them.
"""

from __future__ import annotations

LONGEST_LINE = 998


class Body:
    """Converts a body that comes in pieces, cut anywhere. LF, CRLF and a bare CR (which a local
    program put there as a line end) become CRLF; a line of more than 998 octets is broken after
    998, between the characters of UTF-8; the last line gets its CRLF. Holds at most one line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """The converted lines that *piece* completes."""
        data = self._rest + piece
        held = b""
        if b"\r" in data:
            if data[-1] == 13:          # its LF may be in the next piece
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n") + 1
        lines, rest = _bounded(data[:end]), data[end:]
        if len(rest) > LONGEST_LINE:
            *whole, rest = break_line(rest)
            lines += b"".join([line + b"\n" for line in whole])
        self._rest = rest + held
        return lines.replace(b"\n", b"\r\n")

    def end(self) -> bytes:
        """What is left when nothing more comes."""
        rest, self._rest = self._rest, b""
        return rest.removesuffix(b"\r") + b"\r\n" if rest else b""


def _bounded(text: bytes) -> bytes:
    """*text*, whose lines end in LF, with its long lines broken."""
    lines = text.split(b"\n")
    if max(map(len, lines)) <= LONGEST_LINE:
        return text
    return b"\n".join([part for line in lines for part in break_line(line)])


def break_line(line: bytes) -> list[bytes]:
    """*line*, which holds no line end, in parts of at most 998 octets (one part if it is short)."""
    parts, start = [], 0
    while len(line) - start > LONGEST_LINE:
        cut = start + LONGEST_LINE
        while line[cut] & 0xC0 == 0x80 and cut > start + LONGEST_LINE - 3:
            cut -= 1
        parts.append(line[start:cut])
        start = cut
    parts.append(line[start:])
    return parts
