"""Figures as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: object) -> str:
    """Three digits that mean something; text as it is; nothing for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of equal width, indented: words (the first row says which) to the left, numbers to the
    right. A row with fewer cells ends in free text, which widens no column."""
    cells = [[number(value) for value in row] for row in rows]
    full = [row for row in cells if len(row) == len(header)]
    words = [bool(rows) and isinstance(rows[0][at], str) if at < len(rows[0] if rows else ()) else False
             for at in range(len(header))]
    widths = [max(len(row[at]) for row in (header, *full)) for at in range(len(header))]
    return "\n".join(["  " + _line(row, widths, words) for row in (header, *cells)])


def _line(row: Sequence[str], widths: Sequence[int], words: Sequence[bool]) -> str:
    loose = len(row) - 1 if len(row) < len(widths) else len(row)
    parts = [text if at == loose else text.ljust(widths[at]) if words[at] else text.rjust(widths[at])
             for at, text in enumerate(row)]
    return "  ".join(parts).rstrip()


def sorted_names(groups: Sequence[dict[str, object]]) -> list[str]:
    """All keys of *groups*, in order, each once; those in parentheses last."""
    return sorted({name for group in groups for name in group}, key=lambda name: (name[:1] == "(", name))


def mebibytes(kibibytes: int) -> float:
    """KiB as MiB."""
    return kibibytes / 1024
