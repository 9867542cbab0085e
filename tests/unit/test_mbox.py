from __future__ import annotations

import fcntl
import mailbox
import os
import resource
import threading
import time

import pytest
from nonroot import body, home, nonroot  # noqa: F401

from mqmail.base.failure import Temporary
from mqmail.local import mbox
from mqmail.local.body import BLOCK

HEAD = b"From a@b Thu Jan 01 00:00:00 1970\nReturn-Path: <a@b>\nDelivered-To: c@d\n"


def deliver(path, data, **options):
    mbox.deliver(str(path), HEAD, body(data), **options)


def test_a_message(tmp_path):
    path = tmp_path / "mbox"
    deliver(path, b"Subject: x\r\n\r\nhello\r\n")
    assert path.read_bytes() == HEAD + b"Subject: x\n\nhello\n\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["mbox"]


def quote(data):
    return b"".join(mbox.quoted(iter(data)))


@pytest.mark.parametrize(("data", "expected"), [
    (b"From x\n", b">From x\n\n"), (b">From x\n", b">>From x\n\n"), (b">>>From \n", b">>>>From \n\n"),
    (b"from x\nFrom\n From x\n>x\n", b"from x\nFrom\n From x\n>x\n\n"),
    (b"a\nFrom b", b"a\n>From b\n\n"), (b"aFrom b\n", b"aFrom b\n\n"),
    (b"", b"\n"), (b"\n", b"\n\n"), (b"Fro", b"Fro\n\n"), (b">>", b">>\n\n"),
])
def test_quoting_whatever_the_cut(data, expected):
    assert quote([data]) == expected
    assert quote([data[i:i + 1] for i in range(len(data))]) == expected
    for cut in range(len(data)):
        assert quote([data[:cut], b"", data[cut:]]) == expected


def test_a_line_of_angle_brackets_is_not_held_in_memory():
    pieces = list(mbox.quoted(iter([b">" * 100000] * 3 + [b"From x\n"])))
    assert max(map(len, pieces)) <= 100000
    assert b"".join(pieces) == b">" * 300001 + b"From x\n\n"


@pytest.mark.parametrize("size", range(BLOCK - 8, BLOCK + 3))
def test_from_lines_at_the_block_border(tmp_path, size):
    path = tmp_path / "mbox"
    deliver(path, b"x" * (size - 2) + b"\r\n>From y\r\nFrom z")
    assert path.read_bytes() == HEAD + b"x" * (size - 2) + b"\n>>From y\n>From z\n\n"


def test_other_programs_read_it(tmp_path):
    path = tmp_path / "mbox"
    for number in range(3):
        deliver(path, b"Subject: %d\r\n\r\nFrom here\r\nno end" % number)
    box = mailbox.mbox(path)
    assert [message["subject"] for message in box] == ["0", "1", "2"]
    box.close()


@pytest.mark.parametrize("torn", [b"From x\n\nha", b"From x\n\nhalf\n", b"From x\n\nhalf\n\n"])
def test_a_torn_message_is_closed_first(tmp_path, torn):
    path = tmp_path / "mbox"
    path.write_bytes(torn)
    deliver(path, b"new\r\n")
    assert path.read_bytes() == torn.rstrip(b"\n") + b"\n\n" + HEAD + b"new\n\n"


@nonroot
def test_a_failed_delivery_leaves_the_mailbox_as_it_was(home):  # noqa: F811
    path = f"{home}/mbox"
    deliver(path, b"first\r\n")
    with open(path, "rb") as file:
        before = file.read()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    with pytest.raises(OSError, match="File too large"):
        deliver(path, b"x" * 200000)
    with open(path, "rb") as file:
        assert file.read() == before
    assert os.listdir(home) == ["mbox"]


def test_flushed_before_the_lock_goes(tmp_path, monkeypatch):
    path, seen, fsync = tmp_path / "mbox", [], os.fsync

    def flush(fd):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        seen.append((name, os.path.exists(f"{path}.lock")))
        fsync(fd)
    monkeypatch.setattr(os, "fsync", flush)
    deliver(path, b"x\r\n")
    deliver(path, b"x\r\n")
    assert seen == [("mbox", True), (tmp_path.name, False), ("mbox", True)]


def test_waits_for_a_dotlock_no_longer_than_told(tmp_path):
    path, lock = tmp_path / "mbox", tmp_path / "mbox.lock"
    lock.write_text("1")
    with pytest.raises(Temporary, match="locked by another program"):
        deliver(path, b"x\r\n", patience=0)
    assert lock.exists()
    assert path.read_bytes() == b""


