"""mq-services: what it writes, and what it leaves alone."""

import os
import re
import stat

import pytest

from mqmail.control import services
from mqmail.prog import mq_start
from support.home import ME, ROOT, run

PLACE = services.Place("/usr/local/bin", "/var/mqmail", "/etc/services")


@pytest.fixture
def home(tmp_path):
    run("mq-setup", "--home", str(tmp_path / "home"), "--me", ME)
    (tmp_path / "services").mkdir()
    return tmp_path


def write(home, *words, check=True, **environment):
    return run("mq-services", "--home", str(home / "home"), *words, str(home / "services"), check=check,
               env={**os.environ, **environment})


def tree(home):
    """Path to content of all files in the target."""
    target = home / "services"
    found = [path for path in target.rglob("*") if path.is_file()]
    return {str(path.relative_to(target)): path.read_text() for path in found}


def text_of(supervisor, path, place=PLACE):
    [found] = [file for file in services.files(supervisor, place) if file.path == path]
    return found.text


def test_the_daemons_are_those_of_mq_start():
    started = {name for stage in mq_start.STAGES for name in stage}
    assert {one.name for one in services.PROGRAMS} == started


def test_systemd_stops_them_as_mq_start_does():
    """A unit is stopped before those it is started after."""
    stage_of = {name: number for number, stage in enumerate(mq_start.STAGES) for name in stage}
    for one in services.PROGRAMS:
        assert all(stage_of[one.name] < stage_of[name] for name in one.after)


