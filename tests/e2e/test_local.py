"""Delivery: virtual mailboxes, accounts of the host, .qmail files, and what goes wrong with them."""

import hashlib
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from support.accounts import Accounts
from support.home import ME, reply, wait_until

pytestmark = pytest.mark.e2e
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="for root")


@pytest.fixture
def accounts():
    with Accounts(2) as made:
        yield made


def run_queue(home):
    """Have mq-send try everything now."""
    home.trigger("*run")


def waiting(home):
    """The records that wait for their next attempt."""
    return [path for path in home.queued() if "wait" in path.parts]


def refusal(home, recipient, parameters=""):
    """What xmtpd says to RCPT."""
    with home.connect() as sock, sock.makefile("rwb") as file:
        for command in ("", "EHLO client.example", f"MAIL FROM:<a@example.net>{parameters}"):
            reply(file, f"{command}\r\n".encode() if command else b"")
        file.write(f"RCPT TO:<{recipient}>\r\n".encode())
        file.flush()
        return file.readline().decode()


def reports(home, mailbox):
    """The delivery reports in a mailbox."""
    return [text for path in home.maildir(mailbox)
            if b"\nReporting-MTA: " in (text := path.read_bytes())]


def owned(path):
    found = os.lstat(path)
    return found.st_uid, found.st_mode & 0o777


# Virtual mailboxes

def test_all_kinds_of_instructions(home):
    home.qmail("alice", "# four kinds\n./Maildir/\n./box\n|cat >program\n&bob\n")
    home.deliver(f"alice@{ME}", text=b"Subject: four\r\n\r\nFrom here\r\n")
    assert b"\nFrom here\n" in home.wait_for("bob")[0]
    top = home.path / "mail/alice"
    assert b"\nFrom here\n" in home.maildir("alice")[0].read_bytes()
    assert (top / "box").read_bytes().startswith(b"From sender@example.net ")
    assert b"\n>From here\n" in (top / "box").read_bytes()
    program = (top / "program").read_bytes()
    assert program.startswith(b"Received: ") and program.endswith(b"\n\nFrom here\n")
    home.wait_until_empty()


def test_a_program_that_fails_for_now_is_run_again(home):
    home.qmail("alice", "|[ -e tried ] || { touch tried; echo not yet; exit 111; }\n./Maildir/\n")
    id = home.deliver(f"alice@{ME}")
    line = home.wait_for_log("event=deferred", "status=4.3.0", "not+20yet")
    assert id.removeprefix("id=") in line
    assert home.maildir("alice") == []
    wait_until(lambda: waiting(home), "it waits")
    run_queue(home)
    home.wait_until_empty()
    assert len(home.maildir("alice")) == 1


def test_a_slow_program_holds_up_no_other_recipient(home):
    fifo = home.path / "mail/alice/go"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    home.qmail("alice", "|cat go\n", ".qmail-slow")
    home.deliver(f"alice-slow@{ME}", f"bob@{ME}", text=b"Subject: both\r\n\r\n")
    assert any(b"Subject: both" in text for text in home.wait_for("bob"))
    assert not home.log("event=delivered", "alice-slow")
    fifo.write_bytes(b"go")
    home.wait_for_log("event=delivered", "alice-slow")


def test_a_user_with_many_addresses_leaves_slots_to_others(home):
    """Programs that hang, of 200 addresses and of many messages to more than ten recipients."""
    (home.path / "mail/alice/hang").touch()
    home.qmail("alice", "|while [ -e hang ]; do sleep 0.05; done\n", ".qmail-default")
    for number in range(20):
        home.deliver(*[f"alice-{number}-{part}@{ME}" for part in range(10)])
        home.deliver(f"bob+{number}@{ME}", *[f"alice-{number}+{part}@{ME}" for part in range(11)])
    home.deliver(f"bob@{ME}", text=b"Subject: for bob\r\n\r\n")
    wait_until(lambda: any(b"for bob" in one.read_bytes() for one in home.maildir("bob")), "it is there")
    assert not home.log("event=delivered", "alice-")
    (home.path / "mail/alice/hang").unlink()
    home.wait_until_empty()


def test_alarm_runs_the_queue_too(home):
    home.qmail("alice", "|[ -e tried ] || { touch tried; exit 111; }\n")
    home.deliver(f"alice@{ME}")
    wait_until(lambda: waiting(home), "it waits")
    os.kill(home.daemons()["mq-send"], signal.SIGALRM)
    home.wait_until_empty()


