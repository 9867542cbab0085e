"""A system home: everything runs, each program as its account; and what each account then may not do.

What is expected comes from control/rights.py, by which the home was made. Each attempt is made by a
process that has become the account.
"""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from mqmail.base import program as programs
from mqmail.base import xtext
from mqmail.control import rights
from mqmail.net.owner import import_late
from mqmail.prog import mq_queue, mq_send
from mqmail.queue import ids
from support.badserver import BadServer
from support.daemons import BIN
from support.home import ME, SECONDS, free_port, run, wait_until
from support.programs import family, runs
from support.systemhome import FIRST_UID, Acting, SystemHome

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="for root")]
ACTORS = [*rights.ROLE_OF, rights.OTHERS]
AWAY = "away.example"           # where nobody listens
REFUSED = ("PermissionError: Permission denied", "PermissionError: Operation not permitted")


@pytest.fixture(scope="module")
def system():
    """A running system home; a message for AWAY waits in it, alice has one in her mailbox."""
    made = SystemHome("alice")
    try:
        (made.path / "tls").mkdir()
        (made.path / "tls/key.pem").write_text("secret\n")
        (made.path / "control/credentials").write_text("isp alice secret\n")
        (made.path / "control/passwd").write_text("")
        made.control(smtproutes=f"{AWAY}:127.0.0.1:{free_port()}\n", injectors="* local\n")
        with (made.path / "control/listeners").open("a") as listeners:
            listeners.write(f"127.0.0.1:{free_port()} destination=mailbox\n")
        made.run("mq-setup", "--repair")
        made.start()
        inject(made, f"alice@{ME}", f"bob@{AWAY}")
        made.wait_for("alice")
        made.waiting = wait_until(lambda: next(made.path.glob("queue/wait/*/*"), None), "a record waits")
        made.new = new_record(made)
        yield made
    finally:
        print(*made.log()[-30:], sep="\n")
        made.remove()


def inject(home, *recipients, sender=f"alice@{ME}", user=None):
    command = [BIN / "mq-inject", "--home", home.path, "-f", sender, *recipients]
    subprocess.run(command, input=b"Subject: x\n\nhello\n", check=True, timeout=SECONDS, user=user)


def new_record(home):
    """One as mq-queue leaves it, of which mq-send has not heard."""
    account = home.accounts.of("mq-queue")
    id = ids.make(1, 1)
    path = home.path / "queue/new" / ids.directory(id) / id
    path.write_text(f"mqmail1 {id}\nat 1.000000\n")
    os.chown(path, account.uid, account.gid)
    path.chmod(0o660)
    return path


# --- it works ---

def uids(pid):
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(set(line.split()[1:]) for line in status if line.startswith("Uid:"))


def test_each_program_runs_as_its_account(system):
    found = {name: [uids(one) for one in family(pid)] for name, pid in system.daemons().items()}
    lspawn = found.pop("mq-lspawn")
    assert lspawn[0] == {"0"}
    assert {str(system.accounts.of("mq-local").uid)} in lspawn
    assert set(found) == set(rights.ROLE_OF) - {"mq-local"}
    for name, all_of in found.items():
        assert set.union(*all_of) == {str(system.accounts.of(name).uid)}, name


def test_mq_send_is_of_mq_queues_group_and_nobody_else_has_a_group_more(system):
    for name, pid in system.daemons().items():
        if name != "mq-lspawn":
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            groups = next(line.split()[1:] for line in status if line.startswith("Groups:"))
            wanted = {name, *rights.ROLE_OF[name].also}
            assert {int(one) for one in groups} == {system.accounts.of(one).gid for one in wanted}


def test_what_is_wrong_is_seen_and_nothing_is(system):
    done = system.run("mq-setup", "--check", check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "")


def test_mail_of_each_kind(system):
    """From the network to a mailbox; a report; to another host, after a while."""
    before = len(system.maildir("alice"))
    system.deliver(f"alice@{ME}", text=b"Subject: mailbox\r\n\r\nhello\r\n")
    inject(system, f"gone@{ME}")
    texts = system.wait_for("alice", before + 2)[before:]
    assert [text for text in texts if b"\nSubject: mailbox\n" in text]
    assert [text for text in texts if b"\nFinal-Recipient: rfc822; gone@" in text]
    with BadServer() as server:
        set_routes(system, free_port())
        inject(system, "bob@later.example", user=FIRST_UID + 99)
        line = system.wait_for_log("event=deferred", "bob@later.example")
        id = next(word[3:] for word in line.split() if word.startswith("id="))
        path = system.path / "queue/wait" / ids.directory(id) / id
        wait_until(path.exists, "the record in wait")
        owner = path.stat()
        assert (owner.st_uid, owner.st_gid, owner.st_mode & 0o7777) == (
            system.accounts.of("mq-send").uid, system.accounts.of("mq-queue").gid, 0o660)
        assert not (system.path / "queue/new" / ids.directory(id) / id).exists()
        set_routes(system, server.port)
        system.run("sendmail", "-q")
        system.wait_for_log("event=finished", f"id={id}")
        assert any([b"hello" in body for body in server.bodies])


