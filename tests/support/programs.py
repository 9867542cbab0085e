"""Other people's programs that tests try mqmail with."""

import os
import shutil

import pytest

ALSO = "/usr/sbin:/usr/lib/git-core"


def need(*names):
    """The paths of programs *names* (one: its path). Without one of them the test is skipped, but on
    CI, which has installed them all, it fails."""
    found = [shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{ALSO}") for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        text = f"not installed: {', '.join(missing)} (.ci/run installs it)"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found[0] if len(found) == 1 else found
