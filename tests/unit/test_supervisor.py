"""The supervisor with daemons that are small functions here, in processes of their own."""

import os
import select
import signal
import time

import pytest

from mqmail.base.failure import Usage
from mqmail.net import supervisor
from mqmail.net.daemon import arguments
from mqmail.net.supervisor import Daemon, Supervisor
from mqmail.prog import mq_send

SECONDS = 30


class Running:
    """A supervisor in a child; its daemons and its log write lines into one pipe."""

    def __init__(self, *daemons):
        self._read, self.write = os.pipe()
        self._seen = b""
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.dup2(self.write, 2)
                Supervisor([one(self) for one in daemons]).run(lambda: self.say("started"))
                self.say("ended")
            finally:
                os._exit(0)

    def say(self, text):
        os.write(self.write, f"{text}\n".encode())

    def until(self, *texts):
        """Read lines until each of *texts* was in one; returns all lines since the last call."""
        deadline, lines = time.monotonic() + SECONDS, []
        missing = list(texts)
        while missing:
            while b"\n" not in self._seen:
                if not select.select([self._read], [], [], deadline - time.monotonic())[0]:
                    pytest.fail(f"never came: {missing}; came: {lines}")
                self._seen += os.read(self._read, 65536)
            line, _, self._seen = self._seen.partition(b"\n")
            lines.append(line.decode())
            missing = [text for text in missing if text not in lines[-1]]
        return lines

    def kill(self, number):
        os.kill(self.pid, number)

    def pid_of(self, lines, name):
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@pytest.fixture
def run():
    made = []

    def start(*daemons):
        made.append(Running(*daemons))
        return made[-1]

    yield start
    for one in made:
        try:
            one.kill(signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(one.pid, 0)
        os.close(one._read)
        os.close(one.write)


def daemon(name, stage=0, work=signal.pause, deaf=False, silent=False):
    """Says its pid, is ready, works; at TERM it says so and ends, unless it is *deaf*."""
    def make(running):
        def terminate(number, _frame):
            running.say(f"{name} {signal.Signals(number).name}")
            if number == signal.SIGTERM and not deaf:
                os._exit(0)

        def main(argv):
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, terminate)
            running.say(f"{name} {os.getpid()} {' '.join(argv[:-1])}")
            if not silent:
                os.write(int(argv[-1]), b"\n")
            while True:
                work()
        return Daemon(name, main, ("--home", "."), stage, lambda: None)
    return make


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pid):
    deadline = time.monotonic() + SECONDS
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} lives on"
        os.sched_yield()


def test_started_only_when_every_daemon_is_ready(run):
    gate = os.pipe()

    def late(running):
        made = daemon("late", silent=True)(running)

        def main(argv):
            os.read(gate[0], 1)
            os.write(int(argv[-1]), b"\n")
            signal.pause()
        return made.replace(main=main)
    running = run(daemon("one"), late)
    before = running.until("one ")
    assert not any("started" in line for line in before)
    assert not select.select([running._read], [], [], 0.2)[0]
    os.write(gate[1], b"x")
    assert running.until("started") == ["started"]
    for fd in gate:
        os.close(fd)


def test_a_daemon_gets_its_arguments_and_a_session_of_its_own(run):
    running = run(daemon("one"))
    lines = running.until("started")
    pid = running.pid_of(lines, "one")
    assert lines[0] == f"one {pid} --home . --ready-fd"
    assert os.getsid(pid) == pid
    with open(f"/proc/{pid}/comm") as file:
        assert file.read() == "one\n"


def test_a_daemon_that_dies_is_started_again(run):
    running = run(daemon("one"), daemon("two"))
    lines = running.until("started")
    pid = running.pid_of(lines, "one")
    os.kill(pid, signal.SIGKILL)
    lines = running.until("event=daemon_died", "--ready-fd")
    assert f"event=daemon_died prog=mqmail daemon=one pid={pid} status=-9 pause=0.1" in lines
    assert running.pid_of(lines, "one") != pid


def test_restarts_come_at_growing_intervals(run, monkeypatch):
    monkeypatch.setattr(supervisor, "LASTING", 1000.0)
    running = run(daemon("one", work=lambda: os._exit(3)))
    lines = running.until("pause=0.1", "pause=0.2", "pause=0.4", "pause=0.8")
    assert len([line for line in lines if "status=3" in line]) == 4


def test_who_ran_long_enough_is_restarted_at_once_again(run, monkeypatch):
    monkeypatch.setattr(supervisor, "LASTING", 0.0)
    running = run(daemon("one", work=lambda: os._exit(3)))
    pauses = [running.until("event=daemon_died")[-1].split()[-1] for _ in range(4)]
    assert pauses == ["pause=0.1"] * 4


def test_daemons_stop_stage_by_stage(run):
    running = run(daemon("last", stage=2), daemon("first"), daemon("second", stage=1))
    running.until("started")
    running.kill(signal.SIGTERM)
    lines = running.until("ended")
    told = [line for line in lines if "SIGTERM" in line]
    assert told == ["first SIGTERM", "second SIGTERM", "last SIGTERM"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_while_starting_it_stops(run, number):
    running = run(daemon("one", silent=True))
    running.until("one ")
    running.kill(number)
    assert not any("started" in line for line in running.until("ended"))


def test_who_does_not_stop_is_killed(run, monkeypatch):
    for seconds in (0.2, 1.0, 5.0):
        monkeypatch.setattr(supervisor, "GRACE", seconds)
        running = run(daemon("deaf", deaf=True), daemon("last", stage=1))
        running.until("started")
        running.kill(signal.SIGTERM)
        lines = running.until("ended")
        if {"deaf SIGTERM", "last SIGTERM"} <= set(lines):     # both have had the time to say so
            break
    assert "deaf SIGTERM" in lines
    assert any("event=stop_too_slow" in line for line in lines)
    assert any("daemon=deaf" in line and "status=-9" in line for line in lines)
    assert "last SIGTERM" in lines


def test_hup_goes_to_all(run):
    running = run(daemon("one"), daemon("two"))
    running.until("started")
    running.kill(signal.SIGHUP)
    running.until("one SIGHUP", "two SIGHUP")


def test_daemons_die_with_a_killed_parent(run):
    running = run(daemon("one", deaf=True), daemon("two"))
    lines = running.until("started")
    running.kill(signal.SIGKILL)
    for name in ("one", "two"):
        wait_gone(running.pid_of(lines, name))


def test_systemd_hears_from_the_parent_alone(run, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")

    def nosy(running):
        made = daemon("nosy")(running)

        def main(argv):
            running.say(f"socket={os.environ.get('NOTIFY_SOCKET')}")
            return made.main(argv)
        return made.replace(main=main)
    assert "socket=None" in run(nosy).until("started")


def test_what_mq_start_says_is_read_as_docopt_reads_it():
    usage = mq_send.__doc__
    short = arguments(usage, ["--home", "x", "--ready-fd", "7"])
    assert short[:2] == arguments(usage, ["--ready-fd=7", "--home=x"])[:2] == ("x", 7)
    with pytest.raises(Usage):
        arguments(usage, ["--home", "x", "--ready-fd", "-7"])
