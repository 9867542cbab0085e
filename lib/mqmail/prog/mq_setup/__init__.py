"""Make a home for mqmail, or complete one: directories, control files, mailboxes.

Usage:
  mq-setup [--home DIR] [--me FQDN] [--listen ADDR:PORT]... [--user NAME]... [--owner USER]
  mq-setup [--home DIR] [--me FQDN] [--listen ADDR:PORT]... [--user NAME]... --system
  mq-setup [--home DIR] (--check | --repair)
  mq-setup --print-sysusers
  mq-setup --help
  mq-setup --version

Options:
  --home DIR          The home to make; $MQMAIL_HOME by default.
  --me FQDN           This host's full name; by default what the host calls itself.
  --listen ADDR:PORT  Speak SMTP there; may be repeated. By default 127.0.0.1:2525,
                      and 0.0.0.0:25 when root runs this.
  --user NAME         Make the mailbox NAME@FQDN (or NAME, if that is a full address) in
                      DIR/mail/NAME/Maildir; may be repeated.
  --owner USER        The account that mqmail runs as when root starts it; by default mail,
                      or nobody.
  --system            A home for the whole system: it belongs to root, and each program runs as
                      an account of its own. Makes these accounts. Without --home: /var/mqmail.
  --check             Say which owners and modes in the home are wrong; change nothing.
  --repair            Mend them.
  --print-sysusers    Print the accounts of a system home for sysusers.d(5).
  --help              Print this text.
  --version           Print the version.

What exists is never changed, so it can be run again, to add a user for example. Each thing made
is printed. See mq-setup(8), and mq-control(5) for the files.
"""

from __future__ import annotations

import os
import socket

from docopt import docopt

from mqmail import __version__
from mqmail.base import files, homes
from mqmail.base.failure import BadFile, Permanent, Usage
from mqmail.base.program import complain
from mqmail.base.value import value
from mqmail.control import lines, listeners, reader, users, values
from mqmail.control.rights import Accounts
from mqmail.control.survey import Survey
from mqmail.mail import address
from mqmail.prog.mq_setup import owners
from mqmail.prog.mq_setup.mend import Mend
from mqmail.prog.mq_setup.system import System, make_accounts, sysusers
from mqmail.queue import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

HOSTNAME_UNKNOWN = "localhost.localdomain"


@value
class Request:
    """The command line, checked; "" for what was not given."""

    home: str
    me: str
    listeners: list[str]
    users: list[str]
    owner: str
    system: bool


def main(arguments: list[str]) -> int:
    """Make what is missing and print it. 100 for a wrong command line, 111 for a bad control file."""
    options = docopt(__doc__, arguments, True, f"mqmail {__version__}", False)
    if options["--print-sysusers"]:
        print(sysusers(), end="")
        return 0
    request = _request(options)
    os.umask(0o022)
    reader.preload()
    if options["--check"] or options["--repair"]:
        return _mend(request.home, options["--repair"])
    made = 0
    for text in _steps(request):
        _print(text)
        made += 1
    if not made:
        print("nothing to do")
    mistakes = [text for _, text in Survey(".").mistakes]
    if mistakes:
        raise BadFile("\n".join(mistakes))
    return 0


def _print(text: str) -> None:
    print(text.encode("utf-8", "backslashreplace").decode())


def _mend(home: str, repair: bool) -> int:
    """Check or repair; 1 when something is left to be done."""
    os.chdir(home)
    if not os.path.isdir("control"):
        raise Permanent(f"{home} is no mqmail home: it has no directory control/")
    owner = os.stat(".").st_uid
    if os.geteuid() not in (0, owner):
        raise Permanent(f"{home} belongs to {owners.name_of(owner)}: run mq-setup as that user, or as"
                        " root")
    accounts = None
    if owner == 0:              # nobody but root may have said which accounts these are
        first = Mend(Accounts({}), repair)
        for text in first.only("", "control", "control/accounts"):
            _print(text)
        if first.left:
            return 1
        accounts = reader.load(".", ["accounts"]).accounts
        for text in make_accounts(accounts) if repair else ():
            _print(text)
    mend = Mend(accounts, repair)
    for text in mend.run():
        _print(text)
    return 1 if mend.left else 0


