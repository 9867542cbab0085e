"""Helper programs that print access tokens: how they are run, how they fail, how tokens are kept."""

from __future__ import annotations

import os
import pwd
import threading
import time

import pytest
import uvloop

from mqmail.base.waiter import Running
from mqmail.net import token
from mqmail.net.token import TokenFailed, Tokens, fetch, fetch_blocking


@pytest.fixture
def helper(tmp_path):
    """A function that makes a shell script, and gives its path."""
    def make(text):
        path = tmp_path / "helper"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)
    return make


@pytest.fixture
def loop():
    made = uvloop.new_event_loop()
    yield made
    made.close()


def finish(loop, *coroutines):
    """[(result, exception)] of coroutines that run together."""
    ends = {}

    def ended(number, result, error):
        ends[number] = result, error
        if len(ends) == len(coroutines):
            loop.stop()

    def begin():
        for number, coroutine in enumerate(coroutines):
            Running(coroutine, lambda result, error, number=number: ended(number, result, error))

    loop.call_soon(begin)
    timer = loop.call_later(60, loop.stop)
    loop.run_forever()
    timer.cancel()
    return [ends[number] for number in range(len(coroutines))]


@pytest.mark.parametrize("text", ["echo ya29.abc-_~+/==", "printf ya29.abc-_~+/==",
                                  r"printf ' ya29.abc-_~+/== \r\nmore\n'; echo warning >&2"])
def test_the_first_line_is_the_token(helper, text):
    assert fetch_blocking([helper(text)]) == "ya29.abc-_~+/=="


def test_arguments_are_words_and_nothing_is_a_shells(helper):
    assert fetch_blocking([helper('[ $# = 2 ] && echo "$1$2"'), "$HOME;", "*"]) == "$HOME;*"


def test_what_it_gets(helper, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    where = helper("read line || nothing=1\n"
                   "echo \"$(pwd),$nothing,$(umask),$(ps -o sid= -p $$ | tr -d ' '),$$,$(env"
                   " | cut -d= -f1 | sort | tr '\\n' ':'),$HOME\"")
    place, nothing, umask, session, pid, names, home = fetch_blocking([where]).split(",")
    assert (place, nothing, umask, session) == ("/", "1", "0077", pid)
    assert names in ("HOME:PATH:PWD:", "HOME:PATH:PWD:_:")
    assert home == pwd.getpwuid(os.geteuid()).pw_dir


@pytest.mark.parametrize(("text", "why"), [
    ("echo token; exit 3", "helper: exit code 3"),
    (r"printf 'invalid\033_grant\nmore' >&2; exit 1", "helper: exit code 1: invalid _grant"),
    ("yes x | head -c 200000 >&2; printf '%2000s' | tr ' ' x >&2; exit 1", r"exit code 1: x"),
    ("kill -9 $$", "helper: killed by signal 9"),
    ("true", "no access token: helper: the first line of its output is no access token"),
    ("echo 'cannot reach the issuer' >&2", "is no access token: cannot reach the issuer"),
    ("echo; echo token", "is no access token"),
    ("echo two words", "is no access token"),
    ("printf 'a\\001b\\n'", "is no access token"),
    ("printf 'b\\303\\244r\\n'", "is no access token"),
    ("yes x", "helper: wrote more than 8192 bytes"),
    ("head -c 8193 /dev/zero | tr '\\0' x", "helper: wrote more than 8192 bytes"),
])
def test_how_it_fails(helper, text, why):
    with pytest.raises(TokenFailed, match=why) as caught:
        fetch_blocking([helper(text)], 20)
    assert (caught.value.status, caught.value.exit_code) == ("4.7.0", 111)
    assert len(caught.value.text) < 300


def test_the_longest_token(helper):
    text = helper("head -c 8192 /dev/zero | tr '\\0' x")
    assert fetch_blocking([text]) == "x" * 8192


@pytest.mark.parametrize(("program", "why"), [
    ("/nonexistent/helper", "helper: No such file or directory"), ("/etc/passwd", "passwd: Permission"),
])
def test_no_program(program, why):
    with pytest.raises(TokenFailed, match=why):
        fetch_blocking([program])


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_it_runs_out_of_time_and_its_children_end_too(helper, tmp_path, trap):
    pids = tmp_path / "pids"
    text = helper(f"{trap}sleep 300 & echo $! $$ >{pids}; wait; wait; sleep 300")
    for seconds in (0.5, 2.5, 20.5):
        with pytest.raises(TokenFailed, match=rf"helper: has not ended within {seconds} seconds"):
            fetch_blocking([text], seconds)
        if pids.exists() and pids.read_text():      # it has had the time to begin
            break
    for pid in pids.read_text().split():
        assert is_gone(int(pid))


def is_gone(pid):
    """Whether the process has ended, or is just now ending."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(") ")[2][0] in "ZX":
                    return True
        except FileNotFoundError:
            return True
        os.sched_yield()
    return False


def test_what_it_leaves_behind_is_not_waited_for(helper, tmp_path):
    pids = tmp_path / "pids"
    assert fetch_blocking([helper(f"sleep 300 & echo $! >{pids}; echo token")]) == "token"
    os.kill(int(pids.read_text()), 9)


def test_nothing_stays_open(helper):
    before = os.listdir("/proc/self/fd")
    for text, seconds in (("echo token", 20), ("yes", 20), ("sleep 300", 0.1)):
        try:
            fetch_blocking([helper(text)], seconds)
        except TokenFailed:
            pass
    assert os.listdir("/proc/self/fd") == before


def test_the_loop_goes_on_meanwhile(helper, loop, tmp_path):
    """The helper ends only when the loop has written into its fifo."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def feed():
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:         # nobody reads yet
            loop.call_later(0.01, feed)
            return
        os.write(fd, b"from-the-loop\n")
        os.close(fd)

    loop.call_soon(feed)
    assert finish(loop, fetch(loop, [helper(f"cat {fifo}")], 20)) == [("from-the-loop", None)]


def test_the_asynchronous_form_fails_alike(helper, loop):
    (_, error), = finish(loop, fetch(loop, [helper("exit 3")]))
    assert type(error) is TokenFailed
    assert error.text == "no access token: helper: exit code 3"


def test_a_bug_leaves_nobody_waiting(loop):
    (_, error), = finish(loop, fetch(loop, [object()]))
    assert "TypeError" in error.text


def test_no_more_threads(loop, monkeypatch):
    def start(_self):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, "start", start)
    (_, error), = finish(loop, fetch(loop, ["/bin/true"]))
    assert error.text == "no access token: can't start new thread"