def set_routes(system, later):
    """Where mail for other hosts goes: that for later.example to port *later*."""
    before = len(system.log("event=reloaded", "prog=mq-rspawn"))
    system.control(smtproutes=f"{AWAY}:127.0.0.1:{free_port()}\nlater.example:127.0.0.1:{later}\n")
    system.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(system.log("event=reloaded", "prog=mq-rspawn")) > before, "new routes")


def test_root_lists_the_queue_as_mq_send(system):
    assert f"bob@{AWAY}".encode() in system.run("mq-qread").stdout


def test_secrets_are_read_again_by_those_who_may(system):
    before = len(system.log("event=reloaded", "prog=mq-r"))
    workers = [pid for pid in family(system.daemons()["mq-rspawn"])][1:]
    os.kill(system.daemons()["mq-rspawn"], signal.SIGHUP)
    wait_until(lambda: len(system.log("event=reloaded", "prog=mq-r")) >= before + len(workers), "all")
    assert not system.log("event=reload_failed")


def test_a_session_that_root_starts_is_xmtpds(system):
    lines = ("EHLO x", "MAIL FROM:<a@example.net>", f"RCPT TO:<alice@{ME}>", "BDAT 16 LAST",
             "Subject: one", "", "QUIT")
    done = subprocess.run([BIN / "xmtpd", "--home", system.path], check=True, capture_output=True,
                          input="".join([f"{line}\r\n" for line in lines]).encode(), timeout=SECONDS,
                          env={**os.environ, "PROTO": "TCP", "TCPREMOTEIP": "192.0.2.9"})
    id = done.stdout.decode().splitlines()[-2].split()[-1]
    caller = system.accounts.of("xmtpd").uid
    system.wait_for_log("event=queued", f"id={id}", f"caller={caller} ", "ip=192.0.2.9")


@pytest.mark.parametrize(("name", "main"), [("mq-queue", mq_queue.main), ("mq-send", mq_send.main)])
def test_without_root_it_does_not_start(system, name, main):
    def start():
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        code = programs.run(name, main, ["--home", "."])
        return code, os.read(reading, 1000).decode()

    import_late()           # the account may be unable to read it
    code, text = Acting(system, name).do(start)
    assert code == 111
    assert f"this home belongs to root: start {name} as root, and it becomes uid" in text


def test_a_program_without_account_does_not_start(system, tmp_path):
    home = tmp_path / "home"
    (home / "control").mkdir(parents=True)
    (home / "run").mkdir()
    (home / "control/me").write_text(f"{ME}\n")
    (home / "control/accounts").write_text("mq-queue 0:0\n")
    done = run("mq-queue", "--home", home, check=False)
    assert done.returncode == 111
    assert b"'0:0' is root: name an account without privileges" in done.stderr


def test_a_run_directory_of_somebody_else_is_refused(system, tmp_path):
    home = tmp_path / "home"
    (home / "control").mkdir(parents=True)
    (home / "control/me").write_text(f"{ME}\n")
    shutil.copy(system.path / "control/accounts", home / "control/accounts")
    (home / "run").mkdir()
    os.chown(home / "run", FIRST_UID, FIRST_UID)
    (home / "run/mq-queue.lock").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_text("precious")
    done = run("mq-queue", "--home", home, check=False)
    assert done.returncode == 111
    assert b"run/ is not a directory that only root can write" in done.stderr
    assert (tmp_path / "precious").read_text() == "precious"


def test_fsck_finds_a_system_in_order_and_leaves_owners_alone(system):
    done = system.run("mq-fsck", "-q", check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "")


def test_a_copy_that_waits_counts_and_not_what_a_crash_left_in_new():
    home = SystemHome("alice")
    try:
        home.control(smtproutes=f"{AWAY}:127.0.0.1:{free_port()}\n")
        home.start()
        inject(home, f"alice@{ME}", f"bob@{AWAY}")
        path = wait_until(lambda: next(home.path.glob("queue/wait/*/" + "[0-9a-v]" * 16), None),
                          "a record waits")
        assert home.stop() == 0
        record = path.read_bytes()
        old = home.path / "queue/new" / path.parent.name / path.name
        old.write_bytes(record[:record.index(b"\nok\n") + 4])
        account = home.accounts.of("mq-queue")
        os.chown(old, account.uid, account.gid)
        os.utime(path, (0, 0))
        home.start()
        wait_until(lambda: not old.exists(), "the old one gone")
        wait_until(lambda: path.stat().st_mtime > 0, "another attempt")
        assert path.read_bytes().startswith(record)
        assert len(home.maildir("alice")) == 1
        assert home.run("mq-qread").stdout.count(b"\tbob@") == 1
    finally:
        print(*home.log()[-30:], sep="\n")
        home.remove()


