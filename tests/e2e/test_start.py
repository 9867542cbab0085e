"""mq-start: starting, stopping and restarting everything, as root and not."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from support.home import ME, ROOT, free_port, owner_name, reply, run, wait_until
from support.programs import family, runs

pytestmark = pytest.mark.e2e
DAEMONS = ["mq-auth", "mq-bounce", "mq-lspawn", "mq-queue", "mq-resolve", "mq-rspawn", "mq-send",
           "xmtpd"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="for root")


def uid_of(pid):
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in status if line.startswith("Uid:"))


def test_mail_is_accepted_and_delivered_once_it_is_ready(home):
    home.deliver(f"alice@{ME}", f"bob@{ME}", text=b"Subject: one\r\n\r\nhello, both\r\n")
    for mailbox in ("alice", "bob"):
        assert b"\nSubject: one\n\nhello, both\n" in home.wait_for(mailbox)[0]
    home.wait_until_empty()
    assert sorted(home.daemons()) == DAEMONS
    home.wait_for_log("event=ready", "prog=mq-start")


def test_it_stops_when_told_and_nothing_is_left(home):
    pids = family(home.process.pid)
    assert len(pids) > len(DAEMONS)
    assert home.stop() == 0
    assert not any([runs(pid) for pid in pids])
    assert home.log("event=stopped")
    assert not home.log("event=bug")


def test_a_message_on_its_way_in_is_not_lost_when_it_stops(home):
    with home.connect() as sock, sock.makefile("rwb") as file:
        reply(file)
        for command in ("EHLO x", "MAIL FROM:<a@example.net>", f"RCPT TO:<alice@{ME}>", "DATA"):
            reply(file, f"{command}\r\n".encode())
        file.write(b"Subject: late\r\n\r\nstill ")
        file.flush()
        home.process.send_signal(signal.SIGTERM)
        home.wait_for_log("event=stopping")
        wait_until(lambda: refused(home.address), "no more connections")
        assert reply(file, b"here\r\n.\r\n").startswith("250")
    assert home.stop() == 0
    home.start()
    assert b"still here\n" in home.wait_for("alice")[0]


def refused(address):
    """Whether nobody accepts there: a connection is not greeted."""
    try:
        with socket.create_connection(address, 0.2) as sock:
            return sock.recv(3) == b""
    except OSError:
        return True


def test_the_second_on_one_home_says_so(home):
    done = home.run("mq-start", check=False)
    text = f"mq-start: mq-start already runs here: process {home.process.pid} holds run/mq-start.lock\n"
    assert (done.returncode, done.stderr.decode()) == (111, text)
    home.deliver(f"alice@{ME}")
    home.wait_for("alice")


@pytest.mark.parametrize("name", DAEMONS)
def test_a_killed_daemon_is_replaced(home, name):
    killed = home.daemons()[name]
    pids = family(killed)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not any([runs(pid) for pid in pids]), f"{name} and its workers gone")
    home.wait_for_log("event=daemon_died", f"daemon={name}", f"pid={killed}", "status=-9")
    wait_until(lambda: home.daemons().get(name, killed) != killed, f"{name} started again")
    wait_until(lambda: delivers(home), "mail is delivered again")
    assert home.wait_for("alice")


def delivers(home):
    """Whether SMTP takes a message now; a daemon that is just starting costs the client a 4xx."""
    try:
        home.deliver(f"alice@{ME}")
    except (AssertionError, OSError):
        return False
    return True


def test_after_kill_9_it_starts_again_at_once(home):
    pids = family(home.process.pid)
    home.stop(signal.SIGKILL)
    wait_until(lambda: not any([runs(pid) for pid in pids]), "all programs gone")
    home.start()
    home.deliver(f"alice@{ME}")
    home.wait_for("alice")


def test_hup_makes_all_read_their_control_files(home):
    with pytest.raises(AssertionError, match="550"):
        home.deliver(f"both@{ME}")
    home.control(aliases="both: alice, bob\n")
    home.process.send_signal(signal.SIGHUP)
    home.wait_for_log("event=reloaded", "prog=mq-resolve")
    home.deliver(f"both@{ME}")
    home.wait_for("alice")
    home.wait_for("bob")


def test_without_a_home_it_says_how_to_make_one():
    done = run("mq-start", "--home", "/nonexistent/home", check=False)
    assert done.returncode == 111
    assert b"make one with mq-setup --home /nonexistent/home" in done.stderr


def test_it_names_a_port_that_is_taken(new_home):
    home = new_home("alice")
    with socket.create_server(home.address):
        done = home.run("mq-start", check=False)
    assert done.returncode == 111
    assert done.stderr.decode().startswith(
        f"mq-start: 127.0.0.1:{home.port}: Address already in use: stop what listens there")


@pytest.mark.parametrize("text", ["x", "0", "-1", "99999999"])
def test_a_bad_descriptor_is_a_wrong_command_line(new_home, text):
    done = new_home("alice").run("mq-start", f"--ready-fd={text}", check=False)
    assert done.returncode == 100
    assert b"--ready-fd" in done.stderr


def test_it_listens_at_all_addresses(new_home):
    home = new_home("alice")
    other = free_port()
    home.control(listeners=f"127.0.0.1:{home.port}\n127.0.0.2:{other}\n")
    home.start()
    home.port = other
    with socket.create_connection(("127.0.0.2", other), 30) as sock:
        assert sock.recv(3) == b"220"


@as_root
def test_root_is_given_up_by_all_who_do_not_need_it(home):
    owner = owner_name(home.path)
    assert owner != "root"
    uid = str(os.stat(home.path).st_uid)
    found = {name: [set(uid_of(one)) for one in family(pid)] for name, pid in home.daemons().items()}
    lspawn = found.pop("mq-lspawn")
    assert lspawn[0] == {"0"}
    assert {uid} in lspawn[1:]      # who delivers to virtual mailboxes
    assert {name: uids for name, uids in found.items() if set.union(*uids) != {uid}} == {}


@as_root
def test_root_can_bind_low_ports(new_home):
    home = new_home("alice")
    home.port = next(port for port in range(600, 1024) if refused(("127.0.0.1", port)))
    home.control(listeners=f"127.0.0.1:{home.port}\n")
    home.start()
    home.deliver(f"alice@{ME}")
    home.wait_for("alice")


@as_root
def test_programs_that_the_owner_cannot_read_still_run(new_home):
    """All is imported before root is given up: mail in, delivered, and a report of failure."""
    with tempfile.TemporaryDirectory() as closed:       # only root gets there
        for name in ("bin", "lib"):
            shutil.copytree(ROOT / name, f"{closed}/{name}", symlinks=True)
        os.symlink(ROOT / ".venv", f"{closed}/.venv")
        home = new_home("alice", root=closed)
        home.control(aliases="oldteam: alice, gone\n")
        home.start()
        home.deliver(f"oldteam@{ME}", sender=f"alice@{ME}")
        assert any([b"\nFinal-Recipient: " in text for text in home.wait_for("alice", 2)])
        home.wait_until_empty()
        assert not home.log("event=bug")
        assert home.stop() == 0


@as_root
def test_a_home_of_root_needs_accounts(new_home):
    """Others: test_separation.py."""
    home = new_home("alice")
    subprocess.run(["chown", "-R", "root:root", str(home.path)], check=True)
    home.control(accounts="".join([f"{name} 4711{n}:4711{n}\n" for n, name in enumerate(
        ["xmtpd", "mq-queue", "mq-resolve", "mq-auth", "mq-send", "mq-rspawn", "mq-bounce"])]))
    done = home.run("mq-start", check=False)
    assert done.returncode == 111
    assert b"this host has no account mqm for mq-local: mq-setup --system makes it" in done.stderr
