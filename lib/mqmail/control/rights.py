"""Whose is what in a home, and who may call whom: the one table of it.

A home that belongs to root is a *system home*: each program becomes an account of its own there. In
any other home everything is its owner's. From this table come mq-setup, what the daemons do when they
start, the table in ARCHITECTURE.md and the test that acts as each account in turn.
"""

from __future__ import annotations

import os
import pwd

from mqmail.base.failure import Temporary
from mqmail.base.value import value
from mqmail.control.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

ROOT = "root"       # stands among programs for what is root's
DIRECTORY, FILE, SOCKET = "directory", "file", "socket"
_LARGEST_ID = (1 << 32) - 2


@value
class Role:
    """A *program*, the *account* it becomes in a system home if control/accounts names no other, and
    the programs whose groups it is in *also*."""

    program: str
    account: str
    also: tuple[str, ...]
    purpose: str


ROLES = (
    Role("xmtpd", "mqd", (), "the face to the network"),
    Role("mq-queue", "mqq", (), "creates bodies and records"),
    Role("mq-resolve", "mqv", (), "addresses"),
    Role("mq-auth", "mqa", (), "logins and passwords"),
    Role("mq-send", "mqs", ("mq-queue",), "records"),
    Role("mq-rspawn", "mqr", (), "the network, credentials"),
    Role("mq-bounce", "mqb", (), "reports"),
    Role("mq-local", "mqm", (), "virtual mailboxes"),
)
ROLE_OF = {role.program: role for role in ROLES}
OTHERS = "others"   # any account that is none of these


@value
class Socket:
    """A socket of *server*'s. *owner*, *group* and *mode* in a system home, *own_mode* in an owner's.
    *callers*: the programs that the server believes. Others may call where *mode* lets them, and are
    then judged by control/injectors."""

    path: str
    server: str
    owner: str
    group: str
    mode: int
    own_mode: int
    callers: tuple[str, ...]
    datagram: bool = False


SOCKETS = (
    Socket("run/queue.sock", "mq-queue", ROOT, ROOT, 0o666, 0o666,
           ("xmtpd", "mq-bounce", "mq-queue")),
    Socket("run/resolve.sock", "mq-resolve", "mq-send", "xmtpd", 0o620, 0o666, ("xmtpd", "mq-send")),
    Socket("run/auth.sock", "mq-auth", "xmtpd", "mq-bounce", 0o620, 0o666, ("xmtpd", "mq-bounce")),
    Socket("run/mailbox.sock", "mq-lspawn", "mq-send", "mq-send", 0o600, 0o600, ("mq-send",)),
    Socket("run/local.sock", "mq-lspawn", "mq-send", "mq-send", 0o600, 0o600, ("mq-send",)),
    Socket("run/remote.sock", "mq-rspawn", "mq-send", "mq-send", 0o600, 0o666, ("mq-send",)),
    Socket("run/transfer.sock", "mq-rspawn", "mq-rspawn", "mq-rspawn", 0o600, 0o600, ("mq-rspawn",)),
    Socket("run/bounce.sock", "mq-bounce", "mq-send", "mq-send", 0o600, 0o666, ("mq-send",)),
    Socket("run/trigger", "mq-send", "mq-send", "mq-queue", 0o620, 0o600, ("mq-queue", "mq-send"),
           datagram=True),
    Socket("run/etrn", "mq-send", "mq-send", "xmtpd", 0o620, 0o600, ("xmtpd", "mq-send"), datagram=True),
)


@value
class Place:
    """A directory or file. In its *path* a part ``*`` stands for any name, and ``**`` at the end for all
    that is below. *mode* in a system home, *own_mode* in an owner's; 0: whatever others cannot write."""

    path: str
    kind: str
    owner: str
    group: str
    mode: int
    own_mode: int
    required: bool = False
    what: str = ""