# --- what is each one's own, and nobody else's ---

def example(system, place):
    """The path of something that is *place*, relative to the home; None when there is nothing."""
    if place.path == "queue/new/*/*":
        return str(system.new.relative_to(system.path))
    if not place.path:
        return "."
    found = sorted([path for path in system.path.glob(place.path.removesuffix("/**"))
                    if (path.is_dir() if place.kind == rights.DIRECTORY else path.is_file())
                    and rights.place_of(str(path.relative_to(system.path)), place.kind) is place])
    return str(found[0].relative_to(system.path)) if found else None


def expected(actor, place, path):
    """What *actor* may do there by the table, if it may pass through all directories above."""
    parents = [str(parent) for parent in Path(path).parents if str(parent) != "."] if path != "." else []
    for parent in parents:
        above = rights.place_of(parent, rights.DIRECTORY)
        if "x" not in rights.may(actor, above.owner, above.group, above.mode):
            return ""
    return rights.may(actor, place.owner, place.group, place.mode)


def try_file(path):
    """r: it can be read, w: written, without doing so; x never."""
    return "".join([letter for letter, flags in (("r", os.O_RDONLY), ("w", os.O_WRONLY))
                    if can(lambda flags=flags: os.close(os.open(path, flags)))])


def try_directory(path):
    found = "r" if can(lambda: os.listdir(path)) else ""
    found += "w" if can(lambda: make_and_remove(f"{path}/probe")) else ""
    return found + ("x" if can(lambda: os.stat(f"{path}/.")) else "")


def make_and_remove(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)


def can(action):
    try:
        action()
    except PermissionError:
        return False
    return True


def move_there_and_back(path):
    """Who can do this can remove it, or put another in its place."""
    os.rename(path, f"{path}.moved")
    os.rename(f"{path}.moved", path)


PLACES = [place for place in rights.PLACES if place.mode and place.path not in (
    "queue/hold/*/*", "run/remote/*", "run/auth/*")]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path or "home")
def test_directories_and_files(system, place):
    path = example(system, place)
    assert path is not None, place
    attempt = try_directory if place.kind == rights.DIRECTORY else try_file
    found = {actor: Acting(system, actor).do(attempt, path) for actor in ACTORS}
    assert found == {actor: expected(actor, place, path) for actor in ACTORS}


@pytest.mark.parametrize("path", [
    "queue/new/*/*", "queue/wait/*/*", "queue/mess/*/*", "run/queue.sock", "run/trigger",
    "run/mq-send.lock", "control/credentials", "control/passwd",
    "tls/key.pem", "mail/alice", "queue", "run"])
def test_nobody_removes_what_lies_in_anothers_directory(system, path):
    real = str(next(system.path.glob(path)).relative_to(system.path))
    parent = str(Path(real).parent)
    place = rights.place_of("" if parent == "." else parent, rights.DIRECTORY)
    for actor in ACTORS:
        able = {"w", "x"} <= set(expected(actor, place, parent))
        said = Acting(system, actor).do(move_there_and_back, real)
        assert said is None if able else said in REFUSED, actor


def test_a_mailbox_is_its_owners(system):
    message = str(system.maildir("alice")[0].relative_to(system.path))
    place = rights.place_of(message, rights.FILE)
    for actor in ACTORS:
        acting = Acting(system, actor)
        found = acting.do(try_file, message), acting.do(try_directory, "mail/alice/Maildir/new")
        assert found == (("rw", "rwx") if actor == place.owner else ("", "")), actor


# --- sockets ---

def call(path, datagram):
    """How a socket answers: "taken" for a datagram, the first reply's code, "" for an end without."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect(path)
        if datagram:
            sock.send(b"nothing")
            return "taken"
        return sock.recv(3).decode()


@pytest.mark.parametrize("one", rights.SOCKETS, ids=lambda one: one.path)
def test_sockets_let_in_those_who_have_business_there(system, one):
    for actor in ACTORS:
        said = Acting(system, actor).do(call, one.path, one.datagram)
        if rights.may_call(actor, one):
            assert said == ("taken" if one.datagram else "220"), actor
        else:
            assert said in REFUSED, actor


@pytest.mark.parametrize("one", [one for one in rights.SOCKETS if not one.datagram],
                         ids=lambda one: one.path)
def test_services_believe_the_kernel_and_not_the_mode(system, one):
    """Were a socket open to all, strangers would be turned away all the same."""
    os.chmod(system.path / one.path, 0o666)
    try:
        found = {actor: Acting(system, actor).do(call, one.path, False) for actor in ACTORS}
    finally:
        os.chmod(system.path / one.path, one.mode)
    for actor, said in found.items():
        assert said in (("220",) if rights.may_call(actor, one) else ("554", "")), actor


def talk(path, *lines):
    """The last line of each answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(path)
        file = sock.makefile("rwb")
        return [answer(file), *say(file, *lines)]


