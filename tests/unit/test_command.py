from __future__ import annotations

import os
import re
import resource
import signal
import time

import pytest
from nonroot import body, home, nonroot  # noqa: F401

from mqmail.local import command
from mqmail.local.command import Outcome

BODY = b"Subject: x\r\n\r\nhello\r\n"


def run(text, where, data=BODY, environment=None, **options):
    return command.run(text, str(where), environment or {}, body(data), **options)


@pytest.mark.parametrize(("text", "expected"), [
    ("exit 0", Outcome(0, "")), ("exit 99", Outcome(99, "")), ("echo no; exit 100", Outcome(100, "no")),
    ("kill -9 $$", Outcome(-9, "")), ("echo one; echo two >&2", Outcome(0, "one two")),
])
def test_how_it_ends(tmp_path, text, expected):
    assert run(text, tmp_path) == expected


def test_the_message_has_lf_line_ends_and_nothing_added(tmp_path):
    run("cat >copy", tmp_path, b"a\rb\0\r\nno end")
    assert (tmp_path / "copy").read_bytes() == b"a\rb\0\nno end"


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_the_message_is_whole_and_seekable_whatever_its_size(tmp_path, size):
    data = b"x" * (size - 2) + b"\r\n"
    outcome = run("wc -c; python3 -c 'import os; print(os.lseek(0, 0, 0), len(os.read(0, 5)))'; "
                  "head -c 3", tmp_path, data)
    assert outcome == Outcome(0, f"{size - 1} 0 5 xxx")
    assert os.listdir(tmp_path) == []


def test_a_home_without_o_tmpfile(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)     # EISDIR, as an old kernel says
    assert run("wc -c", tmp_path, b"x" * (2 << 20)) == Outcome(0, str(2 << 20))
    assert os.listdir(tmp_path) == []


def test_home_environment_umask_session(tmp_path):
    outcome = run("pwd; umask; env | sort; ps -o sid= -p $$ | tr -d ' '; echo $$", tmp_path,
                  environment={"EXT": "a b", "SENDER": ""})
    where, umask, *names, session, pid = outcome.text.split(" ")
    assert (where, umask, session) == (str(tmp_path), "0077", pid)
    assert " ".join(names) == f"EXT=a b PATH=/usr/local/bin:/usr/bin:/bin PWD={tmp_path} SENDER="


def test_only_three_descriptors(tmp_path):
    os.dup2(0, 57)      # inheritable
    try:
        outcome = run("for f in /proc/$$/fd/*; do echo ${f##*/}; done", tmp_path)
    finally:
        os.close(57)
    assert set(outcome.text.split()) - {"3", "10"} == {"0", "1", "2"}    # those two are the shell's


def test_signals_are_as_programs_expect(tmp_path):
    outcome = run("grep SigIgn /proc/self/status", tmp_path)
    ignored = int(re.search(r"SigIgn:\s*(\w+)", outcome.text)[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored & 1 << number - 1
        assert signal.getsignal(number) == signal.SIG_IGN      # it was ours that had to be undone


def test_output_is_bounded_and_drained(tmp_path):
    outcome = run("yes | head -c 10000000; touch done", tmp_path)
    assert outcome.code == 0
    assert len(outcome.text) == command.MOST_OUTPUT - 1
    assert (tmp_path / "done").exists()


def test_output_is_one_printable_line(tmp_path):
    outcome = run(r"printf '250 ok\r\n\033[31mred\000\377 caf\303\251\n\n'", tmp_path)
    assert outcome.text == "250 ok [31mred \ufffd caf\u00e9"


def gone(pid):
    """Whether process *pid* has ended, waiting up to thirty seconds for it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def run_too_long(text, where):
    """Run *text*, which says ``begun`` and goes on, until it has had enough time to say so."""
    for seconds in (0.3, 1.0, 5.0, 20.0):
        outcome = run(text, where, timeout=seconds)
        if outcome.text:
            break
    return outcome


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_GRACE", 30.0)
    outcome = run_too_long("trap 'echo x >cleaned; exit 1' TERM; sleep 1000 & echo $! >child;"
                           " echo begun; wait", tmp_path)
    assert outcome == Outcome(None, "begun")
    assert (tmp_path / "cleaned").exists()
    assert gone(int((tmp_path / "child").read_text()))


def test_a_program_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_GRACE", 0.2)
    outcome = run_too_long("trap '' TERM; echo $$ >pid; echo begun; sleep 100; sleep 100", tmp_path)
    assert outcome == Outcome(None, "begun")
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_it_leaves_behind_is_not_waited_for(tmp_path):
    outcome = run("(while :; do echo noise; done) & echo $! >child; sleep 0.1; exit 3", tmp_path,
                  timeout=60)
    assert outcome.code == 3
    assert gone(int((tmp_path / "child").read_text()))       # nobody reads: SIGPIPE


def test_closed_output_does_not_spin_or_end_it(tmp_path):
    used = time.process_time()
    assert run("exec >&- 2>&-; sleep 0.5; touch done", tmp_path) == Outcome(0, "")
    assert (tmp_path / "done").exists()
    assert time.process_time() - used < 0.3


def test_no_home(tmp_path):
    with pytest.raises(FileNotFoundError):
        run("exit 0", tmp_path / "none")


def test_no_descriptor_and_no_zombie_is_left(tmp_path):
    run("exit 0", tmp_path)
    message = body(BODY)
    before = os.listdir("/proc/self/fd")
    command.run("exit 0", str(tmp_path), {}, message)
    command.run("sleep 9", str(tmp_path), {}, message, timeout=0.1)
    with pytest.raises(FileNotFoundError):
        command.run("exit 0", str(tmp_path / "none"), {}, message)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@nonroot
def test_a_full_disk_is_an_error_before_the_program_starts(home):  # noqa: F811
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    with pytest.raises(OSError, match="File too large"):
        run("touch started", home, b"x" * (2 << 20))
    assert os.listdir(home) == []
