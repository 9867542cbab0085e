"""Fixtures of tests with other people's programs."""

import pytest

from support.programs import Program


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
