"""mq-services: writes what a supervisor runs the daemons of a home by.

Usage:
  mq-services [--home DIR] [--logs DIR] [--logger ACCOUNT] (s6|daemontools|runit|systemd) TARGET
  mq-services --help

Options:
  --home DIR        the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --logs DIR        where each daemon's log gets a directory (default: TARGET/NAME/log/main)
  --logger ACCOUNT  the account that keeps the logs (default: who starts the supervisor)
  --help            this text

TARGET is a directory. It gets a service directory for each daemon, with a logger, or for systemd a unit
for each and mqmail.target. What exists is never changed: if it differs, nothing is written.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys

from docopt import docopt

from mqmail.base import files, homes
from mqmail.base.failure import Permanent, Temporary, Usage
from mqmail.base.value import value
from mqmail.control import services

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,=@:")
_LARGEST = 65536


def main(argv: list[str]) -> int:
    """Write what is missing and print each service. 100 if something else is there."""
    found = docopt(__doc__, argv, True, None, False)
    os.umask(0o022)
    request = _request(found)
    missing = _missing(request)
    for name in missing:
        _write(request, name)
        print(f"made {request.target}/{name}")
    if not missing:
        print("nothing to do")
    return 0


@value
class Request:
    """What to write where. *made*: the files of each service, by its name."""

    supervisor: str
    place: services.Place
    made: dict[str, list[services.File]]

    @property
    def target(self) -> str:
        """The directory that the services are put into."""
        return self.place.target


def _request(found: dict[str, Any]) -> Request:
    """Raises Usage, Temporary."""
    supervisor = next(name for name in services.SUPERVISORS if found[name])
    home = _path(homes.chosen(found["--home"]))
    target = _path(found["TARGET"])
    logs, logger = _path(found["--logs"] or ""), found["--logger"] or ""
    if supervisor == "systemd" and (logs or logger):
        raise Usage("systemd keeps logs in its journal: leave out --logs and --logger")
    if logger:
        _account(logger)
    if not os.path.lexists(f"{home}/control/me"):
        raise Temporary(f"{home} is no mqmail home: make one with mq-setup --home {home}")
    if not os.path.isdir(target):
        raise Temporary(f"{target} is no directory: make it first")
    place = services.Place(os.path.dirname(os.path.abspath(sys.argv[0])), home, target, logs, logger)
    _path(place.programs)
    made: dict[str, list[services.File]] = {}
    for file in services.files(supervisor, place):
        made.setdefault(file.path.partition("/")[0], []).append(file)
    return Request(supervisor, place, made)


def _path(text: str) -> str:
    """An absolute path that means itself in a script and in a unit."""
    path = os.path.abspath(text) if text else ""
    if not _PLAIN.issuperset(path):
        raise Usage(f"{path!a}: only letters, digits and / . _ - + , = @ : can be in a path here")
    return path


def _account(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise Usage(f"--logger: this host has no account {name!a}") from None


def _missing(request: Request) -> list[str]:
    """The services that are not there. Raises Permanent for one that is there and is another."""
    missing = []
    for name, made in request.made.items():
        if os.path.lexists(f"{request.target}/{name}"):
            for file in made:
                _compare(f"{request.target}/{file.path}", file)
        else:
            missing.append(name)
    return missing


def _compare(path: str, file: services.File) -> None:
    try:
        same = files.read_bounded(path, _LARGEST) == file.text.encode()
    except (FileNotFoundError, NotADirectoryError):
        same = False
    if not same or os.stat(path).st_mode & 0o111 != file.mode & 0o111:
        raise Permanent(f"{path} is not what mq-services would write: move it away, or name another"
                        " directory. Nothing was written")


def _write(request: Request, name: str) -> None:
    """All at once: a scanner that watches the target sees the whole service or nothing, for it ignores
    what begins with a dot."""
    temporary = f"{request.target}/.{name}.{os.getpid()}"
    try:
        for file in request.made[name]:
            path = temporary + file.path[len(name):]
            os.makedirs(os.path.dirname(path), exist_ok=True)
            files.replace_file(path, file.text.encode(), file.mode)
        if request.supervisor != "systemd":
            log = request.place.log(name)
            _log_directory(log if request.place.logs else f"{temporary}/log/main", request.place.logger)
        os.rename(temporary, f"{request.target}/{name}")
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _log_directory(path: str, logger: str) -> None:
    """Made for the account that writes it; one that is there stays as it is."""
    if not os.path.isdir(path):
        os.makedirs(path)
        if logger:
            account = _account(logger)
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