PLACES = (
    Place("", DIRECTORY, ROOT, ROOT, 0o755, 0o755, True, "the home"),
    Place("control", DIRECTORY, ROOT, ROOT, 0o755, 0o755, True),
    Place("control/credentials", FILE, ROOT, "mq-rspawn", 0o640, 0o640),
    Place("control/passwd", FILE, ROOT, "mq-auth", 0o640, 0o640),
    Place("control/*", FILE, ROOT, ROOT, 0o644, 0o644, False, "other files in control/"),
    Place("tls", DIRECTORY, ROOT, "xmtpd", 0o750, 0o750),
    Place("tls/*", FILE, ROOT, "xmtpd", 0o640, 0o640, False, "keys and certificates"),
    Place("queue", DIRECTORY, "mq-queue", "mq-queue", 0o2770, 0o750, True, "and the directories below"),
    *[Place(f"queue/{name}", DIRECTORY, "mq-queue", "mq-queue", 0o2770, 0o750, True)
      for name in ("mess", "new", "wait", "hold", "bad")],
    Place("queue/mess/*/*", FILE, "mq-queue", "mq-queue", 0o640, 0o640, False, "bodies"),
    Place("queue/new/*/*", FILE, "mq-queue", "mq-queue", 0o660, 0o640, False, "new records"),
    Place("queue/wait/*/*", FILE, "mq-send", "mq-queue", 0o660, 0o640, False, "waiting records"),
    Place("queue/hold/*/*", FILE, "mq-send", "mq-queue", 0o660, 0o640),
    *[Place(f"queue/{name}/*", DIRECTORY, "mq-queue", "mq-queue", 0o2770, 0o750)
      for name in ("mess", "new", "wait", "hold")],
    Place("queue/bad/*", FILE, "mq-queue", "mq-queue", 0, 0),
    Place("run", DIRECTORY, ROOT, ROOT, 0o755, 0o755, True),
    Place("run/auth", DIRECTORY, "mq-auth", "mq-auth", 0o700, 0o700, True),
    Place("run/auth/*", FILE, "mq-auth", "mq-auth", 0o600, 0o600),
    Place("run/remote", DIRECTORY, "mq-rspawn", "mq-rspawn", 0o700, 0o700, True),
    Place("run/remote/*", FILE, "mq-rspawn", "mq-rspawn", 0o600, 0o600),
    Place("run/queue", DIRECTORY, "mq-queue", "xmtpd", 0o2750, 0o700, True),
    Place("run/queue/*", FILE, "mq-queue", "xmtpd", 0o640, 0o640),
    Place("run/*", FILE, ROOT, ROOT, 0o600, 0o600, False, "locks"),
    Place("mail", DIRECTORY, "mq-local", "mq-local", 0o751, 0o751, True),
    Place("mail/*", DIRECTORY, "mq-local", "mq-resolve", 0o710, 0o700, False, "virtual mailboxes"),
    Place("mail/*/**", "", "mq-local", "", 0, 0),
)


def place_of(path: str, kind: str) -> Place | None:
    """The first place in PLACES that *path* (relative to the home) of *kind* is, or None."""
    parts = path.split("/")
    for place in PLACES:
        if place.kind in ("", kind) and _matches(place.path.split("/"), parts):
            return place
    return None


def _matches(pattern: list[str], parts: list[str]) -> bool:
    if pattern[-1] == "**" and len(parts) >= len(pattern):
        pattern, parts = pattern[:-1], parts[:len(pattern) - 1]
    return len(pattern) == len(parts) and all(
        [wanted in ("*", part) for wanted, part in zip(pattern, parts, strict=True)])


def sockets_of(server: str) -> list[Socket]:
    """Those that *server* listens at."""
    return [one for one in SOCKETS if one.server == server]


# Accounts

@value
class Account:
    """*name* is "" when it was written as numbers."""

    name: str
    uid: int
    gid: int


