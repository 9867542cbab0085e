"""What must be known of a message's header while its bytes pass by: loops, size, a proper start."""

from __future__ import annotations

KEPT = 256                  # of an unfinished line; a longer field name is not taken for one
LONGEST_HEADER = 1 << 20
LARGEST_JUDGED = 1 << 18    # octets that the rules for headers look at, and of one that is submitted
MOST_RECEIVED = 100         # RFC 5321 6.3: "at least 100"
_RECEIVED = b"\r\nreceived:"
_FIELD_NAME = bytes(c for c in range(33, 127) if c != 58)    # ftext, RFC 5322 3.6.8


class HeaderScan:
    """Fed the message's bytes in any pieces, with CRLF line ends, until ``done``.

    ``started``: the first line has been seen, as far as ``starts_with_header`` needs it.
    ``starts_with_header``: the message starts with a field, or with the blank line that ends a
    header of no fields. When it is False all is body, and a blank line belongs between our
    ``Received:`` and the message. ``received``: how many ``Received:`` fields there are.
    ``too_large``: the header with its blank line is larger than *longest*. A message that ends
    before it is done is judged by what there is.
    """

    __slots__ = ("_counted", "_held", "_room", "done", "started", "starts_with_header", "too_large")

    def __init__(self, longest: int = LONGEST_HEADER) -> None:
        self.done = False
        self.started = False
        self.starts_with_header = True
        self.too_large = False
        self._counted = 0
        self._held = b"\r\n"       # from the last line end on: always starts with CRLF
        self._room = longest

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes; costs nothing once done."""
        if self.done:
            return
        room = self._room
        self._room -= len(chunk)
        if self._room < 0:
            chunk = chunk[:room]
        self._look(self._held + chunk)
        if self._room < 0 and not self.done:
            self.done = self.too_large = True

    def _look(self, seen: bytes) -> None:
        if not self.started and self._not_a_header(seen):
            self.done = True
            return
        end = seen.find(b"\r\n\r\n")
        cut = seen.rfind(b"\r\n") if end < 0 else end
        self._counted += seen[:cut].lower().count(_RECEIVED)
        if end < 0:
            self._hold(seen[cut:])
        else:
            self._held = b""
            self.done = True

    def _not_a_header(self, seen: bytes) -> bool:
        """Judge the first line once there is enough of it; True when it is the body's."""
        end = seen.find(b"\r\n", 2)
        if end < 0:
            if len(seen) < KEPT + 2:
                self.starts_with_header = _may_be_field(seen[2:])
                return False
            end = len(seen)
        self.started = True
        self.starts_with_header = end == 2 or is_field(seen[2:min(end, KEPT + 2)])
        return not self.starts_with_header

    def _hold(self, tail: bytes) -> None:
        """Keep the start of an unfinished line, and its last byte: that may be half a line end."""
        if len(tail) > KEPT + 2:
            tail = tail[:KEPT + 2] + b"." + tail[-1:]
        self._held = tail

    @property
    def received(self) -> int:
        """How many ``Received:`` fields have been seen, in any case of letters."""
        return self._counted + self._held.lower().count(_RECEIVED)

    def loops(self, limit: int = MOST_RECEIVED) -> bool:
        """Whether the message has been through more than *limit* hosts (RFC 5321 6.3)."""
        return self.received > limit


def is_field(line: bytes) -> bool:
    """Whether a line starts with a field name and a colon. White space before the colon is
    obsolete, not wrong (RFC 5322 4.5)."""
    name, colon, _ = line.partition(b":")
    name = name.rstrip(b" \t")
    return bool(colon and name) and not name.translate(None, _FIELD_NAME)


def _may_be_field(line: bytes) -> bool:
    """The same for a line of which no more has come: nothing at all may become one."""
    return not line or is_field(line)
