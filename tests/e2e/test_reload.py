"""HUP: a daemon takes all of its control files, or none; and what it took outlives its workers."""

import os
import signal
import socket
from pathlib import Path

import pytest

from support.home import ME, SECONDS, run, wait_until
from support.programs import runs

pytestmark = pytest.mark.e2e
NEW = "new.example.org"
# Daemon (as it logs), where it greets with the content of me, and a file of its own made wrong.
DAEMONS = [("mq-queue", "queue.sock", "databytes"), ("mq-resolve", "resolve.sock", "locals"),
           ("mq-local", "mailbox.sock", "users"), ("mq-rspawn", "remote.sock", "resolvers"),
           ("mq-remote", "transfer.sock", "remotetimeouts"), ("mq-bounce", "bounce.sock", "bouncefrom"),
           ("mq-auth", "auth.sock", "authbackends"), ("xmtpd", "", "timeoutsmtpd")]
WORKERS = {"mq-queue": "mq-queue", "mq-local": "mq-lspawn", "mq-rspawn": "mq-rspawn",
           "mq-remote": "mq-rspawn", "xmtpd": "xmtpd"}


@pytest.fixture
def single(new_home):
    """A running home with one worker of each kind."""
    home = new_home("alice", "bob")
    home.control(concurrencyqueue="1\n", concurrencylocal="1\n", processesremote="1\n",
                 processesincoming="1\n", localusers="none\n", locals=f"{ME}\n")
    return home.start()


def name_told(home, path):
    """The name in the greeting at a socket; a question makes mq-local look at its files."""
    place = str(home.path / "run" / path) if path else home.address
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as sock:
        sock.settimeout(SECONDS)
        sock.connect(place)
        file = sock.makefile("rb")
        greeting = file.readline().decode()
        if path == "mailbox.sock":
            rcpt = f"RCPT TO:<@mailbox:alice@{ME}>".encode()
            sock.sendall(b"\r\n".join([b"LHLO x", b"MAIL FROM:<>", rcpt, b"QUIT", b""]))
            file.read()
    return greeting.split()[1]


def hang_up(home, event):
    """HUP to all; wait for the event of each daemon. A parent whose files are wrong tells no worker, and
    mq-local says nothing of files that are right."""
    names = {WORKERS.get(name, name) if event == "event=reload_failed" else name
             for name, _, _ in DAEMONS if name != "mq-local" or event == "event=reload_failed"}
    before = {name: len(home.log(event, f"prog={name}")) for name in names}
    home.process.send_signal(signal.SIGHUP)
    wait_until(lambda: all([len(home.log(event, f"prog={name}")) > count
                            for name, count in before.items()]), f"{event} of all")


def test_all_files_or_none(single):
    for _, path, _ in DAEMONS:
        assert name_told(single, path) == ME, path      # each worker has begun, with the old files
    before = {name: (single.path / "control" / name).exists() for _, _, name in DAEMONS}
    users = (single.path / "control/users").read_text()
    single.control(me=f"{NEW}\n", **{name: "..\n" for _, _, name in DAEMONS})
    hang_up(single, "event=reload_failed")
    for _, path, _ in DAEMONS:
        assert name_told(single, path) == ME, path
    single.deliver(f"alice@{ME}")
    single.wait_for("alice")
    for name, was_there in before.items():
        if not was_there:
            (single.path / "control" / name).unlink()
    single.control(users=users, locals=f"{ME}\n", loglevels="xmtpd notice\n")
    hang_up(single, "event=reloaded")
    for _, path, _ in DAEMONS:
        wait_until(lambda path=path: name_told(single, path) == NEW, f"the new name at {path}")
    before = len(single.log("event=accepted"))
    id = single.deliver(f"alice@{ME}")
    single.wait_for("alice", 2)
    single.wait_for_log("event=delivered", id)
    assert len(single.log("event=accepted")) == before == 1


def test_mq_send_takes_all_files_or_none(single):
    single.control(concurrencylocal="0\n", queuelifetime="x\n")
    os.kill(single.daemons()["mq-send"], signal.SIGHUP)
    single.wait_for_log("event=reload_failed", "prog=mq-send", "control/queuelifetime+20line+201")
    single.deliver(f"alice@{ME}")
    single.wait_for("alice")
    single.control(queuelifetime="1000\n")
    os.kill(single.daemons()["mq-send"], signal.SIGHUP)
    single.wait_for_log("event=reloaded", "prog=mq-send")
    id = single.deliver(f"alice@{ME}")
    wait_until(lambda: [path for path in single.queued() if path.parts[-3] == "wait"
                        and path.name == id], "a message that is held")


def workers(home, name):
    """The pids of the children called *name* of the daemon that has such workers."""
    pid = home.daemons()[WORKERS[name]]
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for one in found if runs(one) and name_of(one) == name]


def name_of(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill_worker(home, name):
    """The one called *name* dies; wait for another."""
    [worker] = workers(home, name)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: workers(home, name) not in ([], [worker]), "a new worker")


@pytest.mark.parametrize(("name", "path"), [row[:2] for row in DAEMONS if row[0] in WORKERS])
def test_a_worker_that_is_started_anew_has_what_was_good_last(single, name, path):
    single.control(me=f"{NEW}\n", rewrite=f"al@{ME} alice@{ME}\n", optionsets="mx rewrite=all\n")
    hang_up(single, "event=reloaded")
    wait_until(lambda: name_told(single, path) == NEW, "the new name")
    kill_worker(single, name)
    wait_until(lambda: name_told(single, path) == NEW, "the new name again")
    single.control(loglevels="loud\n", **{file: "..\n" for _, _, file in DAEMONS}, me="..\n")
    kill_worker(single, name)
    assert name_told(single, path) == NEW
    single.wait_for_log("event=reload_failed", f"prog={name}", "control/loglevels+20line+201")
    single.deliver(f"al@{ME}")
    single.wait_for("alice")
    assert len(single.log("event=worker_died", f"prog={WORKERS[name]}")) == 2
    assert single.log("event=bug") == []


def test_a_mistake_in_loglevels_stops_no_mail(new_home):
    home = new_home("alice")
    home.control(loglevels="xmtpd notice\nxmtpd loud\n")
    home.start()
    mistake = "error=control/loglevels+20line+202:+20'loud'+20is+20no+20level"
    for name in (*home.daemons(), "mq-remote"):
        home.wait_for_log("event=reload_failed", f"prog={name}", mistake)
    home.deliver(f"alice@{ME}")
    session = f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@{ME}>\r\nDATA\r\n\r\n.\r\nQUIT\r\n"
    done = run("xmtpd", "--home", str(home.path), text=session.encode())
    assert f"event=reload_failed prog=xmtpd {mistake}" in done.stderr.decode()
    home.wait_for("alice", 2)
    said = run("mq-showctl", "--home", str(home.path), "--check", check=False).stdout.decode()
    assert said.startswith("control/loglevels line 2: 'loud' is no level")
