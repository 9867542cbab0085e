"""make run: the tour, as somebody sees it who starts it."""

import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys

import pytest

from support.home import ME, ROOT, run, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def alone():
    """No other tour of these tests on this host: each takes the first port that is free."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        def is_ours():
            try:
                name.bind("\0mqmail-test-tour")
            except OSError:
                return False
            return True

        wait_until(is_ours, "the end of another tour", 90)
        yield


@pytest.fixture
def tour(alone, tmp_path_factory):
    """A function that starts the tour in a directory of its own; its output comes by a pipe."""
    directory = tmp_path_factory.mktemp("tour") / "run"
    started = []

    def start(home=directory):
        command = [sys.executable, "-m", "mqmail.demo", str(home)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "lib")}))
        started[-1].home = home
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def until(process, text):
    """What was printed, up to the line with *text*."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    pytest.fail(f"{text!r} did not come: {''.join(lines)}")


def test_the_tour_shows_three_messages_and_a_report(tour):
    process = tour()
    text = until(process, "Ctrl-C stops everything")
    assert re.search(r"\d ms  xmtpd took it by ESMTP from 127\.0\.0\.1 \(from you@example\.net\)", text)
    assert f"team@{ME} stands for alice@{ME}, bob@{ME}" in text
    assert "| This came by SMTP.\n" in text
    assert "| This came from a pipe.\n" in text
    assert re.search(rf"mq-resolve: impossible: gone@{ME} \(550 .*\)", text)
    report = re.search(r"tells the sender, in message (\w{16})\n", text)[1]
    assert f"message {report}\n" in text
    assert "| Subject: Undelivered mail" in text
    submission = int(re.search(r"swaks --server 127\.0\.0\.1:(\d+) --tls --auth-user alice@", text)[1])
    context = ssl.create_default_context(cafile=process.home / "tls/cert.pem")
    context.check_hostname = False
    with smtplib.SMTP("127.0.0.1", submission) as client:
        client.starttls(context=context)
        client.login(f"alice@{ME}", re.search(r"--auth-password (\w+)", text)[1])
        client.sendmail(f"alice@{ME}", [f"bob@{ME}"], b"Subject: mine\r\n\r\nhello\r\n")
    assert f"delivered to bob@{ME}" in until(process, "removed from the queue")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_goes_on_with_messages_of_the_visitor_until_it_is_stopped(tour, number):
    process = tour()
    until(process, "Ctrl-C stops everything")
    run("mq-inject", "--home", str(process.home), text=b"To: bob\nSubject: mine\n\nhello\n")
    assert f"delivered to bob@{ME}" in until(process, "removed from the queue")
    process.send_signal(number)
    until(process, "all programs have ended")
    assert process.wait(60) == 0
    done = run("mq-inject", "--home", str(process.home), text=b"To: bob\n", check=False)
    assert done.returncode == 111


def test_a_second_tour_of_the_same_home_works(tour):
    for _ in range(2):
        process = tour()
        until(process, "Ctrl-C stops everything")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert run("mq-setup", "--home", str(process.home), "--check").stdout == b""
    assert b" mq-queue queued " in run("mq-log", str(process.home / "run/log")).stdout


def test_two_tours_at_once_in_one_home_do_not(tour):
    first = tour()
    until(first, "Ctrl-C stops everything")
    second = tour()
    until(second, "make run: mq-start: mq-start already runs here")
    assert second.wait(60) == 111


def test_another_home_is_left_alone(tour, new_home):
    home = new_home("carol")
    home.control(me="mine.example.org\n")
    before = (home.path / "control" / "listeners").read_text()
    process = tour(home.path)
    until(process, "is a home for something else: name another directory, with RUN=DIR")
    assert process.wait(60) == 111
    assert (home.path / "control" / "listeners").read_text() == before
