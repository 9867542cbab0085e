"""Fixtures of the tests that run programs."""

import os
import tempfile

import hypothesis
import pytest

from support.home import Home

MEMORY = "/dev/shm"         # where homes are made if it has room: flushing to it costs nothing
ROOM = 4 << 30              # octets
_failed = pytest.StashKey[bool]()


def pytest_configure():
    """Homes live in memory, unless TMPDIR says where: most tests prove what is written, not that a disk
    keeps it (those that do make a disk of their own). How fast a machine is decides no test."""
    hypothesis.settings.register_profile("any machine", deadline=None,
                                         suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("any machine")
    if "TMPDIR" not in os.environ and _has_room(MEMORY):
        os.environ["TMPDIR"] = MEMORY
        tempfile.tempdir = None


def _has_room(directory):
    """Whether it is one to make homes in: programs are run there, too."""
    try:
        there = os.statvfs(directory)
    except OSError:
        return False
    return (there.f_bavail * there.f_frsize >= ROOM and not there.f_flag & os.ST_NOEXEC
            and os.access(directory, os.W_OK))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture
def new_home(request):
    """A function that makes homes (arguments as Home's, *kind* another class), to be started by the
    test. They are removed at the end; those of a failed test are stopped, and kept to be looked at."""
    homes = []

    def make(*users, kind=Home, **options):
        homes.append(kind(*users, **options))
        return homes[-1]

    yield make
    for home in homes:
        if request.node.stash.get(_failed, False):
            home.stop()
            print(f"kept: {home.path}; its log:", *home.log()[-50:], sep="\n")
        else:
            home.remove()


@pytest.fixture
def home(new_home):
    """A running home with the mailboxes alice and bob."""
    return new_home("alice", "bob").start()
