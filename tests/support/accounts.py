"""Accounts of this host for a test, made by useradd and removed again."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path


class Account:
    """An account with a home of mode 0755 below *top*."""

    def __init__(self, top, name):
        self.name = name
        self.home = Path(top, name)
        subprocess.run(["useradd", "--create-home", "--home-dir", self.home, "--skel", "/nonexistent",
                        "--no-log-init", name], check=True, capture_output=True)
        self.uid, self.gid = pwd.getpwnam(name)[2:4]
        self.home.chmod(0o755)

    def write(self, name, text, mode=0o600):
        """A file of the account's in its home."""
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        os.chown(path, self.uid, self.gid)
        return path

    def remove(self):
        subprocess.run(["userdel", "--force", self.name], check=True, capture_output=True)


class Accounts:
    """``with Accounts(2) as (one, two):``"""

    def __init__(self, count):
        self._count = count

    def __enter__(self):
        self._top = tempfile.mkdtemp(prefix="mqmail-accounts-")
        os.chmod(self._top, 0o755)
        self._made = []
        try:
            for number in range(self._count):
                self._made.append(Account(self._top, f"mqt{os.getpid()}{'abcdefgh'[number]}"))
        except BaseException:
            self.__exit__()
            raise
        return tuple(self._made)

    def __exit__(self, *_error):
        for account in self._made:
            account.remove()
        shutil.rmtree(self._top)
