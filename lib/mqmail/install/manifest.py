"""What was put below a prefix: the files, and the directories that were not there before."""

from __future__ import annotations

import os

from mqmail.base.failure import Permanent, Temporary


class Manifest:
    """Absolute paths without *destdir*, one a line, directories with a slash behind them; itself in
    *path*. *files* and *directories* are sets of paths."""

    def __init__(self, destdir: str, path: str) -> None:
        self._destdir = destdir
        self._path = path
        self.files: set[str] = set()
        self.directories: set[str] = set()

    def read(self) -> bool:
        """Whether there is one."""
        try:
            with open(self._destdir + self._path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return False
        if any([line[:1] != "/" or "/../" in line for line in lines]):
            raise Temporary(f"{self._destdir}{self._path} is no manifest")
        self.directories = {line[:-1] for line in lines if line[-1:] == "/"}
        self.files = {line for line in lines if line[-1:] != "/"}
        return True

    def write(self) -> None:
        """Anew, so that it is whole at any time."""
        self.make_directory(os.path.dirname(self._path))
        temporary = f"{self._destdir}{self._path}.new"
        lines = sorted([*self.files, *[f"{path}/" for path in self.directories]])
        with open(temporary, "w", encoding="utf-8") as file:
            file.write("".join([f"{line}\n" for line in lines]))
        os.replace(temporary, self._destdir + self._path)

    def make_directory(self, path: str) -> None:
        """With those above it; what is made is noted."""
        if path in ("", "/") or os.path.isdir(self._destdir + path):
            return
        self.make_directory(os.path.dirname(path))
        os.mkdir(self._destdir + path, 0o755)
        self.directories.add(path)

    def refuse_others(self, files: set[str]) -> None:
        """None of *files* is there without being ours."""
        found = sorted([path for path in files - self.files if os.path.lexists(self._destdir + path)])
        if found:
            raise Permanent("these files are there, and not mqmail's: move them away, or name another"
                            f" PREFIX: {' '.join([self._destdir + path for path in found])}")

    def put(self, staged: str, path: str) -> None:
        """Rename a file to its place: whoever starts a program meets the old or the new one."""
        self.make_directory(os.path.dirname(path))
        os.replace(staged, self._destdir + path)

    def remove(self, files: set[str]) -> None:
        """Remove *files*, and the directories that are ours and empty then."""
        for path in sorted(files):
            try:
                os.unlink(self._destdir + path)
            except FileNotFoundError:
                pass
            self.files.discard(path)
        for path in sorted(self.directories, key=len, reverse=True):
            try:
                os.rmdir(self._destdir + path)
            except FileNotFoundError:
                pass
            except OSError:
                continue        # not empty
            self.directories.discard(path)

    def end(self) -> None:
        """Remove everything, the manifest last."""
        self.remove(set(self.files))
        os.unlink(self._destdir + self._path)
        self.remove(set())
