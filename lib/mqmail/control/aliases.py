"""aliases: names that stand for other addresses, and what goes to a destination of one's own.

A target is kept as ``user@domain``, ``@destination:user@domain``, or ``@destination:`` for the
recipient's own address; no address starts with ``@``.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.values import local_part
from mqmail.mail.address import (
    address_key,
    check_domain,
    domain_key,
    domain_of,
    is_destination,
    local_of,
    lower_ascii,
    parse_address,
    quote_local,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from mqmail.control.lines import Lines

OWNER = "owner-"
NOT_FOR_ALIASES = ("new", "remote", "error")    # where a plain address goes by itself, and reports


@value
class Aliases:
    """``name@domain``, ``name`` for every local domain, or ``@domain`` for the rest of a domain, in
    lower case, to targets; *used*: destinations among these, to the line that has them first."""

    targets: dict[str, list[str]]
    used: dict[str, int]

    @property
    def domains(self) -> frozenset[str]:
        """The domains with a catch-all: such a domain is ours, in locals or not."""
        return frozenset([name[1:] for name in self.targets if name[0] == "@"])

    def lookup(self, address: str, domains: Container[str]) -> list[str] | None:
        """The targets of *address*, None when it is no alias (a catch-all does not make it one).
        *domains*: the keys of the local domains, in which names without a domain are valid."""
        local, domain = lower_ascii(local_of(address)), domain_of(address)
        found = self.targets.get(f"{quote_local(local)}@{domain}")
        if found is None and domain in domains:
            found = self.targets.get(quote_local(local))
        return found

    def catch_all(self, domain: str) -> list[str] | None:
        """The targets of all other addresses in *domain* (its key), None without ``@domain:``."""
        return self.targets.get(f"@{domain}")

    def owner(self, address: str, domains: Container[str]) -> str | None:
        """``owner-name@domain`` when that is an alias as well: then *address* is a mailing list and
        this is the envelope sender of what goes to its members. None otherwise."""
        local = local_of(address)
        if lower_ascii(local).startswith(OWNER):
            return None
        owner = f"{quote_local(OWNER + local)}@{domain_of(address)}"
        return owner if self.lookup(owner, domains) is not None else None


def parse_aliases(lines: Lines, me: str) -> Aliases:
    """Lines ``name: target, target`` and lines of more targets that start with white space. A target
    is an address, or a name in *me*, with ``@destination:`` before it or that alone."""
    targets: dict[str, list[str]] = {}
    used: dict[str, int] = {}
    current: list[str] = []
    name, started = "", 0
    for line in lines:
        if line[0] not in " \t":
            _check_filled(lines, name, current, started)
            name, line = _split_name(line)
            if name in targets:
                raise ValueError(f"the alias {name} is given twice: put all targets behind one")
            targets[name] = current = []
            started = lines.number
        elif not started:
            raise ValueError("starts with white space but continues nothing: remove the white space")
        for word in _split_commas(line):
            destination, target = _target(word, me)
            if destination:
                used.setdefault(destination, lines.number)
            current.append(target)
    _check_filled(lines, name, current, started)
    return Aliases(targets, used)


def split_target(target: str) -> tuple[str, str]:
    """(destination, address): the destination is "" for a plain address, and the address "" when it is
    to stay as it is. Raises ValueError."""
    if target[0] != "@":
        return "", target
    name, colon, address = target[1:].partition(":")
    if not colon or not is_destination(name):
        raise ValueError(f"{target[:60]!a} names no destination: write @DESTINATION:NAME@DOMAIN, or"
                         " @DESTINATION: to keep the address")
    return name, address


def _check_filled(lines: Lines, name: str, targets: list[str], started: int) -> None:
    if started and not targets:
        lines.number = started
        raise ValueError(f"the alias {name} has no targets: write {name}: ADDRESS")


def _split_name(line: str) -> tuple[str, str]:
    """(key, the rest of the line)."""
    name, colon, rest = line.partition(":")
    name = name.rstrip(" \t")
    if not colon:
        raise ValueError(f"{line[:60]!a} has no colon: write NAME: ADDRESS, ADDRESS")
    if name[:1] == "@":
        check_domain(name[1:])
        return f"@{domain_key(name[1:])}", rest
    return address_key(parse_address(name) if "@" in name else local_part(name)), rest


def _split_commas(text: str) -> list[str]:
    """The words between commas, trimmed, without empty ones; a comma inside quotes separates nothing."""
    words, word, quoted = [], "", False
    for piece in text.split(","):
        word = f"{word},{piece}" if quoted else piece
        quoted = word.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 1
        if not quoted:
            words.append(word.strip(" \t"))
    if quoted:
        raise ValueError("a quotation mark is not closed: write another one")
    return [word for word in words if word]


def _target(word: str, me: str) -> tuple[str, str]:
    """(destination or "", the target as Aliases keeps it)."""
    destination, address = split_target(word)
    if not destination:
        return "", _address(word, me)
    if destination in NOT_FOR_ALIASES:
        raise ValueError(f"{word[:60]!a}: aliases cannot send to the destination {destination}: write"
                         " the address alone, or another destination")
    return destination, f"@{destination}:{_address(address, me) if address else ''}"


def _address(word: str, me: str) -> str:
    """A complete address. Programs and files are never addresses."""
    if word[0] in "|/.&~" or word.startswith((":include:", '"|', '"/')):
        raise ValueError(f"{word[:60]!a} is not an address: a program or file goes into a mailbox's"
                         " .qmail file")
    try:
        return parse_address(word if "@" in word else f"{word}@{me}")
    except ValueError as error:
        raise ValueError(f"{word[:60]!a} is not an address ({error}): write NAME@DOMAIN"
                         " or NAME") from None
