"""rewrite: what becomes of senders' and recipients' addresses; rewriteheaders: in which fields of the
header. Which keys an address is looked up by says policy/rewrite.py."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.access import (
    CONNECT,
    EVERYBODY,
    FROM,
    HELO,
    NULL_SENDER,
    TO,
    address_or_domain,
    words_of,
)
from mqmail.control.optionsets import HEADER_RECIPIENT, HEADER_SENDER
from mqmail.control.values import ascii_domain
from mqmail.mail.address import BadAddress, lower_ascii, parse_address
from mqmail.mail.header import is_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines
    from mqmail.control.optionsets import OptionSets

SAME = "="
# As Postfix has them, https://www.postfix.org/postconf.5.html#canonical_classes
_FIELDS = {
    HEADER_SENDER: "From Sender Reply-To Errors-To Return-Receipt-To Disposition-Notification-To"
                   " Resent-From Resent-Sender Resent-Reply-To",
    HEADER_RECIPIENT: "To Cc Bcc Apparently-To Resent-To Resent-Cc Resent-Bcc",
}
_IDS = frozenset((b"message-id", b"resent-message-id", b"in-reply-to", b"references", b"content-id"))


@value
class Rewrite:
    """*entries*: canonical key (control/access.py) to a replacement as parse_replacement() has it.
    *words*: what kinds of keys there are, as Access.words."""

    entries: dict[str, str]
    words: frozenset[str]


def parse_rewrite(lines: Lines, _me: str) -> Rewrite:
    """Lines ``[From:|To:]KEY REPLACEMENT``."""
    entries: dict[str, str] = {}
    words: set[str] = set()
    for line in lines:
        key, replacement = parse_line(line)
        if key in entries:
            raise ValueError(f"{key[:80]!a} is given twice: remove one of the lines")
        entries[key] = replacement
        words.update(words_of(key))
    return Rewrite(entries, frozenset(words))


def parse_line(line: str) -> tuple[str, str]:
    """(canonical key, replacement), both checked. Raises ValueError."""
    key, _, replacement = line.replace("\t", " ").rpartition(" ")
    if not key.strip(" "):
        raise ValueError(f"{line[:80]!a}: write KEY REPLACEMENT, such as .in.example out.example")
    return parse_key(key.rstrip(" ")), parse_replacement(replacement)


def parse_key(text: str) -> str:
    """The canonical form. Raises ValueError."""
    written, colon, name = text.partition(":")
    tag = lower_ascii(written) if colon else ""
    if tag in (CONNECT, HELO):
        raise ValueError(f"{text[:80]!a}: the tags are From: and To:, or none for both")
    if tag not in (FROM, TO):
        tag, name = "", text
    if name == NULL_SENDER:
        raise ValueError("the null sender stays as it is")
    try:
        key = name if name == EVERYBODY else address_or_domain(name, tag)
    except ValueError:
        raise ValueError(f"{text[:80]!a} is no key: write an address such as user@example.org, user@, a"
                         " domain, .domain for all below it, or *") from None
    return f"{tag}:{key}" if tag else key


def parse_replacement(text: str) -> str:
    """``user@example.org``, ``@example.org`` (also written without @) or SAME. Raises ValueError."""
    if text == SAME:
        return text
    if not text.isascii():
        raise ValueError(f"{text[:80]!a} is not ASCII, which not all mail can have: write a domain in"
                         " its form that begins with xn--")
    if "@" not in text[1:]:
        return f"@{ascii_domain(text.removeprefix('@'))}"
    try:
        return parse_address(text)
    except BadAddress as error:
        raise ValueError(f"{text[:80]!a} is no replacement ({error}): write an address, a domain, or"
                         f" {SAME} for none") from None


def parse_rewriteheaders(lines: Lines, _me: str) -> dict[str, frozenset[bytes]]:
    """Lines ``header_sender FIELD …`` and ``header_recipient FIELD …``: the fields of each class, in
    lower case."""
    written: dict[str, str] = {}
    for line in lines:
        name, _, fields = line.replace("\t", " ").partition(" ")
        if name not in _FIELDS or name in written:
            raise ValueError(f"{name[:40]!a}: write each of {' and '.join(_FIELDS)} once")
        written[name] = fields
        found = {one: _fields(text) for one, text in {**_FIELDS, **written}.items()}
        both = found[HEADER_SENDER] & found[HEADER_RECIPIENT]
        if both:
            raise ValueError(f"{min(both).decode()} cannot be of both classes")
    return {one: _fields(text) for one, text in {**_FIELDS, **written}.items()}


def _fields(text: str) -> frozenset[bytes]:
    found = set()
    for word in text.split():
        name = word.encode().lower()
        if ":" in word or not is_field(name + b":"):
            raise ValueError(f"{word[:40]!a} is no field's name: write one such as Reply-To")
        if name in _IDS:
            raise ValueError(f"{word} holds no addresses")
        found.add(name)
    if not found:
        raise ValueError("write the names of fields behind it; rewrite= in control/optionsets says which"
                         " classes are rewritten")
    return frozenset(found)


def unused(path: str, is_there: bool, sets_path: str, sets: OptionSets) -> list[str]:
    """What is wrong when the table at *path* *is_there*, or not, and option sets do not ask for it, or
    do."""
    asking = [name for name, found in sets.sets.items() if found.get("rewrite")]
    if is_there and not asking:
        return [f"{path}: nothing is rewritten: write rewrite=all into an option set of {sets_path}"]
    if asking and not is_there:
        return [f"{sets_path}: {asking[0]} has rewrite=, and there is no {path}"]
    return []
