"""The lines of a list or table: what every control file's parser reads.

White space at the end is cut; blank lines and lines whose first character that shows is ``#`` are
dropped (qmail's control.c: only ``#`` at the very start). White space at the start stays.
"""

from __future__ import annotations

from io import BytesIO

from mqmail.base.failure import BadFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

LONGEST_LINE = 8192


class Lines:
    """Iterate over the lines that say something. ``number`` is that of the line last given, so that
    whoever reports a problem can name it; a parser may set it back to an earlier line."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for number, raw in enumerate(BytesIO(self._data), 1):
            stripped = raw.rstrip(b" \t\n")
            if stripped and not stripped.lstrip(b" \t").startswith(b"#"):
                self.number = number
                yield decode(stripped)


def decode(raw: bytes) -> str:
    """A line as text. Raises ValueError when it is too long, not UTF-8, or not to be printed."""
    if len(raw) > LONGEST_LINE:
        raise ValueError(f"longer than {LONGEST_LINE} bytes: write several lines")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8: save the file as UTF-8 or ASCII") from None
    if not text.isprintable():
        for char in text:
            if char != "\t" and not char.isprintable():
                raise ValueError(_unprintable(char))
    return text


def _unprintable(char: str) -> str:
    if char == "\r":
        return "ends in CR LF: save the file with Unix line ends (LF alone)"
    return f"holds the unprintable character U+{ord(char):04X}: remove it"


def parse(path: str, data: bytes, parser: Callable[[Lines, str], Any], me: str) -> Any:
    """parser(lines of *data*, me); its ValueError becomes a BadFile that names *path* and the line."""
    lines = Lines(data)
    try:
        return parser(lines, me)
    except ValueError as error:
        raise BadFile(f"{path} line {lines.number}: {error}", lines.number) from None


def parse_line(path: str, data: bytes, check: Callable[[str], Any]) -> Any:
    """The value of a file that holds one line; *check* raises ValueError. A second line that says
    something is a mistake: qmail would ignore it silently."""
    first, _, rest = data.partition(b"\n")
    if rest.strip():
        raise BadFile(f"{path} line 2: only the first line counts: remove the others")
    raw = first.rstrip(b" \t")
    if not raw:
        raise BadFile(f"{path} line 1: is empty: write a value, or remove the file to have the default")
    try:
        return check(decode(raw))
    except ValueError as error:
        raise BadFile(f"{path} line 1: {error}") from None
