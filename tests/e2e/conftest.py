"""Fixtures of tests with other people's programs, and which tests may run at the same time."""

from pathlib import Path

import pytest

from support.programs import Program

# They change the accounts of this host, or look at all of them.
OF_ACCOUNTS = ("test_local", "test_resolve_daemon", "test_setup_system", "test_supervised", "test_units")


def pytest_collection_modifyitems(items):
    """Under ``-n 2 --dist loadgroup`` the tests of a file stay together, and some files too."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            name = item.path.stem
            item.add_marker(pytest.mark.xdist_group("accounts" if name in OF_ACCOUNTS else name))


@pytest.fixture
def launch(new_home, tmp_path):
    """A function that starts a program (arguments as Program's). Those that still run at the end of
    the test are ended, the last one first, before homes are removed."""
    started = []

    def start(*command, **options):
        log = tmp_path / f"{len(started)}.log"
        started.append(Program(*command, log=log, **options))
        return started[-1]

    yield start
    for program in reversed(started):
        try:
            program.stop()
        finally:
            print(program.process.args, program.log()[-5000:], sep="\n")
