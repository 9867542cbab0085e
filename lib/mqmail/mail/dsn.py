"""Delivery reports: multipart/report of RFC 6522, delivery-status of RFC 3464, RFC 6533 for UTF-8.

Three parts: words for a person, facts for a program, and the message or its header. Everything in
them that others have said is cut to size, freed of control characters and indented, so that no
line of it can be a boundary, a field or too long.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.mail import address, dsntext
from mqmail.mail.reason import DEFAULT_STATUS, status_for
from mqmail.mail.shown import clean, escape, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FULL_LIMIT = 1 << 20         # bytes of a message returned whole when its sender did not say RET
LONGEST_HEADER = 65536       # of the header, when only that is returned
_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")


@value
class Reported:
    """What became of one recipient. *action* is failed, delayed, delivered, relayed or expanded;
    *orcpt* is the decoded ``type;address``; *host* the remote host, *said* its words, *tls* version and
    cipher of the session with it; *final* and *until* are dates as text: the last attempt, and when a
    delayed one is given up."""

    recipient: str
    action: str = "failed"
    status: str = ""
    orcpt: str = ""
    host: str = ""
    said: str = ""
    final: str = ""
    until: str = ""
    tls: str = ""


@value
class Report:
    """A report's inputs. *host* is our name, *sender* the From address, *to* who gets it, *seed* at
    least 16 letters and digits that nobody could guess (the boundary), *envid* and *arrived* the
    original's ENVID (decoded) and arrival date, *ret* its RET (``full``, ``hdrs`` or ""), *size* its
    bytes. *eight_bit* and *utf8* say that the original has 8-bit text or needs SMTPUTF8. *double*:
    the original had the null sender and *to* is the postmaster."""

    host: str
    sender: str
    to: str
    date: str
    message_id: str
    seed: str
    recipients: tuple[Reported, ...]
    envid: str = ""
    arrived: str = ""
    ret: str = ""
    size: int = 0
    eight_bit: bool = False
    utf8: bool = False
    double: bool = False


def report(about: Report, original: Iterable[bytes],
           full_limit: int = FULL_LIMIT) -> Iterator[bytes]:
    """The report, in pieces with CRLF line ends. *original* is the message's bytes with CRLF line
    ends; only its header is asked for when only that is returned. ValueError: a bad seed or action,
    or nobody to report on."""
    _check(about)
    wide, boundary = needs_utf8(about), f"=_mqmail.{about.seed}"
    full = returns_full(about, full_limit)
    yield _encode(_header(about, boundary) + _text_head(wide, boundary)
                  + dsntext.text(about, full, wide) + _status_head(about, wide, boundary))
    for one in about.recipients:
        yield _encode(_status_of(one, wide))
    yield _encode(_original_head(about, boundary, full))
    yield from (original if full else headers_only(original))
    yield _encode(f"\r\n--{boundary}--\r\n")


def needs_utf8(about: Report) -> bool:
    """Whether the report must be sent with SMTPUTF8: the original was, or an address of the
    report's own header asks for it. Other addresses have an ASCII spelling (RFC 6533 section 3)."""
    return about.utf8 or not (about.to + about.sender).isascii()


def needs_8bit(about: Report) -> bool:
    """Whether the report must be sent with BODY=8BITMIME."""
    return about.eight_bit or needs_utf8(about)


def returns_full(about: Report, full_limit: int = FULL_LIMIT) -> bool:
    """Whether the whole message is returned. RET counts for failures only, any other report has
    the header only (RFC 3461 section 4.3)."""
    if about.ret == "hdrs" or "failed" not in [one.action for one in about.recipients]:
        return False
    return about.ret == "full" or about.size <= full_limit


def headers_only(chunks: Iterable[bytes], longest: int = LONGEST_HEADER) -> Iterator[bytes]:
    """The message's header without the blank line; only whole lines, at most *longest* bytes."""
    held, end = bytearray(b"\r\n"), -1
    for chunk in chunks:
        seen = max(len(held) - 3, 0)
        held += chunk[:longest + 2]
        end = held.find(b"\r\n\r\n", seen)
        if end >= 0 or len(held) > longest + 2:
            break
    stop = len(held) if end < 0 else end + 2
    if stop > longest + 2:
        stop = held.rfind(b"\r\n", 0, longest + 2) + 2
    if stop > 2:
        yield bytes(held[2:stop])


def _check(about: Report) -> None:
    seed = about.seed
    if not 16 <= len(seed) <= 60 or not _TOKEN.issuperset(seed):
        raise ValueError("the boundary's seed is not 16 to 60 letters and digits")
    if not about.recipients:
        raise ValueError("a report on no recipient")
    for one in about.recipients:
        if one.action not in DEFAULT_STATUS:
            raise ValueError(f"unknown action {one.action!a}")


def _encode(text: str) -> bytes:
    return text.encode("utf-8")


