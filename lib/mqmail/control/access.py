"""access: what clients, senders and recipients get, by their keys. The grammar of keys and actions; who
is looked up by which keys says policy/access.py.

A key in canonical form is ``to:user@example.org``, without a tag ``user@example.org``: lower case, a
domain as domain_key() has it, an IP address or network as the system writes it, a local part in quotes
only if it needs them.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.actions import parse_action
from mqmail.control.networks import ip_text, parse_ip, parse_networks
from mqmail.control.values import domain as check_domain
from mqmail.mail.address import (
    BadAddress,
    address_key,
    domain_key,
    local_of,
    lower_ascii,
    parse_address,
    quote_local,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mqmail.control.lines import Lines
    from mqmail.control.optionsets import OptionSets

CONNECT, HELO, FROM, TO = TAGS = ("connect", "helo", "from", "to")
UNTAGGED = "untagged"
EVERYBODY = "*"
NULL_SENDER = "<>"
_KINDS = ("an address such as user@example.org, user@, a domain, .domain for all below it,"
          " an IP address, a network such as 192.0.2.0/24, <> or *")


@value
class Access:
    """*entries*: canonical key to action, both as text. *words*: what kinds of keys there are, so that
    nobody looks for others: tags (UNTAGGED for keys without), and lengths of networks as ``4/24``,
    ``6/48``. *sets*: the option sets that actions name, each with the first line that does; *claimed*:
    those of them that a client gets for what it says of itself, likewise."""

    entries: dict[str, str]
    words: frozenset[str]
    sets: dict[str, int]
    claimed: dict[str, int]


def parse_access(lines: Lines, _me: str) -> Access:
    """Lines ``[TAG:]KEY ACTION``."""
    entries: dict[str, str] = {}
    words: set[str] = set()
    sets: dict[str, int] = {}
    claimed: dict[str, int] = {}
    same: dict[str, str] = {}       # a million entries have few different actions
    for line in lines:
        key, action = parse_line(line)
        if key in entries:
            raise ValueError(f"{key[:80]!a} is given twice: remove one of the lines")
        if action not in same:
            same[action] = action
        if action[:4] == "set:":
            name = parse_action(action, tag_of(key)).options
            sets.setdefault(name, lines.number)
            if tag_of(key) not in (CONNECT, TO):
                claimed.setdefault(name, lines.number)
        entries[key] = same[action]
        words.update(words_of(key))
    return Access(entries, frozenset(words), sets, claimed)


def unknown_sets(path: str, table: Access, sets: OptionSets) -> list[str]:
    """What is wrong with a *table* at *path* that names option sets which are not there, or that are
    not for those who need only say the right HELO name or sender."""
    return [f"{path} line {number}: there is no option set {name}: write {name} OPTION=VALUE into"
            " control/optionsets" for name, number in table.sets.items() if not sets.has(name)] + [
            f"{path} line {number}: {too_open(name, sets)}"
            for name, number in table.claimed.items() if sets.opens(name)]


def too_open(name: str, sets: OptionSets) -> str:
    """Why set *name* must not be had for a word."""
    return (f"set:{name} has {sets.opens(name)}, and anybody can write a sender or a HELO name: use it"
            " with Connect: or To:")


def parse_line(line: str) -> tuple[str, str]:
    """(canonical key, action), both checked. Raises ValueError."""
    written, action = _split(line)
    key = parse_key(written)
    parse_action(action, tag_of(key))
    return key, action


def _split(line: str) -> tuple[str, str]:
    """Key and rest; a quoted local part may hold spaces."""
    quoted = False
    for place, char in enumerate(line):
        if char == '"':
            quoted = not quoted
        elif char in " \t" and not quoted:
            return line[:place], line[place:].strip(" \t")
    return line, ""


def tag_of(key: str) -> str:
    """The tag of a canonical key, "" without one."""
    tag, colon, _ = key.partition(":")
    return tag if colon and tag in TAGS else ""


def words_of(key: str) -> list[str]:
    """What a canonical key is, see Access.words."""
    tag = tag_of(key)
    name = key[len(tag) + 1:] if tag else key
    words = [tag or UNTAGGED]
    ip, slash, length = name.partition("/")
    if slash and "@" not in name:
        words.append(f"6/{length}" if ":" in ip else f"4/{length}")
    return words


def parse_key(text: str) -> str:
    """The canonical form. Raises ValueError."""
    written, colon, name = text.partition(":")
    tag = lower_ascii(written)
    if not colon or tag not in TAGS:
        return _untagged(text)
    if not name:
        raise ValueError(f"{text[:80]!a} names nobody: write {written}:{EVERYBODY} for all")
    if name == EVERYBODY:
        return f"{tag}:{name}"
    return f"{tag}:{_client(name) if tag in (CONNECT, HELO) else address_or_domain(name, tag)}"


def _untagged(text: str) -> str:
    if text in (EVERYBODY, NULL_SENDER):
        return text
    if "@" in text:
        if text[0] == "@":
            raise ValueError(f"{text[:80]!a}: write {text[1:]} for addresses and hosts, From:{text} or"
                             f" To:{text} for addresses alone")
        return address_or_domain(text, "")
    tag, colon, _ = text.partition(":")
    if colon and tag.isalpha() and not _is_ip(text.partition("/")[0]):
        raise ValueError(f'unknown tag "{tag[:40]}": write Connect:, Helo:, From:, To:, or none for all')
    return _client(text)


def _client(text: str) -> str:
    """An IP address, a network, a host's name, or a dot and a domain."""
    if "/" in text:
        return _network(text)
    if _is_ip(text):
        return ip_text(*parse_ip(text))
    if text[:1] == "[":
        raise ValueError(f"{text[:80]!a}: write the address without brackets")
    return _domain(text)


def _is_ip(text: str) -> bool:
    try:
        parse_ip(text)
    except ValueError:
        return False
    return "%" not in text


def _network(text: str) -> str:
    lines: Any = [text]
    (((width, shift), numbers),) = parse_networks(lines, "").networks.items()
    (number,) = numbers
    length = width - shift
    return ip_text(width, number << shift) + (f"/{length}" if shift else "")


def _domain(text: str) -> str:
    name = text.removeprefix(".")
    if name.rpartition(".")[2].isdigit():
        raise ValueError(f"{text[:80]!a} is neither an IP address nor a host's name: write a network as"
                         " 192.0.2.0/24 or 2001:db8::/32")
    try:
        check_domain(name)
    except ValueError:
        raise ValueError(f"{text[:80]!a} is no key: write {_KINDS}") from None
    return domain_key(text)


def address_or_domain(text: str, tag: str) -> str:
    """An address, ``user@``, a domain (also ``@domain``), or a dot and a domain, in canonical form.
    Raises ValueError."""
    if text == NULL_SENDER and tag == FROM:
        return text
    if "@" not in text or text[0] == "@":
        return _domain(text.removeprefix("@"))
    try:
        if text[-1] == "@":
            return user_key(local_of(parse_address(f"{text}x.invalid")))
        return address_key(parse_address(text))
    except BadAddress as error:
        raise ValueError(f"{text[:80]!a} is no key ({error}): write {_KINDS}") from None


def user_key(local: str) -> str:
    """``user@``, of a local part without quotes."""
    return f"{quote_local(lower_ascii(local))}@"
