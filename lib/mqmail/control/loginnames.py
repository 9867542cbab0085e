"""The names that people log in by."""

from __future__ import annotations

from mqmail.mail.address import domain_key, lower_ascii
from mqmail.xmtp.scram import saslprep

LONGEST_LOGIN = 255         # octets
_MOST_FOLDS = 8


def fold(login: str) -> str:
    """The one spelling of a login: SASLprep (RFC 4013), ASCII letters small, the domain as
    domain_key() has it, no blanks at the ends and one where there are several, as directories and
    databases pass over them. What SASLprep leaves alone for one of these reasons, it does not then: so
    again, until it is the same."""
    for _ in range(_MOST_FOLDS):
        folded = _folded(login)
        if folded == login:
            break
        login = folded
    return folded


def _folded(login: str) -> str:
    name, at, domain = _spaced(saslprep(_spaced(login))).rpartition("@")
    return f"{lower_ascii(name)}@{domain_key(domain)}" if at else lower_ascii(domain)


def _spaced(text: str) -> str:
    return " ".join([word for word in text.split(" ") if word]) if " " in text else text


def check_login(login: str) -> str:
    """The folded login. Raises ValueError when it cannot be one."""
    folded = fold(login)
    if not folded or len(folded.encode("utf-8", "surrogateescape")) > LONGEST_LOGIN:
        raise ValueError(f"a login has 1 to {LONGEST_LOGIN} bytes")
    if not folded.isprintable() or {" ", ":"} & set(folded) or folded[0] == "#":
        raise ValueError("a login has no space, no colon, no control character and no # at its start")
    return folded
