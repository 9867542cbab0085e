"""Delivery instructions as dot-qmail(5) has them: what a .qmail file says, which file speaks for an
extension, who the sender of a list's copies is, and what a command finds in its environment.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.mail import address, date

LARGEST_FILE = 65536
LONGEST_LINE = 4096
MOST_FORWARDS = 1000
MOST_OTHERS = 100

DEFAULT_DELIVERY = "./Maildir/"
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class BadInstructions(ValueError):
    """A .qmail file cannot be followed; the text is ``line 3: what is wrong``."""


@value
class Instruction:
    """One delivery. *kind* is ``maildir``, ``mbox``, ``command`` or ``forward``; *text* the file
    name, the shell's command or the address."""

    kind: str
    text: str


def parse(data: bytes, host: str) -> tuple[Instruction, ...]:
    """The instructions of a .qmail file, in order; an empty file is the default delivery.

    A forward without ``@`` gets *host*, the recipient's own domain. Raises BadInstructions for
    anything that is not understood, so that a mistake defers the mail before any of it is done.
    """
    if not data:
        return (Instruction("maildir", DEFAULT_DELIVERY),)
    if len(data) > LARGEST_FILE:
        raise BadInstructions(f"is larger than {LARGEST_FILE} bytes")
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            instruction = _line(line.rstrip(b" \t\r"), number, host)
        except ValueError as error:
            raise BadInstructions(f"line {number}: {error}") from None
        if instruction is not None:
            found.append(instruction)
    _check_counts(found)
    return tuple(found)


def _line(raw: bytes, number: int, host: str) -> Instruction | None:
    if len(raw) > LONGEST_LINE:
        raise ValueError(f"longer than {LONGEST_LINE} bytes")
    if b"\0" in raw:
        raise ValueError("NUL byte")
    line = raw.decode("utf-8", "surrogateescape")
    first = line[:1]
    if first == "" and number == 1:
        raise ValueError("the first line is blank")
    if first in ("", "#"):
        return None
    if first == "|":
        return Instruction("command", line[1:])
    if first in "./":
        return Instruction("maildir" if line[-1] == "/" else "mbox", line)
    if first == "&" or first in _WORD:
        return Instruction("forward", _forward(line.removeprefix("&"), host))
    raise ValueError(f"unknown instruction {line[:40]!a}")


def _forward(text: str, host: str) -> str:
    qualified = text if "@" in text else f"{text}@{host}"
    try:
        return address.parse_address(qualified)
    except address.BadAddress as error:
        raise ValueError(f"bad address {text[:80]!a}: {error}") from None


def _check_counts(found: list[Instruction]) -> None:
    forwards = sum([instruction.kind == "forward" for instruction in found])
    if forwards > MOST_FORWARDS:
        raise BadInstructions(f"more than {MOST_FORWARDS} forwards")
    if len(found) - forwards > MOST_OTHERS:
        raise BadInstructions(f"more than {MOST_OTHERS} files and programs")


def safe_ext(ext: str) -> str:
    """*ext* as it stands in file names: lower case, dots are colons. Raises ValueError for what no
    file name holds. No result has a dot in it, so none leads out of the home."""
    if "/" in ext or "\0" in ext:
        raise ValueError("an extension holds no slash")
    return address.lower_ascii(ext).replace(".", ":")


def candidates(dash: str, ext: str) -> list[tuple[str, str | None]]:
    """The files that may speak for an extension, best first, each with the value of DEFAULT, the
    part of *ext* that ``default`` stands for (None for the file of exactly this name).

    Whatever the delimiter was, the names have a dash. ValueError as safe_ext."""
    if not dash:
        return [(".qmail", None)]
    safe = safe_ext(ext)
    names: list[tuple[str, str | None]] = [(f".qmail-{safe}", None)]
    for end in range(len(safe), -1, -1):
        if end == 0 or safe[end - 1] == "-":
            names.append((f".qmail-{safe[:end]}default", ext[end:]))
    return names