def _request(options: dict[str, Any]) -> Request:
    """Raises Usage for what cannot be meant."""
    home = options["--home"] or os.environ.get("MQMAIL_HOME", "")
    if options["--system"]:
        home = home or homes.HOME
        if os.geteuid() != 0:
            raise Usage("--system: only root can make a home for the whole system")
    if options["--check"] or options["--repair"] or os.geteuid() == 0 and os.path.isdir(homes.HOME):
        home = home or homes.HOME                       # what is there is meant
    if not home:
        raise Usage("which home? Write --home DIR, or set MQMAIL_HOME")
    me = options["--me"] or ""
    if options["--me"] is not None:
        _checked("--me", values.fqdn, me)
    for listener in options["--listen"]:
        _checked("--listen", listeners.parse_line, listener)
    for name in options["--user"]:
        _checked("--user", _check_user, name)
    owner = options["--owner"] or ""
    if owner:
        owners.check_owner(owners.account_named(owner))
    return Request(os.path.abspath(home), me, _once(options["--listen"]), _once(options["--user"]),
                   owner, options["--system"])


def _checked(option: str, check: Callable[[str], object], text: str) -> None:
    try:
        check(text)
    except ValueError as error:
        raise Usage(f"{option}: {error}") from None


def _check_user(text: str) -> None:
    local = address.local_of(address.parse_address(text)) if "@" in text else values.local_part(text)
    users.check_directory(local)


def _once(words: list[str]) -> list[str]:
    return list(dict.fromkeys(words))


# What a home is made of

def _steps(request: Request) -> Iterator[str]:
    """Do all that is missing; each text says what was done."""
    by_root = os.geteuid() == 0
    own = "" if request.me or os.path.lexists(f"{request.home}/control/me") else _ask_host()
    yield from owners.enter(request.home, request.owner, request.system)
    yield from _directory("control", 0o755)
    system = None
    if os.geteuid() == 0:       # still: it is a system home
        accounts = reader.load(".", ["accounts"]).accounts
        yield from make_accounts(accounts)
        system = System(accounts)
    for name, mode in (("queue", 0o750), ("run", 0o755), ("run/auth", 0o700),
                       ("run/remote", 0o700), ("run/queue", 0o700), ("mail", 0o751)):
        yield from _directory(name, mode, system)
    yield from _queue_directories(system)
    yield from _me(request.me, own)
    me = reader.load(".", ["me"]).me
    yield from _file("locals", me)
    yield from _listeners(request.listeners, by_root)
    if by_root:
        yield from _file("localusers", "passwd", "accounts of this host get mail")
    yield from _mailboxes(request.users, me, system)
    yield from _aliases(me)


def _directory(path: str, mode: int, system: System | None = None) -> Iterator[str]:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    if system is not None:
        system.give(path)
    yield f"made {path}/"


def _queue_directories(system: System | None) -> Iterator[str]:
    before = _queue_size()
    if system is None:
        paths.make_directories(".")
    else:
        before_mask = os.umask(0o007)
        with system.acting_as("mq-queue"):
            paths.make_directories(".")
        os.umask(before_mask)
    if _queue_size() != before:
        yield f"made the {_queue_size() - before} directories of queue/"


def _queue_size() -> int:
    return sum(1 + len(os.listdir(f"queue/{name}")) for name in os.listdir("queue"))


def _file(name: str, text: str, remark: str = "") -> Iterator[str]:
    """Write control file *name* unless there is one."""
    path = f"control/{name}"
    if not os.path.lexists(path):
        files.replace_file(path, f"{text}\n".encode())
        shown = text.replace("\n", ", ")
        yield f"made {path}: {shown}" + (f" ({remark})" if remark else "")


def _me(wanted: str, own: str) -> Iterator[str]:
    if wanted:
        yield from _file("me", wanted)
    else:
        yield from _file("me", own, "what this host calls itself; edit it if others know it by"
                         " another name")
    found = reader.load(".", ["me"]).me
    if wanted not in ("", found):
        complain("mq-setup", f"control/me stays as it is: {found}, not {wanted}")


