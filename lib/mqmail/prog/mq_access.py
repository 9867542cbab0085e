"""mq-access: tells which entry of control/access decides about a session, and why.

Usage:
  mq-access [--home DIR] [--all] FACT ...
  mq-access --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --all           print each key that is looked up too
  --help          this text

Facts: connect=IP host=NAME helo=NAME from=SENDER to=RECIPIENT tls=yes login=NAME; from=<> is the null
sender. It reads the files of the home as they are now, and changes nothing.
"""

from __future__ import annotations

import os

from mqmail.base.failure import BadFile, Usage
from mqmail.base.files import write_all
from mqmail.control import reader
from mqmail.control.access import parse_line
from mqmail.control.lines import Lines
from mqmail.control.networks import parse_ip
from mqmail.mail.address import BadAddress, parse_address, parse_path
from mqmail.net import daemon
from mqmail.net.owner import become_owner, owner_of
from mqmail.policy import access, known
from mqmail.policy.facts import Facts
from mqmail.policy.maps import Files
from mqmail.policy.stages import for_recipient, may_relay
from mqmail.policy.verdict import DEFER, DISCARD, NO_OPINION, REJECT, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.policy.maps import Maps

REFUSED, LATER = 1, 2       # exit codes: the last of to= is refused, or for now
_FACTS = ("connect", "host", "helo", "from", "to", "tls", "login")
_STAGES = {"connect": "connect", "helo": "helo", "mail": "from", "rcpt": "to"}


def main(argv: list[str]) -> int:
    """Print; mq-access(8) has the exit codes."""
    home, _, found = daemon.arguments(__doc__, argv)
    words: list[str] = found["FACT"]                # type: ignore[assignment]
    given = _given(words)
    facts = _facts(given)
    reader.preload()
    known.import_late()
    daemon.enter(home)
    become_owner(owner_of("."))
    control = reader.load(".", access.CONTROL)
    session = Session(access.table_of(control, Files("access")), control.detaildelimiter, facts,
                      bool(found["--all"]))
    said = session.go_through([stage for stage, name in _STAGES.items() if name in given
                               or (stage == "connect" and "host" in given)])
    write_all(1, "".join([f"{line}\n" for line in session.lines]).encode("utf-8", "backslashreplace"))
    return {REJECT: REFUSED, DEFER: LATER}.get(said.action, 0)


def _given(words: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in _FACTS or name in given:
            raise Usage(f"{word!a}: write {'=, '.join(_FACTS)}=, each once")
        given[name] = text
    return given


def _facts(given: dict[str, str]) -> Facts:
    facts = Facts("", ip=given.get("connect", ""))
    if facts.ip:
        try:
            parse_ip(facts.ip)
        except ValueError as error:
            raise Usage(f"connect={error}") from None
    facts.host, facts.helo = given.get("host", ""), given.get("helo", "")
    facts.tls, facts.login = _tls(given.get("tls", "no")), given.get("login", "")
    facts.sender = _address("from", given.get("from", ""))
    facts.recipient = _address("to", given.get("to", ""))
    return facts


def _tls(text: str) -> str:
    if text not in ("yes", "no"):
        raise Usage(f"tls={text}: write yes or no")
    return text if text == "yes" else ""


def _address(name: str, text: str) -> str:
    try:
        if text[:1] == "<" or text.lower() == "postmaster":
            return parse_path(text if text[:1] == "<" else f"<{text}>").address
        return parse_address(text) if text else ""
    except BadAddress as error:
        raise Usage(f"{name}={text}: {error}") from None


class Session:
    """What the access map says to *facts*; ``lines`` tell it."""

    def __init__(self, table: Maps, delimiters: str, facts: Facts, everything: bool) -> None:
        self._table = table
        self._delimiters = delimiters
        self._facts = facts
        self._everything = everything
        self.lines: list[str] = []

    def go_through(self, stages: list[str]) -> Verdict:
        """All *stages*, in order. The last one's verdict; a recipient's is what the client hears."""
        said = NO_OPINION
        for stage in stages:
            said = self._one(stage)
            if stage != "rcpt":
                self._facts.said[stage] = said
        if stages[-1:] == ["rcpt"]:
            relays = may_relay(self._facts, said)
            said = for_recipient(self._facts, said)
            self._tell_outcome(said, relays)
        return said

    def _one(self, stage: str) -> Verdict:
        tried: list[str] = []
        entry = access.find(self._table, stage, self._facts, self._delimiters, tried.append)
        name = access.TAGS[stage]
        if self._everything:
            self.lines += [f"{name}: looked up {key}" for key in tried]
        if entry is None:
            self.lines.append(f"{name}: no entry")
            return NO_OPINION
        said = access.judged(entry, self._facts, stage)
        self.lines.append(f"{name}: {_place(entry)}: {entry.key} {entry.action}")
        if said.action == REJECT and access.parsed(entry).verb != REJECT:
            self.lines.append(f"{name}: what REQUIRE wants is not there")
        return said

    def _tell_outcome(self, said: Verdict, relays: bool) -> None:
        if said.action in (REJECT, DEFER) and said.reply is not None:
            self.lines.append(f"so: {said.reply.said()}")
        elif said.action == DISCARD:
            self.lines.append("so: taken and thrown away")
        else:
            anywhere = ", and may be anywhere" if relays else ""
            self.lines.append(f"so: passed on to mq-resolve{anywhere}")


def _place(entry: access.Entry) -> str:
    """The file, and the line of a text."""
    if os.path.splitext(entry.path)[1]:
        return entry.path
    with open(entry.path, "rb") as file:
        lines = Lines(file.read(reader.LARGEST))
    for line in lines:
        try:
            if parse_line(line)[0] == entry.key:
                return f"{entry.path} line {lines.number}"
        except ValueError as error:         # it has changed since it was read
            raise BadFile(f"{entry.path} line {lines.number}: {error}") from None
    return entry.path