class Accounts:
    """Which account each program becomes in a system home. *given*: those of control/accounts."""

    def __init__(self, given: dict[str, Account]) -> None:
        self.given = given

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accounts) and self.given == other.given

    def __hash__(self) -> int:
        return hash(tuple(self.given))

    def of(self, program: str) -> Account:
        """The account of *program*, which may be ROOT. Raises Temporary when there is none."""
        if program in self.given:
            return self.given[program]
        if program == ROOT:
            return Account(ROOT, 0, 0)
        found = named(ROLE_OF[program].account)
        if found is None:
            raise Temporary(f"this host has no account {ROLE_OF[program].account} for {program}:"
                            " mq-setup --system makes it, or name another in control/accounts")
        return found

    def groups(self, program: str) -> list[int]:
        """All groups that *program* is in: its account's, and those the table adds."""
        account = self.of(program)
        found = os.getgrouplist(account.name, account.gid) if account.name else [account.gid]
        return sorted({*found, *[self.of(other).gid for other in ROLE_OF[program].also]})

    def callers(self, path: str) -> frozenset[int]:
        """The uids that are believed at the socket *path*: its callers', and root's."""
        programs = [program for one in SOCKETS if one.path == path for program in one.callers]
        return frozenset([0, *[self.of(program).uid for program in programs]])


def named(name: str) -> Account | None:
    """The host's account *name*."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)


def parse_accounts(lines: Lines, _me: str) -> Accounts:
    """Lines ``PROGRAM ACCOUNT``, the account being a name or ``UID:GID``."""
    given: dict[str, Account] = {}
    for line in lines:
        words = line.split()
        if len(words) != 2 or words[0] not in ROLE_OF:
            raise ValueError(f"{line[:60]!a}: write one of {' '.join(ROLE_OF)}, and then an account or"
                             " UID:GID")
        program, account = words
        if program in given:
            raise ValueError(f"{program} is given twice: remove one of the lines")
        given[program] = _account(account)
        if given[program].uid == 0:
            raise ValueError(f"{account!a} is root: name an account without privileges")
    return Accounts(given)


def _account(text: str) -> Account:
    uid, colon, gid = text.partition(":")
    if colon:
        numbers = [int(word) for word in (uid, gid) if is_number(word) and int(word) <= _LARGEST_ID]
        if len(numbers) != 2:
            raise ValueError(f"{text[:60]!a}: write two numbers, UID:GID")
        return Account("", *numbers)
    found = named(text)
    if found is None:
        raise ValueError(f"this host has no account {text[:60]!a}: make it first, or write UID:GID")
    return found


# Who may do what: the table in ARCHITECTURE.md

def may(program: str, owner: str, group: str, mode: int) -> str:
    """What *program* may do with what has *owner*, *group* and *mode*: "", "r", "w", "rw" and, for a
    directory, x. Only what the mode says: to get there is another question."""
    if program == owner:
        bits = mode >> 6
    elif program in ROLE_OF and group in (program, *ROLE_OF[program].also):
        bits = mode >> 3
    else:
        bits = mode
    return "".join([letter for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if bits & bit])


def may_call(program: str, socket: Socket) -> bool:
    """Whether *program* has business at *socket* of a system home."""
    return program in socket.callers or bool(socket.mode & 0o002)


def table() -> list[str]:
    """Lines in Markdown: what each account of a system home may do with each place and socket."""
    programs = [*ROLE_OF, OTHERS]
    rows = [["what", "owner, group, mode", *[role.account for role in ROLES], OTHERS],
            ["---"] * (2 + len(programs))]
    for place in PLACES:
        if place.mode and (place.what or "*" not in place.path):
            owned = place.owner, place.group, place.mode
            rows.append([_what(place), _owned(*owned), *[may(program, *owned) for program in programs]])
    for socket in SOCKETS:
        rows.append([f"`{socket.path}`", _owned(socket.owner, socket.group, socket.mode),
                     *[_call(program, socket) for program in programs]])
    return [f"| {' | '.join([cell or '-' for cell in row])} |" for row in rows]


def _call(program: str, socket: Socket) -> str:
    if socket.mode & 0o002 and program in socket.callers:
        return "believed"
    return "calls" if may_call(program, socket) else ""


def _what(place: Place) -> str:
    path = f"`{place.path}{'/' if place.kind == DIRECTORY else ''}`" if place.path else "`.`"
    return f"{path} {place.what}".strip()


def _owned(owner: str, group: str, mode: int) -> str:
    names = [ROOT if name == ROOT else ROLE_OF[name].account for name in (owner, group)]
    return f"{names[0]}:{names[1]} {mode:04o}"
