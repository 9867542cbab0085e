"""Put a mail message into the queue.

Usage: mq-inject [--home DIR] [-aAhHnN] [-f SENDER] [RECIPIENT ...]
       mq-inject --help | --version

  -A         send to the RECIPIENTs, or without any to those in the header (default)
  -a         send to the RECIPIENTs only
  -h         send to the recipients in the header only
  -H         send to both
  -f SENDER  envelope sender, instead of Return-Path's and the user's
  -n         print the completed message, do not queue it
  -N         queue it (default)
  --home     the system's home (default: MQMAIL_HOME, or /var/mqmail)

The message is read from standard input. See mq-inject(8).
"""

from __future__ import annotations

import os

from mqmail.base import files, options
from mqmail.base.failure import Usage
from mqmail.net import inject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.mail.complete import Completed, Settings


def main(arguments: list[str]) -> int:
    """Returns 0; Failures carry 100 (permanent) and 111 (temporary)."""
    home, answer, rest = inject.leading(arguments, __doc__ or "")
    if answer:
        files.write_all(1, answer.encode())
        return 0
    found, recipients = options.parse(rest, "aAhHnNf:")
    source = inject.Input()
    done, pieces = inject.prepare(source, _settings(home, found, recipients))
    if _last(found, "nN", "N") == "n":
        _print(done, pieces)
    else:
        inject.queue(home, done, pieces)
    return 0


def _last(found: list[tuple[str, str]], letters: str, default: str) -> str:
    """Of options that exclude each other the last one counts."""
    return next((letter for letter, _ in reversed(found) if letter in letters), default)


def _settings(home: str, found: list[tuple[str, str]], recipients: list[str]) -> Settings:
    known = inject.settings(home, os.environ)
    strategy = _last(found, "aAhH", "A")
    if strategy == "A":
        strategy = "a" if recipients else "h"
    if strategy == "h":
        recipients = []
    sender = next((text for letter, text in reversed(found) if letter == "f"), None)
    return known.replace(
        sender=None if sender is None else inject.one_address("-f", sender, known.hosts),
        recipients=tuple([_recipient(text, known) for text in recipients]),
        from_header=strategy != "a")


def _recipient(text: str, known: Settings) -> str:
    whole = inject.one_address("recipient", text, known.hosts)
    if not whole:
        raise Usage("a recipient on the command line is empty")
    return whole


def _print(done: Completed, pieces: Iterator[bytes]) -> None:
    """On descriptor 1, with LF line ends; what is fed is cut between lines, so CRLF never is."""
    files.write_all(1, f"Return-Path: <{done.sender}>\n".encode("utf-8", "surrogateescape"))
    for piece in pieces:
        files.write_all(1, piece.replace(b"\r\n", b"\n"))
