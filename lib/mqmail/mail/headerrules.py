"""What is wrong with a header (RFC 5322 with RFC 6532), rule by rule.

A header is bytes with CRLF line ends, without the empty line behind it. Each rule has a name, which
control/headerchecks uses.
"""

from __future__ import annotations

from mqmail.mail import mailboxes
from mqmail.mail.crlf import LONGEST_LINE
from mqmail.mail.headerscan import LARGEST_JUDGED, is_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MOST_PARSED = 1 << 13       # octets of a field whose addresses are looked at

RULES = {
    "nul": "a NUL octet (RFC 5322 section 2.2)",
    "control": "a control character (RFC 5322 section 2.2)",
    "size": "more than 256 KiB",
    "lines": "a line of more than 998 octets (RFC 5322 section 2.1.1)",
    "fold": "a folded line of blanks alone (RFC 5322 section 3.2.2)",
    "syntax": "a line that is no field (RFC 5322 section 2.2)",
    "eightbit": "octets above 127 in a message without SMTPUTF8 (RFC 6532 section 3)",
    "utf8": "octets that are not UTF-8 (RFC 6532 section 3.1)",
    "froms": "more than one From field (RFC 5322 section 3.6)",
    "from": "no From field with an address (RFC 5322 section 3.6.2)",
    "sender": "several authors in From, and no Sender field with one address (RFC 5322 section 3.6.2)",
    "date": "not exactly one Date field (RFC 5322 section 3.6.1)",
    "datesyntax": "a Date that is none (RFC 5322 section 3.3)",
    "messageid": "no Message-ID field, or one that holds none (RFC 5322 section 3.6.4)",
    "twice": "two of a field that may be there once (RFC 5322 section 3.6)",
    "addresses": "a To, Cc or Reply-To field that holds no addresses (RFC 5322 section 3.4)",
}

_ONCE = frozenset((b"sender", b"reply-to", b"to", b"cc", b"bcc", b"message-id", b"in-reply-to",
                   b"references", b"subject"))
_LISTS = (b"to", b"cc", b"reply-to")
_ADDRESSED = ("from", "sender", "addresses")
_CONTROL = bytes([*range(1, 9), 11, 12, *range(14, 32), 127])
_DOTTED = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.!#$%&'*+-/=?^_`{|}~"
_NAME = _DOTTED + b" \t"
_MONTHS = frozenset("jan feb mar apr may jun jul aug sep oct nov dec".split())
_HOURS = frozenset([f"{number:02}" for number in range(24)])
_SIXTY = frozenset([f"{number:02}" for number in range(61)])       # 60: a leap second
_DAYS = frozenset("mon tue wed thu fri sat sun".split())

Fields = dict[bytes, list[bytes]]       # name in lower case: contents, unfolded


def broken(header: bytes, utf8: bool, wanted: Collection[str], completes: bool = False) -> list[str]:
    """The names of those rules in *wanted* that *header* breaks, in the order of RULES. *utf8*: its
    sender said SMTPUTF8. *completes*: a Date or Message-ID that is missing will be added."""
    lines = header.removesuffix(b"\r\n").split(b"\r\n")
    found = {*_of_octets(header, utf8), *_of_lines(lines)}
    if "size" in found:                 # and however large it is, the time is bounded
        return [rule for rule in RULES if rule in found and rule in wanted]
    fields = read(lines)
    found.update(_of_fields(fields))
    if any([rule in wanted for rule in _ADDRESSED]):
        found.update(_of_addresses(fields))
    for rule, name in (("date", b"date"), ("messageid", b"message-id")):
        if completes and name not in fields:
            found.discard(rule)
    return [rule for rule in RULES if rule in found and rule in wanted] if found else []


def read(lines: list[bytes]) -> Fields:
    """The fields; lines that belong to none are passed over."""
    fields: Fields = {}
    last: list[bytes] | None = None
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if last is not None:
                last[-1] += line
        elif is_field(line):
            name, _, content = line.partition(b":")
            last = fields.setdefault(name.rstrip(b" \t").lower(), [])
            last.append(content)
        else:
            last = None
    return fields


def _of_octets(header: bytes, utf8: bool) -> Iterator[str]:
    if b"\0" in header:
        yield "nul"
    if len(header.translate(None, _CONTROL)) < len(header):
        yield "control"
    if len(header) > LARGEST_JUDGED:
        yield "size"
    if not header.isascii():
        if not utf8:
            yield "eightbit"
        if not _is_utf8(header):
            yield "utf8"


