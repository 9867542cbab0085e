"""A local user's message into the queue: what mq-inject and sendmail have in common.

Reads descriptor 0, the environment and the home's control files, leaves the rules to
mail/complete.py, and hands the message to mqmail.net.submit.
"""

from __future__ import annotations

import io
import os
import time

from mqmail import __version__
from mqmail.base import homes
from mqmail.base.failure import Usage
from mqmail.control import reader
from mqmail.mail import address, header, mailboxes
from mqmail.mail.complete import Completed, Settings, complete
from mqmail.mail.crlf import Body
from mqmail.mail.mailboxes import Hosts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PIECE = 65536
LOOKED_AT = 4 * PIECE    # how much of a body is read before the queue is asked

_HOST_VARIABLES = {"defaulthost": "QMAILDEFAULTHOST", "defaultdomain": "QMAILDEFAULTDOMAIN",
                   "plusdomain": "QMAILPLUSDOMAIN", "idhost": "QMAILIDHOST"}


def leading(arguments: list[str], usage: str) -> tuple[str, str, list[str]]:
    """(home, what --help or --version has to say or "", the other arguments). ``--home DIR`` stands
    before all one-letter options; without it MQMAIL_HOME counts."""
    home, rest = homes.chosen(), arguments
    while rest and rest[0][:2] == "--" and rest[0] != "--":
        word, equals, text = rest[0].partition("=")
        if word == "--help":
            return home, usage, rest[1:]
        if word == "--version":
            return home, f"mqmail {__version__}\n", rest[1:]
        if word != "--home":
            raise Usage(f"unknown option {word}; --help lists them")
        if not equals:
            text, rest = rest[1] if len(rest) > 1 else "", rest[1:]
        if not text:
            raise Usage("option --home needs a directory")
        home, rest = text, rest[1:]
    return home, "", rest


def settings(home: str, environ: Mapping[str, str]) -> Settings:
    """What control files, environment and the password database say about this message."""
    names = _host_names(home, environ)
    idhost = names.pop("idhost")
    user, full_name = _user(environ)
    host = _first(environ, "QMAILHOST", "MAILHOST")
    now = time.time()
    return Settings(
        hosts=Hosts(**names), idhost=idhost, user=user, host=host,
        name=_first(environ, "QMAILNAME", "MAILNAME", "NAME") or full_name,
        sender_user=_first(environ, "QMAILSUSER"), sender_host=_first(environ, "QMAILSHOST"),
        letters=environ.get("QMAILINJECT", ""), seconds=now,
        offset=time.localtime(now).tm_gmtoff // 60, pid=os.getpid())


def _host_names(home: str, environ: Mapping[str, str]) -> dict[str, str]:
    control = reader.load(home, _HOST_VARIABLES)
    names = {}
    for name, variable in _HOST_VARIABLES.items():
        names[name] = environ.get(variable) or control[name]
        try:
            address.check_domain(names[name].removesuffix("+"))
        except address.BadAddress as error:
            raise Usage(f"{variable}={names[name][:80]!a}: {error}") from None
    return names


def _first(environ: Mapping[str, str], *variables: str) -> str:
    return next((environ[name] for name in variables if environ.get(name)), "")


def _user(environ: Mapping[str, str]) -> tuple[str, str]:
    """(user name, full name or ""). Programs without USER (cron's, daemons') get the account's."""
    user = _first(environ, "QMAILUSER", "MAILUSER", "USER", "LOGNAME")
    if user:
        return user, ""
    import pwd
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:
        return "anonymous", ""
    return account.pw_name, account.pw_gecos.partition(",")[0].replace("&", account.pw_name.capitalize())


class Input:
    """Descriptor 0, bounded in what it reads at a time. With *dot_ends* a line with nothing but a dot
    is its end, as in old mail programs."""

    def __init__(self, dot_ends: bool = False) -> None:
        self._file = io.BufferedReader(io.FileIO(0, closefd=False), PIECE)
        self._dot_ends = dot_ends
        self._at_start = True
        self._ended = False

    def readline(self, limit: int) -> bytes:
        """A line, or its first *limit* bytes, or the rest of it; b"" at the end."""
        if self._ended:
            return b""
        line = self._file.readline(limit)
        if self._dot_ends and self._at_start and line in (b".", b".\n", b".\r\n"):
            line = b""
        self._ended = not line
        self._at_start = line.endswith(b"\n")
        return line

    def pieces(self) -> Iterator[bytes]:
        """All that has not been read yet."""
        read: Callable[[int], bytes] = self.readline if self._dot_ends else self._file.read1
        while piece := read(PIECE):
            yield piece


def prepare(source: Input, known: Settings) -> tuple[Completed, Iterator[bytes]]:
    """Read the header. Returns (header, sender and recipients; all of the message in the form the queue
    wants it, read as it is asked for). Raises Permanent as header.read and complete do."""
    fields, first = header.read(source.readline)
    done = complete(fields, known)
    return done, _message(done.header, first, source)


def _message(top: bytes, first: bytes, source: Input) -> Iterator[bytes]:
    yield top + b"\r\n"
    body = Body()
    yield body.feed(first)
    for piece in source.pieces():
        yield body.feed(piece)
    yield body.end()


def queue(home: str, done: Completed, pieces: Iterator[bytes], *, ret: str = "", envid: str = "",
          notify: str = "") -> str:
    """Give the message to mq-queue; returns its queue id. Raises Temporary or Permanent.

    Whether it has 8-bit text is looked up if it is small, and supposed if it is large. SMTPUTF8
    is asked for when an address of the envelope needs it; a header in UTF-8 alone just travels.
    """
    from mqmail.net.submit import submit
    head, size = [], 0
    for piece in pieces:
        head.append(piece)
        size += len(piece)
        if size > LOOKED_AT:
            break
    utf8 = any(address.needs_utf8(one) for one in (done.sender, *done.recipients))
    eightbit = size > LOOKED_AT or not all(piece.isascii() for piece in head)
    return submit(home, done.sender, list(done.recipients), _both(head, pieces), ret=ret, envid=envid,
                  notify=notify, eightbit=eightbit, utf8=utf8)


def _both(head: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    for piece in head:
        if piece:
            yield piece
    for piece in rest:
        if piece:
            yield piece


def one_address(what: str, text: str, hosts: Hosts) -> str:
    """The address of an option; raises Usage, which names *what* it was for."""
    try:
        return mailboxes.one(text, hosts)
    except ValueError as error:
        raise Usage(f"{what} {text[:200]!a}: {error}") from None