def test_whoever_asks_together_gets_the_same(helper, loop, tmp_path):
    tokens = Tokens(loop)
    program = (helper(f"echo x >>{tmp_path}/runs; wc -l <{tmp_path}/runs"),)
    assert finish(loop, *[tokens.get(program) for _ in range(5)]) == [("1", None)] * 5
    assert finish(loop, tokens.get(program)) == [("1", None)]
    assert finish(loop, tokens.get((*program, "argument"))) == [("2", None)]


def test_a_token_is_kept_for_its_time(helper, loop, tmp_path):
    tokens = Tokens(loop, lifetime=0.0)
    program = (helper(f"echo x >>{tmp_path}/runs; wc -l <{tmp_path}/runs"),)
    assert [finish(loop, tokens.get(program)) for _ in range(2)] == [[("1", None)], [("2", None)]]


def test_a_refused_token_is_forgotten_once(helper, loop, tmp_path):
    tokens = Tokens(loop)
    program = (helper(f"echo x >>{tmp_path}/runs; wc -l <{tmp_path}/runs"),)
    finish(loop, tokens.get(program))
    tokens.forget(program, "1")
    assert finish(loop, tokens.get(program)) == [("2", None)]
    tokens.forget(program, "1")             # another session's, by then an old one
    tokens.forget(("/other",), "1")
    assert finish(loop, tokens.get(program)) == [("2", None)]


def test_a_failure_is_kept_for_a_moment(helper, loop, tmp_path, monkeypatch):
    tokens = Tokens(loop)
    program = (helper(f"echo x >>{tmp_path}/runs; wc -l <{tmp_path}/runs >&2; exit 1"),)
    ends = finish(loop, *[tokens.get(program) for _ in range(3)]) + finish(loop, tokens.get(program))
    errors = [error for _, error in ends]
    assert [error.text for error in errors] == ["no access token: helper: exit code 1: 1"] * 4
    assert len({id(error) for error in errors}) == 4
    monkeypatch.setattr(token, "PAUSE", 0.0)
    assert finish(loop, Tokens(loop).get(program))[0][1].text.endswith(": 2")


def test_who_stops_waiting_harms_nobody(helper, loop):
    tokens = Tokens(loop)
    program = (helper("echo token"),)

    def begin():
        Running(tokens.get(program), lambda *_: None).cancel()

    loop.call_soon(begin)
    assert finish(loop, tokens.get(program)) == [("token", None)]
