"""Making and checking the hashes of control/passwd. Each takes a tenth of a second and OpenSSL gives up
the interpreter's lock meanwhile: mq-auth does it in threads."""

from __future__ import annotations

import os
from hashlib import scrypt, sha256

from mqmail.control.passwd import MOST_MEMORY, Entry, Scrypt
from mqmail.xmtp.scram import StoredKeys, hmac_sha256, same, saslprep, stored_keys

LN, R, P = 14, 8, 5         # 16 MiB and about 0.2 s; as OWASP has it ("Password Storage")
ITERATIONS = 100_000        # of SCRAM-SHA-256, which the client computes too
SALT = 16                   # octets
KEY = 32
_M_MMAP_THRESHOLD = -3


def make(password: str, *, scram: bool = True, readable: bool = False) -> Entry:
    """What is to be kept of *password*: the scrypt hash, with *scram* the keys for SCRAM-SHA-256, with
    *readable* the password itself. Raises ValueError when it cannot be one."""
    secret = secret_of(password)
    salt = os.urandom(SALT)
    keys = stored_keys(password, os.urandom(SALT), ITERATIONS) if scram else None
    return Entry(Scrypt(LN, R, P, salt, _derive(secret, LN, R, P, salt, KEY)), keys,
                 secret if readable else None)


def secret_of(password: str) -> bytes:
    """The octets that are hashed: SASLprep (RFC 4013) of the password. Raises ValueError."""
    try:
        secret = saslprep(password).encode()
    except UnicodeEncodeError:
        raise ValueError("the password is not UTF-8") from None
    if not secret or b"\0" in secret:
        raise ValueError("the password is empty, or has NUL in it")
    return secret


def fits(entry: Entry | None, password: str) -> bool:
    """Whether *password* is that of *entry*. No entry, or one without a hash, takes as long."""
    try:
        secret = secret_of(password)
    except ValueError:
        entry, secret = None, b"x"
    if entry is not None and entry.scrypt is None and entry.scram is not None:
        keys = entry.scram
        return stored_keys(password, keys.salt, keys.iterations) == keys
    if entry is not None and entry.scrypt is None and entry.plain is not None:
        fits_nothing(secret)
        return same(entry.plain, secret)
    if entry is None or entry.scrypt is None:
        return fits_nothing(secret)
    one = entry.scrypt
    return same(_derive(secret, one.ln, one.r, one.p, one.salt, len(one.key)), one.key)


def fits_nothing(secret: bytes) -> bool:
    """The work of comparing, for who is not there."""
    _derive(secret, LN, R, P, bytes(SALT), KEY)
    return False


def _derive(secret: bytes, ln: int, r: int, p: int, salt: bytes, length: int) -> bytes:
    return scrypt(secret, salt=salt, n=1 << ln, r=r, p=p, maxmem=2 * MOST_MEMORY, dklen=length)


def give_memory_back() -> None:
    """Have the C library return the megabytes of each hash to the system at once. By itself glibc keeps
    them, in each thread, after it has seen a few (mallopt(3), M_MMAP_THRESHOLD)."""
    import ctypes
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)
    except AttributeError:
        pass        # another C library


def no_keys(secret: bytes, login: str) -> StoredKeys:
    """SCRAM keys for a login that is not there: the same *login* always has the same salt, as one that
    is there has; nothing fits them. *secret*: nobody else's."""
    salt = hmac_sha256(secret, b"salt " + login.encode("utf-8", "surrogateescape"))[:SALT]
    stored = sha256(os.urandom(32)).digest()
    return StoredKeys(salt, ITERATIONS, stored, stored)
