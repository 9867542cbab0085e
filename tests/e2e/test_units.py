"""systemd's units: its own opinion of them, and each daemon confined as its unit says."""

import os
import resource
import select
import socket
import subprocess
from pathlib import Path

import pytest

from support.accounts import Accounts
from support.home import ME, SECONDS, Home, wait_until
from support.programs import Program, need
from support.systemhome import SystemHome

pytestmark = pytest.mark.e2e
# From mq-services' units to a shell that makes everything but the named directories unwritable.
CONFINE = """mount --make-rprivate /
for path in $WRITABLE; do mount --rbind "$path" "$path"; done
for path in / /dev/shm; do ! mountpoint -q $path || mount -o remount,bind,ro $path; done
exec "$@"
"""


@pytest.fixture(params=[Home, pytest.param(
    SystemHome, marks=pytest.mark.skipif(os.geteuid() != 0, reason="for root"))])
def units(request, new_home, tmp_path):
    """(home, {daemon: its unit as {name: value}})."""
    home = new_home("alice", kind=request.param)
    home.run("mq-services", "systemd", tmp_path)
    found = {}
    for path in tmp_path.glob("*.service"):
        lines = [line for line in path.read_text().splitlines() if "=" in line]
        found[path.stem] = dict([line.split("=", 1) for line in lines])
    return home, found


def test_systemd_has_nothing_to_say(new_home, tmp_path):
    new_home("alice").run("mq-services", "systemd", tmp_path)
    done = subprocess.run([need("systemd-analyze"), "verify", *tmp_path.iterdir()], capture_output=True,
                          text=True, check=False, env={**os.environ, "SYSTEMD_COLORS": "0"})
    # it looks for the manuals, which need not be installed
    assert [line for line in done.stderr.splitlines() if ": Command 'man " not in line] == []


class Confined:
    """A daemon with what a unit gives it, as far as it can be had without systemd: capabilities, limits,
    directories that it can write, and where it says that it is ready."""

    def __init__(self, unit, home, log):
        path = f"{home.top}/{log.name}.notify"      # the home's owner gets there
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            os.chmod(path, 0o777)
            self.program = Program(*self._command(unit), log=log, preexec_fn=lambda: self._limit(unit),
                                   env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": path,
                                        "WRITABLE": unit["ReadWritePaths"]})
            wait_until(lambda: self._is_heard(notify) or self.program.process.poll() is not None,
                       "something is said")
            self.said = notify.recv(4096) if self._is_heard(notify) else b""

    @staticmethod
    def _is_heard(notify):
        return select.select([notify], [], [], 0)[0]

    def reload(self, unit):
        """As the unit says, with the capabilities that it leaves root; a + means with all."""
        command = unit["ExecReload"].replace("$MAINPID", str(self.program.process.pid))
        confined = [] if command.startswith("+") else [need("setpriv"), self._bounds(unit)]
        subprocess.run([*confined, *command.removeprefix("+").split()], check=True, timeout=SECONDS)

    @staticmethod
    def _bounds(unit):
        names = [name.removeprefix("CAP_").lower() for name in unit["CapabilityBoundingSet"].split()]
        return f"--bounding-set=-all,+{',+'.join(names)}"

    def _command(self, unit):
        confine = ["unshare", "--mount", "sh", "-c", CONFINE, "sh"]
        if unit["ProtectSystem"] != "strict":
            confine = []
        privileges = ["--no-new-privs"] if unit.get("NoNewPrivileges") == "yes" else []
        return [*confine, need("setpriv"), *privileges, self._bounds(unit), *unit["ExecStart"].split()]

    @staticmethod
    def _limit(unit):
        for name in ("DATA", "NOFILE"):
            most = int(unit[f"Limit{name}"])
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_confined_daemons_do_their_work(units, tmp_path, request):
    home, found = units
    home.control(localusers="passwd\n")
    assert len(found) == 8
    with Accounts(2) as (account, other):
        other.write(".qmail", "|exit 100\n")
        account.write(".qmail", "|cat >got; touch /tmp/mqmail-$USER\n")
        for name, unit in found.items():
            daemon = Confined(unit, home, tmp_path / f"{name}.log")
            request.addfinalizer(daemon.program.stop)
            assert daemon.said == b"READY=1"
            daemon.reload(unit)
            if name != "mq-lspawn":     # its workers do it when they are needed
                log = daemon.program.log
                wait_until(lambda log=log: "event=reloaded" in log(), f"reload of {name}")
        home.deliver(*[f"{name}@{ME}" for name in ("alice", account.name, other.name)],
                     sender=f"alice@{ME}")
        assert b"\nFinal-Recipient: " in b"".join(home.wait_for("alice", 2))
        home.wait_until_empty()
        assert "Subject: hello" in (account.home / "got").read_text()
        Path(f"/tmp/mqmail-{account.name}").unlink()
    logs = "".join([path.read_text() for path in tmp_path.glob("*.log")])
    assert "event=bug" not in logs


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_confinement_confines(units, tmp_path):
    """So that the test above means something: a daemon does not run when what it needs is missing."""
    home, found = units
    unit = found["mq-queue"]
    unit["ReadWritePaths"] = unit["ReadWritePaths"].replace("/run", "/mail")
    assert Confined(unit, home, tmp_path / "log").said == b""
    assert "Read-only file system" in (tmp_path / "log").read_text()