def _header(about: Report, boundary: str) -> str:
    wide = needs_utf8(about)
    fields = (
        ("From", f"Mail Delivery System <{about.sender}>"),
        ("To", f"<{about.to}>"),
        ("Subject", dsntext.subject(about)),
        ("Date", about.date),
        ("Message-ID", about.message_id),
        ("Auto-Submitted", "auto-replied"),     # RFC 3834 section 5
        ("MIME-Version", "1.0"),
        ("Content-Transfer-Encoding", "8bit" if needs_8bit(about) else "7bit"),
    )
    return "".join([field(name, text, wide) for name, text in fields]) + (
        "Content-Type: multipart/report; report-type=delivery-status;\r\n"
        f' boundary="{boundary}"\r\n\r\n')


def _text_head(wide: bool, boundary: str) -> str:
    charset, encoding = ("utf-8", "8bit") if wide else ("us-ascii", "7bit")
    return (f"--{boundary}\r\nContent-Type: text/plain; charset={charset}\r\n"
            f"Content-Transfer-Encoding: {encoding}\r\n\r\n")


def _status_head(about: Report, wide: bool, boundary: str) -> str:
    """The part's header and the fields of the message as a whole (RFC 3464 section 2.2)."""
    kind = ("message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit" if wide
            else "message/delivery-status")
    return (f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n"
            + field("Reporting-MTA", f"dns; {about.host}", wide)
            + field("Original-Envelope-Id", about.envid, wide)
            + field("Arrival-Date", about.arrived, wide))


def _status_of(one: Reported, wide: bool) -> str:
    """One recipient's fields (RFC 3464 section 2.3), after a blank line."""
    kind, _, original = one.orcpt.partition(";")
    if not _TOKEN.issuperset(kind):
        kind = "unknown"
    fields = (
        ("Original-Recipient", _typed(kind, original, wide) if original else ""),
        ("Final-Recipient", _typed("rfc822", one.recipient, wide)),
        ("Action", one.action),
        ("Status", status_for(one.status, one.action)),
        ("Remote-MTA", _remote(one.host)),
        ("Diagnostic-Code", _diagnostic(one)),
        ("Last-Attempt-Date", one.final),
        ("X-Mqmail-TLS", one.tls),
        ("Will-Retry-Until", one.until if one.action == "delayed" else ""),
    )
    return "\r\n" + "".join([field(name, text, wide) for name, text in fields])


def _typed(kind: str, text: str, wide: bool) -> str:
    """``type; address``; one with UTF-8 has a type and, in ASCII, a spelling of its own
    (RFC 6533 section 3: utf-8-address and utf-8-addr-xtext)."""
    text = clean(text, wide=True)
    if text.isascii():
        return f"{kind or 'rfc822'}; {text}"
    if not wide:
        text = "".join([c if "!" <= c <= "~" and c not in "\\+=" else escape(c) for c in text])
    return f"utf-8; {text}"


def _remote(host: str) -> str:
    """The remote host with its type, its address in a comment; or something else, a socket (RFC 3464
    sections 2.1.1 and 2.3.5)."""
    if not host:
        return ""
    name, where = _split(host)
    if not name:
        return f"x-mqmail; {host}"
    return f"dns; {name} ({where})" if where else f"dns; {name}"


def _split(host: str) -> tuple[str, str]:
    """(name, address) of ``name[address]:port``, where all but the name may be missing; an address alone
    is a name. ("", ""): it is none of these."""
    name, bracket, rest = host.partition("[")
    where, closing, port = rest.partition("]")
    if not bracket:
        name, colon, port = host.partition(":")
        port = colon + port
    good = bool(closing) == bool(bracket) and (not port or port[:1] == ":" and port[1:].isdigit())
    if where and not (address.is_ipv4(where) or address.is_ipv6(where)):
        good = False
    if not name and where:
        name, where = f"[{'IPv6:' * (':' in where)}{where}]", ""
    try:
        address.check_domain(name if good else "")
    except address.BadAddress:
        return "", ""
    return name, where


def _diagnostic(one: Reported) -> str:
    """The remote's reply as it came, or our own words (RFC 3464 section 2.3.6)."""
    if not one.said:
        return ""
    code = one.said[:3]
    is_reply = bool(one.host) and len(code) == 3 and code.isascii() and code.isdigit()
    return f"{'smtp' if is_reply else 'x-mqmail'}; {one.said}"


def _original_head(about: Report, boundary: str, full: bool) -> str:
    """The header of the third part (RFC 6522 section 3, RFC 6533 section 5)."""
    if needs_utf8(about):
        kind = "message/global" if full else "message/global-headers"
    else:
        kind = "message/rfc822" if full else "text/rfc822-headers"
    encoding = "8bit" if needs_8bit(about) else "7bit"
    return (f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
            f"Content-Transfer-Encoding: {encoding}\r\n\r\n")
