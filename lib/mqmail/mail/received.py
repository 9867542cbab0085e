"""The ``Received:`` field that goes on top of each message (RFC 5321 section 4.4).

No ``for`` clause is ever written: it would show one recipient to the others.
"""

from __future__ import annotations

from mqmail.mail import address

LONGEST_HELO = 64          # of a greeting that is no domain
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]@/")
_EXTENDED = {"esmtp": "ESMTP", "lmtp": "LMTP"}
_EXTENDED_UTF8 = {"esmtp": "UTF8SMTP", "lmtp": "UTF8LMTP"}
_BOUNCES = ("bounce", "double")


def received_line(host: str, queue_id: str, via: dict[str, str], date: str,
                  utf8: bool = False) -> bytes:
    """The field, folded, each line ending in CRLF.

    *host* is our name, *queue_id* ours too, *date* is formatted as RFC 5322 3.3 asks. *via* are the
    record's facts: ``proto``, ``ip``, ``helo``, ``uid``, ``tls``, ``auth``, ``ident``; nothing in
    them is trusted. *utf8* says that the message needs SMTPUTF8.
    """
    origin = _origin(host, via, utf8)
    return f"Received: {origin} id {queue_id};\r\n\t{date}\r\n".encode("utf-8", "surrogateescape")


def _origin(host: str, via: dict[str, str], utf8: bool) -> str:
    proto = via.get("proto", "")
    if proto in _BOUNCES:
        return f"by {host} (mqmail, bounce)"
    if proto == "smtp" or proto in _EXTENDED:
        return f"from {_client(via, utf8)}\r\n\tby {host} with {_protocol(via, utf8)}"
    uid = via.get("uid", "")
    if uid.isascii() and uid.isdigit() and len(uid) <= 10:
        return f"by {host} (mqmail, from uid {uid})"
    return f"by {host} (mqmail)"


def _protocol(via: dict[str, str], utf8: bool) -> str:
    """The ``with`` keyword: RFC 3848, and RFC 6531 section 4.3 for UTF-8; TLS's version and cipher."""
    name = (_EXTENDED_UTF8 if utf8 else _EXTENDED).get(via["proto"])
    if name is None:
        return "SMTP"
    tls = via.get("tls", "")
    comment = f" ({_harmless(tls.replace(':', '/'))})" if tls else ""
    return name + ("S" if tls else "") + ("A" if via.get("auth") else "") + comment


def _client(via: dict[str, str], utf8: bool) -> str:
    """``HELO ([IP])``; a greeting that is no domain is shown in a comment, and so is who the client is
    by its host's own word (RFC 1413)."""
    helo, comments = via.get("helo", ""), _literal(via.get("ip", ""))
    if not _is_name(helo, utf8):
        comments += f" (HELO {_harmless(helo)})" if helo else ""
        helo = "unknown"
    if via.get("ident"):
        comments += f" (ident {_harmless(via['ident'])})"
    return helo + comments


def _is_name(helo: str, utf8: bool) -> bool:
    if not helo or not (utf8 or helo.isascii()):
        return False
    try:
        address.check_domain(helo)
    except address.BadAddress:
        return False
    return True


def _literal(ip: str) -> str:
    """`` ([192.0.2.1])`` or `` ([IPv6:2001:db8::1])`` (RFC 5321 4.1.3); "" when it is neither."""
    if address.is_ipv4(ip):
        return f" ([{ip}])"
    if address.is_ipv6(ip):
        return f" ([IPv6:{ip}])"
    return ""


def _harmless(helo: str) -> str:
    """What the client said, bounded, with all that means something in a header as ``+XX``."""
    shown = "".join([c if c in _PLAIN else _escape(c) for c in helo[:LONGEST_HELO]])
    return shown + ("..." if len(helo) > LONGEST_HELO else "")


def _escape(char: str) -> str:
    return "".join([f"+{byte:02X}" for byte in char.encode("utf-8", "surrogateescape")])