def test_a_program_that_refuses_makes_a_report(home):
    home.qmail("alice", "|echo retry=1 said=nothing you are not welcome; exit 100\n")
    home.deliver(f"alice@{ME}", sender=f"bob@{ME}")
    text = home.wait_for("bob")[0]
    assert b"you are not welcome" in text
    assert f"\nFinal-Recipient: rfc822; alice@{ME}\n".encode() in text
    home.wait_until_empty()


def test_what_a_program_says_is_no_fact(home):
    """A word like retry=1 in its output does not make mq-send come back every second."""
    home.qmail("alice", "|echo retry=1 status=2.0.0; exit 111\n")
    home.deliver(f"alice@{ME}")
    line = home.wait_for_log("event=deferred")
    seconds = int(next(word for word in line.split() if word.startswith("retry="))[6:])
    assert seconds > 60
    assert "retry+3D1" in line


def test_a_loop_of_forwards_ends_in_one_report(new_home):
    home = new_home("alice", "bob", "carol").start()
    home.qmail("alice", "&bob\n")
    home.qmail("bob", "&alice\n")
    home.deliver(f"alice@{ME}", sender=f"carol@{ME}")
    home.wait_for("carol")
    home.wait_until_empty()
    assert len(home.maildir("carol")) == len(reports(home, "carol")) == 1


def test_an_alias_and_a_list(new_home):
    home = new_home("alice", "bob", "carol")
    home.qmail("bob", "|exit 100\n")
    home.control(aliases="both: alice, carol\nlist: alice, bob\nowner-list: carol\n")
    home.start()
    home.deliver(f"both@{ME}")
    home.wait_for("alice")
    assert b"Return-Path: <sender@example.net>\n" in home.wait_for("carol")[0]
    home.deliver(f"list@{ME}", text=b"Subject: to the list\r\n\r\n")
    assert any([b"\nSubject: to the list" in text for text in home.wait_for("carol", 2)])
    home.wait_until_empty()
    texts = [path.read_bytes() for path in home.maildir("alice")]
    assert f"Return-Path: <owner-list@{ME}>\n".encode() in texts[1]
    assert len(reports(home, "carol")) == 1


def test_details_and_extensions(home):
    home.qmail("alice", "./list\n", ".qmail-list-default")
    home.deliver(f"alice+shop@{ME}", f"Alice-List-One@{ME}")
    assert f"\nDelivered-To: alice+shop@{ME}\n".encode() in home.wait_for("alice")[0]
    home.wait_until_empty()
    assert f"\nDelivered-To: Alice-List-One@{ME}\n" in (home.path / "mail/alice/list").read_text()
    assert refusal(home, f"alice-other@{ME}").startswith("550 5.1.1 ")
    assert refusal(home, f"alice-/x@{ME}").startswith("550 5.1.1 ")


