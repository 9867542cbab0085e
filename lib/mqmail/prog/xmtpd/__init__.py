"""xmtpd: the face to the network. Takes mail by ESMTP or LMTP.

Usage:
  xmtpd [--home DIR] [--role ROLE] [--set NAME] [--destination NAME] [--lmtp] [--local]
  xmtpd [--home DIR] [--role ROLE] [--set NAME] [--destination NAME] [--lmtp]
        --listen [ADDR:PORT] ... [--listen-fd N] ... [--ready-fd N]
  xmtpd [--home DIR] [--role ROLE] [--set NAME] [--destination NAME] [--lmtp]
        --listen-fd N ... [--ready-fd N]
  xmtpd --help | --version

Without --listen or --listen-fd: one session on descriptors 0 and 1, for tcpserver, s6 and inetd.

Options:
  --home DIR            the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --role ROLE           mx, submission, submissions or lmtp, where control/listeners does not say it
  --set NAME            an option set of control/optionsets, where control/listeners does not say it
  --destination NAME    a destination for all mail, where control/listeners does not say it
  --lmtp                the same as --role lmtp
  --local               the client is the local user who starts this (sendmail -bs)
  --listen [ADDR:PORT]  serve many sessions there (default: control/listeners)
  --listen-fd N         descriptor N is a bound, listening socket: serve many sessions there
  --ready-fd N          with --listen[-fd]: write a newline to descriptor N once connections are accepted
  --help                this text
  --version             print the version

See xmtpd(8).
"""

from __future__ import annotations

from mqmail import __version__
from mqmail.base import files, homes
from mqmail.base.failure import Usage
from mqmail.base.value import value
from mqmail.control.listeners import Listener, check_destination
from mqmail.control.optionsets import ROLES

_WITH_VALUES = ("--home", "--role", "--set", "--destination", "--listen", "--listen-fd", "--ready-fd")


@value
class Options:
    """The command line. *role*, *set* and *destination* "": not given. *listen* and *sockets*: the
    addresses and descriptors given, *listens* whether --listen or --listen-fd was."""

    home: str
    role: str
    set: str
    destination: str
    local: bool
    listens: bool
    listen: tuple[str, ...]
    sockets: tuple[int, ...]
    ready_fd: int | None

    def listener(self) -> Listener:
        """Of clients of whom control/listeners says nothing."""
        return Listener(role=self.role or "mx", options=self.set, destination=self.destination)


def main(argv: list[str]) -> int:
    """Serve one session, or listen until TERM. docopt would double the time that one session takes."""
    if "--help" in argv or "--version" in argv:
        files.write_all(1, (__doc__ if "--help" in argv else f"mqmail {__version__}\n").encode())
        return 0
    options = parse(argv)
    if options.listens:
        from mqmail.prog.xmtpd.listener import serve
    else:
        from mqmail.prog.xmtpd.single import serve
    return serve(options)


def parse(argv: list[str]) -> Options:
    """Raises Usage."""
    words = list(argv)
    found: dict[str, list[str]] = {}
    while words:
        name, equals, text = words.pop(0).partition("=")
        if name in ("--lmtp", "--local") and not equals:
            found[name] = []
        elif name in _WITH_VALUES:
            if not equals and words and words[0][:1] != "-":
                text = words.pop(0)
            if not text and name != "--listen":
                raise Usage(f"option {name} needs a value")
            found.setdefault(name, []).append(text)
        else:
            raise Usage(f"unknown option {name}; --help lists them")
    listens = "--listen" in found or "--listen-fd" in found
    if listens and "--local" in found:
        raise Usage("--local is for one session on descriptors 0 and 1, not for --listen")
    role = found.get("--role", ["lmtp" if "--lmtp" in found else ""])[-1]
    if role and role not in ROLES:
        raise Usage(f"--role {role}: say one of {', '.join(ROLES)}")
    return Options(homes.chosen(found.get("--home", [""])[-1]),
                   role, found.get("--set", [""])[-1], _destination(found), "--local" in found, listens,
                   tuple(found.get("--listen", ())),
                   tuple([_descriptor("--listen-fd", text) for text in found.get("--listen-fd", ())]),
                   _descriptor("--ready-fd", found["--ready-fd"][-1]) if "--ready-fd" in found else None)


def _destination(found: dict[str, list[str]]) -> str:
    if "--destination" not in found:
        return ""
    if "--local" in found:
        raise Usage("--destination is not for --local: a user's mail goes to destination new")
    try:
        return check_destination(found["--destination"][-1])
    except ValueError as error:
        raise Usage(f"--{error}") from None


def _descriptor(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) > 0):
        raise Usage(f"{name} {text}: say the number of an open descriptor")
    return int(text)
