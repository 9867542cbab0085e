"""mq-showctl: prints the settings of a home, or every mistake in them.

Usage:
  mq-showctl [--home DIR] [NAME ...]
  mq-showctl [--home DIR] --check [NAME ...]
  mq-showctl [--home DIR] --value NAME
  mq-showctl --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --check         print only what is wrong, one mistake a line; nothing when all is well
  --value         print only the value, as control/NAME may hold it
  --help          this text

NAME is a control file, see mq-control(5); without one all are printed. It changes nothing.
"""

from __future__ import annotations

import os
import time

from mqmail.base import homes
from mqmail.base.failure import BadFile, Permanent, Temporary, Usage
from mqmail.base.files import write_all
from mqmail.base.program import complain
from mqmail.control import reader
from mqmail.control.rights import ROLE_OF
from mqmail.control.survey import Survey
from mqmail.control.table import BY_NAME, HOOKS, NUMBER, TABLE_OF_FILES
from mqmail.net import daemon
from mqmail.net.owner import Owner, as_owner, become_owner, owner_of
from mqmail.net.servertls import ServerTls, outdated
from mqmail.policy import hooks, known
from mqmail.policy.maps import Files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.control.rights import Account
    from mqmail.control.survey import Setting
    from mqmail.control.table import Row

MISTAKES = 1            # exit code


def main(argv: list[str]) -> int:
    """Print; mq-showctl(8) has the exit codes."""
    home, _, found = daemon.arguments(__doc__, argv)
    names: list[str] = found["NAME"]                # type: ignore[assignment]
    for name in names:
        if name not in BY_NAME:
            raise Usage(f"{name!a} is no control file: mq-control(5) lists them")
    _enter(home)
    survey = Survey(".")
    if found["--value"]:
        return _value(survey, names[0])
    if found["--check"]:
        survey.look_around()
        wrong = [*survey.mistakes, *_as_daemons(survey)]
        mistakes = list(dict.fromkeys([text for name, text in wrong if not names or name in names]))
        _print(mistakes)
        if os.stat(".").st_uid != os.geteuid():
            complain("mq-showctl", "this home is not yours: root can look at all that is in it")
        return MISTAKES if mistakes else 0
    return _blocks(survey, names or list(BY_NAME))


def _enter(home: str) -> None:
    """Work in the home, and read it with the rights of the daemons: root becomes its owner."""
    reader.preload()
    if os.geteuid() == 0:
        known.import_late()         # who root becomes may be unable to read it
    try:
        os.chdir(home)
        become_owner(owner_of("."))
        os.scandir("control").close()
    except OSError as error:
        raise homes.no_home(home, error) from None


def _print(lines: list[str]) -> None:
    write_all(1, "".join([f"{line}\n" for line in lines]).encode("utf-8", "backslashreplace"))


def _mistakes(survey: Survey, name: str) -> list[str]:
    return [text for of, text in survey.mistakes if of == name]


def _as_daemons(survey: Survey) -> list[tuple[str, str]]:
    """What they would say of files that the survey does not read. In a system home root looks with the
    rights that each of them has there."""
    accounts = _accounts(survey)
    if not accounts:
        return list(_of_xmtpd(survey))
    found: list[tuple[str, str]] = []
    closed: dict[str, list[str]] = {}
    for program, account in accounts.items():
        with as_owner(Owner(account.uid, account.gid, account.name)):
            for name in _unreadable(program):
                closed.setdefault(name, []).append(account.name or str(account.uid))
            found += _of_xmtpd(survey) if program == "xmtpd" else ()
    return found + [
        (name, f"control/{name}: {', '.join(who)} cannot read it: mq-setup --repair mends that")
        for name, who in closed.items()]


def _accounts(survey: Survey) -> dict[str, Account]:
    """Of all programs of a system home, if we can act for them; else {}."""
    given = survey.settings["accounts"].content if "accounts" in survey.settings else None
    if os.geteuid() != 0 or os.stat(".").st_uid != 0 or given is None:
        return {}
    try:
        return {program: given.of(program) for program in ROLE_OF}
    except Temporary:               # this host lacks one: no program starts
        return {}


def _unreadable(program: str) -> Iterator[str]:
    """The control files that *program* reads, and may not."""
    for row in TABLE_OF_FILES:
        readers = row.readers.replace("mq-remote", "mq-rspawn").split()     # runs as that
        if program in readers or "all" in readers:
            try:
                os.close(os.open(f"control/{row.name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            except PermissionError:
                yield row.name
            except OSError:
                pass                # it is not there, or the survey has said what it is


def _of_xmtpd(survey: Survey) -> Iterator[tuple[str, str]]:
    """Certificates, hooks, and tables in other forms."""
    yield from _certificates(survey)
    for name, look in ((HOOKS, hooks.check), ("access", Files("access").refresh),
                       ("rewrite", Files("rewrite").refresh)):
        try:
            look()
        except BadFile as error:
            yield name, error.text


def _certificates(survey: Survey) -> Iterator[tuple[str, str]]:
    """What is wrong with the files that tlscertificates and tlsclientauthorities name."""
    certificates, authorities = [survey.settings[name].content if name in survey.settings else None
                                 for name in ("tlscertificates", "tlsclientauthorities")]
    if certificates is None or authorities is None or not certificates.files:
        return
    try:
        ServerTls(certificates, authorities, [("1.2", "require" if authorities else "no")])
        for text in outdated(certificates, time.time()):
            yield "tlscertificates", text
    except BadFile as error:
        yield "tlscertificates", error.text


def _value(survey: Survey, name: str) -> int:
    """What the file may hold; secrets stay where they are."""
    if BY_NAME[name].secret:
        raise Permanent(f"{name} holds secrets: copy the file")
    mistakes = _mistakes(survey, name)
    for text in mistakes:
        complain("mq-showctl", text)
    if mistakes:
        return MISTAKES
    _print(list(survey.settings[name].lines))
    return 0


def _blocks(survey: Survey, names: list[str]) -> int:
    """All that is known of each; a blank line between two. Mistakes of the directories come first."""
    for text in _mistakes(survey, ""):
        complain("mq-showctl", text)
    lines: list[str] = []
    wrong = bool(_mistakes(survey, ""))
    for name in names:
        mistakes = _mistakes(survey, name)
        wrong = wrong or bool(mistakes)
        lines += [*([""] if lines else []), *_block(survey.settings[name], mistakes)]
    _print(lines)
    return MISTAKES if wrong else 0


def _block(setting: Setting, mistakes: list[str]) -> Iterator[str]:
    """``== NAME``, then ``#: fact`` and ``#! mistake``, then the value's lines."""
    row = setting.row
    yield f"== {row.name}"
    yield f"#: {row.help}"
    yield f"#: type: {_type(row)}"
    yield f"#: default: {_default(row)}"
    yield f"#: read by: {row.readers}"
    yield f"#: source: {'default' if setting.is_default else setting.path}"
    if row.secret and setting.content is not None:
        yield f"#: entries, their secrets not shown: {', '.join(setting.content.entries) or 'none'}"
    for text in mistakes:
        yield f"#! {text}"
    yield from setting.lines


def _type(row: Row) -> str:
    return f"{row.kind} of {row.unit}, {row.lowest} to {row.highest}" if row.kind == NUMBER else row.kind


def _default(row: Row) -> str:
    """In one line, as mq-control(5) has it."""
    if row.default is None:
        return "the file is required"
    if row.default == "{me}":
        return "the content of me"
    return row.default.replace("\n", ", ") or "empty"
