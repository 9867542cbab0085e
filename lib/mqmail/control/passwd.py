"""passwd: logins and what proves them, for mq-auth alone. mq-passwd(8) writes it.

A line is ``LOGIN:HASH [HASH ...]``, a hash one of

* ``$scrypt$ln=14,r=8,p=5$SALT$KEY``: scrypt (RFC 7914) with N = 2^ln, SALT and KEY in base64;
* ``SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY``: RFC 5803, all but the number in base64;
* ``$plain$SECRET``: the secret itself, UTF-8 in base64; for CRAM-MD5, which works with nothing else.

A login without a hash (``LOGIN:``) is known and cannot log in. No hash is in the repr of a value or the
text of an error made here.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control import credentials
from mqmail.control.loginnames import check_login, fold
from mqmail.control.values import is_number
from mqmail.xmtp.scram import StoredKeys, from_base64, to_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

check_mode = credentials.check_mode
MOST_MEMORY = 256 << 20     # bytes that an scrypt hash may want: 128 r N (RFC 7914 section 2)
MOST_PARALLEL = 64
MOST_ITERATIONS = 10_000_000
_FORM = "write LOGIN:HASH as mq-passwd does"


@value
class Scrypt:
    """An scrypt hash: N = 2^*ln*, and RFC 7914's r and p."""

    ln: int
    r: int
    p: int
    salt: bytes
    key: bytes


class Entry:
    """What is kept of one login; None for what is not."""

    __slots__ = ("plain", "scram", "scrypt")

    def __init__(self, scrypt: Scrypt | None = None, scram: StoredKeys | None = None,
                 plain: bytes | None = None) -> None:
        self.scrypt = scrypt
        self.scram = scram
        self.plain = plain

    def __repr__(self) -> str:
        kept = [name for name in self.__slots__ if getattr(self, name) is not None]
        return f"<Entry of {' '.join(kept) or 'nothing'}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and encode("", self) == encode("", other)

    def __hash__(self) -> int:
        return hash(encode("", self))


@value
class Passwd:
    """Login, folded, to Entry."""

    entries: dict[str, Entry]

    def entry(self, login: str) -> Entry | None:
        """The entry of *login*, in any spelling; None: there is none."""
        return self.entries.get(fold(login))

    @property
    def readable(self) -> bool:
        """Whether any secret is kept as it is."""
        return any([entry.plain is not None for entry in self.entries.values()])


def parse_passwd(lines: Lines, _me: str) -> Passwd:
    """The lines of the file."""
    entries: dict[str, Entry] = {}
    for line in lines:
        login, colon, rest = line.partition(":")
        if not colon:
            raise ValueError(f"there is no colon behind the login: {_FORM}")
        folded = check_login(login)
        if folded in entries:
            raise ValueError(f"{login} is given twice: remove one of the lines")
        entries[folded] = _entry(rest.split())
    return Passwd(entries)


def _entry(words: list[str]) -> Entry:
    found: dict[str, object] = {}
    for word in words:
        name, read = next(((name, read) for start, name, read in _KINDS if word.startswith(start)),
                          ("", None))
        if read is None:
            raise ValueError(f"a hash of an unknown kind: {_FORM}")
        if name in found:
            raise ValueError(f"two hashes of one kind: {_FORM}")
        found[name] = read(word)
    return Entry(**found)       # type: ignore[arg-type]


def _scrypt(word: str) -> Scrypt:
    parts = word.split("$")
    settings = [pair.partition("=") for pair in (parts[2] if len(parts) == 5 else "").split(",")]
    names, numbers = [one[0] for one in settings], [one[2] for one in settings]
    if names != ["ln", "r", "p"] or not all([is_number(number) for number in numbers]):
        raise ValueError(f"not $scrypt$ln=N,r=N,p=N$SALT$KEY: {_FORM}")
    ln, r, p = [int(number) for number in numbers]
    if not (1 <= ln <= 24 and r and 1 <= p <= MOST_PARALLEL and 128 * r << ln <= MOST_MEMORY):
        raise ValueError("an scrypt hash that wants too much memory or time: make another by mq-passwd")
    salt, key = _base64(parts[3]), _base64(parts[4])
    if len(key) < 16:
        raise ValueError(f"an scrypt key of less than 16 bytes: {_FORM}")
    return Scrypt(ln, r, p, salt, key)


def _scram(word: str) -> StoredKeys:
    _name, _, rest = word.partition("$")
    left, _, right = rest.partition("$")
    count, _, salt = left.partition(":")
    stored, _, server = right.partition(":")
    if not is_number(count) or not 1 <= int(count) <= MOST_ITERATIONS or not salt:
        raise ValueError(f"not SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY: {_FORM}")
    keys = StoredKeys(_base64(salt), int(count), _base64(stored), _base64(server))
    if len(keys.stored) != 32 or len(keys.server) != 32:
        raise ValueError(f"SCRAM-SHA-256 keys have 32 bytes: {_FORM}")
    return keys


def _plain(word: str) -> bytes:
    secret = _base64(word.removeprefix("$plain$"))
    if not secret or b"\0" in secret:
        raise ValueError(f"an empty secret, or one with NUL: {_FORM}")
    return secret


_KINDS = (("$scrypt$", "scrypt", _scrypt), ("SCRAM-SHA-256$", "scram", _scram),
          ("$plain$", "plain", _plain))


def _base64(text: str) -> bytes:
    try:
        return from_base64(text)
    except ValueError:
        raise ValueError(f"bad base64 in a hash: {_FORM}") from None


def encode(login: str, entry: Entry) -> str:
    """The line for *entry*."""
    words = []
    if entry.scrypt is not None:
        one = entry.scrypt
        words.append(f"$scrypt$ln={one.ln},r={one.r},p={one.p}${_coded(one.salt)}${_coded(one.key)}")
    if entry.scram is not None:
        keys = entry.scram
        words.append(f"SCRAM-SHA-256${keys.iterations}:{_coded(keys.salt)}"
                     f"${_coded(keys.stored)}:{_coded(keys.server)}")
    if entry.plain is not None:
        words.append(f"$plain${_coded(entry.plain)}")
    return f"{login}:{' '.join(words)}"


def _coded(data: bytes) -> str:
    return to_base64(data).decode("ascii")
