from __future__ import annotations

import os
import re
import resource
import time

import pytest
from nonroot import body, home, make_maildir, messages, nonroot  # noqa: F401

from mqmail.base.failure import Temporary
from mqmail.local import maildir
from mqmail.local.body import BLOCK, Body

HEAD = b"Return-Path: <a@b>\nDelivered-To: c@d\n"


def deliver(path, data, **options):
    return maildir.deliver(path, HEAD, body(data), **options)


def test_name_mode_and_content(tmp_path):
    path = make_maildir(str(tmp_path / "Maildir"))
    name = deliver(path, b"Subject: x\r\n\r\nhello\r\n")
    made = os.stat(f"{path}/new/{name}")
    found = re.fullmatch(r"\d{10}\.M\d{1,6}P(\d+)Q\d+V([0-9a-f]+)I([0-9a-f]+)\.([^/:,]+),S=(\d+)", name)
    assert found, name
    assert int(found[1]) == os.getpid()
    assert (int(found[2], 16), int(found[3], 16)) == (made.st_dev, made.st_ino)
    assert int(found[5]) == made.st_size
    assert made.st_mode & 0o7777 == 0o600
    assert messages(path) == [HEAD + b"Subject: x\n\nhello\n"]


def test_odd_host_names(tmp_path, monkeypatch):
    path = make_maildir(str(tmp_path / "Maildir"))
    real = os.uname()
    odd = os.uname_result((real.sysname, "a/b:c", real.release, real.version, real.machine))
    monkeypatch.setattr(os, "uname", lambda: odd)
    assert ".a\\057b\\072c,S=" in deliver(path, b"x\r\n")


HOSTILE = [b"", b"\r", b"\n", b"\r\n", b"\r\r\n", b"a\rb\r\n", b"\0\xff\r\n", b"no end", b"ends in cr\r",
           b"From x\r\n>From y\r\n", b".\r\n..\r\n"]


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_bodies(tmp_path, data):
    path = make_maildir(str(tmp_path / "Maildir"))
    deliver(path, data)
    assert messages(path) == [HEAD + data.replace(b"\r\n", b"\n")]


@pytest.mark.parametrize("size", range(BLOCK - 3, BLOCK + 4))
@pytest.mark.parametrize("tail", [b"\r\n", b"\r\r\n", b"\r\n\r\nmore\r", b"\n", b"\r"])
def test_line_ends_at_the_block_border(tmp_path, size, tail):
    path = make_maildir(str(tmp_path / "Maildir"))
    data = b"x" * (size - 1) + tail
    deliver(path, data)
    assert messages(path) == [HEAD + data.replace(b"\r\n", b"\n")]


def test_many_deliveries_have_as_many_names(tmp_path):
    path = make_maildir(str(tmp_path / "Maildir"))
    assert len({deliver(path, b"x\r\n") for _ in range(200)}) == 200
    assert len(messages(path)) == 200


def test_a_name_that_is_taken_is_left_alone(tmp_path, monkeypatch):
    path = make_maildir(str(tmp_path / "Maildir"))
    monkeypatch.setattr(time, "time_ns", lambda: 1_500_000_000_000_000_000)
    monkeypatch.setattr(maildir, "_deliveries", iter([7]))
    taken = f"{path}/tmp/1500000000.M0P{os.getpid()}Q7.{os.uname().nodename}"
    os.symlink(str(tmp_path / "victim"), taken)
    with pytest.raises(FileExistsError):
        deliver(path, b"x\r\n")
    assert os.path.islink(taken)
    assert not (tmp_path / "victim").exists()


def record_flushes(monkeypatch):
    """The names of what is flushed and renamed, in order."""
    done = []
    fsync, rename = os.fsync, os.rename

    def flush(fd):
        done.append(("fsync", os.path.basename(os.path.dirname(os.readlink(f"/proc/self/fd/{fd}"))),
                     os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
        fsync(fd)

    def move(old, new):
        done.append(("rename", os.path.basename(os.path.dirname(new)), os.path.basename(new)))
        rename(old, new)
    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", move)
    return done


def test_two_flushes_in_the_right_order(tmp_path, monkeypatch):
    path = make_maildir(str(tmp_path / "Maildir"))
    done = record_flushes(monkeypatch)
    deliver(path, b"x\r\n")
    assert [(what, where) for what, where, _ in done] == [
        ("fsync", "tmp"), ("rename", "new"), ("fsync", "Maildir")]
    assert done[2][2] == "new"


def test_missing_maildir_is_made_only_when_asked(tmp_path, monkeypatch):
    path = str(tmp_path / "Maildir")
    with pytest.raises(FileNotFoundError):
        deliver(path, b"x\r\n")
    assert not os.path.exists(path)
    done = record_flushes(monkeypatch)
    deliver(path + "/", b"x\r\n", create=True)
    assert messages(path) == [HEAD + b"x\n"]
    for name in ("", "tmp", "new", "cur"):
        assert os.stat(f"{path}/{name}").st_mode & 0o777 == 0o700
    assert [name for what, _, name in done if what == "fsync"][:2] == ["Maildir", tmp_path.name]


def test_half_a_maildir_is_completed(tmp_path):
    path = make_maildir(str(tmp_path / "Maildir"))
    os.rmdir(f"{path}/new")
    with pytest.raises(FileNotFoundError):
        deliver(path, b"x\r\n")
    assert os.listdir(f"{path}/tmp") == []
    deliver(path, b"x\r\n", create=True)
    assert messages(path) == [HEAD + b"x\n"]


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deliver("Maildir", b"x\r\n", create=True)
    assert messages("Maildir") == [HEAD + b"x\n"]


def test_a_truncated_body_is_not_delivered(tmp_path):
    path = make_maildir(str(tmp_path / "Maildir"))
    fd = os.memfd_create("body")
    os.write(fd, b"x" * (BLOCK + 10))
    with pytest.raises(Temporary, match="ends after 65546 of 65547 bytes"):
        maildir.deliver(path, HEAD, Body(fd, BLOCK + 11))
    assert messages(path) == []


@nonroot
def test_nothing_is_left_when_the_file_cannot_grow(home):  # noqa: F811
    path = make_maildir(f"{home}/Maildir")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    with pytest.raises(OSError, match="File too large"):
        deliver(path, b"x" * 200000)
    assert messages(path) == []


def test_nothing_is_left_when_a_flush_fails(tmp_path, monkeypatch):
    path = make_maildir(str(tmp_path / "Maildir"))
    for failing in (1, 2):
        calls = []

        def fsync(fd, calls=calls, failing=failing):
            calls.append(fd)
            if len(calls) == failing:
                raise OSError(5, "Input/output error")
        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="Input/output"):
            deliver(path, b"x\r\n")
        assert len(calls) == failing
        assert messages(path) == []


def test_no_descriptor_is_left_open(tmp_path):
    path = make_maildir(str(tmp_path / "Maildir"))
    message = body(b"x\r\n")
    before = os.listdir("/proc/self/fd")
    maildir.deliver(path, HEAD, message)
    with pytest.raises(FileNotFoundError):
        maildir.deliver(path + "2", HEAD, message)
    assert os.listdir("/proc/self/fd") == before
