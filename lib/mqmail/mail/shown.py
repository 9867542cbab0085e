"""What others have said, made fit to be shown: one line, printable, bounded, folded."""

from __future__ import annotations

LONGEST_TEXT = 1000          # characters
_WIDTH = 76
_LONGEST_WORD = 900          # octets; a line has 998 at the most (RFC 5322 2.1.1)
_PIECE = 200                 # characters


def clean(text: str, wide: bool, longest: int = LONGEST_TEXT) -> str:
    """One line of printable text with single spaces. Without *wide* what is not ASCII becomes
    ``\\x{HEX}`` (the spelling of RFC 6533 section 3); bytes that were no UTF-8 become ``?``."""
    text = text[:4 * longest]
    if not (text.isascii() and text.isprintable()):
        text = "".join([c if c.isprintable() and (wide or c < "\x7f") else _substitute(c)
                        for c in text])
    text = " ".join(text.split())
    return text if len(text) <= longest else text[:longest - 4] + " ..."


def _substitute(char: str) -> str:
    if char.isprintable():
        return escape(char)
    return "?" if "\udc80" <= char <= "\udcff" else " "


def escape(char: str) -> str:
    """A character as ``\\x{HEX}``, EmbeddedUnicodeChar of RFC 6533 section 3."""
    return f"\\x{{{ord(char):02X}}}"


def fold(text: str, indent: str = " ", first: str = "") -> str:
    """Cleaned *text* in lines of about 76 characters, each with CRLF; *first* stands before the
    first line, *indent* before the others."""
    lines, line = [], first
    for word in _words(text):
        if line != first and len(line) + len(word) >= _WIDTH:
            lines.append(line)
            line = indent + word
        else:
            line += word if line == first else " " + word
    lines.append(line)
    return "\r\n".join(lines) + "\r\n"


def _words(text: str) -> list[str]:
    """The words of *text*; what would not fit into a line is cut into pieces."""
    words = []
    for word in text.split(" "):
        if len(word.encode("utf-8")) <= _LONGEST_WORD:
            words.append(word)
        else:
            words += [word[i:i + _PIECE] for i in range(0, len(word), _PIECE)]
    return words


def field(name: str, text: str, wide: bool) -> str:
    """The header field ``Name: text``, cleaned and folded; "" when there is no text."""
    text = clean(text, wide)
    return fold(f"{name}: {text}") if text else ""
