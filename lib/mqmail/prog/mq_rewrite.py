"""mq-rewrite: tells what becomes of an address by control/rewrite, and why; or rewrites a message.

Usage:
  mq-rewrite [--home DIR] [--all] ADDRESS ...
  mq-rewrite [--home DIR] --message
  mq-rewrite --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --all           print each key that is looked up too
  --message       print the message on the standard input with its header rewritten
  --help          this text

It reads the files of the home as they are now, and changes nothing. Whether a message is rewritten says
rewrite= in control/optionsets; here it is in any case.
"""

from __future__ import annotations

import os

from mqmail.base.failure import Usage
from mqmail.base.files import write_all
from mqmail.control import reader
from mqmail.control.optionsets import REWRITES
from mqmail.mail import crlf
from mqmail.mail.address import BadAddress, parse_address
from mqmail.net import daemon
from mqmail.net.owner import become_owner, owner_of
from mqmail.policy import known, rewrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.policy.rewrite import Rewriter

_KINDS = (("sender", rewrite.FROM), ("recipient", rewrite.TO))
_PIECE = 1 << 16


def main(argv: list[str]) -> int:
    """Print."""
    home, _, found = daemon.arguments(__doc__, argv)
    words: list[str] = found["ADDRESS"]             # type: ignore[assignment]
    addresses = [_address(text) for text in words]
    reader.preload()
    known.import_late()
    daemon.enter(home)
    become_owner(owner_of("."))
    rewriter = rewrite.make(reader.load(".", rewrite.CONTROL), {})
    if found["--message"]:
        _pass(rewriter)
    for address in addresses:
        for line in _explained(rewriter, address, bool(found["--all"])):
            write_all(1, f"{line}\n".encode("utf-8", "backslashreplace"))
    return 0


def _address(text: str) -> str:
    try:
        return parse_address(text)
    except BadAddress as error:
        raise Usage(f"{text}: {error}") from None


def _explained(rewriter: Rewriter, address: str, everything: bool) -> Iterator[str]:
    """What becomes of it as a sender's, and as a recipient's."""
    for kind, tag in _KINDS:
        tried: list[str] = []
        entry = rewriter.find(address, tag, tried.append)
        if everything:
            yield from [f"{kind}: looked up {key}" for key in tried]
        if entry is None:
            yield f"{kind}: {address} (no entry)"
        else:
            new = rewrite.replaced(address, entry)
            yield f"{kind}: {new} ({entry.path}: {entry.key} {entry.replacement})"


def _pass(rewriter: Rewriter) -> None:
    """Standard input to standard output; lines end in LF there."""
    lines, header = crlf.Body(), rewriter.header_filter(REWRITES)
    assert header is not None
    while piece := os.read(0, _PIECE):
        _print(header.feed(lines.feed(piece)))
    _print(header.feed(lines.end()) + header.end())


def _print(piece: bytes) -> None:
    write_all(1, piece.replace(b"\r", b""))     # which is nowhere but in CRLF
