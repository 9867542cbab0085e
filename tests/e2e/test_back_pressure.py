"""The disk's two levels in mq-queue, what xmtpd sees of a queue, and how it feels it."""

import asyncio
import os
import signal
import socket

import pytest

from mqmail.control import reader
from mqmail.prog.xmtpd.inflow import CONTROL, Together, Watch
from mqmail.queue import load
from mqmail.queue.load import LOOKS, PATH, Count
from support.daemons import make_home, start
from support.home import SECONDS, wait_until
from support.systemhome import Acting, SystemHome

pytestmark = pytest.mark.e2e


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path / "home", concurrencyqueue="1")


def control(home, daemon, **files):
    """Change control files; *daemon* has read them."""
    for name, text in files.items():
        (home / "control" / name).write_text(f"{text}\n")
    daemon.lines.clear()
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_for("event=reloaded")


def mail(home, size=0):
    """The code of mq-queue's answer to MAIL."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(str(home / "run/queue.sock"))
        file = sock.makefile("rwb")
        file.readline()
        file.write(b"EHLO x\r\nMAIL FROM:<a@b.example> SIZE=%d\r\n" % size)
        file.flush()
        while file.readline()[3:4] == b"-":
            pass
        answer = file.readline()[:3].decode()
        file.close()
        return answer


def test_acceptance_stops_below_minfree_and_goes_on_at_okfree(home):
    daemon = start("mq-queue", home)
    try:
        control(home, daemon, minfree="1", okfree="1000000G")
        assert mail(home) == "250"
        assert mail(home, size=10 ** 15) == "452"
        assert mail(home) == "250"          # one message too large is not a disk too full
        control(home, daemon, minfree="1000000G")
        assert mail(home) == "452"
        control(home, daemon, minfree="1")
        assert mail(home) == "452"
        control(home, daemon, okfree="0")
        assert mail(home) == "250"
    finally:
        daemon.kill()


def fill(home, each):
    """*each* records in every directory of queue/new."""
    for bucket in range(256):
        directory = home / "queue/new" / f"{bucket:02x}"
        directory.mkdir(exist_ok=True)
        for number in range(each):
            (directory / f"{number:016}").touch()


def test_what_waits_is_estimated(home, monkeypatch):
    monkeypatch.chdir(home)
    count = Count()
    assert count.waiting() == 0
    fill(home, 2)
    assert count.waiting() == 512
    for path in home.glob("queue/new/?5/*"):
        path.unlink()
    assert sum([count.waiting() for _ in range(LOOKS)]) == 480 * LOOKS    # all are looked at in turn


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("wrong", ["0\n", "000000x00001\n", ""])
def test_a_load_that_cannot_be_read_is_logged_once(home, loop, monkeypatch, capfd, wrong):
    monkeypatch.chdir(home)
    watch = Watch(loop, reader.load(".", CONTROL))
    (home / PATH).write_text(wrong)
    watch._look()
    watch._look()
    (home / PATH).write_text("000000000001\n")
    watch._look()
    assert capfd.readouterr().err.count("event=load_unknown") == 1


def test_xmtpd_feels_a_queue_that_is_behind(home, loop, monkeypatch, capfd):
    monkeypatch.chdir(home)
    (home / "control/pressure").write_text("full 1000\n")
    watch = Watch(loop, reader.load(".", CONTROL))
    assert watch.pressure.stage == 0
    fill(home, 4)
    Count().tell()
    watch._look()
    assert (watch.pressure.stage, round(watch.pressure.share, 3)) == (3, 0.1)
    (home / "control/minfree").write_text("1000000G\n")
    watch.control = reader.load(".", CONTROL)
    watch._look()
    assert watch.pressure.low
    logged = capfd.readouterr().err
    assert "event=pressure prog=mqmail stage=refuse waiting=1024 free=" in logged
    assert "space=low" in logged


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_xmtpd_of_a_system_home_feels_it_too(new_home):
    home = new_home("alice", kind=SystemHome)
    daemon = start("mq-queue", home.path)
    try:
        fill(home.path, 1)
        wait_until(lambda: (home.path / PATH).read_text() == f"{256:012}\n", "mq-queue has counted")
        assert Acting(home, "xmtpd").do(load.told) == 256
        os.rename(home.path / "run/queue", home.path / "run/elsewhere")     # a home of an older version
        fill(home.path, 2)
        daemon.wait_for("event=load_unknown")
        assert Acting(home, "xmtpd").do(load.told) == 0
    finally:
        daemon.kill()


def test_processes_count_together_and_start_with_nothing():
    together = Together(2, 10)
    one, other = together.throttle(0), together.throttle(1)
    assert one.begin("a", [], 2, 2, 0.0) == other.begin("a", [], 2, 2, 0.0) == ""
    assert one.begin("b", [], 2, 2, 0.0) == "sessions of all"
    together.throttle(1)
    assert one.begin("b", [], 2, 2, 0.0) == ""
