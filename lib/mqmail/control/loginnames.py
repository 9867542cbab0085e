"""The names that people log in by."""

from __future__ import annotations

from mqmail.mail.address import domain_key, lower_ascii
from mqmail.xmtp.scram import saslprep

LONGEST_LOGIN = 255         # octets


def fold(login: str) -> str:
    """The one spelling of a login: SASLprep (RFC 4013), ASCII letters small, the domain as
    domain_key() has it."""
    name, at, domain = saslprep(login).rpartition("@")
    return f"{lower_ascii(name)}@{domain_key(domain)}" if at else lower_ascii(domain)


def check_login(login: str) -> str:
    """The folded login. Raises ValueError when it cannot be one."""
    folded = fold(login)
    if not folded or len(folded.encode("utf-8", "surrogateescape")) > LONGEST_LOGIN:
        raise ValueError(f"a login has 1 to {LONGEST_LOGIN} bytes")
    if not folded.isprintable() or {" ", ":"} & set(folded) or folded[0] == "#":
        raise ValueError("a login has no space, no colon, no control character and no # at its start")
    return folded
