"""xtext (RFC 3461 section 4), the one escape for foreign text in records, logs and our protocol.

Everything outside ``!`` to ``~`` becomes ``+`` and two upper-case hex digits per byte, and so do
``+`` and ``=``. Printable characters above 127 stay, so that a person can read them; anything
that is not printable (controls, separators, lone surrogates) is escaped byte by byte.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SAFE = frozenset(chr(c) for c in range(33, 127) if chr(c) not in "+=")
_CODED = _SAFE | {"+"}
_BYTES = {f"{n:02X}": bytes((n,)) for n in range(256)}
_ESCAPES = {code: f"+{code:02X}" for code in range(128) if chr(code) not in _SAFE}


def encode(text: str) -> str:
    """Return *text* with no space, control character, ``+`` or ``=`` in it."""
    if _SAFE.issuperset(text):
        return text
    if text.isascii():
        return text.translate(_ESCAPES)
    return "".join([c if c in _SAFE or (c > "\x7f" and c.isprintable()) else _escape(c)
                    for c in text])


def _escape(char: str) -> str:
    return "".join([f"+{byte:02X}" for byte in char.encode("utf-8", "surrogateescape")])


def decode(text: str) -> str:
    """Undo encode(). Raises ValueError when ``+`` is not followed by two upper-case hex digits
    or when a character stands there that should have been escaped."""
    if _SAFE.issuperset(text):
        return text
    plain = str.encode if _CODED.issuperset(text) else _plain
    first, *rest = text.split("+")
    raw = [plain(first)]
    for piece in rest:
        byte = _BYTES.get(piece[:2])
        if byte is None:
            raise ValueError(f"bad xtext: +{piece[:2]!a}")
        raw += byte, plain(piece[2:])
    return b"".join(raw).decode("utf-8", "surrogateescape")


def _plain(piece: str) -> bytes:
    for char in piece:
        if char not in _SAFE and not (char > "\x7f" and char.isprintable()):
            raise ValueError(f"bad xtext: {char!a}")
    return piece.encode("utf-8", "surrogateescape")


def facts(pairs: Mapping[str, object]) -> str:
    """``{"host": "mx", "n": 3}`` as ``host=mx n=3``; None and empty values are left out."""
    return " ".join([f"{name}={encode(str(value))}" for name, value in pairs.items()
                     if value is not None and value != ""])


def parse_facts(words: list[str]) -> dict[str, str]:
    """The words of a line back to a dictionary. Raises ValueError on a word without ``=``, an odd
    name, bad xtext, or a name given twice."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier() or not name.isascii():
            raise ValueError(f"not name=value: {word[:40]!a}")
        if name in found:
            raise ValueError(f"{name} given twice")
        found[name] = decode(text)
    return found
