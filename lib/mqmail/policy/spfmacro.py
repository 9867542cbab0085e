"""Macros in the names and texts of SPF records (RFC 7208 section 7). Pure."""

from __future__ import annotations

from mqmail.base.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Pieces = tuple["str | Macro", ...]

LONGEST_NAME = 253          # octets of a domain name (RFC 7208 section 7.3)
_LETTERS = "slodiphv"       # allowed everywhere; in explanations also
_EXPLAINING = "crt"
_DELIMITERS = ".-+,/_="
_MOST_PARTS = 128           # more than a name has labels
_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_UNRESERVED = _ALNUM | frozenset("-._~")


@value
class Macro:
    """``%{d2r-}``: the *letter* (lower case), how many parts from the right (0: all), whether they are
    reversed, what separates them, whether the value is to be escaped for a URL (upper case)."""

    letter: str
    parts: int = 0
    reverse: bool = False
    delimiters: str = "."
    escape: bool = False


def parse_name(text: str) -> Pieces:
    """A domain-spec (section 7.1): it ends in a macro or in a top label. Raises ValueError."""
    pieces = parse_text(text, " ", _LETTERS)
    if not pieces:
        raise ValueError("an empty domain")
    last = pieces[-1]
    if isinstance(last, Macro) or text[-2:] in ("%%", "%_", "%-"):
        return pieces
    label = last.removesuffix(".").rpartition(".")
    if not (label[1] and _is_top_label(label[2])):
        raise ValueError(f"{text[:80]!a} does not end in a top-level domain")
    return pieces


def _is_top_label(label: str) -> bool:
    """Letters, digits and inner hyphens, not digits alone."""
    return bool(label) and _ALNUM.issuperset(label.replace("-", "")) and not label.isdigit() \
        and "-" not in (label[0], label[-1])


def parse_text(text: str, refused: str = "", letters: str = _LETTERS + _EXPLAINING) -> Pieces:
    """A macro-string, or the text of an explanation, where spaces are allowed. Raises ValueError."""
    first, *rest = text.split("%")
    pieces: list[str | Macro] = [first] if first else []
    rest.reverse()
    while rest:
        part = rest.pop()
        if not part:                            # %%: the literal goes up to the next %
            pieces.append("%" + (rest.pop() if rest else _bad("a % without its macro")))
        elif part[0] == "{":
            inner, brace, literal = part[1:].partition("}")
            pieces.append(_macro(inner, letters) if brace else _bad("a macro without its }"))
            pieces += [literal] if literal else []
        elif part[0] in "_-":
            pieces.append((" " if part[0] == "_" else "%20") + part[1:])
        else:
            _bad("a % without its macro")
    for char in text:
        if not " " <= char <= "~" or char in refused:
            _bad(f"the character {char!a}")
    return tuple(pieces)


def _bad(text: str) -> str:
    raise ValueError(text)


def _macro(text: str, letters: str) -> Macro:
    """What stands in the braces."""
    letter = text[:1].lower()
    rest = text[1:]
    digits = rest[:len(rest) - len(rest.lstrip("0123456789"))]
    rest = rest[len(digits):]
    reverse = rest[:1].lower() == "r"
    delimiters = rest[1:] if reverse else rest
    number = min(int(digits[:4] or "0"), _MOST_PARTS)
    if not letter or letter not in letters or digits and not number or delimiters.strip(_DELIMITERS):
        raise ValueError(f"the macro %{{{text[:40]}}}")
    return Macro(letter, number, reverse, delimiters or ".", text[0].isupper())


def has_macros(pieces: Pieces) -> bool:
    """Whether it is not always the same text."""
    return any([isinstance(piece, Macro) for piece in pieces])


def uses(pieces: Pieces, letter: str) -> bool:
    """Whether the macro *letter* is among *pieces*."""
    return any([isinstance(piece, Macro) and piece.letter == letter for piece in pieces])


def expand(pieces: Pieces, values: Mapping[str, str]) -> str:
    """The text; *values* has one for each letter."""
    return "".join([piece if isinstance(piece, str) else _expanded(piece, values[piece.letter])
                    for piece in pieces])


def expand_name(pieces: Pieces, values: Mapping[str, str]) -> str:
    """A domain name in lower case without the last dot; labels on the left of one that is too long are
    dropped (section 7.3)."""
    name = ""
    for piece in reversed(pieces):              # thousands of macros cost no more than a name holds
        name = expand((piece,), values) + name
        if len(name) > LONGEST_NAME + 1:
            break
    name = name.removesuffix(".")
    if len(name) > LONGEST_NAME:
        name = name[-LONGEST_NAME - 1:].partition(".")[2]
    return name.lower()


def _expanded(macro: Macro, text: str) -> str:
    if macro.parts or macro.reverse or macro.delimiters != ".":
        for delimiter in macro.delimiters:
            text = text.replace(delimiter, "\0")
        parts = text.split("\0")
        if macro.reverse:
            parts.reverse()
        text = ".".join(parts[-macro.parts:])
    if macro.escape:
        text = "".join([char if char in _UNRESERVED else _octets(char) for char in text])
    return text


def _octets(char: str) -> str:
    return "".join([f"%{octet:02X}" for octet in char.encode("utf-8", "surrogateescape")])
