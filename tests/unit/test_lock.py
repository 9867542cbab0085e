"""Locks: nobody else can take or change them."""

import fcntl
import os
import stat

import pytest

from mqmail.base import lock
from mqmail.base.failure import Temporary


def test_a_lock_is_for_its_owner_alone_and_cannot_be_written_by_who_holds_it(tmp_path):
    path = tmp_path / "x.lock"
    path.write_text("99999\n")
    path.chmod(0o644)
    fd = lock.hold(str(path), "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == f"{os.getpid()}\n"
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    with pytest.raises(Temporary, match=f"process {os.getpid()} holds"):
        lock.hold(str(path), "x")
    os.close(fd)
    os.close(lock.hold(str(path), "x"))
