"""mq-resolve as a process: questions over its socket, from first to last."""

import os
import pwd
import signal
import socket
import subprocess

import pytest

from support.home import ME, SECONDS, start_alone, wait_until

pytestmark = pytest.mark.e2e

SOCKET = "run/resolve.sock"
OUTSIDE = "MAIL FROM:<a@far.example> XVIA=proto+3Desmtp+20ip+3D192.0.2.1"
UNKNOWN = "550 5.1.1 no such user here"
DENIED = ("550 5.7.1 relaying denied: this host takes mail from you for its own domains;"
          " use your provider's mail server")

STRANGER = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
print(sock.makefile().read(), end="")
"""


class Daemon:
    """mq-resolve alone on a home, run by the home's owner."""

    def __init__(self, home):
        self.home = home
        owner = pwd.getpwuid(os.stat(home.path).st_uid)
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self.process = start_alone("mq-resolve", home.path, subprocess.PIPE,
                                   **(user if os.getuid() == 0 else {}))
        os.set_blocking(self.process.stderr.fileno(), False)
        self.log = ""

    def wait_for_log(self, text):
        """Read the log until it has *text*."""
        def look():
            self.log += (self.process.stderr.read() or b"").decode()
            return text in self.log
        wait_until(look, text)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(SECONDS)
        self.log += (self.process.stderr.read() or b"").decode()
        self.process.stderr.close()
        return code


@pytest.fixture
def daemon(new_home):
    home = new_home("alice", "bob")
    home.control(aliases="postmaster: alice\nteam: alice, carol@far.example\nowner-team: bob\n",
                 relayclients="198.51.100.0/24\n", virtualdomains="v.example:alice\n",
                 localusers="none\n")
    daemon = Daemon(home)
    yield daemon
    if daemon.process.poll() is None:
        daemon.stop()


class Session:
    """An LMTP session with it."""

    def __init__(self, daemon):
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(SECONDS)
        self._sock.connect(str(daemon.home.path / SOCKET))
        self._file = self._sock.makefile("rb")
        self.greeting = self.reply()
        self.features = self.ask("LHLO tester.example")[0].split("\n")

    def reply(self):
        """One reply; its lines are joined by LF, without code for all but the first."""
        lines = [self._file.readline().decode()]
        while lines[-1][3:4] == "-":
            lines.append(self._file.readline().decode())
        return "\n".join([line.rstrip("\r\n") for line in lines])

    def ask(self, *commands):
        """All commands in one write; their replies."""
        self._sock.sendall("".join([f"{command}\r\n" for command in commands]).encode())
        return [self.reply() for _ in commands]

    def resolve(self, *recipients, mail=OUTSIDE):
        """The answers for recipients, in a transaction of their own."""
        ok, *answers, reset = self.ask(mail, *[f"RCPT TO:<{one}>" for one in recipients], "RSET")
        assert (ok[:3], reset[:3]) == ("250", "250")
        return answers

    def close(self):
        self._file.close()
        self._sock.close()


@pytest.fixture
def session(daemon):
    session = Session(daemon)
    yield session
    session.close()


