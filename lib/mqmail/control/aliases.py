"""aliases: names that stand for other addresses."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.values import local_part
from mqmail.mail.address import domain_of, local_of, lower_ascii, parse_address, quote_local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from mqmail.control.lines import Lines

OWNER = "owner-"


@value
class Aliases:
    """``name@domain``, or ``name`` for every local domain, in lower case, to complete addresses."""

    targets: dict[str, list[str]]

    def lookup(self, address: str, domains: Container[str]) -> list[str] | None:
        """The targets of *address*, None when it is no alias. *domains*: the local domains in lower
        case, in which names without a domain are valid."""
        local, domain = lower_ascii(local_of(address)), domain_of(address)
        found = self.targets.get(f"{quote_local(local)}@{domain}")
        if found is None and domain in domains:
            found = self.targets.get(quote_local(local))
        return found

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
    is an address, or a name in *me*."""
    targets: dict[str, list[str]] = {}
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
        current.extend([_target(word, me) for word in _split_commas(line)])
    _check_filled(lines, name, current, started)
    return Aliases(targets)


def _check_filled(lines: Lines, name: str, targets: list[str], started: int) -> None:
    if started and not targets:
        lines.number = started
        raise ValueError(f"the alias {name} has no targets: write {name}: ADDRESS")


def _split_name(line: str) -> tuple[str, str]:
    """(key in lower case, the rest of the line)."""
    name, colon, rest = line.partition(":")
    name = name.rstrip(" \t")
    if not colon:
        raise ValueError(f"{line[:60]!a} has no colon: write NAME: ADDRESS, ADDRESS")
    return lower_ascii(parse_address(name) if "@" in name else local_part(name)), rest


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


def _target(word: str, me: str) -> str:
    """A complete address. Programs and files are never addresses."""
    if word[0] in "|/.&~" or word.startswith((":include:", '"|', '"/')):
        raise ValueError(f"{word[:60]!a} is not an address: a program or file goes into a mailbox's"
                         " .qmail file")
    try:
        return parse_address(word if "@" in word else f"{word}@{me}")
    except ValueError as error:
        raise ValueError(f"{word[:60]!a} is not an address ({error}): write NAME@DOMAIN"
                         " or NAME") from None
