"""A program that was started: what is heard of it, and its end."""

import os
import select
import subprocess
import time

import pytest

from mqmail.base import child

LONG = 20.0


def start(script):
    return subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            start_new_session=True)


def listen(program, most, seconds=LONG, strict=False):
    """((standard output, standard error), whether it ended)"""
    fds = program.stdout.fileno(), program.stderr.fileno()
    said, ended = child.listen(program, dict.fromkeys(fds, most), time.monotonic() + seconds,
                               fds[:1] if strict else ())
    return tuple(said[fd] for fd in fds), ended


@pytest.fixture
def started():
    """start(), and an end of it in any case."""
    made = []

    def one(script):
        made.append(start(script))
        return made[-1]

    yield one
    for program in made:
        child.end(program, LONG)
        for file in (program.stdout, program.stderr):
            file.close()


def test_the_start_of_both_is_kept_and_the_rest_is_read(started):
    program = started("head -c 300000 /dev/zero; echo trouble >&2")
    assert listen(program, 5) == ((b"\0" * 5, b"troub"), True)
    assert program.wait() == 0


def test_what_a_process_it_leaves_behind_says_later_is_not_waited_for(started):
    program = started("sleep 300 & echo now")
    assert listen(program, 100) == ((b"now\n", b""), True)


def test_who_has_not_ended_in_time_is_told_so(started):
    program = started("echo first; sleep 300")
    assert select.select([program.stdout], [], [], LONG)[0]
    assert listen(program, 100, seconds=0.3) == ((b"first\n", b""), False)


def test_who_has_ended_is_not_late_because_we_are(started):
    program = started("echo first")
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    assert listen(program, 100, seconds=-1.0) == ((b"first\n", b""), True)


def test_strict_output_has_an_end(started):
    with pytest.raises(ValueError, match="more than 5 bytes"):
        listen(started("yes"), 5, strict=True)


@pytest.mark.parametrize("script", ["sleep 300", "trap '' TERM; sleep 300; sleep 300"])
def test_the_whole_group_is_ended(started, script):
    program = started(f"echo on; {script}")
    assert os.read(program.stdout.fileno(), 10) == b"on\n"
    child.end(program, 0.1)
    program.wait(LONG)
    assert os.read(program.stdout.fileno(), 10) == b""     # nobody has it open any more
