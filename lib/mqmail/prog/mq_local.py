"""Deliver one message as .qmail says.

Usage: mq-local [--home DIR] [--mailbox] SENDER RECIPIENT
       mq-local --help | --version

  --mailbox    into the virtual mailbox of RECIPIENT, below DIR/mail/;
               else RECIPIENT is an address of the account that calls
  --home DIR   the system's home (default: MQMAIL_HOME, or /var/mqmail)

The message is read from standard input. One line says what became of it: delivered, forwarded,
deferred (exit code 111) or failed (100). SENDER may be empty. See mq-local(8).
"""

from __future__ import annotations

import os
import pwd

from mqmail import __version__
from mqmail.base import files, homes
from mqmail.base.failure import Failure, Permanent, Temporary, Usage
from mqmail.base.value import value
from mqmail.control import reader
from mqmail.control.whose import find_account, find_mailbox
from mqmail.local.deliver import Deferred, Delivered, Failed, Mail, Replaced, deliver
from mqmail.local.plan import User
from mqmail.local.spool import spool
from mqmail.mail import address, crlf, dotqmail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mqmail.local.deliver import Verdict

PIECE = 65536


@value
class Request:
    """The command line, checked; *sender* "" is the null sender."""

    home: str
    mailbox: bool
    sender: str
    recipient: str


def main(arguments: list[str]) -> int:
    """0 when it is delivered or forwarded, 111 when it may be later, 100 when not."""
    if arguments in (["--help"], ["--version"]):
        text = __doc__ if arguments == ["--help"] else f"mqmail {__version__}\n"
        files.write_all(1, (text or "").encode())
        return 0
    request = _request(arguments)
    if 0 in (os.getuid(), os.geteuid()):
        raise Temporary("root's mail is not delivered: call it as the user")
    try:
        word, status, text, code = _outcome(request)
    except Failure as failure:
        code = failure.exit_code
        word, status, text = "failed" if code == 100 else "deferred", failure.status, failure.text
    line = "".join([c if c.isprintable() else "?" for c in f"{word} {status} {text}"])
    files.write_all(1, line.encode("utf-8", "replace") + b"\n")
    return code


def _request(arguments: list[str]) -> Request:
    home, mailbox, rest = homes.chosen(), False, list(arguments)
    while rest and rest[0][:2] == "--":
        word, equals, text = rest.pop(0).partition("=")
        if word == "--" and not equals:
            break
        if word == "--mailbox" and not equals:
            mailbox = True
        elif word == "--home":
            home = text if equals else rest.pop(0) if rest else ""
        else:
            raise Usage(f"unknown option {word}; --help lists them")
    if len(rest) != 2 or not home:
        raise Usage("say mq-local [--home DIR] [--mailbox] SENDER RECIPIENT; --help says more")
    sender, recipient = rest
    return Request(home, mailbox, "" if sender in ("", "<>") else _address("SENDER", sender),
                   _address("RECIPIENT", recipient))


def _address(what: str, text: str) -> str:
    try:
        return address.parse_address(text)
    except address.BadAddress as error:
        raise Usage(f"{what} {text[:200]!a}: {error}") from None


def _outcome(request: Request) -> tuple[str, str, str, int]:
    """(word, status, text, exit code)."""
    user = _mailbox(request) if request.mailbox else _account(request)
    fd, size = spool(_input(), user.home)
    verdict: Verdict = deliver(user, Mail(fd, size, request.sender, request.recipient, ""))
    if isinstance(verdict, Delivered):
        return "delivered", "2.0.0", "; ".join(verdict.texts) or "thrown away as told", 0
    if isinstance(verdict, Replaced):
        return "forwarded", "2.0.0", _forward(request, verdict, fd, size), 0
    if isinstance(verdict, Deferred):
        return "deferred", verdict.status, verdict.text, 111
    assert isinstance(verdict, Failed)
    return "failed", verdict.status, verdict.text, 100


def _account(request: Request) -> User:
    """The caller, if the recipient is an address of the caller's."""
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:
        raise Temporary(f"uid {os.getuid()} has no account", "4.3.5") from None
    name = address.lower_ascii(account.pw_name)
    delimiters = reader.load(request.home, ["detaildelimiter"]).detaildelimiter
    found = find_account(address.local_of(request.recipient), {name: account.pw_dir}.get, delimiters)
    if found is None:
        raise Permanent(f"{request.recipient} is no address of {account.pw_name}", "5.1.1")
    return User(account.pw_name, account.pw_dir, found[2], found[1])


def _mailbox(request: Request) -> User:
    """The virtual mailbox of the recipient. From here on the home is the current directory."""
    os.chdir(request.home)
    control = reader.load(".", ("users", "detaildelimiter"))
    found = find_mailbox(request.recipient, control.users, control.detaildelimiter)
    if found is None:
        raise Permanent(f"{request.recipient} has no mailbox here", "5.1.1")
    directory, ext = found
    return User(directory, f"mail/{directory}", "-" if ext else "", ext, virtual=True)


def _input() -> Iterator[bytes]:
    """The message with CRLF line ends."""
    body = crlf.Body()
    while piece := os.read(0, PIECE):
        yield body.feed(piece)
    yield body.end()


def _forward(request: Request, verdict: Replaced, fd: int, size: int) -> str:
    """Put the copies into the queue, marked so that a loop is seen; says where they go."""
    from mqmail.net.session import file_pieces
    from mqmail.net.submit import submit
    mark = dotqmail.delivered_to(request.recipient).replace("\n", "\r\n").encode()
    groups: dict[str, list[str]] = {}
    for target, sender in verdict.addresses:
        groups.setdefault(request.sender if sender is None else sender, []).append(target)
    home = "." if request.mailbox else request.home
    for sender, targets in groups.items():
        submit(home, sender, targets, _marked(mark, file_pieces(fd, size)), eightbit=True)
    return " ".join([target for target, _ in verdict.addresses])


def _marked(mark: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield mark
    yield from pieces
