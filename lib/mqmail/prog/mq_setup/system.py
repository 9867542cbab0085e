"""A system home: the accounts that its programs become, and giving them what is theirs."""

from __future__ import annotations

import os
import shutil
import subprocess

from mqmail.base.failure import Temporary
from mqmail.control import rights
from mqmail.control.rights import ROLE_OF, ROLES
from mqmail.net.owner import Owner, as_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.control.rights import Accounts, Role

NOWHERE, NO_SHELL = "/nonexistent", "/usr/sbin/nologin"


def make_accounts(accounts: Accounts) -> Iterator[str]:
    """Make those that the host lacks and control/accounts gives no others for. Raises Temporary."""
    for role in ROLES:
        if role.program not in accounts.given and rights.named(role.account) is None:
            groups = [ROLE_OF[other].account for other in role.also if other not in accounts.given]
            for command in _commands(role, groups):
                _run(command)
            yield f"made account {role.account} for {role.program}"


def _commands(role: Role, groups: list[str]) -> list[list[str]]:
    """What makes an account and its group: useradd(8), or else BusyBox's adduser."""
    name, comment = role.account, f"mqmail {role.program}"
    if shutil.which("useradd"):
        also = ["--groups", ",".join(groups)] if groups else []
        return [["groupadd", "--system", "--force", name],
                ["useradd", "--system", "--gid", name, *also, "--home-dir", NOWHERE, "--no-create-home",
                 "--shell", NO_SHELL, "--comment", comment, name]]
    return [["addgroup", "-S", name],
            ["adduser", "-S", "-D", "-H", "-h", NOWHERE, "-s", NO_SHELL, "-g", comment, "-G", name,
             name],
            *[["addgroup", name, group] for group in groups]]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise Temporary(f"{command[0]}: {error.strerror}: make the account {command[-1]} by other means,"
                        " or name others in control/accounts") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "backslashreplace").strip()
        raise Temporary(f"{' '.join(command)}: {said or f'exit {done.returncode}'}")


def sysusers() -> str:
    """The accounts as sysusers.d(5) has them."""
    made = [f'u {role.account} - "mqmail {role.program}"' for role in ROLES]
    also = [f"m {role.account} {ROLE_OF[other].account}" for role in ROLES for other in role.also]
    return "\n".join(["# mqmail's accounts: sysusers.d(5)", *made, *also, ""])


class System:
    """The home we work in, as root."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def give(self, path: str) -> None:
        """Give the new directory *path* to whom it belongs, with the mode it has. What somebody puts in
        its place meanwhile is not followed."""
        place = rights.place_of(path, rights.DIRECTORY)
        assert place is not None
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, self._accounts.of(place.owner).uid, self._accounts.of(place.group).gid)
            os.fchmod(fd, place.mode)
        finally:
            os.close(fd)

    def acting_as(self, program: str) -> as_owner:
        """``with system.acting_as(program):`` what is made is of that program's account."""
        account = self._accounts.of(program)
        return as_owner(Owner(account.uid, account.gid, account.name))