def test_30_mib(home):
    text = b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * (30 * 1024 * 1024 // 72)
    home.deliver(f"alice@{ME}", text=text)
    body = home.wait_for("alice")[0].partition(b"Subject: big\n\n")[2]
    wanted = text.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
    assert hashlib.sha256(body).digest() == hashlib.sha256(wanted).digest()


def test_an_address_in_utf8(new_home):
    home = new_home("alice")
    shutil.copytree(home.path / "mail/alice", home.path / "mail/joerg")
    owner = os.stat(home.path / "mail/alice")
    for path in (home.path / "mail/joerg", *(home.path / "mail/joerg").rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    home.control(users=f"alice@{ME}\njörg@{ME}:joerg\n")
    home.start()
    assert refusal(home, f"jörg@{ME}").startswith("553 5.6.7 ")
    with home.connect() as sock, sock.makefile("rwb") as file:
        for command in ("", "EHLO client.example", "MAIL FROM:<ä@example.net> SMTPUTF8",
                        f"RCPT TO:<jörg@{ME}>", "DATA", "Subject: grüße\r\n\r\n."):
            reply(file, f"{command}\r\n".encode() if command else b"")
    (text,) = home.wait_for("joerg")
    assert text.decode().startswith(f"Return-Path: <ä@example.net>\nDelivered-To: jörg@{ME}\n")


def test_a_message_that_was_here_before_comes_back(home):
    home.deliver(f"alice@{ME}", text=f"Delivered-To: alice@{ME}\r\n\r\nhi\r\n".encode(),
                 sender=f"bob@{ME}")
    assert b"\nStatus: 5.4.6\n" in home.wait_for("bob")[0]
    home.wait_until_empty()
    assert home.maildir("alice") == []


def test_a_mailbox_made_after_the_start(home):
    """mq-resolve knows it after HUP; whoever delivers must not say that it does not exist."""
    home.run("mq-setup", "--user", "dora")
    os.kill(home.daemons()["mq-resolve"], signal.SIGHUP)
    home.wait_for_log("event=reloaded", "prog=mq-resolve")
    home.deliver(f"dora@{ME}")
    home.wait_for("dora")


def test_term_waits_for_a_delivery(home):
    """Once, whole, and nothing of it is left in the queue."""
    top = home.path / "mail/alice"
    home.qmail("alice", "|touch started; read word <go; echo $word >>ran\n")
    os.mkfifo(top / "go")
    os.chown(top / "go", os.stat(top).st_uid, -1)
    home.deliver(f"alice@{ME}")
    wait_until((top / "started").exists, "the program runs")
    home.process.send_signal(signal.SIGTERM)
    home.wait_for_log("event=stopping")
    for worker in children(home.daemons()["mq-lspawn"]):
        os.kill(worker, signal.SIGTERM)
    (top / "go").write_text("once\n")
    assert home.stop() == 0
    assert (top / "ran").read_text() == "once\n"
    assert home.queued() == []


def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_program_can_be_interrupted_as_usual(home):
    """None of our own settings of signals and descriptors reach it."""
    home.qmail("alice", "|grep ^SigIgn: /proc/self/status >ignored; ls /proc/$$/fd >open\n")
    home.deliver(f"alice@{ME}")
    home.wait_until_empty()
    ignored = int((home.path / "mail/alice/ignored").read_text().split()[1], 16)
    ours = {signal.SIGPIPE, signal.SIGXFSZ}     # and what Python ignores; others our caller may have
    inherited = sum([1 << number - 1 for number in range(1, 32) if number not in ours
                     and signal.getsignal(number) == signal.SIG_IGN])
    assert ignored & 0x7fffffff & ~inherited == 0       # 32 and 33 are the C library's own
    assert (home.path / "mail/alice/open").read_text() in ("0\n1\n2\n", "0\n1\n10\n2\n")


# Accounts

@as_root
def test_accounts_get_their_mail_as_themselves(accounts, new_home):
    one, two = accounts
    home = new_home("alice").start()
    one.write(".qmail", "./Maildir/\n./box\n|id -u >who; id -G >>who; pwd >>who; env >env\n")
    make_maildir(one)
    home.deliver(f"{one.name}@{ME}", f"{two.name.upper()}@{ME}")
    home.wait_until_empty()
    for account in accounts:
        maildir = account.home / "Maildir"
        assert {owned(maildir / name) for name in ("tmp", "new", "cur")} == {(account.uid, 0o700)}
        (message,) = (maildir / "new").iterdir()
        assert owned(message) == (account.uid, 0o600)
        assert list((maildir / "tmp").iterdir()) == []
    assert owned(one.home / "box") == (one.uid, 0o600)
    assert (one.home / "who").read_text() == f"{one.uid}\n{one.gid}\n{one.home}\n"
    assert owned(one.home / "who") == (one.uid, 0o600)
    assert f"RECIPIENT={one.name}@{ME}\n" in (one.home / "env").read_text()


def make_maildir(account):
    for name in ("", "tmp", "new", "cur"):
        path = account.home / "Maildir" / name
        path.mkdir(0o700)
        os.chown(path, account.uid, account.gid)


@as_root
def test_a_warm_process_has_nothing_of_roots(accounts, new_home):
    one, _ = accounts
    home = new_home("alice").start()
    one.write(".qmail", "|echo $PPID >worker\n")
    home.deliver(f"{one.name}@{ME}")
    home.wait_until_empty()
    worker = int((one.home / "worker").read_text())
    lines = Path(f"/proc/{worker}/status").read_text().splitlines()
    status = {name: text for name, _, text in [line.partition(":\t") for line in lines]}
    assert status["Uid"].split() == [str(one.uid)] * 4
    assert status["Gid"].split() == [str(one.gid)] * 4
    assert status["Groups"].split() == [str(one.gid)]
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0
    targets = sorted([os.readlink(fd).split(":")[0] for fd in Path(f"/proc/{worker}/fd").iterdir()
                      if int(fd.name) > 2])
    assert targets == ["socket"]
    home.deliver(f"{one.name}@{ME}")
    home.wait_until_empty()
    assert int((one.home / "worker").read_text()) in children_of_all(home)


def children_of_all(home):
    return [pid for dispatcher in children(home.daemons()["mq-lspawn"]) for pid in children(dispatcher)]


@as_root
def test_root_gets_no_mail(new_home):
    assert refusal(new_home("alice").start(), f"root@{ME}").startswith("550 5.1.1 ")


@as_root
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_home_that_others_write_to_is_not_served(accounts, new_home, mode):
    one, _ = accounts
    home = new_home("alice").start()
    one.home.chmod(mode)
    home.deliver(f"{one.name}@{ME}")
    home.wait_for_log("event=deferred", "status=4.3.5", "home+20directory+20is+20writable+20by+20others")
    assert list(one.home.iterdir()) == []
    one.home.chmod(0o755)
    wait_until(lambda: waiting(home), "it waits")
    run_queue(home)
    home.wait_until_empty()
    assert len(list((one.home / "Maildir/new").iterdir())) == 1


@as_root
def test_extensions_of_an_account(accounts, new_home):
    one, _ = accounts
    home = new_home("alice").start()
    one.write(".qmail-list", "./list\n")
    home.deliver(f"{one.name}-list@{ME}", f"{one.name}+x@{ME}")
    home.wait_until_empty()
    assert (one.home / "list").exists()
    assert len(list((one.home / "Maildir/new").iterdir())) == 1
    assert refusal(home, f"{one.name}-other@{ME}").startswith("550 5.1.1 ")


@as_root
def test_an_extension_that_only_the_user_can_see(accounts, new_home):
    """mq-resolve cannot look into a closed home: the delivery decides, and the sender hears of it."""
    one, _ = accounts
    home = new_home("alice").start()
    one.home.chmod(0o700)
    one.write(".qmail-list", "./list\n")
    home.deliver(f"{one.name}-list@{ME}", f"{one.name}-other@{ME}", sender=f"alice@{ME}")
    (text,) = home.wait_for("alice")
    assert f"Final-Recipient: rfc822; {one.name}-other@{ME}\n".encode() in text
    home.wait_until_empty()
    assert (one.home / "list").exists()


@as_root
def test_hup_reaches_the_accounts_processes(accounts, new_home):
    one, _ = accounts
    home = new_home("alice").start()
    home.deliver(f"{one.name}@{ME}")        # its process is there, and knows of no =
    home.wait_until_empty()
    home.control(detaildelimiter="=\n")
    home.process.send_signal(signal.SIGHUP)
    home.wait_for_log("event=reloaded", "prog=mq-resolve")
    home.deliver(f"{one.name}=x@{ME}")
    home.wait_until_empty()
    assert len(list((one.home / "Maildir/new").iterdir())) == 2


@as_root
def test_an_account_whose_process_is_killed_is_served_again(accounts, new_home):
    one, _ = accounts
    home = new_home("alice").start()
    one.write(".qmail", "|[ -e tried ] || { touch tried; kill -9 $PPID; }\n./Maildir/\n")
    make_maildir(one)
    home.deliver(f"{one.name}@{ME}")
    home.wait_for_log("event=deferred", f"delivery+20as+20{one.name}+20broke+20off")
    wait_until(lambda: waiting(home), "it waits")
    run_queue(home)
    home.wait_until_empty()
    assert len(list((one.home / "Maildir/new").iterdir())) == 1


@as_root
def test_a_link_in_place_of_the_mailboxes_leads_nowhere(accounts, new_home):
    """The home's owner must not make us deliver as somebody else."""
    one, _ = accounts
    home = new_home("alice")
    (one.home / "alice").mkdir()
    os.chown(one.home / "alice", one.uid, one.gid)
    (home.path / "mail").rename(home.path / "mail.old")
    (home.path / "mail").symlink_to(one.home)
    home.start()
    home.deliver(f"alice@{ME}")
    home.wait_for_log("event=deferred")
    assert list((one.home / "alice").iterdir()) == []


# mq-local

def mq_local(home, *arguments, uid=None, text=b"Subject: x\n\nhello\n", **options):
    """Run it as *uid*, else as the owner of the home; (exit code, what it printed)."""
    found = os.stat(home.path / "mail")
    if os.geteuid() == 0:
        options |= {"user": found.st_uid if uid is None else uid, "group": found.st_gid,
                    "extra_groups": []}
    done = home.run("mq-local", *arguments, text=text, check=False, cwd="/", **options)
    assert done.stdout == b"" or done.stderr == b""
    return done.returncode, (done.stdout + done.stderr).decode()


def test_mq_local_delivers_to_a_mailbox(new_home):
    home = new_home("alice")
    for text in (b"Subject: x\n\nhello\n", b"Subject: x\r\n\r\nhello\r\n"):
        code, said = mq_local(home, "--mailbox", "ann@example.net", f"alice@{ME}", text=text)
        assert (code, said.count("\n")) == (0, 1)
        (path,) = home.maildir("alice")
        assert said == f"delivered 2.0.0 maildir: {path.name}\n"
        assert path.read_bytes() == (f"Return-Path: <ann@example.net>\nDelivered-To: alice@{ME}\n"
                                     "Subject: x\n\nhello\n").encode()
        path.unlink()


def test_mq_local_takes_large_messages(new_home):
    home = new_home("alice")
    text = b"Subject: x\n\n" + b"0123456789\n" * 300000
    assert mq_local(home, "--mailbox", "", f"alice@{ME}", text=text)[0] == 0
    assert home.maildir("alice")[0].read_bytes().endswith(text)


def test_mq_local_says_what_went_wrong(new_home):
    home = new_home("alice")
    assert mq_local(home, "--mailbox", "", f"who@{ME}") == (
        100, f"failed 5.1.1 who@{ME} has no mailbox here\n")
    home.qmail("alice", "|echo two; echo lines; exit 100\n")
    assert mq_local(home, "--mailbox", "<>", f"alice@{ME}") == (100, "failed 5.3.0 two lines\n")
    home.qmail("alice", "|exit 1\n")
    assert mq_local(home, "--mailbox", "<>", f"alice@{ME}") == (
        111, "deferred 4.3.0 program failed for now (exit 1)\n")
    for arguments in (["alice"], ["--mail", "", "a@b.example"], ["", "not an address"], []):
        code, said = mq_local(home, *arguments)
        assert code == 100 and said.startswith("mq-local: ")


def test_mq_local_forwards_through_the_queue(home):
    home.qmail("alice", "&bob\n")
    assert mq_local(home, "--mailbox", "ann@example.net", f"alice@{ME}") == (
        0, f"forwarded 2.0.0 bob@{ME}\n")
    (text,) = home.wait_for("bob")
    assert f"\nDelivered-To: alice@{ME}\nSubject: x\n".encode() in text
    home.stop()
    code, said = mq_local(home, "--mailbox", "ann@example.net", f"alice@{ME}")
    assert code == 111 and said.startswith("deferred 4.3.2 the queue of")


@as_root
def test_mq_local_as_an_account(accounts, new_home):
    one, two = accounts
    home = new_home("alice")
    one.write(".qmail-list", "./list\n")
    for recipient in (f"{one.name}@{ME}", f"{one.name}-list@{ME}", f"{one.name}+x@{ME}"):
        assert mq_local(home, "a@b.example", recipient, uid=one.uid)[0] == 0
    assert len(list((one.home / "Maildir/new").iterdir())) == 2
    assert owned(one.home / "list") == (one.uid, 0o600)
    assert mq_local(home, "", f"{two.name}@{ME}", uid=one.uid) == (
        100, f"failed 5.1.1 {two.name}@{ME} is no address of {one.name}\n")


@as_root
def test_mq_local_never_as_root(new_home):
    home = new_home("alice")
    for arguments in (["--mailbox", "", f"alice@{ME}"], ["", f"root@{ME}"]):
        assert mq_local(home, *arguments, uid=0)[0] == 111
    assert home.maildir("alice") == []


def test_many_at_once(home):
    """All mailboxes' processes at work: nothing is mixed up."""
    texts = [f"Subject: {n}\r\n\r\n{n}\r\n".encode() for n in range(100)]

    def send(part):
        for text in part:
            home.deliver(f"alice@{ME}", f"bob@{ME}", text=text)

    threads = [threading.Thread(target=send, args=(texts[n::5],)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mailbox in ("alice", "bob"):
        home.wait_for(mailbox, len(texts))
        found = sorted([int(path.read_bytes().rpartition(b"\n\n")[2]) for path in home.maildir(mailbox)])
        assert found == list(range(100))
