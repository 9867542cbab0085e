"""What both sides of SCRAM-SHA-256 (RFC 5802, RFC 7677) compute: messages, keys, SASLprep (RFC 4013)."""

from __future__ import annotations

from mqmail.base.value import value

LEAST_ITERATIONS = 4096          # RFC 7677 section 4
MOST_ITERATIONS = 1_000_000      # a third of a second; a hostile server might ask for hours
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


@value
class StoredKeys:
    """What a server keeps of a secret (RFC 5802 section 3)."""

    salt: bytes
    iterations: int
    stored: bytes
    server: bytes


def stored_keys(secret: str, salt: bytes, iterations: int) -> StoredKeys:
    """The keys of *secret*, to be kept. Raises ValueError when it is not UTF-8."""
    _client, stored, server = scram_keys(saslprep(secret).encode(), salt, iterations)
    return StoredKeys(salt, iterations, stored, server)


def saslname(text: str) -> str:
    """RFC 5802 section 5.1."""
    return text.replace("=", "=3D").replace(",", "=2C")


def scram_keys(secret: bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes, bytes]:
    """(ClientKey, StoredKey, ServerKey) of RFC 5802 section 3; servers keep the last two."""
    from hashlib import pbkdf2_hmac, sha256
    salted = pbkdf2_hmac("sha256", secret, salt, iterations)
    client = hmac_sha256(salted, b"Client Key")
    return client, sha256(client).digest(), hmac_sha256(salted, b"Server Key")


def parse_server_first(message: bytes) -> tuple[str, bytes, int]:
    """(nonce, salt, iterations) of a server's first message (RFC 5802 section 7). Raises ValueError."""
    found = attributes(message)
    if [name for name, _ in found[:3]] != ["r", "s", "i"]:      # m= first: must be understood
        raise ValueError("the server's first SCRAM message is not r=,s=,i=")
    nonce, salt, count = [text for _, text in found[:3]]
    if not is_nonce(nonce) or not salt:
        raise ValueError("the server's nonce or salt is bad")
    return nonce, from_base64(salt), _iterations(count)


def _iterations(text: str) -> int:
    if not (text.isascii() and text.isdigit() and text[0] != "0"):
        raise ValueError("the server's iteration count is no number")
    if len(text) > len(str(MOST_ITERATIONS)) or not LEAST_ITERATIONS <= int(text) <= MOST_ITERATIONS:
        raise ValueError(f"the server wants {text[:12]} iterations: we do {LEAST_ITERATIONS} to"
                         f" {MOST_ITERATIONS}")
    return int(text)


def attributes(message: bytes) -> list[tuple[str, str]]:
    """``a=1,b=2`` as pairs, at least one. Raises ValueError."""
    try:
        parts = [part.partition("=") for part in message.decode().split(",")]
    except UnicodeDecodeError:
        raise ValueError("a SCRAM message that is not UTF-8") from None
    if any(not equals or len(name) != 1 or not name.isalpha() for name, equals, _ in parts):
        raise ValueError("a SCRAM message that is not a=...,b=...")
    return [(name, text) for name, _, text in parts]


def is_nonce(text: str) -> bool:
    """Visible ASCII without comma (RFC 5802 section 7)."""
    return text.isascii() and text.isprintable() and text != "" and not {" ", ","} & set(text)


def same(one: bytes, other: bytes) -> bool:
    """Whether they are equal; takes as long when they nearly are."""
    from hmac import compare_digest
    return compare_digest(one, other)


def xor(one: bytes, other: bytes) -> bytes:
    """Octet by octet; of equal length."""
    return bytes([a ^ b for a, b in zip(one, other, strict=True)])


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC(key, message) of RFC 5802 section 2.2, with SHA-256."""
    import hmac
    return hmac.digest(key, message, "sha256")


def to_base64(data: bytes) -> bytes:
    """Padded, in one line."""
    from binascii import b2a_base64
    return b2a_base64(data, newline=False)


def from_base64(text: str) -> bytes:
    """Raises ValueError on anything but padded base64 (RFC 4648 section 4)."""
    from binascii import a2b_base64
    if not _BASE64.issuperset(text):
        raise ValueError("bad base64 in a SCRAM message")
    return a2b_base64(text, strict_mode=True)


def saslprep(text: str) -> str:
    """SASLprep (RFC 4013) of a query. What it forbids is returned as it is, as other implementations do:
    such a secret can only match octet by octet."""
    if text.isascii() and text.isprintable():
        return text
    import stringprep
    from unicodedata import ucd_3_2_0  # the Unicode of RFC 3454
    mapped = "".join([" " if stringprep.in_table_c12(char) else char
                      for char in text if not stringprep.in_table_b1(char)])
    normal = ucd_3_2_0.normalize("NFKC", mapped)
    return normal if normal and not _is_forbidden(normal) and _is_one_way(normal) else text


def _is_forbidden(text: str) -> bool:
    """RFC 4013 section 2.3."""
    import stringprep as prep
    tables = (prep.in_table_c12, prep.in_table_c21_c22, prep.in_table_c3, prep.in_table_c4,
              prep.in_table_c5, prep.in_table_c6, prep.in_table_c7, prep.in_table_c8, prep.in_table_c9)
    return any(table(char) for char in text for table in tables)


def _is_one_way(text: str) -> bool:
    """RFC 3454 section 6: right-to-left throughout, or not at all."""
    from stringprep import in_table_d1, in_table_d2
    if not any(in_table_d1(char) for char in text):
        return True
    return in_table_d1(text[0]) and in_table_d1(text[-1]) and not any(in_table_d2(c) for c in text)