def _ask_host() -> str:
    """Before we give up root: this imports, and may read what only root can."""
    short = socket.gethostname()
    try:
        return own_name(socket.getfqdn(), short)
    except UnicodeError:   # a name that cannot even be asked for, such as a..b
        return own_name("", short)


def own_name(full: str, short: str) -> str:
    """The best of what the host calls itself that has the form of a full name."""
    for name in (full, short, f"{short}.localdomain"):
        try:
            if not name.startswith("localhost"):
                return values.fqdn(name)
        except ValueError:
            continue
    return HOSTNAME_UNKNOWN


def _listeners(wanted: list[str], by_root: bool) -> Iterator[str]:
    if wanted:
        yield from _file("listeners", "\n".join(wanted))
    elif by_root:
        yield from _file("listeners", "0.0.0.0:25", "SMTP's port; add [::]:25 for IPv6")
    else:
        yield from _file("listeners", "127.0.0.1:2525", "not root, so not port 25; --listen or edit it")
    found = reader.load(".", ["listeners"]).listeners
    if wanted and [listeners.parse_line(text) for text in wanted] != list(found):
        complain("mq-setup", f"control/listeners stays as it is, not {', '.join(wanted)}: edit it")


def _mailboxes(names: list[str], me: str, system: System | None) -> Iterator[str]:
    """A line in users and a Maildir for each name; postmaster if there is no user at all."""
    found = reader.load(".", ["users"]).users
    if not names and not _first_user(found):
        names = ["postmaster"]
    complete = [address.parse_address(name if "@" in name else f"{name}@{me}") for name in names]
    wanted = list({address.lower_ascii(one): one for one in complete}.values())
    new = [one for one in wanted if found.lookup(one) is None]
    if new:
        found = _add_users(new)
        yield from [f"added {one} to control/users" for one in new]
    for one in wanted:
        yield from _mailbox(f"mail/{found.lookup(one)}", system)


def _add_users(new: list[str]) -> users.Users:
    """Append lines to users, leaving what is there as it is."""
    path, mode = "control/users", 0o644
    try:
        mode = os.stat(path).st_mode & 0o7777
        content = files.read_bounded(path, reader.LARGEST)
    except FileNotFoundError:
        content = b""
    if content and content[-1:] != b"\n":
        content += b"\n"
    content += "".join([f"{one}\n" for one in new]).encode()
    try:
        found: users.Users = lines.parse(path, content, users.parse_users, "")
    except BadFile as error:
        raise Permanent(f"--user: would make {error.text}") from None
    files.replace_file(path, content, mode)
    return found


def _mailbox(path: str, system: System | None) -> Iterator[str]:
    list(_directory(path, 0o700, system))
    if system is None:
        yield from _maildir(path)
    else:
        with system.acting_as("mq-local"):
            yield from list(_maildir(path))


def _maildir(path: str) -> Iterator[str]:
    is_new = list(_directory(f"{path}/Maildir", 0o700))
    for name in ("cur", "new", "tmp"):
        is_new += _directory(f"{path}/Maildir/{name}", 0o700)
    if is_new:
        yield f"made {path}/Maildir/"


def _aliases(me: str) -> Iterator[str]:
    """postmaster, mailer-daemon and abuse must reach a person (RFC 5321 4.5.1, RFC 2142)."""
    found = reader.load(".", ["users"]).users
    local, _, domain = _first_user(found).rpartition("@")
    targets = {"postmaster": local if domain == address.lower_ascii(me) else f"{local}@{domain}",
               "mailer-daemon": "postmaster", "abuse": "postmaster"}
    text = "\n".join([f"{name}: {target}" for name, target in targets.items()
                      if found.lookup(f"{name}@{me}") is None])
    yield from _file("aliases", text)


def _first_user(found: users.Users) -> str:
    """The first address with a mailbox of its own, "" if there is none."""
    for domain, names in found.domains.items():
        for local in names:
            if local:
                return f"{address.quote_local(local)}@{domain}"
    return ""
