"""mq-fsck as a command: beside a system under load, on a damaged queue, on a terminal."""

import os
import pty
import signal
import subprocess
import threading
import time

import pytest

from mqmail.queue import ids, paths
from support.home import ME, ROOT, SECONDS, reply, wait_until
from support.queuefiles import new_id, path_of, put, tree, write

pytestmark = pytest.mark.e2e

THREADS = 3
RUNS = 4
LEAST = 300             # messages


def fsck(home, *arguments, **options):
    done = subprocess.run([ROOT / "bin/mq-fsck", "--home", home, *arguments], capture_output=True,
                          timeout=SECONDS * 2, check=False, **options)
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def in_wrong_directory(place, id):
    return f"queue/{place}/{int(ids.directory(id), 16) ^ 1:02x}/{id}"


class Load:
    """Sends messages until told to stop; *sent* counts what was acknowledged, by mailbox."""

    def __init__(self, home):
        self._home = home
        self._stop = False
        self.sent = {"alice": 0, "bob": 0, "carol": 0}
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        with self._home.connect() as sock, sock.makefile("rwb") as file:
            reply(file)
            reply(file, b"EHLO client.example\r\n")
            while not self._stop:
                number += 1
                self._send(file, ("alice", "bob", "alice", "carol")[number % 4])

    def _send(self, file, name):
        for command in ("MAIL FROM:<alice@" + ME + ">", f"RCPT TO:<{name}@{ME}>", "DATA"):
            reply(file, f"{command}\r\n".encode())
        reply(file, b"Subject: load\r\n\r\n" + b"line\r\n" * 500 + b".\r\n")
        with self._lock:
            self.sent[name] += 1

    def stop(self):
        self._stop = True
        for thread in self._threads:
            thread.join()


def test_beside_a_system_under_load(new_home):
    """alice gets her mail at once, bob's has to wait, carol's comes back to alice: messages are written,
    moved, appended to and removed all the time; none of it is a problem, and nothing is lost."""
    home = new_home("alice", "bob", "carol")
    home.qmail("bob", "|exit 111\n")
    home.qmail("carol", "|exit 100\n")
    home.start()
    load = Load(home)
    try:
        for run in range(RUNS):
            code, said, error = fsck(home.path, *(["--repair"] if run else []))
            assert (code, len(said), error) == (0, 1, ""), said
            os.kill(home.daemons()["mq-send"], signal.SIGALRM)
        wait_until(lambda: sum(load.sent.values()) >= LEAST, f"{LEAST} messages", 60)
    finally:
        load.stop()
    assert not home.log("event=bug")
    assert not home.log("event=queue_odd_file")
    assert list((home.path / "queue/bad").iterdir()) == []
    home.qmail("bob", "./Maildir/\n")

    def done():
        os.kill(home.daemons()["mq-send"], signal.SIGALRM)
        return not home.queued()

    wait_until(done, "an empty queue")
    assert len(home.maildir("bob")) == load.sent["bob"]
    assert len(home.maildir("alice")) == load.sent["alice"] + load.sent["carol"]


def test_a_killed_system_is_mended_and_delivers(new_home, monkeypatch):
    """The queue as kill -9 leaves it, with damage on top; then mail goes on."""
    home = new_home("alice", "bob").start()
    os.kill(home.daemons()["mq-send"], signal.SIGSTOP)
    sent = [home.deliver(f"alice@{ME}") for _ in range(8)]
    home.stop(signal.SIGKILL)
    assert fsck(home.path) == (0, ["-- 8 messages, problems: 0"], "")
    monkeypatch.chdir(home.path)
    wrong, lost, torn, bad, late, mode = sent[:6]
    os.rename(path_of("new", wrong), in_wrong_directory("new", wrong))
    os.rename(path_of("new", lost), "queue/new/#4711")
    with open(path_of("new", torn), "ab") as file:
        file.write(b"done 1 17322")
    with open(path_of("new", bad), "ab") as file:
        file.write(b"what is this\n")
    os.rename(path_of("new", late), path_of("wait", late))
    os.utime(path_of("wait", late), (2**33, 2**33))
    os.chmod(path_of("mess", mode), 0o000)
    owner = os.stat("queue")
    write(path_of("mess", new_id()), b"half a message")
    for path in tree():
        os.chown(path, owner.st_uid, owner.st_gid)
    code, said, _ = fsck(home.path, "--repair")
    assert code == 0, said
    assert said[-1] == "-- 8 messages, problems: 7 repaired, 0 left"
    home.start()
    home.wait_for("alice", 7)
    wait_until(lambda: len(home.queued()) == 3, "only what was set aside")
    assert len(home.maildir("alice")) == 7
    assert f"{bad}.new" in os.listdir("queue/bad")
    code, said, _ = fsck(home.path)
    assert (code, len(said)) == (0, 1)


