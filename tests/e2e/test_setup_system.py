"""mq-setup as root: a system home, its accounts; --check and --repair, there and in an owner's home."""

import os
import shutil
import subprocess

import pytest

from mqmail.control import rights
from support.home import ME, ROOT, SECONDS, Home, run
from support.systemhome import SystemHome

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="for root")]
STRANGER = 47300


@pytest.fixture(scope="module", params=["system", "owner"])
def home(request):
    """With a file of each kind that is not there at first."""
    made = SystemHome("alice") if request.param == "system" else Home("alice")
    made.is_system = request.param == "system"
    (made.path / "control/credentials").write_text("isp alice secret\n")
    (made.path / "tls").mkdir()
    (made.path / "tls/key.pem").write_text("secret\n")
    (made.path / "queue/new/00/1kq3v9s0c0g00a2f").write_text("x\n")
    (made.path / "mail/alice/Maildir/new/1").write_text("x\n")
    made.run("mq-setup", "--repair")
    if not made.is_system:
        shutil.chown(made.path / "control/credentials", "mail", "mail")
    yield made
    made.remove()


def check(home, *expected):
    """What --check prints is *expected*."""
    done = home.run("mq-setup", "--check", check=False)
    assert done.stdout.decode().splitlines() == list(expected)
    assert done.returncode == bool(expected)