def _is_utf8(header: bytes) -> bool:
    try:
        header.decode()
    except UnicodeDecodeError:
        return False
    return True


def _of_lines(lines: list[bytes]) -> Iterator[str]:
    if max(map(len, lines)) > LONGEST_LINE:
        yield "lines"
    is_first = True
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if is_first:
                yield "syntax"
            if not line.strip(b" \t"):
                yield "fold"
        elif line and not is_field(line):
            yield "syntax"
        is_first = False


def _of_fields(fields: Fields) -> Iterator[str]:
    if len(fields.get(b"from", ())) > 1:
        yield "froms"
    dates = fields.get(b"date", [])
    if len(dates) != 1:
        yield "date"
    if any([not is_date(date) for date in dates]):
        yield "datesyntax"
    ids = fields.get(b"message-id", [])
    if not ids or not all([_is_id(one) for one in ids]):
        yield "messageid"
    if any([name in _ONCE and len(contents) > 1 for name, contents in fields.items()]):
        yield "twice"


def _is_id(content: bytes) -> bool:
    """``<left@right>``; what stands on both sides is nobody's business."""
    text = content.strip(b" \t")
    inside = text[1:-1]
    return text[:1] == b"<" and text[-1:] == b">" and b"@" in inside[1:-1] \
        and not set(inside).intersection(b"<> \t")


def is_date(content: bytes) -> bool:
    """``Sun, 22 Nov 2026 08:20:00 +0100``, also as RFC 5322 section 4.3 has it: without the day's name
    or the seconds, with two digits of a year and a zone's name; comments anywhere."""
    words = _without_comments(content.decode("latin-1")).replace(",", ", ").split()
    if words and words[0].lower().rstrip(",") in _DAYS:
        words = words[1:]
        if words[:1] == [","]:
            words = words[1:]
    if len(words) != 5:
        return False
    day, month, year, time, zone = words
    return (_number(day, 1, 31) and month.lower() in _MONTHS and len(year) in (2, 3, 4)
            and _number(year, 0, 9999) and _is_time(time) and _is_zone(zone))


def _number(text: str, lowest: int, highest: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 5 and lowest <= int(text) <= highest


def _is_time(text: str) -> bool:
    parts = text.split(":")
    return len(parts) in (2, 3) and parts[0] in _HOURS and _SIXTY.issuperset(parts[1:])


def _is_zone(text: str) -> bool:
    if text[:1] in ("+", "-"):
        return len(text) == 5 and _number(text[1:], 0, 9959)
    return text.isascii() and text.isalpha() and len(text) <= 5


def _without_comments(text: str) -> str:
    """Blanks for ``(…)``, which may hold each other."""
    if "(" not in text:
        return text[:1000]
    depth, kept = 0, []
    for char in text[:1000]:
        depth += char == "("
        kept.append(" " if depth else char)
        depth -= char == ")" and depth > 0
    return "".join(kept)


def _addresses(fields: Fields, name: bytes) -> int:
    """How many there are in the first field of *name*; -1 when that cannot be read, 0 without it, 1 of
    what is too long to be looked at."""
    if name not in fields:
        return 0
    content = fields[name][0]
    if len(content) > MOST_PARSED or _is_plain(content):
        return 1
    try:
        return len(mailboxes.parse(content.decode("utf-8", "surrogateescape")))
    except ValueError:
        return -1


def _is_plain(content: bytes) -> bool:
    """Whether it is ``local@domain`` or ``Name <local@domain>``, of atoms and dots: one address, as most
    fields have it. What is not so plain is taken apart."""
    name, opening, spec = content.strip(b" \t").rpartition(b"<")
    if opening:
        if spec[-1:] != b">":
            return False
        spec = spec[:-1]
    local, _, domain = spec.partition(b"@")
    return bool(local and domain) and not (local + domain).translate(None, _DOTTED) \
        and not name.translate(None, _NAME)


def _of_addresses(fields: Fields) -> Iterator[str]:
    authors = _addresses(fields, b"from")
    if authors < 1:
        yield "from"
    if _addresses(fields, b"sender") != 1 if b"sender" in fields else authors > 1:
        yield "sender"
    if any([_addresses(fields, name) < 0 for name in _LISTS]):
        yield "addresses"
