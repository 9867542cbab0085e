"""Replies: what a server says (RFC 5321 section 4.2), with enhanced status codes (RFC 2034).

Also the two things XMQ puts into a reply's text: ``#N``, the recipient a reply is for, and
``name=xtext`` facts; and reading the paths of a 551.
"""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.base.value import value
from mqmail.mail.address import BadAddress, is_destination, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_LINE = 512          # RFC 5321 4.5.3.1.5, CRLF included
LONGEST_LINE_XMQ = 4096
_MOST_KNOWN = 200
_KNOWN: dict[bytes, Reply] = {}     # lines that are a whole reply, and what they mean
_TEXT = frozenset(chr(c) for c in range(32, 127))


class ProtocolError(Exception):
    """The other side broke the protocol; str() says how."""


@value
class Reply:
    """One reply: *lines* are the texts without code and status; *status* is "" or like "2.1.5"."""

    code: int
    lines: tuple[str, ...] = ("",)
    status: str = ""

    @property
    def text(self) -> str:
        """All lines as one."""
        return " ".join(self.lines)

    def encode(self, longest: int = LONGEST_LINE) -> bytes:
        """As it goes over the wire. Characters that could end a line become ``?``; too long
        lines are cut."""
        if len(self.lines) == 1:        # nearly all of them
            lead = f"{self.code} {self.status}" if self.status else f"{self.code}"
            line = f"{lead} {self.lines[0]}"
            if len(line) <= longest - 2 and line.isascii() and line.isprintable() and line[-1] != " ":
                return line.encode() + b"\r\n"
        lead = f"{self.code}-{self.status} " if self.status else f"{self.code}-"
        if self._is_plain(longest - 2 - len(lead)):         # the other replies to EHLO
            lines = [f"{lead}{line}\r\n" for line in self.lines]
            return ("".join(lines[:-1]) + lines[-1].replace("-", " ", 1)).encode()
        lines = [(lead + clean(text)).rstrip(" ") for text in self.lines]
        lines[-1] = lines[-1][:3] + " " + lines[-1][4:]
        return b"".join([_cut(line, longest - 2) + b"\r\n" for line in lines])

    def _is_plain(self, longest: int) -> bool:
        """Whether no line has to be changed."""
        text = "".join(self.lines)
        return text.isascii() and text.isprintable() and all(
            [0 < len(line) <= longest and line[-1] != " " for line in self.lines])

    def said(self) -> str:
        """``550 5.1.1 no such user``: for logs, records and reports."""
        return " ".join([word for word in (str(self.code), self.status, self.text) if word])


def _cut(line: str, longest: int) -> bytes:
    """UTF-8 of at most *longest* octets, no character cut in two."""
    raw = line.encode("utf-8")
    return raw if len(raw) <= longest else raw[:longest].decode("utf-8", "ignore").encode("utf-8")


def clean(text: str) -> str:
    """*text* without what could end a line or move a cursor."""
    if text.isascii() and text.isprintable():
        return text
    return "".join([c if c in _TEXT or (c > "\x7f" and c.isprintable()) else "?" for c in text])


def reply(code: int, status: str, text: str) -> Reply:
    """A reply of one line."""
    return Reply(code, (text,), status)


def elsewhere(targets: list[tuple[str, str, str]], tag: str = "") -> Reply:
    """551 with one path a line: targets are (destination or "", address, sender or "")."""
    lines = []
    for destination, address, sender in targets:
        route = f"@{destination}:" if destination else ""
        fact = f" sender={xtext.encode(sender)}" if sender else ""
        lines.append(f"{tag}<{route}{address}>{fact}")
    return Reply(551, tuple(lines), "5.1.6")


@value
class Target:
    """Where a 551 sends a recipient; *destination* is ``new`` when none is given."""

    destination: str
    address: str
    sender: str = ""


def targets_of(answer: Reply) -> list[Target]:
    """The paths of a 551 in its three forms (one, ``<@destination:…>``, several lines).

    Raises ProtocolError when there is none or one of them is not a path.
    """
    found = []
    for line in answer.lines:
        start, end = line.find("<"), _closing(line)
        if start < 0:
            continue
        try:
            path = parse_path(line[start:end + 1])
        except BadAddress as error:
            raise ProtocolError(f"551 with a bad path: {error}") from None
        if not path.address:
            raise ProtocolError("551 to the null address")
        if path.destination and not is_destination(path.destination):
            raise ProtocolError("551 with a bad destination")
        sender = _sender(facts_of(line[end + 1:]).get("sender", ""))
        found.append(Target(path.destination or "new", path.address, sender))
    if not found:
        raise ProtocolError("551 without an address")
    return found