@pytest.fixture
def damaged(new_home, monkeypatch):
    """A home, which is the current directory, with a problem of each kind but owner and unreadable."""
    home = new_home("alice")
    monkeypatch.chdir(home.path)
    wait = b"wait 1 1732252800 4.2.1 until=1732252900\n"
    put("wait", wait, due=1e9)
    put("wait", wait + b"torn")
    put("wait", b"what\n")
    put("new", b"fail 1 1732252800 5.1.1\ntold 1 1732252800 failed\n")
    os.unlink(path_of("mess", put("new")))
    write(path_of("mess", put("new")), b"short\r\n")
    write(path_of("mess", new_id()), b"alone\r\n")
    write(path_of("new", put("new")), b"mqmail1 ")
    id, other, third, fourth = put("hold"), put("hold"), put("hold"), put("hold")
    write(path_of("new", id), tree()[path_of("hold", id)])
    os.rename(path_of("hold", other), path_of("hold", new_id()))
    os.rename(path_of("hold", third), in_wrong_directory("hold", third))
    os.chmod(path_of("hold", fourth), 0o666)
    write("queue/wait/note", b"")
    write(path_of("wait", put("new")) + paths.COPY, b"mqmail1 ")
    os.symlink("note", "queue/wait/link")
    os.mkfifo("queue/wait/00/fifo")
    empty = [name for name in os.listdir("queue/hold") if not os.listdir(f"queue/hold/{name}")]
    os.rmdir(f"queue/hold/{empty[0]}")
    owner = os.stat("queue")
    for folder, names, files in os.walk("queue"):
        for name in [*names, *files]:
            os.chown(f"{folder}/{name}", owner.st_uid, owner.st_gid, follow_symlinks=False)
    return home


KINDS = {"time", "torn", "bad", "finished", "no-body", "size", "no-record", "incomplete", "twice",
         "misnamed", "misplaced", "mode", "foreign", "symlink", "special", "missing",
         "leftover"}


def test_every_kind_of_problem(damaged):
    before = tree()
    code, said, error = fsck(damaged.path)
    assert (code, error) == (1, "")
    assert {line.split(": ")[1] for line in said[:-1]} == KINDS
    count = len(said) - 1
    assert said[-1].endswith(f" messages, problems: {count}")
    assert tree() == before
    assert fsck(damaged.path, "-q")[1] == said[:-1]
    code, said, error = fsck(damaged.path, "--repair")
    assert (code, error) == (0, ""), said
    assert fsck(damaged.path, "-q") == (0, [], "")
    assert len(tree()) > len(KINDS)


def test_what_is_done_beside_mq_send_and_what_when_it_is_stopped(damaged):
    """mq-start with a queue that is damaged: what mq-send owns is left to it, or until it is stopped."""
    damaged.control(destinations="new:lmtp:unix:nobody.sock\n")
    damaged.start()
    code, said, _ = fsck(damaged.path, "--repair")
    assert code == 1
    left = [line for line in said if "[left: " in line]
    assert left
    assert all(line.endswith(": stop mq-send first]") for line in left)
    assert any(": missing: " in line and "[repaired: make it]" in line for line in said)
    assert damaged.stop() == 0
    assert fsck(damaged.path, "--repair")[0] == 0
    assert fsck(damaged.path, "-q") == (0, [], "")


def test_progress_only_on_a_terminal(damaged):
    def on_terminal(*arguments):
        ours, theirs = pty.openpty()
        pieces = []
        process = subprocess.Popen([ROOT / "bin/mq-fsck", "--home", damaged.path, *arguments],
                                   stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        process.stdout.read()
        process.stdout.close()
        try:
            while data := os.read(ours, 4096):
                pieces.append(data)
        except OSError:
            pass                        # the other end is closed
        os.close(ours)
        process.wait(SECONDS)
        return b"".join(pieces)

    began = time.monotonic()
    shown = on_terminal("--repair")
    seconds = time.monotonic() - began
    assert b"%, " in shown
    assert b" messages, " in shown
    assert shown.endswith(b"\r\x1b[K")
    assert shown.count(b"%, ") <= 4 * seconds + 1
    assert on_terminal("-q") == b""


def test_exit_codes(damaged, tmp_path):
    assert fsck(tmp_path)[0] == 111
    assert "has no queue" in fsck(tmp_path)[2]
    assert fsck(tmp_path / "none")[0] == 111
    assert fsck(damaged.path, "--repare")[0] == 100
    assert fsck(damaged.path, "ID")[0] == 100
