"""Message text on its way: line ends, line length, dots.

Only CRLF ends a line and only CRLF.CRLF ends DATA (RFC 5321 sections 2.3.8 and 4.1.1.4); a bare CR
or LF in a message is a flaw that is reported, never a line end. All classes take input cut anywhere
and hold a few octets at most.
"""

from __future__ import annotations

LONGEST_LINE = 998      # octets of text without CRLF (RFC 5321 4.5.3.1.6)

BARE = "bare"
LONG = "long"


class TextCheck:
    """Watches a body go by: ``flaw`` becomes BARE or LONG and stays so."""

    __slots__ = ("_column", "_cr", "_longest", "flaw")

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self.flaw = ""
        self._longest = longest
        self._column = 0        # octets of the unfinished line so far, a held CR not counted
        self._cr = False        # the last octet was a CR: its LF may come

    def feed(self, data: bytes) -> None:
        """Look at the next octets."""
        if self.flaw or not data:
            return
        if self._cr:
            data = b"\r" + data
        self._cr = data[-1:] == b"\r"
        if self._cr:
            data = data[:-1]
        lines = data.split(b"\r\n")
        first = self._column + len(lines[0])
        text = b"".join(lines)
        if b"\n" in text or b"\r" in text \
                or first > self._longest or max(map(len, lines)) > self._longest:
            self.flaw = self._first_flaw(lines)
        self._column = len(lines[-1]) if len(lines) > 1 else first

    def _first_flaw(self, lines: list[bytes]) -> str:
        """Which flaw comes first in the text, so that the verdict does not hang on how it was cut."""
        room = self._longest - self._column
        for line in lines:
            bare = min([p for p in (line.find(b"\r"), line.find(b"\n")) if p >= 0], default=len(line))
            if bare < len(line) and bare <= room:
                return BARE
            if len(line) > room:
                return LONG
            room = self._longest
        return ""

    def finish(self) -> None:
        """The body ended: a CR left over is a bare one."""
        if self._cr and not self.flaw:
            self.flaw = BARE


class DataDecoder:
    """Undoes dot-stuffing and finds the end of DATA (RFC 5321 section 4.5.2)."""

    __slots__ = ("_held", "_lead")

    def __init__(self) -> None:
        self._lead = b"\r\n"    # what of a line end came before: CRLF, CR or nothing
        self._held = b""        # "." or ".CR" at the start of a line: may be the end

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """(body octets, -1); at the end (last body octets, how many octets of *data* were used)."""
        lead, before = self._lead, len(self._lead) + len(self._held)
        probe = lead + self._held + data
        out, position = [], len(lead)
        start = probe.find(b"\r\n.")
        while start >= 0:
            dot = start + 2
            after = probe[dot + 1:dot + 3]
            out.append(probe[position:dot])
            if after == b"\r\n":
                return b"".join(out), dot + 3 - before
            if after in (b"", b"\r") and dot + 1 + len(after) == len(probe):
                self._lead, self._held = b"\r\n", probe[dot:]
                return b"".join(out), -1
            position = dot + 1
            start = probe.find(b"\r\n.", position)
        out.append(probe[position:])
        self._held = b""
        self._lead = b"\r\n" if probe[-2:] == b"\r\n" else probe[-1:] if probe[-1:] == b"\r" else b""
        return b"".join(out), -1


class BadText(ValueError):
    """A body that may not be sent: a bare CR or LF in it, or a line over the limit."""


class DataEncoder:
    """Dot-stuffs a body for DATA and ends it (RFC 5321 section 4.5.2).

    What goes out is checked again, wherever the body comes from: a stored bare CR or LF would be
    somebody's way to end our DATA early. feed() raises BadText then; nothing of it may be sent.
    """

    __slots__ = ("_check", "_tail")

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._check = TextCheck(longest)
        self._tail = b"\r\n"

    def feed(self, data: bytes) -> bytes:
        """The octets to send for *data*."""
        self._check.feed(data)
        if self._check.flaw:
            raise BadText(_FLAWS[self._check.flaw])
        if not data:
            return b""
        tail, self._tail = self._tail, (self._tail + data)[-2:]
        return (tail + data).replace(b"\r\n.", b"\r\n..")[len(tail):]

    def finish(self) -> bytes:
        """The end: CRLF if the body lacks it, then the dot."""
        self._check.finish()
        if self._check.flaw:
            raise BadText(_FLAWS[self._check.flaw])
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


_FLAWS = {BARE: "the message holds a bare CR or LF", LONG: "the message holds a line over 998 octets"}
