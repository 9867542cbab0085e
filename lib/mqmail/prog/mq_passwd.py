"""mq-passwd: sets, checks and removes the passwords of control/passwd.

Usage:
  mq-passwd [--home DIR] [--no-scram] [--readable] LOGIN
  mq-passwd [--home DIR] --check LOGIN
  mq-passwd [--home DIR] --delete LOGIN
  mq-passwd --help

Options:
  --home DIR  the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --no-scram  keep no keys for SCRAM-SHA-256: the hash alone, which is harder to guess by
  --readable  keep the password itself too, for CRAM-MD5
  --check     say by the exit code whether a password is right: 0, or 1 for no
  --delete    remove the login
  --help      this text

The password is asked for at a terminal, else it is the first line of the input.
"""

from __future__ import annotations

import binascii  # noqa: F401  these four are wanted late, when the interpreter's own files may be out of
import fcntl
import hmac  # noqa: F401                            our reach
import os
import stringprep  # noqa: F401
import termios
import unicodedata  # noqa: F401

from mqmail.auth import hashes
from mqmail.base import files
from mqmail.base.failure import BadFile, Permanent, Temporary, Usage
from mqmail.control import loginnames, passwd, reader
from mqmail.control.lines import Lines
from mqmail.net import daemon
from mqmail.net.owner import as_owner, owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.passwd import Entry

PATH = "control/passwd"
WRONG = 1               # exit code
MODE, SYSTEM_MODE = 0o600, 0o640      # in a system home mq-auth has the group
_LONGEST = 1024         # octets of a password
_LARGEST = 64 << 20


def main(argv: list[str]) -> int:
    """Change or look at one login."""
    home, _, found = daemon.arguments(__doc__, argv)
    try:
        login = loginnames.check_login(str(found["LOGIN"]))
    except ValueError as error:
        raise Usage(str(error)) from None
    daemon.enter(home)
    if found["--check"]:
        with as_owner(owner_of(".")):
            entry = reader.load(".", ["passwd"]).passwd.entry(login)
        return 0 if hashes.fits(entry, ask("Password: ")) else WRONG
    entry = None
    if not found["--delete"]:
        try:
            entry = hashes.make(_new_password(), scram=not found["--no-scram"],
                                readable=bool(found["--readable"]))
        except ValueError as error:
            raise Permanent(str(error)) from None
    with as_owner(owner_of(".")):
        change(login, entry)
    return 0


def _new_password() -> str:
    password = ask("New password: ")
    if os.isatty(0) and ask("Again: ") != password:
        raise Permanent("the two are different: nothing was changed")
    return password


def ask(prompt: str) -> str:
    """A password: from a terminal without echo, else a line of descriptor 0."""
    if os.isatty(0):
        line = _without_echo(prompt)
        os.write(2, b"\n")
    else:
        line = _line()
    try:
        return line.removesuffix(b"\n").decode()
    except UnicodeDecodeError:
        raise Permanent("the password is not UTF-8") from None


def _without_echo(prompt: str) -> bytes:
    """A line. What is typed before the prompt is thrown away, and nothing behind it."""
    before = termios.tcgetattr(0)
    silent = termios.tcgetattr(0)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSAFLUSH, silent)
    try:
        os.write(2, prompt.encode())
        return _line()
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)


def _line() -> bytes:
    """Up to its LF or the end of the input; octet by octet, for the next line may be another's."""
    line = b""
    while line[-1:] != b"\n":
        octet = os.read(0, 1)
        if not octet:
            break
        line += octet
        if len(line) > _LONGEST:
            raise Permanent(f"a password has at most {_LONGEST} bytes")
    return line


def change(login: str, entry: Entry | None) -> None:
    """Write the file anew with *entry* as that of *login*, None: without one. All other lines stay as
    they are. Raises BadFile when the file has a mistake, Permanent when there is nothing to remove."""
    held = os.open("control", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)        # of two at a time none is lost
        reader.load(".", ["passwd"])            # mistakes are mended by hand
        data, mode, gid = _read()
        lines = data.removesuffix(b"\n").split(b"\n") if data else []
        kept = [line for line in lines if login_of(line) != login]
        if entry is None and kept == lines:
            raise Permanent(f"there is no login {login}")
        if entry is not None:
            kept.append(passwd.encode(login, entry).encode())
        files.replace_file(PATH, b"".join([line + b"\n" for line in kept]), mode)
        if os.stat(PATH).st_gid != gid >= 0:
            os.chown(PATH, -1, gid)
        os.chmod(PATH, mode)
    finally:
        os.close(held)


def _read() -> tuple[bytes, int, int]:
    """(content, mode, group or -1) of the file, which may not be there yet."""
    try:
        found = os.stat(PATH)
        return files.read_bounded(PATH, _LARGEST), found.st_mode & 0o777, found.st_gid
    except FileNotFoundError:
        if os.stat(".").st_uid == 0:        # a system home
            return b"", SYSTEM_MODE, reader.load(".", ["accounts"]).accounts.of("mq-auth").gid
        return b"", MODE, -1
    except OSError as error:
        raise Temporary(f"{PATH}: {error.strerror}") from None


def login_of(line: bytes) -> str:
    """The login that *line* of the file is about; "" for none."""
    try:
        text = "".join(Lines(line))
    except (ValueError, BadFile):
        return ""
    return loginnames.fold(text.partition(":")[0]) if ":" in text else ""
