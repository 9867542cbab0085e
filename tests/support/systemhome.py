"""A system home, with accounts that are numbers: the host's password database is left alone."""

import json
import os
import traceback

from mqmail.control import rights
from support.home import Home

FIRST_UID = 47100       # of the programs' accounts, in the order of rights.ROLES


def numbers():
    """Program to (uid, gid)."""
    return {role.program: (uid, uid) for uid, role in enumerate(rights.ROLES, FIRST_UID)}


class SystemHome(Home):
    """As Home, but each program has an account of its own. ``accounts`` are these."""

    def prepare(self):
        """Say which accounts the programs become."""
        (self.path / "control").mkdir(parents=True)
        lines = [f"{program} {uid}:{gid}\n" for program, (uid, gid) in numbers().items()]
        (self.path / "control/accounts").write_text("".join(lines))
        self.accounts = rights.Accounts({program: rights.Account("", *ids)
                                         for program, ids in numbers().items()})
        return ["--system"]


class Acting:
    """Do something as the account of a program, or of rights.OTHERS, in the home."""

    def __init__(self, home, program):
        self.program = program
        self._home = home
        if program == rights.OTHERS:
            self.uid, self._gid, self._groups = FIRST_UID + 99, FIRST_UID + 99, [FIRST_UID + 99]
        else:
            account = home.accounts.of(program)
            self.uid, self._gid = account.uid, account.gid
            self._groups = home.accounts.groups(program)

    def do(self, function, *arguments):
        """What *function* returns (as JSON can have it), in a process of the account's. An OSError is
        returned as "Name: text"."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._child(writing, function, arguments)
        os.close(writing)
        with open(reading, encoding="utf-8") as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        found = json.loads(text)
        assert "bug" not in found, found["bug"]
        return found["value"]

    def _child(self, writing, function, arguments):
        found = {}
        try:
            os.chdir(self._home.path)
            os.setgroups(self._groups)
            os.setresgid(self._gid, self._gid, self._gid)
            os.setresuid(self.uid, self.uid, self.uid)
            found["value"] = function(*arguments)
        except OSError as error:
            found["value"] = f"{type(error).__name__}: {error.strerror}"
        except BaseException:  # noqa: BLE001  told by the parent
            found["bug"] = traceback.format_exc()
        finally:
            os.write(writing, json.dumps(found).encode())
            os._exit(0)