def look(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid, found.st_mode & 0o7777


def test_after_repair_nothing_is_wrong(home):
    check(home)
    if home.is_system:
        of = home.accounts.of
        assert look(home.path / "control/credentials") == (0, of("mq-rspawn").gid, 0o640)
        assert look(home.path / "tls/key.pem") == (0, of("xmtpd").gid, 0o640)
        assert look(home.path / "tls") == (0, of("xmtpd").gid, 0o750)
        assert look(home.path / "mail/alice") == (of("mq-local").uid, of("mq-resolve").gid, 0o710)
        assert look(home.path / "queue/new/00") == (of("mq-queue").uid, of("mq-queue").gid, 0o2770)


def test_showctl_looks_with_the_rights_of_each_account(home):
    if not home.is_system:
        return
    for name in ("me", "passwd", "relayclients", "hooks.py"):
        (home.path / "control" / name).touch()
        (home.path / "control" / name).chmod(0o600)
    done = home.run("mq-showctl", "--check", check=False)
    (home.path / "control/me").chmod(0o644)
    for name in ("passwd", "relayclients", "hooks.py"):
        (home.path / "control" / name).unlink()
    of = home.accounts.of
    everybody = ", ".join([str(of(role.program).uid) for role in rights.ROLES])
    end = " cannot read it: mq-setup --repair mends that"
    assert done.stdout.decode().splitlines() == [
        "control/hooks.py: Permission denied", f"control/me: {everybody}{end}",
        f"control/relayclients: {of('xmtpd').uid}, {of('mq-resolve').uid}{end}",
        f"control/passwd: {of('mq-auth').uid}{end}"]
    assert home.run("mq-showctl", "--check").stdout == b""


@pytest.mark.parametrize("path", [
    "control/me", "control/credentials", "queue", "queue/wait", "queue/mess/7f", "run", "run/remote",
    "queue/new/00/1kq3v9s0c0g00a2f", "mail/alice", "mail/alice/Maildir/new/1", "tls/key.pem"])
def test_owners_and_modes_are_seen_and_mended(home, path):
    real = home.path / path
    before = look(real)
    os.chown(real, STRANGER, STRANGER)
    real.chmod(0o777)
    group = f", group is gid {STRANGER}, not" if home.is_system and "Maildir" not in path else ""
    done = home.run("mq-setup", "--check", check=False)
    assert done.returncode == 1
    line, = done.stdout.decode().splitlines()
    assert line.startswith(f"{path}: owner is uid {STRANGER}, not {before[0]}{group}"), line
    assert ", mode is 0777, not " in line
    assert look(real) == (STRANGER, STRANGER, 0o777)
    assert home.run("mq-setup", "--repair").stdout.decode().startswith(f"{path}: mended: owner is uid")
    mode = look(real)[2]
    assert look(real)[0] == before[0]
    assert mode == before[2] if "Maildir" not in path else not mode & 0o022
    check(home)
    os.chown(real, *before[:2])
    real.chmod(before[2])


def test_the_home_itself(home):
    home.path.chmod(0o777)
    check(home, ".: mode is 0777, not 0755")
    home.run("mq-setup", "--repair")
    check(home)


def test_set_id_bits_are_never_given_to_another_account(home):
    program = home.path / "queue" / "bad" / "x"
    program.write_bytes(b"#!/bin/sh\n")
    os.chown(program, 65432, 65432)
    program.chmod(0o6755)
    home.run("mq-setup", "--repair")
    found = program.stat()
    program.unlink()
    assert found.st_uid != 65432
    assert not found.st_mode & 0o6022


def test_what_is_missing_is_made(home):
    (home.path / "queue/bad").rmdir()
    check(home, "queue/bad: is no directory, or is missing: mq-setup makes it")
    said = home.run("mq-setup", "--repair").stdout.decode()
    assert said.startswith("queue/bad: was missing: made\n")
    check(home)


@pytest.mark.parametrize("path", ["run/x", "queue/new/00/x", "mail/alice/Maildir/new/x", "control/me2"])
def test_links_are_told_and_not_followed(home, path, tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    before = look(target)
    (home.path / path).symlink_to(target)
    check(home, f"{path}: is a symbolic link to {target}")
    assert home.run("mq-setup", "--repair", check=False).returncode == 1
    assert look(target) == before
    (home.path / path).unlink()
    check(home)


@pytest.mark.parametrize("path", ["run/x", "queue/new/00/1kq3v9s0c0g00a2g", "mail/alice/Maildir/new/x"])
def test_a_file_with_several_names_is_told_and_not_touched(home, path):
    """A mailbox's owner could give away a file of somebody else's by a second name of it."""
    target = home.path.parent / "precious"
    target.write_text("precious")
    before = look(target)
    os.link(target, home.path / path)
    check(home, f"{path}: has several names: remove it, or put a copy in its place")
    assert home.run("mq-setup", "--repair", check=False).returncode == 1
    assert look(target) == before
    (home.path / path).unlink()
    target.unlink()


def test_what_is_not_ours_is_only_not_to_be_written_by_all(home):
    (home.path / "notes").write_text("x")
    (home.path / "notes").chmod(0o666)
    check(home, "notes: mode is 0666, not 0664")
    home.run("mq-setup", "--repair")
    check(home)
    (home.path / "notes").unlink()


def test_run_again_setup_completes_a_system_home():
    home = SystemHome("alice")
    try:
        done = home.run("mq-setup", "--user", "bob")
        assert b"made mail/bob/Maildir/" in done.stdout
        assert home.run("mq-setup", "--system").stdout == b"nothing to do\n"
        check(home)
        done = home.run("mq-setup", "--owner", "nobody", check=False)
        assert done.returncode == 100
        assert b"it is the whole system's" in done.stderr
    finally:
        home.remove()


def test_an_owners_home_becomes_the_systems():
    home = Home("alice")
    try:
        shutil.copy(ROOT / "control/accounts", home.path / "control/accounts")
        lines = [f"{name} {47400 + n}:{47400 + n}\n" for n, name in enumerate(rights.ROLE_OF)]
        home.control(accounts="".join(lines))
        done = home.run("mq-setup", "--system", check=False)
        assert (done.returncode, b"give the" in done.stderr) == (100, True)
        os.chown(home.path, 0, 0)
        home.run("mq-setup", "--repair")
        check(home)
        assert home.run("mq-setup", "--system").stdout == b"nothing to do\n"
        home.start()
        home.deliver(f"alice@{ME}")
        home.wait_for("alice")
    finally:
        home.remove()


def test_sysusers():
    lines = run("mq-setup", "--print-sysusers").stdout.decode().splitlines()
    assert lines[1:] == [*[f'u {role.account} - "mqmail {role.program}"' for role in rights.ROLES],
                         "m mqs mqq"]


def test_accounts_are_made_and_used(tmp_path):
    """With an /etc of its own, so that the host keeps its accounts."""
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True, ignore_dangling_symlinks=True)
    home = tmp_path / "home"
    script = f"""
        mount --bind {tmp_path}/etc /etc || exit 77
        cd {ROOT}
        bin/mq-setup --home {home} --system --me {ME} --user alice || exit 1
        bin/mq-setup --home {home} --system || exit 2
        bin/mq-setup --home {home} --check || exit 3
        id -Gn mqs; stat -c %U:%G {home}/mail/alice
    """
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True,
                          timeout=SECONDS, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mount namespaces here")
    assert (done.returncode, done.stderr) == (0, "")
    for role in rights.ROLES:
        assert f"made account {role.account} for {role.program}\n" in done.stdout
        entry = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines()
                     if line.startswith(f"{role.account}:"))
        assert entry.endswith(f":mqmail {role.program}:/nonexistent:/usr/sbin/nologin")
    assert done.stdout.endswith("nothing to do\nmqs mqq\nmqm:mqv\n")