def test_what_it_offers(session):
    assert session.greeting == f"220 {ME} LMTP mqmail"
    assert [line[4:] for line in session.features] == [
        ME, "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "XMQ"]


def test_questions_of_an_unknown_client(session):
    assert session.resolve(
        f"alice@{ME}", f"alice+tag@{ME}", "Postmaster", f"team@{ME}", f"nobody@{ME}", "x@far.example",
        f"x%far.example@{ME}", "boss@v.example") == [
            f"551 5.1.6 <@mailbox:alice@{ME}>",
            f"551 5.1.6 <@mailbox:alice+tag@{ME}>",
            f"551 5.1.6 <alice@{ME}>",
            f"551-5.1.6 <alice@{ME}> sender=owner-team@{ME}\n"
            f"551 5.1.6 <carol@far.example> sender=owner-team@{ME}",
            UNKNOWN, DENIED, UNKNOWN, UNKNOWN]


MAY_RELAY = [
    "MAIL FROM:<a@far.example> XID=1kq3v9s0c0g00a2f",
    "MAIL FROM:<a@far.example> XVIA=proto+3Desmtp+20ip+3D192.0.2.1 XID=1kq3v9s0c0g00a2f",
    "MAIL FROM:<a@far.example> XVIA=proto+3Desmtp+20ip+3D192.0.2.1+20relay+3D1",
    "MAIL FROM:<a@far.example> XVIA=proto+3Desmtp+20ip+3D198.51.100.7",
    "MAIL FROM:<a@far.example> XVIA=proto+3Desmtp+20ip+3D::ffff:198.51.100.7",
    "MAIL FROM:<a@far.example> XVIA=proto+3Dlocal+20uid+3D1000",
    "MAIL FROM:<a@far.example> SIZE=5 BODY=8BITMIME RET=HDRS",
]
MAY_NOT = [
    OUTSIDE, "MAIL FROM:<a@far.example> XVIA=ip+3Dunknown", "MAIL FROM:<a@far.example> XVIA=ip+3D",
    "MAIL FROM:<a@far.example> XVIA=ip+3D198.51.101.7+20relay+3D0",
    f"MAIL FROM:<alice@{ME}> XVIA=ip+3D192.0.2.1+20helo+3Dlocalhost",
]


def test_who_may_relay(session):
    for mail in MAY_RELAY:
        assert session.resolve("x@far.example", mail=mail) == ["551 5.1.6 <@remote:x@far.example>"], mail


def test_who_may_not_relay(session):
    for mail in MAY_NOT:
        assert session.resolve("x@far.example", mail=mail) == [DENIED], mail


def test_nobody_inherits_another_transaction_s_right(session):
    assert session.resolve("x@far.example", mail="MAIL FROM:<> XID=1kq3v9s0c0g00a2f")[0][:3] == "551"
    assert session.resolve("x@far.example") == [DENIED]
    assert session.ask("MAIL FROM:<> XVIA=nonsense") == ["501 5.5.4 bad XVIA"]


def test_a_bounce_to_a_list_keeps_its_null_sender(session):
    assert session.resolve(f"team@{ME}", mail="MAIL FROM:<> XID=1kq3v9s0c0g00a2f") == [
        f"551-5.1.6 <alice@{ME}>\n551 5.1.6 <carol@far.example>"]


def test_utf8_addresses(session):
    mail = f"{OUTSIDE} SMTPUTF8"
    assert session.resolve(f"j\xf6rg@{ME}", "x@\uff46ar.example", mail=mail) == [UNKNOWN, DENIED]


def test_it_never_takes_a_message(session):
    answers = session.ask(OUTSIDE, f"RCPT TO:<alice@{ME}>", "DATA", "RSET", OUTSIDE,
                          f"RCPT TO:<alice@{ME}>", "XFD 5")
    assert [answer[:3] for answer in answers[:6]] == ["250", "551", answers[2][:3], "250", "250", "551"]
    assert answers[2].startswith(("503 5.5.1 ", "554 5.5.1 "))
    assert answers[6][:1] == "5"
    assert session.resolve(f"alice@{ME}") == [f"551 5.1.6 <@mailbox:alice@{ME}>"]


def test_a_thousand_questions_in_one_write_are_answered_in_order(session):
    commands, expected = [], []
    for number in range(1000):
        known = number % 3 != 0
        commands += [OUTSIDE, f"RCPT TO:<{'alice' if known else 'nobody'}+{number}@{ME}>", "RSET"]
        expected.append(f"551 5.1.6 <@mailbox:alice+{number}@{ME}>" if known else UNKNOWN)
    assert session.ask(*commands)[1::3] == expected


def test_a_thousand_recipients_of_one_message(session):
    recipients = [f"alice+{number}@{ME}" for number in range(1000)]
    assert session.resolve(*recipients) == [f"551 5.1.6 <@mailbox:{one}>" for one in recipients]


def test_many_refusals_do_not_end_the_session(session):
    assert session.resolve(*["x@far.example"] * 3000) == [DENIED] * 3000


def test_a_list_of_thousands(daemon, session):
    members = [f"member{number}@far.example" for number in range(5000)]
    daemon.home.control(aliases="all: " + "\n ,".join(members) + "\n")
    daemon.reload()
    daemon.wait_for_log("event=reloaded")
    [answer] = session.resolve(f"all@{ME}")
    assert [line.partition("<")[2].rstrip(">") for line in answer.split("\n")] == members


def test_reload_takes_all_or_nothing(daemon, session):
    daemon.home.control(users=f"alice@{ME}\ncarol@{ME}\n", aliases="broken\n")
    daemon.reload()
    daemon.wait_for_log("event=reload_failed")
    assert "control/aliases+20line+201:" in daemon.log
    assert session.resolve(f"carol@{ME}", f"bob@{ME}", "postmaster") == [
        UNKNOWN, f"551 5.1.6 <@mailbox:bob@{ME}>", f"551 5.1.6 <alice@{ME}>"]
    daemon.home.control(aliases="postmaster: carol\n")
    daemon.reload()
    daemon.wait_for_log("event=reloaded")
    assert session.resolve(f"carol@{ME}", f"bob@{ME}", "postmaster") == [
        f"551 5.1.6 <@mailbox:carol@{ME}>", UNKNOWN, f"551 5.1.6 <carol@{ME}>"]


def test_extensions_are_there_when_a_file_is(daemon, session):
    assert session.resolve(f"alice-list@{ME}") == [UNKNOWN]
    mailbox = daemon.home.path / "mail" / "alice"
    (mailbox / ".qmail-list").touch()
    assert session.resolve(f"alice-list@{ME}", f"alice-lis@{ME}") == [
        f"551 5.1.6 <@mailbox:alice-list@{ME}>", UNKNOWN]
    (mailbox / ".qmail-default").touch()
    assert session.resolve("boss@v.example") == [f"551 5.1.6 <alice-boss@{ME}>"]


def test_what_it_cannot_look_at_is_put_off_and_the_others_are_answered(daemon, session):
    (daemon.home.path / "mail" / "alice" / ".qmail-x").symlink_to(".qmail-x")
    answers = session.resolve(f"alice-x@{ME}", f"bob@{ME}")
    assert answers[0].startswith("451 4.3.0 a mailbox cannot be looked at: ")
    assert answers[1] == f"551 5.1.6 <@mailbox:bob@{ME}>"


def test_accounts_of_this_host(daemon, session):
    daemon.home.control(localusers="passwd\n")
    daemon.reload()
    daemon.wait_for_log("event=reloaded")
    expected = []
    names = [account.pw_name for account in pwd.getpwall() if account.pw_name.islower()]
    for name in names:
        account = pwd.getpwnam(name)
        mine = account.pw_uid != 0 and os.path.isdir(account.pw_dir) \
            and os.stat(account.pw_dir).st_uid == account.pw_uid
        expected.append(f"551 5.1.6 <@local:{name}@{ME}>" if mine else UNKNOWN)
    names = [name for name in names if name not in ("alice", "bob")]
    assert session.resolve(*[f"{name}@{ME}" for name in names]) == expected
    assert session.resolve(f"root@{ME}") == [UNKNOWN]


@pytest.mark.skipif(os.getuid() != 0, reason="needs two accounts")
def test_strangers_may_not_ask(daemon):
    child = subprocess.run(["python3", "-c", STRANGER, str(daemon.home.path / SOCKET)], user=65534,
                           capture_output=True, text=True, timeout=SECONDS, check=True)
    assert [line[:9] for line in child.stdout.splitlines()] == ["554 5.7.1"]
    daemon.wait_for_log("event=caller_refused prog=mq-resolve uid=65534")


def test_it_logs_no_questions_and_ends_cleanly(daemon, session):
    session.resolve(f"alice@{ME}", "x@far.example", f"nobody@{ME}")
    assert daemon.stop() == 0
    assert daemon.log == ""


def test_only_one_on_a_home(daemon):
    done = daemon.home.run("mq-resolve", check=False)
    assert done.returncode == 111
    assert b"mq-resolve already runs here" in done.stderr
