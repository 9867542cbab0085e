"""The Identification Protocol (RFC 1413): what is asked, and what is made of the answer. Pure.

The answer is what somebody else's host says of its user. It is shown, and nothing hangs on it.
"""

from __future__ import annotations

PORT = 113
LONGEST = 1000      # octets of an answer (RFC 1413 section 6)
LONGEST_USER = 64   # of a name that is shown
_PRINTABLE = frozenset(chr(code) for code in range(33, 127))


def question(theirs: int, ours: int) -> bytes:
    """Who has the connection from *theirs*, a port there, to *ours*, a port here?"""
    return f"{theirs} , {ours}\r\n".encode("ascii")


def user_of(answer: bytes, theirs: int, ours: int) -> str:
    """The user by *answer*, as ``vetted``; "" when it is no answer, an error, or about others."""
    line, end, _ = answer[:LONGEST].partition(b"\n")
    words = line.decode("ascii", "replace").split(":", 3)
    if not end or len(words) < 4 or words[1].strip() != "USERID":
        return ""
    ports = [word.strip() for word in words[0].split(",")]
    return vetted(words[3].strip(" \r")) if ports == [str(theirs), str(ours)] else ""


def vetted(user: str) -> str:
    """*user* if it is short and printable US-ASCII without spaces, else ""."""
    return user if len(user) <= LONGEST_USER and _PRINTABLE.issuperset(user) else ""
