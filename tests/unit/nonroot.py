"""Tests that deliver: they run in a forked child, as an ordinary user even when pytest is root."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import traceback

import pytest

from mqmail.local.body import Body, Mail

NOBODY = 65534


def nonroot(test):
    """Run *test* in a child without root's rights; what it raises there fails the test here."""
    @functools.wraps(test)
    def run(*args, **kwargs):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _child(writing, test, args, kwargs)
        os.close(writing)
        with open(reading, "rb") as pipe:
            report = pipe.read().decode()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, report or f"the child ended with {status}"
    return run


def _child(writing, test, args, kwargs):
    status = 1
    try:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        test(*args, **kwargs)
        status = 0
    except BaseException:  # noqa: BLE001  reported by the parent
        os.write(writing, traceback.format_exc().encode()[:60000])
    finally:
        os._exit(status)


@pytest.fixture
def home():
    """An empty home directory of the user that @nonroot tests run as."""
    path = tempfile.mkdtemp(prefix="mqmail-home-")
    if os.getuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def mail(data=b"Subject: x\r\n\r\nhello\r\n", sender="ann@example.org", recipient="bob@example.com"):
    """A message in a file without a name."""
    return Mail(_file(data), len(data), sender, recipient, "1kq3v9s0c0g00a2f")


def body(data):
    return Body(_file(data), len(data))


def _file(data):
    fd = os.memfd_create("body")
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd


def write(home, name, text, mode=0o600):
    """A file of the user's with exactly this mode."""
    path = f"{home}/{name}"
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def make_maildir(path):
    for directory in (path, f"{path}/tmp", f"{path}/new", f"{path}/cur"):
        os.mkdir(directory, 0o700)
    return path


def messages(maildir):
    """The contents of new/, and that tmp/ is empty."""
    assert os.listdir(f"{maildir}/tmp") == []
    found = []
    for name in sorted(os.listdir(f"{maildir}/new")):
        with open(f"{maildir}/new/{name}", "rb") as file:
            found.append(file.read())
    return found
