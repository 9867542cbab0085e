"""credentials: who we are to other hosts, and the secrets that prove it. mq-credentials(5).

No secret is in the repr of a value or the text of an error made here.
"""

from __future__ import annotations

from mqmail.base.failure import BadFile
from mqmail.base.value import value
from mqmail.control.values import is_name
from mqmail.xmtp.sasl import PASSWORD_MECHANISMS, TOKEN_MECHANISMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import stat_result

    from mqmail.control.lines import Lines

_FORM = 'write NAME USER SECRET or NAME USER !PROGRAM; what holds spaces or begins with ! or ": "..."'
_OTHERS_READ = 0o004


class Entry:
    """A name for other hosts. Either *secret* is its password, or *program* (words, the first is a path
    from /) prints an access token. *mechanisms*: only these, in capitals; () for any."""

    __slots__ = ("mechanisms", "program", "secret", "user")

    def __init__(self, user: str, secret: str, program: tuple[str, ...] = (),
                 mechanisms: tuple[str, ...] = ()) -> None:
        self.user = user
        self.secret = secret
        self.program = program
        self.mechanisms = mechanisms

    def __repr__(self) -> str:
        kept = "program" if self.program else "secret"
        return f"<Entry user={self.user!r} {kept}=... mechanisms={self.mechanisms}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return self.user, self.secret, self.program, self.mechanisms


@value
class Credentials:
    """Name to Entry."""

    entries: dict[str, Entry]

    def entry(self, name: str) -> Entry | None:
        """The entry of that name; None: there is none."""
        return self.entries.get(name)


def check_mode(path: str, found: stat_result) -> None:
    """Raises BadFile when others than owner and group may read the file *path*."""
    if found.st_mode & _OTHERS_READ:
        raise BadFile(f"{path}: holds secrets, and others may read it: chmod 600 {path}")


def parse_credentials(lines: Lines, _me: str) -> Credentials:
    """Lines ``NAME USER SECRET [MECHANISM,...]`` or ``NAME USER !PROGRAM [MECHANISM,...]``."""
    entries: dict[str, Entry] = {}
    for line in lines:
        fields = _split(line)
        if len(fields) not in (3, 4):
            raise ValueError(f"{len(fields)} words instead of 3 or 4: {_FORM}")
        (starts, name), (_, user), (is_program, secret) = fields[:3]
        if starts or not is_name(name, ".@"):
            raise ValueError("the first word is not a name: write up to 64 ASCII letters, digits and"
                             " . _ @ -")
        if name in entries:
            raise ValueError(f"{name} is given twice: remove one of the lines")
        if fields[1][0] or not user or not secret:
            raise ValueError(f"no user or no secret: {_FORM}")
        program = _program(secret) if is_program else ()
        mechanisms = _mechanisms(fields[3], bool(is_program)) if len(fields) == 4 else ()
        entries[name] = Entry(user, "" if is_program else secret, program, mechanisms)
    return Credentials(entries)


def _split(line: str) -> list[tuple[bool, str]]:
    """The fields of a line as (whether ``!`` stands before it, its text)."""
    fields, rest = [], line.strip()
    while rest:
        is_program = rest[0] == "!"
        rest = rest[is_program:]
        if rest[:1] == '"':
            text, rest = _quoted(rest[1:])
        else:
            text = (rest.split(None, 1) or [""])[0] if rest[:1] not in (" ", "\t") else ""
            rest = rest[len(text):]
        fields.append((is_program, text))
        rest = rest.lstrip()
    return fields


def _quoted(rest: str) -> tuple[str, str]:
    """(text, what follows the closing quote) of what follows the opening one."""
    text, at = "", 0
    while rest[at:at + 1] not in ("", '"'):
        if rest[at] == "\\":
            at += 1
            if rest[at:at + 1] not in ("\\", '"'):
                raise ValueError('a \\ in quotes stands only before " and \\: write \\\\ for a \\')
        text += rest[at]
        at += 1
    if at >= len(rest):
        raise ValueError('a quote without an end: write " behind it, and \\" for a " inside it')
    if rest[at + 1:at + 2] not in ("", " ", "\t"):
        raise ValueError('something follows a closing quote: write a space, or \\" for a " inside it')
    return text, rest[at + 1:]


def _program(text: str) -> tuple[str, ...]:
    words = tuple(text.split())
    if not words or words[0][0] != "/":
        raise ValueError('! is not followed by a path: write !/path/program or'
                         ' !"/path/program argument"')
    return words


def _mechanisms(field: tuple[bool, str], is_program: bool) -> tuple[str, ...]:
    known = TOKEN_MECHANISMS if is_program else PASSWORD_MECHANISMS
    names = tuple(field[1].upper().split(","))
    if field[0] or not set(names) <= set(known):      # not shown: it may be a part of the secret
        raise ValueError(f"the fourth word is not a list of {', '.join(known)}: separate them by"
                         " commas, and write a secret or program with spaces in double quotes")
    return names
