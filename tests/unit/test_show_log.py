"""mq-log: times of all loggers, and one message's story."""

import os
import subprocess

import pytest

from mqmail.prog.mq_log import parse
from support.home import ROOT, run

ID, OTHER, REPORT = "1j0r3ovvi1b008o1", "1j0r3ovvi1b008o2", "1j0r3ovvi1b008o3"
UTC = {**os.environ, "TZ": "UTC"}
# tai64nlocal(8) of daemontools turns this label into 2026-11-22 09:08:12.225048180
LABEL = "@400000006b02b1060d69f674"


def show(*words, text=b"", check=True, **environment):
    return run("mq-log", *words, text=text, check=check, env={**UTC, **environment}).stdout.decode()


@pytest.mark.parametrize("stamp", [
    LABEL, "2026-11-22 09:08:12.225046500 ", "2026-11-22_09:08:12.22504", "2026-11-22T09:08:12.22504",
    "2026-11-22T09:08:12.225046Z"])
def test_times(stamp):
    line = f"{stamp} event=queued prog=mq-queue id={ID} said=two+20words\n"
    assert show(text=line.encode()) == (
        f'2026-11-22 09:08:12.225 mq-queue queued id={ID} said="two words"\n')


def test_what_is_no_event_or_has_no_time_is_shown_too():
    text = b"mq-send: unable to start\nevent=ready prog=mq-start pid=7\n@zz event\xff\x1b[2J\n"
    assert show(text=text) == "mq-send: unable to start\nmq-start ready pid=7\n@zz event? [2J\n"


@pytest.mark.parametrize("before", [
    "Nov 22 09:08:12 mail mq-queue[71]:", "2026-11-22T09:08:12+0100 mail mq-queue[71]:"])
def test_what_syslog_and_journalctl_put_in_front_stays_there(before):
    text = f"{before} event=queued prog=mq-queue id={ID} said=two+20words\n".encode()
    assert show(ID, text=text) == f'{before} mq-queue queued said="two words"\n'


def test_hostile_facts_are_one_line():
    line = parse(b"event=x prog=y said=a+0Aevent+3Db")
    assert line.facts["said"] == "a\nevent=b"
    assert show(text=b"event=x prog=y said=a+0Aevent+3Db\n") == 'y x said="a event=b"\n'


def at(second, words):
    return f"2026-11-22_11:41:{second:02d}.00000 {words}\n"


@pytest.fixture
def logs(tmp_path):
    """Service directories; the story is spread over three logs and an old file."""
    content = {
        f"xmtpd/log/main/{LABEL}.s": at(0, "event=connect prog=xmtpd session=s1 ip=192.0.2.1"),
        "xmtpd/log/main/current":
            at(2, f"event=accepted prog=xmtpd session=s1 id={ID}")
            + at(3, f"event=accepted prog=xmtpd session=s1 id={OTHER}")
            + at(4, "event=disconnect prog=xmtpd session=s1 why=quit")
            + at(4, "event=disconnect prog=xmtpd session=s11 why=quit"),
        "mq-send/log/main/current":
            at(5, f"event=failed prog=mq-send id={ID} to=1")
            + at(5, f"event=delivered prog=mq-send id={OTHER}")
            + at(7, f"event=told prog=mq-send id={ID} said=250+20{REPORT}"),
        "mq-queue/log/main/current":
            at(1, f"event=queued prog=mq-queue id={ID} session=s1")
            + at(6, f"event=queued prog=mq-queue id={REPORT} of={ID}")}
    for name, text in content.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_story(logs):
    lines = show(ID, str(logs)).splitlines()
    assert [line.split(" ")[2:4] for line in lines] == [
        ["xmtpd", "connect"], ["mq-queue", "queued"], ["xmtpd", "accepted"], ["xmtpd", "disconnect"],
        ["mq-send", "failed"], ["mq-queue", "queued"], ["mq-send", "told"]]
    assert lines[4] == "2026-11-22 11:41:05.000 mq-send failed to=1"
    assert "s11" not in "".join(lines)


def test_a_story_from_standard_input(logs):
    text = b"".join([path.read_bytes() for path in sorted(logs.rglob("current"))])
    assert len(show(ID, text=text).splitlines()) == 6


def test_all_logs_are_one(logs):
    seconds = [int(line[17:19]) for line in show(str(logs)).splitlines()]
    assert seconds == [0, 1, 2, 3, 4, 4, 5, 5, 6, 7]


def test_logs_of_one_kind_each(logs):
    assert len(show(ID, str(logs / "mq-queue/log/main")).splitlines()) == 2
    assert len(show(str(logs / "mq-send/log/main/current")).splitlines()) == 3


@pytest.mark.parametrize(("word", "code"), [(f"{REPORT[:-1]}0", 1), ("no-id", 100), ("{empty}", 111)])
def test_exit_codes(tmp_path, word, code):
    assert run("mq-log", word.format(empty=tmp_path), check=False).returncode == code


def test_a_message_that_no_log_knows():
    assert run("mq-log", ID, text=b"", check=False).stderr == (
        f"mq-log: no line of these logs is about {ID}\n".encode())


def test_it_does_not_wait_for_the_end_of_its_input():
    pipe = subprocess.PIPE
    with subprocess.Popen([ROOT / "bin/mq-log"], stdin=pipe, stdout=pipe) as process:
        process.stdin.write(b"event=ready prog=mq-start\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"mq-start ready\n"
        process.stdin.close()
