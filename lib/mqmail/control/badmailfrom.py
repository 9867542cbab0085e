"""badmailfrom: senders whose mail is refused."""

from __future__ import annotations

from mqmail.control.values import domain
from mqmail.mail.address import BadAddress, address_key, domain_key, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines


def parse_badmailfrom(lines: Lines, _me: str) -> frozenset[str]:
    """Lines ``user@domain`` and ``@domain``; in lower case: qmail compares both parts so."""
    found = set()
    for line in lines:
        if line[:1] == "@":
            domain(line[1:])
            found.add(f"@{domain_key(line[1:].lower())}")
            continue
        try:
            found.add(address_key(parse_address(line).lower()))
        except BadAddress as error:
            raise ValueError(f"{line[:80]!a} is not a sender ({error}): write user@domain or"
                             " @domain") from None
    return frozenset(found)
