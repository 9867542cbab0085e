"""What a certificate says: whom it is for, and what it binds an authentication to."""

from __future__ import annotations

import hashlib
from _socket import AF_INET, AF_INET6, inet_pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def names_match(certificate: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether *certificate* is for one of *names*: hosts (A-labels), ``.x`` for any host below x, IP
    addresses. RFC 6125 section 6.4: subjectAltName only; ``*`` only as its whole first label, for
    exactly one label. *certificate* is verified, and as ``getpeercert()`` has it."""
    found = certificate.get("subjectAltName", ())
    hosts = [text.lower() for kind, text in found if kind == "DNS" and _is_pattern(text)]
    addresses = [_address(text) for kind, text in found if kind == "IP Address"]
    for name in names:
        wanted, address = name.lower().rstrip("."), _address(name)
        if address and address in addresses:
            return True
        if wanted and not address and any(_covers(host, wanted) for host in hosts):
            return True
    return False


def _is_pattern(text: str) -> bool:
    """A host name, or one with ``*.`` in front of at least two labels."""
    labels = text.split(".")
    return text.isascii() and all(labels) and ("*" not in text or (
        labels[0] == "*" and "*" not in text[1:] and len(labels) > 2))


def _covers(host: str, wanted: str) -> bool:
    if wanted[0] == ".":
        return host.endswith(wanted)
    if host[0] == "*":
        label, _, rest = wanted.partition(".")
        return label != "" and rest == host[2:]
    return host == wanted


def _address(text: str) -> bytes:
    """The octets of an IP address; b"" when it is none."""
    for family in (AF_INET, AF_INET6):
        try:
            return inet_pton(family, text)
        except (OSError, ValueError):
            continue
    return b""


_HASHES = {     # signature algorithms (DER, without tag and length) with one hash function
    "2a864886f70d010104": "sha256", "2a864886f70d010105": "sha256",     # MD5, SHA-1: RFC 5929 4.1
    "2a864886f70d01010b": "sha256", "2a864886f70d01010c": "sha384", "2a864886f70d01010d": "sha512",
    "2a864886f70d01010e": "sha224", "2a8648ce3d0401": "sha256",
    "2a8648ce3d040301": "sha224", "2a8648ce3d040302": "sha256",
    "2a8648ce3d040303": "sha384", "2a8648ce3d040304": "sha512",
}


def end_point(der: bytes) -> bytes:
    """tls-server-end-point of a certificate (RFC 5929 section 4.1): its hash, by the hash function of
    its signature. b"" when that is not one we know (EdDSA has none, PSS's is elsewhere)."""
    try:
        signed = _element(der, _element(der, 0)[0])         # Certificate, tbsCertificate
        start, end = _element(der, _element(der, signed[1])[0])     # signatureAlgorithm, its OID
    except IndexError:
        return b""
    name = _HASHES.get(der[start:end].hex(), "")
    return hashlib.new(name, der).digest() if name else b""


def validity(der: bytes) -> tuple[str, str]:
    """From when to when (UTC) a certificate may be used (RFC 5280 section 4.1.2.5), each as
    ``20261122091500``; IndexError or ValueError if it is none."""
    at = _element(der, _element(der, 0)[0])[0]      # Certificate, tbsCertificate
    for _ in range(3 + (der[at] == 0xA0)):          # version if it is given, number, algorithm, issuer
        at = _element(der, at)[1]
    first = _element(der, at)[0]
    return _utc(der, first), _utc(der, _element(der, first)[1])


def _utc(der: bytes, at: int) -> str:
    """UTCTime has two digits of the year (RFC 5280 section 4.1.2.5.1)."""
    start, end = _element(der, at)
    digits = der[start:end - 1].decode("ascii")
    return digits if len(digits) == 14 else f"{19 if digits >= '5' else 20}{digits}"


def _element(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at *at* begins and ends."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2:start], "big")
    return start, start + length
