"""All that the control files of a home say, and every mistake in them: for people, who want more than
the first one."""

from __future__ import annotations

import os

from mqmail.base.failure import BadFile
from mqmail.base.value import value
from mqmail.control import listeners as places
from mqmail.control import reader
from mqmail.control.access import unknown_sets
from mqmail.control.authbackends import CHECKPASSWORD, OAUTH
from mqmail.control.lines import Lines
from mqmail.control.resolve import MOST_TARGETS
from mqmail.control.rewrite import unused
from mqmail.control.routes import Route
from mqmail.control.table import BY_NAME, HOOKS, LINE, NUMBER, OTHER_FORMS, TABLE_OF_FILES, Row
from mqmail.control.verify import unknown_destinations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MOST = 20                   # mistakes that are looked for in one file
_STAND_IN = "me.invalid"    # for the file me when it is wrong, so that the other files can be read


@value
class Setting:
    """What holds for one row of the table. *lines*: of the file or the default, those that say
    something, () for secrets; *content*: what the programs make of them, None when there is a
    mistake."""

    row: Row
    path: str
    is_default: bool
    lines: tuple[str, ...]
    content: Any


class Survey:
    """*settings* by name, in the table's order, and *mistakes*: (name of the control file or "", text),
    [] when all is well."""

    def __init__(self, home: str) -> None:
        self.settings: dict[str, Setting] = {}
        self.mistakes: list[tuple[str, str]] = []
        self._name = ""
        self._mail = "mail" if home in (".", "") else f"{home}/mail"
        try:
            self._directory = reader.Directory(home, self._complain)
            names = os.listdir(self._directory.path)
        except (BadFile, OSError) as error:
            self._complain(str(error))
            return
        self._me = self._read(BY_NAME["me"], "").content or _STAND_IN
        for row in TABLE_OF_FILES:
            self.settings[row.name] = self.settings.get(row.name) or self._read(row, self._me)
        self._look_for_unknown(names)
        self._check(("aliases", self._destinations), ("aliases", self._targets),
                    ("smtproutes", self._entries), ("senderroutes", self._entries),
                    ("fallbackroute", self._entries),
                    ("verify", self._services), ("access", self._sets), ("optionsets", self._vouchers),
                    ("listeners", self._wanted), ("rewrite", self._rewrites))

    def look_around(self) -> None:
        """Note also what the files name and this host does not have."""
        if self.settings:
            self._check(("users", self._mailboxes), ("credentials", self._programs),
                        ("tlsauthorities", self._authorities), ("authbackends", self._backends))

    def _check(self, *checks: tuple[str, Callable[[Setting], Iterator[str]]]) -> None:
        for self._name, check in checks:
            if self.settings[self._name].content is not None:
                for text in check(self.settings[self._name]):
                    self._complain(text)

    def _complain(self, text: str) -> None:
        self.mistakes.append((self._name, text))

    def _read(self, row: Row, me: str) -> Setting:
        """One file; its mistakes are noted."""
        self._name, path = row.name, f"{self._directory.path}/{row.name}"
        before = len(self.mistakes)
        data: bytes | None = b""
        content = None
        try:
            data = self._directory.read(row)
            given = reader.default_of(row, path, me) if data is None else data
            content = self._parse(row, path, given, me)
        except BadFile as error:
            self._complain(error.text)
            given = b""
        lines = () if row.secret or len(self.mistakes) > before else _lines(row, given)
        found = Setting(row, path, data is None, lines, content)
        self.settings[row.name] = found
        return found

    def _parse(self, row: Row, path: str, data: bytes, me: str) -> Any:
        """The content; with mistakes None, after the search for further ones without the bad lines."""
        content, bad = None, 0
        while bad < MOST:
            try:
                content = reader.parse(row, path, data, me)
                break
            except BadFile as error:
                self._complain(error.text)
                bad += 1
                rest = _without(data, error.line)
                if rest == data:
                    break
                data = rest
        return None if bad else content

    def _look_for_unknown(self, names: list[str]) -> None:
        for name in sorted(set(names).difference(BY_NAME, OTHER_FORMS, (HOOKS,))):
            if not _is_ignored(name):
                self._name = name
                self._complain(f"{self._directory.path}/{name}: no control file has this name: see"
                               " mq-control(5), or move it away")

    def _destinations(self, aliases: Setting) -> Iterator[str]:
        known = self.settings["destinations"].content
        if known is not None:
            yield from reader.unknown_destinations(self._directory.path, aliases.content, known)

    def _targets(self, aliases: Setting) -> Iterator[str]:
        """What mq-resolve only says when mail comes, which then waits."""
        for name, targets in aliases.content.targets.items():
            if len(targets) > MOST_TARGETS:
                yield (f"{aliases.path}: {name} has {len(targets)} targets: write at most {MOST_TARGETS}"
                       " behind a name, and several such names behind this one")

    def _services(self, verify: Setting) -> Iterator[str]:
        known = self.settings["destinations"].content
        if known is not None:
            yield from unknown_destinations(verify.path, verify.content, known)

    def _sets(self, table: Setting) -> Iterator[str]:
        known = self.settings["optionsets"].content
        if known is not None:
            yield from unknown_sets(table.path, table.content, known)

    def _vouchers(self, sets: Setting) -> Iterator[str]:
        if not self.settings["tlsclientauthorities"].content:
            yield from sets.content.unvouched(sets.path)

    def _wanted(self, listeners: Setting) -> Iterator[str]:
        sets, certificates = [self.settings[name].content for name in ("optionsets", "tlscertificates")]
        if sets is not None and certificates is not None:
            yield from places.unmet(listeners.path, listeners.content, sets, bool(certificates.files))
        known = self.settings["destinations"].content
        if known is not None:
            yield from places.unknown_destinations(listeners.path, listeners.content, known)

    def _rewrites(self, table: Setting) -> Iterator[str]:
        sets = self.settings["optionsets"]
        if sets.content is not None:
            is_there = bool(table.content.entries) or any(
                [os.path.lexists(f"{table.path}.{form}") for form in ("cdb", "sqlite")])
            yield from unused(table.path, is_there, sets.path, sets.content)

    def _entries(self, routes: Setting) -> Iterator[str]:
        """The entries of credentials that routes name."""
        known = self.settings["credentials"].content
        for key, route in _routes(routes.content) if known is not None else ():
            name = route.way.auth
            if name and known.entry(name) is None:
                yield (f"{routes.path}: {key or 'the line for all'}: there is no entry {name}: write"
                       f" {name} USER SECRET into {self._directory.path}/credentials")

    def _mailboxes(self, users: Setting) -> Iterator[str]:
        """The directories below mail/, each once."""
        seen: set[str] = set()
        for domain, names in users.content.domains.items():
            for local, name in names.items():
                if name not in seen and not os.path.isdir(f"{self._mail}/{name}"):
                    yield (f"{users.path}: {local}@{domain} has no mailbox: there is no directory"
                           f" {self._mail}/{name}: mq-setup --user makes one")
                seen.add(name)

    def _programs(self, credentials: Setting) -> Iterator[str]:
        for name, entry in credentials.content.entries.items():
            if entry.program and not os.access(entry.program[0], os.X_OK):
                yield f"{credentials.path}: {name}: no program can be run at the path behind the !"

    def _backends(self, backends: Setting) -> Iterator[str]:
        for one in backends.content:
            if one.kind in (CHECKPASSWORD, OAUTH) and not os.access(one.words[0], os.X_OK):
                yield f"{backends.path}: {one.kind}: no program can be run at {one.words[0]}"

    def _authorities(self, authorities: Setting) -> Iterator[str]:
        if authorities.content:
            try:
                os.close(os.open(authorities.content, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            except OSError as error:
                yield f"{authorities.path}: {authorities.content}: {error.strerror}"


def _routes(content: Any) -> list[tuple[str, Route]]:
    """(what it is for, route) of smtproutes, senderroutes or fallbackroute."""
    return [(content.host, content)] if isinstance(content, Route) else list(content.hops.items())


def _lines(row: Row, data: bytes) -> tuple[str, ...]:
    """The lines that say something; of a line or number the first."""
    if row.kind in (LINE, NUMBER):
        return (data.partition(b"\n")[0].rstrip(b" \t").decode(),)
    return tuple(Lines(data))


def _without(data: bytes, number: int) -> bytes:
    """*data* with line *number* made empty; as it is without such a line."""
    lines = data.split(b"\n")
    if not 0 < number <= len(lines):
        return data
    lines[number - 1] = b""
    return b"\n".join(lines)


def _is_ignored(name: str) -> bool:
    """Notes, editors' copies and files being written are nobody's mistake."""
    return name == "README" or name[0] == "." or name[-1] == "~"
