"""Send mail: what programs call that expect sendmail(8).

Usage: sendmail [--home DIR] [options] [--] RECIPIENT ...
       sendmail [--home DIR] [options] -t [--] [RECIPIENT ...]
       sendmail [--home DIR] -bs | -bp | -bi | -q
       sendmail --help | --version
       mailq | newaliases

  -t            send also to the recipients in the header
  -i, -oi       a line with a lone dot does not end the message
  -f, -r ADDR   envelope sender
  -F NAME       the sender's full name
  -N DSN        never, or a comma list of failure, delay, success
  -R RET        full or hdrs: what of the message a report returns
  -V ENVID      envelope id for reports
  -v            print the queue id
  -bm           read a message (default)
  -bs           speak SMTP on standard input and output
  -bp           list the queue (mailq)
  -bi           nothing, there is no alias database (newaliases)
  -q            try all waiting mail now
  -A -B -C -G -L -O -U -X -e -h -m -n -p and other -o are accepted and ignored

See sendmail(8).
"""

from __future__ import annotations

import os
import sys

from mqmail.base import files, options, program, unix
from mqmail.base.failure import EXIT_TEMPORARY, Failure, Permanent, Temporary, Usage
from mqmail.mail import mailboxes
from mqmail.net import inject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.mail.complete import Settings

# sysexits(3), as callers of sendmail know them
EX_USAGE, EX_DATAERR, EX_NOUSER, EX_UNAVAILABLE, EX_TEMPFAIL, EX_NOPERM = 64, 65, 67, 69, 75, 77

LETTERS = "A:B:C:F:GIL:N:O:R:UV:X:b:e:f:h:imno:p:q::r:tv"
NOTIFY = ("failure", "delay", "success")
LONGEST_ENVID = 100      # RFC 3461 4.4, as xtext


def main(arguments: list[str]) -> int:
    """Returns a code of sysexits(3): whatever may work later, our bugs too, is 75."""
    code = program.run(_name(), _guarded, arguments)
    return EX_TEMPFAIL if code == EXIT_TEMPORARY else code


def _name() -> str:
    return os.path.basename(sys.argv[0])


def _guarded(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except Failure as failure:
        program.complain(_name(), failure.text)
        return sysexit(failure)


def sysexit(failure: Failure) -> int:
    """The code for a failure, by its kind and its status (RFC 3463: 1 address, 5 protocol, 6 and
    3.4 the message, 7 policy)."""
    if isinstance(failure, Usage):
        return EX_USAGE
    if not isinstance(failure, Permanent):
        return EX_TEMPFAIL
    if failure.status in ("5.1.1", "5.1.2", "5.1.6", "5.1.10"):
        return EX_NOUSER
    if failure.status.startswith(("5.1.", "5.5.", "5.6.")) or failure.status == "5.3.4":
        return EX_DATAERR
    return EX_NOPERM if failure.status.startswith("5.7.") else EX_UNAVAILABLE


def _run(arguments: list[str]) -> int:
    home, answer, rest = inject.leading(arguments, __doc__ or "")
    if answer:
        files.write_all(1, answer.encode())
        return 0
    found, recipients = options.parse(rest, LETTERS)
    mode = _mode(found)
    if mode == "s":
        return _exec("xmtpd", ["--home", home, "--local"])
    if mode == "p":
        return _exec("mq-qread", ["--home", home])
    if mode == "q":
        _run_queue(home)
    elif mode == "m":
        _send(home, found, recipients)
    return 0


def _mode(found: list[tuple[str, str]]) -> str:
    """m, s, p, i or q; Usage for what sendmails of other systems do and this one does not."""
    mode = {"mailq": "p", "newaliases": "i"}.get(_name(), "m")
    for letter, text in found:
        if letter == "b":
            if text not in ("m", "s", "p", "i"):
                raise Usage(f"-b{text} is not supported; --help lists what is")
            mode = text
        elif letter == "I":
            mode = "i"
        elif letter == "q":
            if text:
                raise Usage(f"-q{text} is not supported: -q alone tries all waiting mail now")
            mode = "q"
    return mode


def _exec(tool: str, arguments: list[str]) -> int:
    """Become another of our programs, which lies beside this one."""
    directory = os.path.dirname(os.path.realpath(sys.argv[0]))
    os.execv(f"{directory}/{tool}", [tool, *arguments])
    return 0


def _run_queue(home: str) -> None:
    path = f"{home}/run/trigger"
    try:
        sock = unix.connect(path, unix.SOCK_DGRAM, timeout=10)
        sock.send(b"*run")
    except OSError as error:
        raise Temporary(f"mq-send does not run here, or does not listen to you:"
                        f" {path}: {error.strerror or error}") from None
    sock.close()


def _send(home: str, found: list[tuple[str, str]], recipients: list[str]) -> None:
    given = dict(found)
    if "t" not in given and not recipients:
        raise Usage("name recipients on the command line, or use -t to take them from the header")
    dot_ends = not any([_is_dotless(letter, text) for letter, text in found])
    report = {"notify": _notify(given), "ret": _ret(given), "envid": _envid(given)}
    source = inject.Input(dot_ends)
    done, pieces = inject.prepare(source, _settings(home, found, recipients))
    queue_id = inject.queue(home, done, pieces, **report)
    if "v" in given:
        files.write_all(1, f"queued as {queue_id}\n".encode())


def _is_dotless(letter: str, text: str) -> bool:
    """``-i``, ``-oi``, ``-oitrue``, ``-O IgnoreDots=true``."""
    if letter == "O":
        return text.lower() in ("ignoredots", "ignoredots=true")
    return letter == "i" or (letter == "o" and text[:1] == "i")


def _settings(home: str, found: list[tuple[str, str]], recipients: list[str]) -> Settings:
    known = inject.settings(home, os.environ)
    sender = next((text for letter, text in reversed(found) if letter in "fr"), None)
    return known.replace(
        sender=None if sender is None else inject.one_address("-f", sender, known.hosts),
        name=dict(found).get("F") or known.name,
        recipients=tuple([one for text in recipients for one in _addresses(text, known)]),
        from_header=("t", "") in found)


def _addresses(text: str, known: Settings) -> list[str]:
    """An argument may be a list with names, as in a To field."""
    try:
        found = [one for one in mailboxes.complete(text, known.hosts)[1] if one]
    except ValueError as error:
        raise Usage(f"recipient {text[:200]!a}: {error}") from None
    if not found:
        raise Usage(f"recipient {text[:200]!a}: no address in it")
    return found


def _notify(given: dict[str, str]) -> str:
    words = list(dict.fromkeys(given.get("N", "").lower().split(",")))
    if words not in ([""], ["never"]) and not set(words) <= set(NOTIFY):
        raise Usage("-N is followed by never, or by some of failure,delay,success")
    return ",".join(words)


def _ret(given: dict[str, str]) -> str:
    text = given.get("R", "").lower()
    if text not in ("", "full", "hdrs"):
        raise Usage("-R is followed by full or hdrs")
    return text


def _envid(given: dict[str, str]) -> str:
    text = given.get("V", "")
    if len(text) + 2 * (text.count("+") + text.count("=")) > LONGEST_ENVID \
            or not all("!" <= char <= "~" for char in text):
        raise Usage(f"-V is followed by at most {LONGEST_ENVID} printable ASCII characters, no blanks")
    return text
