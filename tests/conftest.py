"""Fixtures of the tests that run programs."""

import pytest

from support.home import Home

_failed = pytest.StashKey[bool]()


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