def owner_file(dash: str, ext: str) -> str:
    """The file whose existence makes ``local-owner@host`` the sender of this address's copies;
    with ``-default`` after it, the one that asks for a sender per recipient (VERP)."""
    return f".qmail-{safe_ext(ext)}-owner" if dash else ".qmail-owner"


def host_of(recipient: str) -> str:
    """What stands behind the ``@``, "" without one."""
    return recipient.rpartition("@")[2] if "@" in recipient else ""


def owner_sender(recipient: str, forward: str = "") -> str | None:
    """``list-owner@host``; with *forward*, ``list-owner-bob=example.org@host``. None where that is
    longer than an address may be (RFC 5321 4.5.3.1.1)."""
    owner = address.local_of(recipient) + "-owner"
    if forward:
        owner += f"-{address.local_of(forward)}={host_of(forward)}"
    try:
        return address.parse_address(f"{address.quote_local(owner)}@{host_of(recipient)}")
    except address.BadAddress:
        return None


def command_sender(recipient: str, owned: bool, per_recipient: bool) -> str | None:
    """NEWSENDER of an address with an owner; ``list-owner-@host-@[]`` is qmail's way to say that each
    recipient gets its own. None without an owner."""
    if not owned or not per_recipient:
        return owner_sender(recipient) if owned else None
    local = address.quote_local(address.local_of(recipient) + "-owner-")
    return f"{local}@{host_of(recipient)}-@[]"


def _line_safe(text: str) -> str:
    """No control character: none ends a header line or hides in a log."""
    return "".join(["_" if char < " " or char == "\x7f" else char for char in text])


def delivered_to(recipient: str) -> str:
    """The line that marks a delivered copy, LF included."""
    return f"Delivered-To: {_line_safe(recipient)}\n"


def return_path(sender: str) -> str:
    """The envelope sender as a field, LF included (RFC 5321 section 4.4)."""
    return f"Return-Path: <{_line_safe(sender)}>\n"


def from_line(sender: str, seconds: float) -> str:
    """The line that starts a message in an mbox: ``From a@b Sat Jan 03 01:05:34 1996``, UTC, LF
    included. White space in the sender becomes a dash, no sender is MAILER-DAEMON."""
    who = "".join(["-" if char in " \t\n" else char for char in sender]) or "MAILER-DAEMON"
    weekday, day, month, year, clock, _ = date.format_date(seconds).split()
    return f"From {_line_safe(who)} {weekday[:3]} {month} {day:0>2} {clock} {year}\n"


def environment(user: str, home: str, ext: str, default: str | None, sender: str, new_sender: str,
                recipient: str, seconds: float) -> dict[str, str]:
    """What a command of *recipient* finds in its environment (qmail-command(8)).

    SENDER, NEWSENDER and RECIPIENT are written as in SMTP, LOCAL and EXT without quotes. *default*
    None: there is no DEFAULT. *seconds* since the epoch is the time of UFLINE.
    """
    local, host = address.local_of(recipient), host_of(recipient)
    found = {"SENDER": sender, "NEWSENDER": new_sender, "RECIPIENT": recipient, "USER": user,
             "HOME": home, "LOCAL": local, "HOST": host, "EXT": ext}
    for number in ("2", "3", "4"):
        ext = ext.partition("-")[2]
        host = host.rpartition(".")[0] or host
        found["EXT" + number], found["HOST" + number] = ext, host
    if default is not None:
        found["DEFAULT"] = default
    found = {name: _harmless(text) for name, text in found.items()}
    found.update(DTLINE=delivered_to(recipient), RPLINE=return_path(sender),
                 UFLINE=from_line(sender, seconds))
    return found


def _harmless(text: str) -> str:
    """Strangers choose these values, and an old bash runs what stands behind ``() {`` at the start of
    one (CVE-2014-6271). A space in front ends that. Leaving the variable out would be worse: to
    many a script an empty EXT means something else, and a wrong one means nothing."""
    return " " + _line_safe(text) if text.startswith("()") else _line_safe(text)