def _sender(text: str) -> str:
    """The fact ``sender``, which will stand in a MAIL command: an address, or "" without one."""
    try:
        path = parse_path(f"<{text}>")
    except BadAddress as error:
        raise ProtocolError(f"551 with a bad sender: {error}") from None
    return path.address


def _closing(line: str) -> int:
    """Where the first path ends: the ``>`` that is not inside a quoted string."""
    quoted, position = False, line.find("<")
    while 0 <= position < len(line):
        char = line[position]
        if char == "\\" and quoted:
            position += 1
        elif char == '"':
            quoted = not quoted
        elif char == ">" and not quoted:
            return position
        position += 1
    return -1


def facts_of(text: str) -> dict[str, str]:
    """The ``name=xtext`` words of a reply's text; other words, and broken facts, are passed over."""
    found: dict[str, str] = {}
    if "=" not in text:
        return found
    for word in text.split(" "):
        name, equals, coded = word.partition("=")
        if equals and name.isascii() and name.isidentifier():
            try:
                found[name] = xtext.decode(coded)
            except ValueError:
                continue
    return found


def tag_of(answer: Reply) -> int | None:
    """N of ``#N`` at the start of the first line, or None."""
    word = answer.lines[0].partition(" ")[0]
    if word[:1] == "#" and word[1:].isascii() and word[1:].isdigit() and len(word) < 8:
        return int(word[1:])
    return None


def untagged(answer: Reply) -> Reply:
    """The reply without ``#N``."""
    if answer.lines[0][:1] != "#":
        return answer
    lines = [line.partition(" ")[2] if line[:1] == "#" else line for line in answer.lines]
    return Reply(answer.code, tuple(lines), answer.status)


class ReplyReader:
    """Bytes from a server in, replies out; nothing is kept beyond one reply's limits. Control
    characters in a text come out as ``?``: it goes into logs, records and reports."""

    def __init__(self, most_lines: int = 512, longest: int = LONGEST_LINE_XMQ) -> None:
        self._buffer = b""
        self._most = most_lines
        self._longest = longest
        self._lines: list[str] = []
        self._code = 0
        self._status = ""

    @property
    def partial(self) -> bool:
        """Whether a part of a reply has come."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that *data* completes. Raises ProtocolError on what is not a reply."""
        return list(self.read(data))

    def read(self, data: bytes) -> Iterator[Reply]:
        """As feed(), but gives the good replies that stand before a bad one."""
        buffer = self._buffer + data if self._buffer else data
        lines = buffer.split(b"\n")
        self._buffer = lines.pop()
        for line in lines:
            answer = self._line(line)
            if answer is not None:
                yield answer
        if len(self._buffer) > self._longest:
            raise ProtocolError("reply line too long")

    def _line(self, raw: bytes) -> Reply | None:
        """The reply that *raw* completes. Short ones come again and again: some are remembered."""
        known = None if self._lines else _KNOWN.get(raw)
        if known is not None:
            return known
        single = not self._lines
        answer = self._read_line(raw)
        short = single and len(raw) < 64 and b"#" not in raw
        if answer is not None and short and len(_KNOWN) < _MOST_KNOWN:
            _KNOWN[raw] = answer
        return answer

    def _read_line(self, raw: bytes) -> Reply | None:
        if len(raw) > self._longest:
            raise ProtocolError("reply line too long")
        if raw[-1:] == b"\r":
            raw = raw[:-1]
        code, mark = raw[:3], raw[3:4]
        good = len(code) == 3 and code.isdigit() and b"2" <= code[:1] <= b"5"
        if not good or mark not in (b"", b" ", b"-"):
            raise ProtocolError("not a reply: " + raw[:80].decode("ascii", "backslashreplace"))
        text = clean(raw[4:].decode("utf-8", "backslashreplace"))
        number = int(code)
        if not self._lines:
            self._code = number
        elif number != self._code:
            raise ProtocolError("the lines of one reply have different codes")
        status, text = split_status(number, text)
        self._status = self._status or status
        self._lines.append(text)
        if mark == b"-":
            if len(self._lines) >= self._most:
                raise ProtocolError("reply of too many lines")
            return None
        answer = Reply(number, tuple(self._lines), self._status)
        self._lines, self._status = [], ""
        return answer


def split_status(code: int, text: str) -> tuple[str, str]:
    """("5.1.1", "no such user") from "5.1.1 no such user"; ("", text) without a status whose
    class fits the code (RFC 2034 section 4)."""
    word, _, rest = text.partition(" ")
    if 5 <= len(word) <= 9 and word[1] == "." and word[0] == str(code)[0]:
        parts = word.split(".")
        if len(parts) == 3 and all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts):
            return word, rest
    return "", text
