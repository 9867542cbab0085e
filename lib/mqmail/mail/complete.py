"""What qmail-inject does to a header: complete it, and read sender and recipients out of it.

Any Resent- field makes the message a resent one (RFC 5322 section 3.6.6): then the Resent- fields
give the recipients and are the ones that are completed.
"""

from __future__ import annotations

from mqmail.base.failure import Permanent
from mqmail.base.value import value
from mqmail.mail import address, mailboxes
from mqmail.mail.date import format_date, stamp
from mqmail.mail.header import Field, make, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RECIPIENTS = frozenset((b"to", b"cc", b"bcc", b"apparently-to"))
RESENT_RECIPIENTS = frozenset((b"resent-to", b"resent-cc", b"resent-bcc"))
SENDERS = frozenset((b"sender", b"from", b"reply-to", b"return-receipt-to", b"errors-to",
                     b"resent-sender", b"resent-from", b"resent-reply-to"))
RESENT = RESENT_RECIPIENTS | {b"resent-sender", b"resent-from", b"resent-reply-to", b"resent-date",
                              b"resent-message-id"}
REMOVED = frozenset((b"bcc", b"resent-bcc", b"return-path", b"content-length"))


@value
class Settings:
    """All that the caller knows. *user*, *host* and *name* make From; *sender_user* and *sender_host*
    ("" = as user and host) the envelope sender, which *sender* (canonical, None = not given)
    replaces. *letters* are QMAILINJECT's. *recipients* are canonical; *from_header*: the header's
    count as well. *seconds* since the epoch, *offset* of the zone in minutes."""

    hosts: mailboxes.Hosts
    idhost: str
    user: str
    host: str = ""
    name: str = ""
    sender_user: str = ""
    sender_host: str = ""
    letters: str = ""
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    from_header: bool = True
    seconds: float = 0.0
    offset: int = 0
    pid: int = 0

    if TYPE_CHECKING:
        def replace(self, **changes: Any) -> Settings: ...   # @value makes it


@value
class Completed:
    """*header* has CRLF line ends and not yet the blank line that ends it; *sender* is "" for the
    null sender; *recipients* are canonical, each once, at least one."""

    header: bytes
    sender: str
    recipients: tuple[str, ...]


def complete(fields: list[Field], settings: Settings) -> Completed:
    """Complete a header. Raises Permanent when there is no recipient or too many, when the header's
    recipients are asked for and cannot be read, or when user or host make no address."""
    resent = any(field.key in RESENT for field in fields)
    wanted: frozenset[bytes] = frozenset()
    if settings.from_header:
        wanted = RESENT_RECIPIENTS if resent else RECIPIENTS
    kept: list[Field] = []
    recipients = list(settings.recipients)
    for field in fields:
        changed, addresses = _completed(field, settings.hosts, field.key in wanted)
        if field.key in wanted:
            recipients.extend(addresses)
        if field.key not in REMOVED and not _unwanted(field.key, settings.letters, resent):
            kept.append(changed)
    chosen = _checked(recipients)
    added = _missing({field.key for field in kept}, settings, "Resent-" if resent else "")
    return Completed(write(added + kept), _sender(fields, settings, chosen), chosen)


def _completed(field: Field, hosts: mailboxes.Hosts, strict: bool) -> tuple[Field, list[str]]:
    """(the field with complete addresses, the addresses). A list that cannot be read stays as it is,
    unless *strict*."""
    if field.key not in SENDERS and field.key not in RECIPIENTS and field.key not in RESENT_RECIPIENTS:
        return field, []
    try:
        text, addresses = mailboxes.complete(field.content.decode("utf-8", "surrogateescape"), hosts)
    except ValueError as error:
        if not strict:
            return field, []
        name = field.name.decode("ascii")
        status = error.status if isinstance(error, address.BadAddress) else "5.1.3"
        raise Permanent(f"header field {name}: {error}", status) from None
    return Field(field.key, field.name, text.encode("utf-8", "surrogateescape")), addresses


def _unwanted(key: bytes, letters: str, resent: bool) -> bool:
    """Letters f and i of QMAILINJECT: From and Message-ID are made anew (in a resent message
    Resent-From and Resent-Message-ID)."""
    plain = key.removeprefix(b"resent-")
    if (plain != key) != resent:
        return False
    return (plain == b"from" and "f" in letters) or (plain == b"message-id" and "i" in letters)


