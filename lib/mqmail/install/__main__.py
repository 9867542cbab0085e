"""make install, make uninstall: programs, library and manuals below a prefix, and away again.

Usage:
  install PREFIX DESTDIR PACKAGES
  uninstall PREFIX DESTDIR
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from mqmail.base import program
from mqmail.base.failure import Permanent, Usage
from mqmail.install.manifest import Manifest
from mqmail.install.staging import Staging

SOURCE = Path(os.path.abspath(__file__)).parents[3]
OTHERS_SEARCH = 0o001


def main(argv: list[str]) -> int:
    """Do it; a failure leaves what was there, or what a second call mends."""
    os.umask(0o022)
    command, prefix, destdir, *packages = argv
    prefix, destdir = prefix.rstrip("/"), destdir.rstrip("/")
    if prefix[:1] != "/" or os.path.normpath(prefix) != prefix:
        raise Usage(f"PREFIX={prefix}: write an absolute path, without . and ..")
    manifest = Manifest(destdir, f"{prefix}/lib/mqmail/manifest")
    if command == "uninstall":
        return _uninstall(manifest, destdir + prefix)
    return _install(manifest, prefix, destdir, *packages)


def _install(manifest: Manifest, prefix: str, destdir: str, packages: str) -> int:
    """Everything is made ready first; then an old version goes, file by file."""
    interpreter = os.path.realpath(sys.executable)
    is_upgrade = manifest.read()
    os.makedirs(destdir or "/", exist_ok=True)
    try:
        manifest.make_directory(prefix)
        with tempfile.TemporaryDirectory(prefix=".mqmail-", dir=destdir + prefix) as top:
            staging = Staging(Path(top), SOURCE, prefix, interpreter, packages)
            _replace(manifest, top, prefix, sorted(staging.files()))
    finally:
        manifest.remove(set())      # directories that were made for nothing
    print(f"{'upgraded' if is_upgrade else 'installed'}: {prefix}/bin/mq-* and so on,"
          f" run by {interpreter}")
    for path in (interpreter, f"{prefix}/bin"):
        _warn_if_hidden(path)
    return 0


def _replace(manifest: Manifest, top: str, prefix: str, staged: list[str]) -> None:
    """Rename what is *staged* below *top* to its places, and remove what no longer belongs to mqmail."""
    files = {f"{prefix}/{name}" for name in staged}
    manifest.refuse_others(files)
    old = manifest.files - files
    manifest.files |= files
    manifest.write()
    for name in staged:
        manifest.put(f"{top}/{name}", f"{prefix}/{name}")
    manifest.remove(old)
    manifest.write()


def _warn_if_hidden(path: str) -> None:
    """Users start sendmail and mq-inject, so all must get there."""
    for above in Path(path).parents:
        if above.is_dir() and not above.stat().st_mode & OTHERS_SEARCH:
            program.complain("make install", f"warning: only some can get to {path}, for {above} is"
                             " closed to others: sendmail will not work for all users")
            return


def _uninstall(manifest: Manifest, where: str) -> int:
    if not manifest.read():
        raise Permanent(f"there is no mqmail below {where}")
    manifest.end()
    print(f"removed from {where}; homes are as they were")
    return 0


sys.exit(program.run("make", main, sys.argv[1:]))
