"""What is to be installed, made ready in a directory of its own: scripts, library, packages, manuals."""

from __future__ import annotations

import os
import py_compile
import shlex
import shutil
import subprocess
from pathlib import Path

from mqmail.base.failure import Permanent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM = "system"       # in the place of a directory: packages that the interpreter has anyway
MODULES = ("dns", "docopt", "idna", "uvloop")
DISTRIBUTIONS = ("dnspython", "docopt", "idna", "uvloop")
NOT_INSTALLED = ("demo", "install")         # parts of make run and make install
DOCUMENTS = ("ARCHITECTURE.md", "CHANGES.md", "INSTALL", "README.md", "control/*")
LONGEST_INTERPRETER = 120                   # the first line of a script had 127 octets once
_FIND = """\
import importlib.util as u, os
for name in {names!r}:
    found = u.find_spec(name)
    print(os.path.dirname(os.path.dirname(found.origin) if found.submodule_search_locations
                          else found.origin) if found else "")
"""


class Staging:
    """Files for *prefix*, laid out below the directory *top*, of the checkout *source*. *interpreter*
    runs the programs; *packages* is SYSTEM, or the site-packages to copy the dependencies from."""

    def __init__(self, top: Path, source: Path, prefix: str, interpreter: str, packages: str) -> None:
        self._top = top
        self._source = source
        self._prefix = prefix
        self._interpreter = interpreter
        self._elsewhere: list[str] = []         # where the packages are, if not in our library
        self._library = top / "lib/mqmail"
        if len((prefix + interpreter).split()) != 1 or len(interpreter) > LONGEST_INTERPRETER:
            raise Permanent(f"a script cannot name {interpreter} or {prefix}: no spaces, please, and at"
                            f" most {LONGEST_INTERPRETER} characters")
        self._packages(packages)
        self._modules()
        self._scripts()
        self._texts()
        self._compile()
        self._try()

    def _packages(self, packages: str) -> None:
        if packages == SYSTEM:
            self._elsewhere = self._system_paths()
            return
        for name in DISTRIBUTIONS:
            found = sorted(Path(packages).glob(f"{name}-*.dist-info/RECORD"))
            if len(found) != 1:
                raise Permanent(f"{packages or '.venv/'} has no package {name}: run make first, or name"
                                f" another directory with PACKAGES=DIR, or say PACKAGES={SYSTEM}")
            for path in _recorded(found[0]):
                _copy(Path(packages) / path, self._library / path)

    def _system_paths(self) -> list[str]:
        """The directories in which the interpreter has the dependencies."""
        found = subprocess.run([self._interpreter, "-I", "-c", _FIND.format(names=MODULES)],
                               check=True, capture_output=True, text=True).stdout.split("\n")[:-1]
        missing = [name for name, path in zip(DISTRIBUTIONS, found, strict=True) if not path]
        if missing:
            raise Permanent(f"{self._interpreter} has no {', '.join(missing)}: install them (Debian:"
                            f" apt-get install {' '.join([f'python3-{name}' for name in missing])}), or"
                            " leave out PACKAGES")
        return list(dict.fromkeys(found))

    def _modules(self) -> None:
        top = self._source / "lib/mqmail"
        for path in sorted(top.rglob("*.py")):
            name = path.relative_to(top)
            if name.parts[0] not in NOT_INSTALLED:
                _copy(path, self._library / "mqmail" / name)

    def _scripts(self) -> None:
        for path in sorted((self._source / "bin").iterdir()):
            target = self._top / "bin" / path.name
            target.parent.mkdir(exist_ok=True)
            target.write_text(self._script(path.read_text()))
            target.chmod(0o755)

    def _script(self, text: str) -> str:
        """A script of bin/ that looks for nothing."""
        start = text.find("from mqmail.base.program")
        if start < 0:       # mailq and newaliases
            last = text.splitlines()[-1]
            return "#!/bin/sh\n" + last.replace('"${self%/*}/sendmail"',
                                                shlex.quote(f"{self._prefix}/bin/sendmail")) + "\n"
        more = f"sys.path += {self._elsewhere}\n" if self._elsewhere else ""
        return (f"#!{self._interpreter} -IS\nimport sys\n\n"
                f"sys.path[:0] = [{self._prefix + '/lib/mqmail'!r}]\n{more}{text[start:]}")

    def _texts(self) -> None:
        for path in sorted((self._source / "man").iterdir()):
            _copy(path, self._top / f"share/man/man{path.suffix[1:]}" / path.name)
        for pattern in DOCUMENTS:
            for path in sorted(self._source.glob(pattern)):
                _copy(path, self._top / "share/doc/mqmail" / path.relative_to(self._source))

    def _compile(self) -> None:
        for path in sorted(self._library.rglob("*.py")):
            py_compile.compile(str(path), dfile=f"{self._prefix}/{path.relative_to(self._top)}",
                               doraise=True, quiet=1)

    def _try(self) -> None:
        """Whether the interpreter can load the programs, and the packages are made for it."""
        text = (f"import sys; sys.path[:0] = [{str(self._library)!r}]; sys.path += {self._elsewhere}\n"
                "import dns.message, docopt, idna, uvloop, mqmail.prog.mq_start")
        done = subprocess.run([self._interpreter, "-ISB", "-c", text], capture_output=True, text=True,
                              check=False)
        if done.returncode:
            raise Permanent(f"{self._interpreter} cannot use the packages:\n{done.stderr}")

    def files(self) -> Iterator[str]:
        """The names of all files, relative to the prefix."""
        for directory, _, names in os.walk(self._top):
            for name in names:
                yield os.path.relpath(os.path.join(directory, name), self._top)


def _recorded(record: Path) -> Iterator[str]:
    """The files of a distribution, but its programs and what Python compiled."""
    for line in record.read_text().splitlines():
        path = line.rsplit(",", 2)[0].strip('"')
        if not path.startswith(("..", "/")) and "__pycache__" not in path:
            yield path


def _copy(source: Path, target: Path) -> None:
    """With its time, which bytecode remembers, and a mode of our own."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    shutil.copystat(source, target)
    target.chmod(0o644)