def _checked(recipients: list[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys([one for one in recipients if one]))
    if not chosen:
        raise Permanent("the message has no recipients", "5.1.3")
    if len(chosen) > mailboxes.MOST:
        raise Permanent(f"the message has more than {mailboxes.MOST} recipients", "5.5.3")
    return chosen


def _missing(keys: set[bytes], settings: Settings, prefix: str) -> list[Field]:
    """The fields to add (RFC 5322 3.6: Date and From are required, Message-ID should be)."""
    added = []

    def lacks(name: str) -> bool:
        return (prefix + name).lower().encode("ascii") not in keys

    if lacks("Date"):
        added.append(make(prefix + "Date", format_date(settings.seconds, settings.offset)))
    if lacks("Message-ID"):
        added.append(make(prefix + "Message-ID", _message_id(settings)))
    if lacks("From"):
        added.append(make(prefix + "From", _from(settings)))
    if lacks("To") and lacks("Cc"):
        added.append(make(prefix + "Cc", "recipient list not shown: ;"))
    return added


def _message_id(settings: Settings) -> str:
    micro = int(settings.seconds * 1_000_000) % 1_000_000
    return f"<{stamp(settings.seconds)}.{micro:06}.{settings.pid}.mqmail@{settings.idhost}>"


def _from(settings: Settings) -> str:
    whole = _address(settings.user, settings.host, settings.hosts)
    name = _printable(settings.name)
    if not name:
        return whole
    if "c" in settings.letters:
        return f"{whole} ({_escaped(name, '()') if name.isascii() else encoded_words(name)})"
    if name.isascii():
        return f'"{_escaped(name, chr(34))}" <{whole}>'
    return f"{encoded_words(name)} <{whole}>"


def _address(user: str, host: str, hosts: mailboxes.Hosts) -> str:
    try:
        return hosts.address(user, host)
    except ValueError as error:
        raise Permanent(f"user {user[:80]!a} at host {host[:80]!a}: {error}", "5.1.7") from None


def _printable(name: str) -> str:
    """A personal name from the environment, with blanks for what is not text."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join([char if char.isprintable() else " " for char in text]).strip()


def _escaped(text: str, specials: str) -> str:
    return "".join(["\\" + char if char in specials or char == "\\" else char for char in text])


def encoded_words(text: str) -> str:
    """*text* in UTF-8 as encoded words of at most 75 characters, one a line (RFC 2047 sections 2, 5)."""
    words = [""]
    for char in text:
        piece = "".join([f"={byte:02X}" for byte in char.encode("utf-8")])
        if char.isascii() and char.isalnum():
            piece = char
        if len(words[-1]) + len(piece) > 63:
            words.append("")
        words[-1] += piece
    return "\n ".join([f"=?utf-8?q?{word}?=" for word in words])


def _sender(fields: list[Field], settings: Settings, recipients: tuple[str, ...]) -> str:
    """The envelope sender: given, or from Return-Path, or the user's, in this order."""
    if settings.sender is not None:
        return settings.sender
    if "s" not in settings.letters:
        for field in fields:
            found = _return_path(field, settings.hosts)
            if found is not None:
                return found
    user = settings.sender_user or settings.user
    if "m" in settings.letters:
        user += f"-{int(settings.seconds)}.{settings.pid}"
    if "r" in settings.letters:
        user += _verp(recipients)
    return _address(user, settings.sender_host or settings.host, settings.hosts)


def _return_path(field: Field, hosts: mailboxes.Hosts) -> str | None:
    """What the field says, if it is a Return-Path with one address."""
    if field.key != b"return-path":
        return None
    try:
        found = mailboxes.complete(field.content.decode("utf-8", "surrogateescape"), hosts)[1]
    except ValueError:
        return None
    return found[0] if len(found) == 1 else None


def _verp(recipients: tuple[str, ...]) -> str:
    """``-bob=example.com``. The queue holds one sender per message, so there must be one recipient."""
    if len(recipients) != 1:
        raise Permanent("QMAILINJECT=r needs messages of one recipient", "5.5.4")
    local, _, domain = recipients[0].rpartition("@")
    return f"-{address.local_of(recipients[0]) if domain else local}={domain}"
