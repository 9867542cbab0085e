"""An output filter for a message's header: fields of chosen names have their addresses rewritten, all
else passes octet for octet. Pure: bytes in, bytes out, in any pieces."""

from __future__ import annotations

from mqmail.mail import crlf, mailboxes
from mqmail.mail.header import fold_line, is_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_FIELD = 1 << 16     # octets of a field that is held; a longer one passes as it is
MOST_LOOKED_AT = 1 << 17    # octets of all fields in which addresses are looked for, and for each
PRICE = 16                  # address this many: they take longer than what is around them


class HeaderFilter:
    """*changes*: a field's name in lower case to what makes the new of a canonical address, or returns
    the same. What it raises, but for ValueError, comes out of feed() and end()."""

    __slots__ = ("_changes", "_done", "_held", "_is_long", "_room", "_seen")

    def __init__(self, changes: Mapping[bytes, Callable[[str], str]]) -> None:
        self._changes = changes
        self._held = bytearray()    # from the start of a field on; of a long one its last octets
        self._seen = 0              # of them, up to where no line end is
        self._is_long = False       # the rest of a field that passes as it is
        self._done = False          # what comes is the body
        self._room = MOST_LOOKED_AT

    def feed(self, data: bytes) -> bytes:
        """The next octets of the message, with CRLF line ends; what can go out of them."""
        if self._done:
            return data
        self._held += data
        out = bytearray()
        while not self._done and (end := self._end_of_field()):
            out += self._take(end)
        if not self._done and len(self._held) > LONGEST_FIELD:
            self._done = not (self._is_long or _begins_field(self._held))
            self._is_long = True
            out += self._cut(len(self._held) - 2)       # which may be a line end
        if self._done:
            out += self._cut(len(self._held))
        return bytes(out)

    def end(self) -> bytes:
        """The rest: the message is complete."""
        return b"" if self._done else self._take(len(self._held))

    def _cut(self, end: int) -> bytes:
        cut = bytes(self._held[:end])
        del self._held[:end]
        self._seen = 0
        return cut

    def _end_of_field(self) -> int:
        """Where the next field begins; 0 if that is not known yet."""
        held = self._held
        if held[:2] == b"\r\n" and not self._is_long:
            return 2
        while (place := held.find(b"\r\n", self._seen)) >= 0:
            self._seen = place
            if len(held) == place + 2:
                return 0
            if held[place + 2] not in b" \t":
                return place + 2
            self._seen = place + 2
        self._seen = max(self._seen, len(held) - 1)
        return 0

    def _take(self, end: int) -> bytes:
        """A field as it goes out, or the line behind the last one."""
        field = self._cut(end)
        if self._is_long:
            self._is_long = False
            return field
        if not _begins_field(field):
            self._done = True
            return field
        change = self._changes.get(field.partition(b":")[0].rstrip(b" \t").lower())
        if change is None or b"@" not in field or len(field) > LONGEST_FIELD:
            return field
        cost = len(field) + PRICE * field.count(b"@")
        if cost > self._room:
            return field
        self._room -= cost
        return rewrite(field, change)


def _begins_field(data: bytes | bytearray) -> bool:
    return is_field(bytes(data[:LONGEST_FIELD]).partition(b"\r\n")[0])


def rewrite(field: bytes, change: Callable[[str], str]) -> bytes:
    """*field*, of CRLF lines, with its addresses as *change* makes them; lines that become longer than
    998 octets (RFC 5322 section 2.1.1) are folded. As it is, if its content is no list of addresses."""
    name, colon, content = field.partition(b":")
    try:
        text = mailboxes.change(content.decode("utf-8", "surrogateescape"), change)
    except ValueError:
        return field
    new = name + colon + text.encode("utf-8", "surrogateescape")
    if new == field:
        return field
    lines = new.split(b"\r\n")
    if max(map(len, lines)) > crlf.LONGEST_LINE:
        lines = [part for line in lines for part in fold_line(line)]
    return b"\r\n".join(lines)