def test_the_manual_lists_the_limits():
    page = (ROOT / "man/mq-services.8").read_text()
    listed = re.findall(r"^\.It (\S+) Ta (\d+) Ta (\d+) Ta (\d+)$", page, re.MULTILINE)
    table = [(one.name, one.memory // services.MB, one.descriptors, one.processes)
             for one in services.PROGRAMS]
    assert listed == [tuple(map(str, row)) for row in table]


def test_install_lists_them_too():
    listed = re.findall(r"^(\S+) +(\d+) +(\d+) +(\d+)$", (ROOT / "INSTALL").read_text(), re.MULTILINE)
    table = [(one.name, one.memory // services.MB, one.descriptors, one.processes)
             for one in services.PROGRAMS]
    assert listed == [tuple(map(str, row)) for row in table]


def test_a_run_script():
    assert text_of("s6", "xmtpd/run") == """#!/bin/sh
exec 2>&1
ulimit -d 512000
ulimit -n 12000
exec /usr/local/bin/xmtpd --home /var/mqmail --listen --ready-fd 3
"""


@pytest.mark.parametrize(("supervisor", "command"), [
    ("s6", "s6-setuidgid logs s6-log -d 3 T n20 s10000000 /var/log/mqmail/mq-send"),
    ("daemontools", "setuidgid logs multilog t n20 s10000000 /var/log/mqmail/mq-send"),
    ("runit", "chpst -u logs svlogd -tt /var/log/mqmail/mq-send")])
def test_a_logger(supervisor, command):
    place = services.Place("/usr/local/bin", "/var/mqmail", "/etc/services", "/var/log/mqmail", "logs")
    assert text_of(supervisor, "mq-send/log/run", place) == f"#!/bin/sh\nexec {command}\n"
    assert " logs " not in text_of(supervisor, "mq-send/log/run")


def test_a_home_below_home_can_be_reached():
    unit = text_of("systemd", "mq-send.service", services.Place("/usr/bin", "/home/a/mq", "/x"))
    assert "\nProtectHome=read-only\n" in unit
    assert "\nProtectHome=yes\n" in text_of("systemd", "mq-send.service")


def test_each_unit_is_as_confined_as_it_can_be():
    for one in services.PROGRAMS:
        unit = text_of("systemd", f"{one.name}.service")
        for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes"):
            assert (line in unit) == (one.name != "mq-lspawn")
        assert ("AF_INET " in unit) == (one.name not in ("mq-queue", "mq-bounce", "mq-lspawn"))
        assert ("NET_BIND_SERVICE" in unit) == (one.name == "xmtpd")
        writable = re.search("^ReadWritePaths=(.*)$", unit, re.MULTILINE)[1].split()
        assert "/var/mqmail" not in writable
        assert "/var/mqmail/control" not in writable
    widest = text_of("systemd", "mq-lspawn.service")
    assert "\nReadOnlyPaths=/var/mqmail/control /var/mqmail/queue\n" in widest


@pytest.mark.parametrize("supervisor", services.SUPERVISORS)
def test_what_is_written(home, supervisor):
    said = write(home, supervisor).stdout.decode()
    place = services.Place(str(ROOT / "bin"), str(home / "home"), str(home / "services"))
    wanted = services.files(supervisor, place)
    assert tree(home) == {file.path: file.text for file in wanted}
    for file in wanted:
        assert stat.S_IMODE((home / "services" / file.path).stat().st_mode) == file.mode
    names = {file.path.partition("/")[0] for file in wanted}
    assert said == "".join([f"made {home}/services/{name}\n" for name in dict.fromkeys(
        [file.path.partition("/")[0] for file in wanted])])
    assert {path.name for path in (home / "services").iterdir()} == names
    if supervisor != "systemd":
        assert all([(home / "services" / name / "log/main").is_dir() for name in names])


def test_again_does_nothing_and_completes_what_is_missing(home):
    write(home, "s6")
    (home / "services/mq-send/down").touch()        # not ours, no matter
    before = tree(home)
    assert write(home, "s6").stdout == b"nothing to do\n"
    os.rename(home / "services/xmtpd", home / "elsewhere")
    assert write(home, "s6").stdout.decode() == f"made {home}/services/xmtpd\n"
    assert tree(home) == before


@pytest.mark.parametrize("harm", [
    lambda path: path.write_text("#!/bin/sh\nexec true\n"),
    lambda path: path.chmod(0o644),
    lambda path: path.unlink()])
def test_what_differs_is_named_and_nothing_is_written(home, harm):
    write(home, "runit")
    os.rename(home / "services/mq-queue", home / "elsewhere")
    harm(home / "services/xmtpd/run")
    before = tree(home)
    done = write(home, "runit", check=False)
    assert done.returncode == 100
    assert f"{home}/services/xmtpd/run is not what" in done.stderr.decode()
    assert tree(home) == before


def test_logs_go_elsewhere(home):
    write(home, "--logs", str(home / "logs"), "daemontools")
    assert {path.name for path in (home / "logs").iterdir()} == {one.name for one in services.PROGRAMS}
    assert not (home / "services/xmtpd/log/main").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_logs_belong_to_the_logger(home):
    write(home, "--logger", "nobody", "daemontools")
    found = home / "services/xmtpd/log/main"
    assert (found.owner(), found.parent.owner()) == ("nobody", "root")


@pytest.mark.parametrize(("words", "code", "said"), [
    (("--logger", "no-such-account", "s6"), 100, "no account 'no-such-account'"),
    (("--logs", "/tmp/x", "systemd"), 100, "journal"),
    (("--logs", "/tmp/a b", "s6"), 100, "only letters"),
    (("--home", "/tmp/$x", "s6"), 100, "only letters"),
    (("--home", "/nonexistent", "s6"), 111, "is no mqmail home"),
    (("upstart",), 100, "Usage:")])
def test_refusals(home, words, code, said):
    home_given = [] if "--home" in words else ["--home", str(home / "home")]
    done = run("mq-services", *home_given, *words, str(home / "services"), check=False)
    assert (done.returncode, said in done.stderr.decode()) == (code, True)
    assert tree(home) == {}


def test_no_target(home):
    (home / "services").rmdir()
    done = write(home, "s6", check=False)
    assert (done.returncode, "is no directory" in done.stderr.decode()) == (111, True)