def say(file, *lines):
    said = []
    for line in lines:
        file.write(line.encode() + b"\r\n")
        file.flush()
        said.append(answer(file))
    return said


def answer(file):
    line = file.readline()
    while line[3:4] == b"-":
        line = file.readline()
    return line.decode().rstrip()


@pytest.mark.parametrize("actor", ACTORS)
def test_who_may_say_where_a_message_came_from(system, actor):
    """Others are noted as who they are, whatever they say, and choose no destination; programs choose
    those that control/listeners gives mail, and no others."""
    believed = actor in rights.sockets_of("mq-queue")[0].callers
    acting = Acting(system, actor)
    xvia = xtext.encode("proto=esmtp ip=192.0.2.77")
    said = acting.do(talk, "run/queue.sock", "EHLO x", f"MAIL FROM:<a@example.net> XVIA={xvia}",
                     f"RCPT TO:<@mailbox:alice@{ME}>", f"RCPT TO:<@local:alice@{ME}>",
                     f"RCPT TO:<alice@{ME}>", "DATA", "Subject: x\r\n\r\nx\r\n.")
    assert said[3].startswith("250" if believed else "550 5.7.1")
    assert said[4].startswith("250" if actor == "mq-queue" else "550 5.7.1")
    id = said[-1].partition("id=")[2]
    line = system.wait_for_log("event=queued", f"id={id}")
    assert f"caller={acting.uid} " in line
    via = "proto=esmtp ip=192.0.2.77" if believed else f"proto=local uid={acting.uid}"
    assert line.endswith(via)


def connected(path, account):
    """A socket to *path*: whoever listens sees *account*."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(SECONDS)
    os.setegid(account.gid)
    os.seteuid(account.uid)
    try:
        sock.connect(str(path))
    finally:
        os.seteuid(0)
        os.setegid(0)
    return sock


def test_a_session_with_mq_queue_has_what_the_control_files_say_now(system):
    """xmtpd keeps its own open for as long as there is mail."""
    listeners, databytes = system.path / "control/listeners", system.path / "control/databytes"
    text, queue = listeners.read_text(), system.daemons()["mq-queue"]
    with connected(system.path / "run/queue.sock", system.accounts.of("xmtpd")) as sock:
        file = sock.makefile("rwb")

        def said():
            lines = say(file, "RSET", "MAIL FROM:<>", f"RCPT TO:<@local:alice@{ME}>", "RSET",
                        "MAIL FROM:<> SIZE=5000")
            return lines[2][:3], lines[4][:3]

        assert answer(file)[:3] == "220"
        say(file, "EHLO x")
        assert said() == ("550", "250")
        try:
            listeners.write_text(text.replace("destination=mailbox", "destination=local"))
            databytes.write_text("4000\n")
            os.kill(queue, signal.SIGHUP)
            wait_until(lambda: said() == ("250", "552"), "the new files in force")
        finally:
            listeners.write_text(text)
            databytes.unlink()
            os.kill(queue, signal.SIGHUP)
        wait_until(lambda: said() == ("550", "250"), "the old files in force")


@pytest.mark.parametrize(("actor", "code"), [("xmtpd", "535"), ("mq-bounce", "502")])
def test_who_tells_of_accounts_tries_no_passwords(system, actor, code):
    said = Acting(system, actor).do(talk, "run/auth.sock", "EHLO x", "XSESSION login=bob refused=1",
                                    "AUTH PLAIN AGJvYgBndWVzcw==")
    assert [line[:3] for line in said] == ["220", "250", "250", code]


# --- processes ---

@pytest.mark.parametrize("actor", ACTORS)
def test_signals_reach_ones_own_processes_only(system, actor):
    acting = Acting(system, actor)
    for pid in family(system.process.pid):
        said = acting.do(os.kill, pid, 0)
        if runs(pid):               # a worker ends when it has had nothing to do for long
            assert said is None if uids(pid) == {str(acting.uid)} else said in REFUSED, pid


@pytest.mark.parametrize("actor", ACTORS)
def test_nobody_looks_into_anothers_memory(system, actor):
    acting = Acting(system, actor)
    for pid in family(system.process.pid):
        assert acting.do(try_file, f"/proc/{pid}/mem") == "" or not runs(pid), pid