def test_goes_on_when_the_dotlock_goes(tmp_path):
    path, lock = tmp_path / "mbox", tmp_path / "mbox.lock"
    lock.write_text("1")
    timer = threading.Timer(0.3, lock.unlink)
    timer.start()
    deliver(path, b"x\r\n", patience=20)
    timer.join()
    assert path.read_bytes() == HEAD + b"x\n\n"


def test_removes_a_stale_dotlock(tmp_path):
    path, lock = tmp_path / "mbox", tmp_path / "mbox.lock"
    lock.write_text("1")
    os.utime(lock, (time.time() - 301,) * 2)
    deliver(path, b"x\r\n", patience=5)
    assert path.read_bytes() == HEAD + b"x\n\n"


def test_removes_the_dotlock_of_one_that_was_killed(tmp_path, monkeypatch):
    path, lock = tmp_path / "mbox", tmp_path / "mbox.lock"
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda _path: None)     # as when killed before it
        deliver(path, b"Subject: x\r\n\r\n")
    assert lock.exists()
    deliver(path, b"Subject: x\r\n\r\n", patience=1.0)
    assert not lock.exists()
    assert path.read_bytes().count(b"\nSubject: x") == 2


@pytest.mark.parametrize("text", [b"123\n", b"123\nmq-local elsewhere.example\n", b"123\nmq-local", b""])
def test_leaves_a_dotlock_that_others_may_hold(tmp_path, text):
    path, lock = tmp_path / "mbox", tmp_path / "mbox.lock"
    lock.write_bytes(text)
    with pytest.raises(Temporary, match="locked"):
        deliver(path, b"", patience=0.2)
    assert lock.read_bytes() == text


def test_respects_fcntl_locks(tmp_path):
    path = tmp_path / "mbox"
    ready = os.pipe()
    path.write_bytes(b"")
    child = os.fork()
    if child == 0:
        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.write(ready[1], b"x")
            time.sleep(60)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        with pytest.raises(Temporary, match="locked"):
            deliver(path, b"x\r\n", patience=0)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(ready[0])
        os.close(ready[1])
    assert not os.path.exists(f"{path}.lock")
    deliver(path, b"x\r\n", patience=0)


def test_a_mailbox_that_is_replaced_before_it_is_locked(tmp_path, monkeypatch):
    path, lockf = tmp_path / "mbox", fcntl.lockf
    path.write_bytes(b"")

    def replace_first(fd, how):
        monkeypatch.setattr(fcntl, "lockf", lockf)
        (tmp_path / "new").write_bytes(b"")
        os.rename(tmp_path / "new", path)
        lockf(fd, how)
    monkeypatch.setattr(fcntl, "lockf", replace_first)
    deliver(path, b"x\r\n", patience=5)
    assert path.read_bytes() == HEAD + b"x\n\n"


@nonroot
def test_no_lock_is_left_when_there_is_no_room_for_it(home):  # noqa: F811
    message = body(b"x\r\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with pytest.raises(OSError, match="File too large"):
        mbox.deliver(f"{home}/mbox", HEAD, message)
    assert os.listdir(home) == ["mbox"]


def test_many_writers_at_once(tmp_path):
    path = tmp_path / "mbox"
    children = []
    for number in range(6):
        child = os.fork()
        if child == 0:
            for _ in range(5):
                deliver(path, b"n%d\r\n" % number * 20000)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    found = sorted(path.read_bytes().split(HEAD)[1:])
    assert found == sorted(b"n%d\n" % number * 20000 + b"\n" for number in range(6) for _ in range(5))


@nonroot
def test_without_the_right_to_make_a_dotlock(home):  # noqa: F811
    os.mkdir(f"{home}/spool")
    deliver(f"{home}/spool/bob", b"one\r\n")
    os.chmod(f"{home}/spool", 0o500)
    deliver(f"{home}/spool/bob", b"two\r\n", patience=0)
    with open(f"{home}/spool/bob", "rb") as file:
        assert file.read().count(HEAD) == 2
    os.chmod(f"{home}/spool", 0o700)


def test_only_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/null"):
        with pytest.raises(Temporary, match="not a regular file"):
            deliver(path, b"x\r\n", patience=0)
    with pytest.raises(IsADirectoryError):
        deliver(tmp_path, b"x\r\n", patience=0)
