"""mq-auth as a process, asked by other people's clients, by ours, and as xmtpd asks it."""

import base64
import itertools
import os
import select
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

from mqmail.auth import hashes
from mqmail.base import unix
from mqmail.control import passwd
from mqmail.net.session import Session
from mqmail.policy.accounts import Accounts
from mqmail.policy.facts import Facts
from mqmail.policy.verdict import LIMIT, NO_OPINION
from mqmail.prog.xmtpd.auth import AccountBook, AuthTalk
from mqmail.xmtp import events, sasl
from mqmail.xmtp.reply import Reply
from support.daemons import make_home, start
from support.dovecot import Dovecot
from support.home import ME, ROOT, SECONDS, run, wait_until
from support.programs import family, need
from support.shells import Blocking, Looping

pytestmark = pytest.mark.e2e

ALICE, PASSWORD = f"alice@{ME}", "p\u00e4ss, w=rd \u2014 #\\"
SIMPLE = "sesam"        # of bob: what swaks can be given


@cache
def known():
    """The lines of control/passwd."""
    return (passwd.encode(ALICE, hashes.make(PASSWORD)),
            passwd.encode("bob", hashes.make(SIMPLE, readable=True)))


class Service:
    """mq-auth on a home, with alice and bob."""

    def __init__(self, path, **control):
        self.home = make_home(path, **control)
        path = self.home / "control/passwd"
        path.write_text("".join([f"{line}\n" for line in known()]))
        path.chmod(0o600)
        shutil.chown(path, *self.owner())
        self.daemon = start("mq-auth", self.home)
        self.path = str(self.home / "run/auth.sock")
        self._callers = []

    def owner(self):
        found = os.stat(self.home)
        return found.st_uid, found.st_gid

    def password(self, login, password, *options):
        run("mq-passwd", "--home", str(self.home), *options, login, text=password.encode() + b"\n")

    def connect(self):
        self._callers.append(Caller(self.path))
        return self._callers[-1]

    def close(self):
        for caller in self._callers:
            caller.file.close()
            caller.sock.close()
        self.daemon.kill()


class Caller:
    """A session, line by line."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")
        self.greeting = self.read()
        self.hello = self.say("EHLO me.example")

    def read(self):
        lines = [self.file.readline().decode()]
        while lines[-1][3:4] == "-":
            lines.append(self.file.readline().decode())
        return "".join(lines).replace("\r\n", "\n").rstrip("\n")

    def send(self, line):
        self.sock.sendall(line.encode() + b"\r\n")

    def say(self, line):
        self.send(line)
        return self.read()

    def plain(self, login, password):
        return self.say("AUTH PLAIN " + plain(login, password))


def plain(login, password):
    return base64.b64encode(f"\0{login}\0{password}".encode()).decode()


@pytest.fixture
def service(tmp_path, request):
    made = Service(tmp_path / "home")
    request.addfinalizer(made.close)
    return made


@pytest.fixture(params=[Blocking, Looping])
def shell(request):
    one = request.param()
    yield one
    one.close()


# --- other people's clients ---

@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("password", [SIMPLE, "wrong"])
def test_swaks(service, mechanism, password):
    done = subprocess.run(
        [need("swaks"), "--socket", service.path, "--ehlo", "me.example", "--auth", mechanism,
         "--auth-user", "Bob", "--auth-password", password, "--quit-after", "AUTH"],
        capture_output=True, text=True, check=False, timeout=SECONDS)
    expected = f" 235 2.7.0 login=bob mechanism={mechanism}" if password == SIMPLE else " 535 5.7.8 "
    assert expected in done.stdout
    event = "event=auth_ok" if password == SIMPLE else "event=auth_failed"
    assert "login=bob" in service.daemon.wait_for(event, f"mechanism={mechanism}").lower()


class UnixSmtp(smtplib.SMTP):
    """smtplib takes a socket that somebody else has connected."""

    def _get_socket(self, host, port, timeout):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(host)
        return sock


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_smtplib(service, mechanism):
    with UnixSmtp() as client:
        client.connect(service.path, 25)
        client.ehlo("me.example")
        client.user, client.password = "bob", SIMPLE
        client.auth(mechanism, getattr(client, "auth_" + mechanism.lower().replace("-", "_")))
        with pytest.raises(smtplib.SMTPSenderRefused, match="no mail is taken"):
            client.sendmail("a@b.example", ["c@d.example"], "hello")


# --- our client ---

async def authenticated(session, mechanism, login, password, bindings=None, token=""):
    await session.open()
    exchange = sasl.choose(session.features["AUTH"].split(), [mechanism], login, password, token,
                           bindings or {}, base64.b64encode(os.urandom(12)).decode())
    assert exchange.mechanism == mechanism
    return await session.authenticate(exchange)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
def test_our_client(service, shell, mechanism):
    for login, password, good in ((ALICE.upper(), PASSWORD, True), (ALICE, "wrong", False),
                                  ("nobody", PASSWORD, False)):
        session = Session(shell.stream(unix.connect(service.path)), "smtp", "me.example", SECONDS)
        failed = shell.run(authenticated(session, mechanism, login, password))
        assert (failed is None) == good, failed
        if not good:
            assert failed.reply.code == 535
        session.close()
    assert f"login={ALICE}" in service.daemon.wait_for("auth_ok", f"mechanism={mechanism}")


@pytest.mark.parametrize(("ours", "theirs", "good"), [
    (b"hash", b"hash", True), (b"hash", b"mine", False)])
def test_channel_binding(service, shell, ours, theirs, good):
    """Somebody between the client and us has another TLS session with each."""
    session = Session(shell.stream(unix.connect(service.path)), "smtp", "me.example", SECONDS)
    shell.run(session.open())
    facts = f"ip=192.0.2.1 tls_server_end_point={ours.hex()} mechanisms=SCRAM-SHA-256-PLUS"
    assert shell.run(session.tell(facts)).code == 250
    exchange = sasl.choose(["SCRAM-SHA-256-PLUS"], [], ALICE, PASSWORD, "",
                           {"tls-server-end-point": theirs}, "nonce")
    failed = shell.run(session.authenticate(exchange))
    assert (failed is None) == good
    session.close()


# --- what xmtpd tells and asks ---

def test_what_was_not_shown_to_the_client_is_not_taken(service):
    with_cert = service.connect()
    assert with_cert.say("XSESSION ip=192.0.2.1 mechanisms=EXTERNAL certificate=carol@example.org") \
        == "250 2.0.0 ok"
    assert with_cert.plain("bob", SIMPLE)[:3] == "504"
    assert with_cert.say("AUTH NTLM")[:3] == "504"
    assert with_cert.say("AUTH EXTERNAL =") == "235 2.7.0 login=carol@example.org mechanism=EXTERNAL"
    assert with_cert.say("AUTH EXTERNAL =")[:3] == "503"
    without = service.connect()
    assert without.say("AUTH EXTERNAL " + base64.b64encode(b"bob").decode())[:3] == "535"
    for bad in ("XSESSION", "XSESSION ip", "XSESSION ip=1 ip=2", "XSESSION tls_unique=xyz",
                "XSESSION login=bob messages=-1", "XSESSION login=bob messages=x"):
        assert without.say(bad) == "501 5.5.4 XSESSION wants facts"
    assert without.say("MAIL FROM:<a@b.example>")[:3] == "502"


@pytest.mark.parametrize("lines", [
    ["AUTH PLAIN !!!!"], ["AUTH PLAIN", "!!!!"], ["AUTH PLAIN ===="], ["AUTH PLAIN =", ""],
    ["AUTH LOGIN", "", ""], ["AUTH LOGIN", "*"], ["AUTH SCRAM-SHA-256", "eA=="],
    ["AUTH SCRAM-SHA-256", "A" * 12280], ["AUTH LOGIN", "A" * 20000], ["AUTH OAUTHBEARER eA=="],
    ["AUTH CRAM-MD5", "Ym9i"], ["AUTH CRAM-MD5 eA=="], ["AUTH XOAUTH2 eA=="],
    ["AUTH PLAIN AGFh/2EAYg=="], ["AUTH SCRAM-SHA-256 biwsbj1ib2Iscj14", "Yz1iaXdz"],
])
def test_hostile_lines(service, lines):
    caller = service.connect()
    said = ""
    for line in lines:
        said = caller.say(line)
    assert said[:3] in ("501", "535", "500", "504"), said
    assert caller.say("NOOP")[:3] == "250"
    assert caller.plain("bob", SIMPLE)[:3] == "235"
    assert "event=bug" not in "".join(service.daemon.lines)


def test_failures_are_slowed_and_end_the_session(service):
    caller = service.connect()
    caller.say("XSESSION ip=192.0.2.1 session=s1")
    answers, times = [], []
    for _ in range(4):
        before = time.monotonic()
        answers.append(caller.plain("bob", "wrong")[:9])
        times.append(time.monotonic() - before)
    assert answers == ["535 5.7.8"] * 3 + ["421 4.7.0"]
    assert times[3] >= 1.0
    assert caller.file.read() == b""
    line = service.daemon.wait_for("event=auth_failed", "session=s1")
    assert "ip=192.0.2.1 login=bob mechanism=PLAIN why=wrong+20password" in line
    assert SIMPLE not in "".join(service.daemon.lines)


def test_an_address_that_guesses_is_put_off_and_others_are_not(service):
    """Many accounts, so that it is the address that counts; no delay is waited for."""
    callers = [service.connect() for _ in range(24)]
    for number, caller in enumerate(callers):
        caller.say("XSESSION ip=198.51.100.7")
        caller.send("AUTH SCRAM-SHA-256 " + base64.b64encode(f"n,,n=u{number},r=x".encode()).decode())
    said = [caller.read()[:3] for caller in callers]
    assert said == ["334"] * 20 + ["454"] * 4
    other = service.connect()
    other.say("XSESSION ip=198.51.100.8")
    assert other.plain("bob", SIMPLE)[:3] == "235"


def test_hashing_holds_nobody_up(service):
    busy = [service.connect() for _ in range(12)]
    numbers = itertools.count()

    def is_served_meanwhile():
        for caller in busy:
            caller.send("AUTH PLAIN " + plain(f"nobody{next(numbers)}", "wrong"))
        assert service.connect().hello[:3] == "250"
        answered = select.select([caller.sock for caller in busy], [], [], 0)[0]
        assert {caller.read()[:3] for caller in busy} <= {"535", "421"}
        busy[:] = [service.connect() for _ in range(12)]
        return len(answered) < len(busy)

    wait_until(is_served_meanwhile, "somebody served while passwords are hashed")


# --- files ---

def test_a_new_password_counts_at_once_and_a_bad_file_never(service):
    assert service.connect().plain("bob", SIMPLE)[:3] == "235"
    service.password("bob", "other")
    assert service.connect().plain("bob", SIMPLE)[:3] == "535"
    assert service.connect().plain("bob", "other")[:3] == "235"
    path = service.home / "control/passwd"
    with path.open("a") as file:
        file.write("junk\n")
    os.utime(path, (1e9, 1e9))          # it has been so for long
    assert service.connect().plain("bob", "other")[:3] == "235"
    assert "control/passwd+20line+203" in service.daemon.wait_for("event=reload_failed")
    done = run("mq-passwd", "--home", str(service.home), "bob", text=b"x\n", check=False)
    assert done.returncode == 111


def test_mq_passwd(tmp_path):
    home = make_home(tmp_path / "home")
    path = home / "control/passwd"

    def call(*words, text=b""):
        return run("mq-passwd", "--home", str(home), *words, text=text, check=False)

    assert call("bob", text=b"one\nmore\n").returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"one" not in path.read_bytes()
    assert [call("--check", "BOB", text=text).returncode for text in (b"one\n", b"one", b"two\n")] == [
        0, 0, 1]
    assert call("--check", "nobody", text=b"one\n").returncode == 1
    path.write_bytes(b"# kept\n\n" + path.read_bytes())
    path.chmod(0o640)
    assert call("--no-scram", "carol", text=b"three\n").returncode == 0
    assert call("bob", text=b"two\n").returncode == 0
    lines = path.read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["# kept", "", "carol", "bob"]
    assert ["SCRAM" in line for line in lines] == [False, False, False, True]
    assert path.stat().st_mode & 0o777 == 0o640
    assert call("--delete", "carol").returncode == 0
    assert call("--delete", "carol").returncode == 100
    assert call("a b", text=b"x\n").returncode == 100
    for text in (b"", b"\n", b"\xff\n", b"a\0b\n", b"x" * 1025):
        assert call("bob", text=text).returncode == 100
    assert call("--check", "bob", text=b"two\n").returncode == 0
    path.chmod(0o644)
    assert b"others may read it" in call("bob", text=b"x\n").stderr


def test_a_terminal_is_asked_twice_without_echo(tmp_path):
    home = make_home(tmp_path / "home")
    leader, terminal = os.openpty()
    with subprocess.Popen([ROOT / "bin/mq-passwd", "--home", home, "bob"],
                          stdin=terminal, stderr=subprocess.PIPE) as process:
        for prompt in (b"New password: ", b"Again: "):
            assert process.stderr.read(len(prompt)) == prompt
            os.write(leader, b"one\n")
            process.stderr.read(1)
        assert process.wait(SECONDS) == 0
    echoed = os.read(leader, 100) if select.select([leader], [], [], 0)[0] else b""
    assert b"one" not in echoed
    os.close(terminal)
    os.close(leader)
    assert run("mq-passwd", "--home", str(home), "--check", "bob", text=b"one\n").returncode == 0


# --- other backends ---

CHECKPASSWORD = """#!/bin/sh
# descriptor 3: login NUL password NUL time NUL
tr '\\0' '\\n' <&3 >"{top}/got"
{{ read -r login; read -r password; }} <"{top}/got"
[ "$login" != busy ] || exit 111
[ "$login" = dave -a "$password" = 'd p' ] || exit 1
echo "$TCPREMOTEIP" >"{top}/ip"
exec "$@"
"""
TOKENS = """#!/bin/sh
read -r token; read -r login
[ "$token" != trouble ] || exit 75
[ "$token" = good ] || exit 1
echo "erin@example.org"
"""


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def public():
    """A directory that the daemon can read and write, whatever account it is."""
    top = Path(tempfile.mkdtemp(prefix="mqmail-"))
    top.chmod(0o777)
    yield top
    shutil.rmtree(top)


def test_checkpassword_programs_and_those_behind_them(tmp_path, public, request):
    program = script(public / "check", CHECKPASSWORD.format(top=public))
    service = Service(tmp_path / "home", authbackends=f"checkpassword {program} \npasswd")
    request.addfinalizer(service.close)
    caller = service.connect()
    caller.say("XSESSION ip=192.0.2.7")
    assert caller.plain("Dave", "d p")[:3] == "535"         # the program's own idea of names
    assert caller.plain("dave", "d p") == "235 2.7.0 login=dave mechanism=PLAIN"
    assert (public / "ip").read_text() == "192.0.2.7\n"
    assert service.connect().plain("bob", SIMPLE)[:3] == "235"
    assert service.connect().plain("busy", "x")[:9] == "454 4.7.0"
    assert "exit+20code+20111" in service.daemon.wait_for("auth_unavailable", "backend=checkpassword")
    assert service.connect().plain("x" * 200, "y" * 400)[:3] == "535"      # more than 512 bytes
    program.unlink()
    assert service.connect().plain("dave", "d p")[:3] == "454"
    assert service.connect().plain("bob", SIMPLE)[:3] == "235"


def test_names_have_one_spelling_and_salts_of_nobody_stay(tmp_path, public, request):
    text = CHECKPASSWORD.format(top=public).replace("dave", "Dave@B.example")
    program = script(public / "check", text)
    service = Service(tmp_path / "home", authbackends=f"checkpassword {program}\npasswd")
    request.addfinalizer(service.close)
    said = service.connect().plain("Dave@B.example", "d p")
    assert said == "235 2.7.0 login=dave@b.example mechanism=PLAIN"

    def salts():
        """Of two who are not there."""
        names = "nobody", "Bob@x.example"
        first = [base64.b64encode(f"n,,n={name},r=abc".encode()).decode() for name in names]
        said = [service.connect().say(f"AUTH SCRAM-SHA-256 {one}") for one in first]
        return [base64.b64decode(one[4:]).split(b",")[1] for one in said]

    before = salts()
    os.kill(service.daemon.pid, signal.SIGHUP)
    assert salts() == before
    assert service.daemon.stop() == 0
    service.daemon = start("mq-auth", service.home)
    assert salts() == before
    assert len(set(before)) == 2


@pytest.mark.parametrize(("backends", "said"), [
    ("passwd\ncheckpassword {}", "454 4.7.0 too many failed logins from your address, try again later"),
    ("checkpassword {}", "454 4.7.0 logins cannot be checked now, try again later")])
def test_a_guess_counts_though_another_backend_is_in_trouble(tmp_path, public, request, backends, said):
    program = script(public / "check", "#!/bin/sh\nexit 111\n")
    service = Service(tmp_path / "home", authbackends=backends.format(program))
    request.addfinalizer(service.close)
    caller = service.connect()
    caller.say("XSESSION ip=192.0.2.7")
    answers = [caller.plain("bob", f"guess{number}") for number in range(21)]
    assert set(answers[:20]) == {"454 4.7.0 logins cannot be checked now, try again later"}
    assert answers[20] == said


def test_tokens(tmp_path, public, request, shell):
    program = script(public / "check", TOKENS)
    service = Service(tmp_path / "home", authbackends=f"passwd\noauth {program}")
    request.addfinalizer(service.close)
    for mechanism in ("OAUTHBEARER", "XOAUTH2"):
        for login, token, code in (("Erin@example.org", "good", 235), ("bob", "good", 535),
                                   ("erin@example.org", "bad", 535),
                                   ("erin@example.org", "trouble", 454)):
            session = Session(shell.stream(unix.connect(service.path)), "smtp", "me.example", SECONDS)
            failed = shell.run(authenticated(session, mechanism, login, "", token=token))
            assert (235 if failed is None else failed.reply.code) == code
            session.close()
    assert "good" not in "".join(service.daemon.lines)


@pytest.fixture
def with_dovecot(new_home, launch, tmp_path, request):
    dovecot = Dovecot(new_home(), launch, "maildir:~/Maildir", passwords={"frank": PASSWORD}).start()
    service = Service(tmp_path / "home", authbackends=f"dovecot {dovecot.auth}")
    request.addfinalizer(service.close)
    return service, dovecot


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"])
def test_dovecot(with_dovecot, shell, mechanism):
    service, _ = with_dovecot
    for login, password, good in (("frank", PASSWORD, True), ("frank", "wrong", False),
                                  ("bob", SIMPLE, False), ("frank", PASSWORD, True)):
        session = Session(shell.stream(unix.connect(service.path)), "smtp", "me.example", SECONDS)
        failed = shell.run(authenticated(session, mechanism, login, password))
        assert (failed is None) == good, failed
        session.close()
    assert "login=frank" in service.daemon.wait_for("auth_ok", f"mechanism={mechanism}")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "CRAM-MD5"])
def test_an_account_of_dovecot_that_is_guessed_at_waits(with_dovecot, mechanism):
    """From many addresses, so that it is the account that counts."""
    service, _ = with_dovecot

    def attempt(number):
        caller = service.connect()
        caller.say(f"XSESSION ip=198.51.100.{number}")
        if mechanism == "SCRAM-SHA-256":
            caller.send(f"AUTH {mechanism} " + base64.b64encode(b"n,,n=frank,r=x").decode())
        else:
            assert caller.say(f"AUTH {mechanism}")[:3] == "334"
            caller.send(base64.b64encode(b"frank 0123456789abcdef0123456789abcdef").decode())
        return caller

    callers = [attempt(number) for number in range(33)]
    wanted = "334" if mechanism == "SCRAM-SHA-256" else "535"
    waits = "454 4.7.0 too many failed logins for this account, try again later"
    assert [caller.read() for caller in callers[30:]] == [waits] * 3
    assert callers[0].read()[:3] == wanted


def test_dovecot_goes_and_comes_back(with_dovecot):
    service, dovecot = with_dovecot
    assert service.connect().plain("frank", PASSWORD)[:3] == "235"
    for pid in family(dovecot._program.process.pid):
        os.kill(pid, signal.SIGKILL)        # told to end, it would wait for mq-auth to hang up
    dovecot.stop()
    assert service.connect().plain("frank", PASSWORD)[:3] == "454"
    service.daemon.wait_for("auth_unavailable", "backend=dovecot")
    dovecot.start()
    wait_until(lambda: service.connect().plain("frank", PASSWORD)[:3] == "235", "Dovecot")


NO_LOGINS = [b"two\x01nlines", b"l" * 300, b"  ", b"\xff"]


def test_what_dovecot_names_must_be_a_login(tmp_path, public, request):
    """One that it could not be would be another's in tables, or stand in a header field."""
    path = str(public / "dovecot")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen()
        listener.settimeout(SECONDS)
        service = Service(tmp_path / "home", authbackends=f"dovecot {path}")
        request.addfinalizer(service.close)
        caller = service.connect()
        caller.send("AUTH PLAIN " + plain("good", "x"))
        peer = listener.accept()[0]
        with peer, peer.makefile("rb") as lines:
            peer.sendall(b"VERSION\t1\t1\nMECH\tPLAIN\nDONE\n")
            for name in (b"good", *NO_LOGINS):
                question = next(line for line in lines if line.startswith(b"AUTH"))
                peer.sendall(b"OK\t" + question.split(b"\t")[1] + b"\tuser=" + name + b"\n")
                assert caller.read()[:3] == ("235" if name == b"good" else "454")
                if name != NO_LOGINS[-1]:
                    caller = service.connect()
                    caller.send("AUTH PLAIN " + plain("x", "x"))


# --- as xmtpd does it ---

def asking(shell, service, kind, *arguments):
    async def connect():
        try:
            return shell.stream(unix.connect(service.path))
        except OSError as error:
            raise OSError(error.errno, error.strerror, service.path) from None
    return kind(connect, "me.example", *arguments)


def facts_of_client(**more):
    facts = Facts("s1", "submission", "127.0.0.1:587", "192.0.2.9")
    for name, text in more.items():
        setattr(facts, name, text)
    return facts


def test_auth_lines_pass_through_and_the_login_is_known(service, shell):
    talk, facts = asking(shell, service, AuthTalk, ["PLAIN", "LOGIN"]), facts_of_client(tls="TLSv1.3")

    def say(mechanism, line, first=True):
        return shell.run(talk.answer(events.Auth(mechanism, line, first), facts)).said()

    assert say("SCRAM-SHA-256", "") == "504 5.5.4 this mechanism is not offered"
    assert say("PLAIN", plain("bob", "wrong")) == "535 5.7.8 login or password wrong"
    assert say("LOGIN", "") == "334 VXNlcm5hbWU6"
    assert say("PLAIN", "") == "334"            # the client gave up, and begins anew
    assert say("PLAIN", "????", False) == "501 5.5.2 this is not base64"
    assert facts.login == ""
    assert say("PLAIN", "=")[:3] == "501"
    assert talk.mechanisms == ["PLAIN", "LOGIN"]
    talk.close()
    assert say("PLAIN", plain("BOB", SIMPLE)) == "235 2.7.0 welcome"
    assert (facts.login, facts.mechanism) == ("bob", "PLAIN")
    assert "session=s1 ip=192.0.2.9 login=bob" in service.daemon.wait_for("event=auth_ok")


def test_who_fails_too_often_is_sent_away(service, shell):
    talk, facts = asking(shell, service, AuthTalk), facts_of_client()
    event = events.Auth("PLAIN", plain("bob", "wrong"), True)
    assert [shell.run(talk.answer(event, facts)).code for _ in range(4)] == [535, 535, 535, 421]


def test_no_mq_auth_is_no_refusal(service, shell):
    service.daemon.stop()
    talk, facts = asking(shell, service, AuthTalk), facts_of_client(login="")
    answer = shell.run(talk.answer(events.Auth("PLAIN", plain("bob", SIMPLE), True), facts))
    assert (answer.code, answer.status, facts.login) == (454, "4.7.0", "")
    book = asking(shell, service, AccountBook)
    verdict = shell.run(ask(Accounts(book, "messages"), facts_of_client(login="bob")))
    assert (verdict.action, verdict.reply.code) == (LIMIT, 451)


async def ask(check, facts):
    said = check.look(facts)
    return said if said is NO_OPINION else await said


def test_accounts_are_limited_and_an_alarm_is_logged(tmp_path, request, shell):
    service = Service(tmp_path / "home", accountlimits="bob messages=3 recipients=5 refused=2")
    request.addfinalizer(service.close)
    book = asking(shell, service, AccountBook)
    bob, alice = facts_of_client(login="bob"), facts_of_client(login=ALICE)

    def tried(kind, facts, count):
        check = Accounts(book, kind)
        return [shell.run(ask(check, facts)) for _ in range(count)]

    said = tried("messages", bob, 5)
    assert [one is NO_OPINION for one in said] == [True] * 3 + [False] * 2
    assert said[-1].reply.said() == ("450 4.7.1 bob is stopped: it has sent too many messages within an"
                                     " hour; try again later, or ask the postmaster")
    assert [one is NO_OPINION for one in tried("recipients", bob, 7)] == [True] * 5 + [False] * 2
    assert set(tried("messages", alice, 5) + tried("messages", facts_of_client(), 9)) == {NO_OPINION}
    assert shell.run(book.ask(alice, refused=1)) is None
    answer = shell.run(book.ask(bob, refused=2))
    assert isinstance(answer, Reply)
    lines = [service.daemon.wait_for("event=account_stopped", f"why={why}")
             for why in ("messages", "recipients", "refused")]
    assert "login=bob why=refused ip=192.0.2.9 session=s1 messages=3 recipients=5 refused=2" in lines[-1]
    assert len([line for line in service.daemon.lines if "account_stopped" in line]) == 3
    book.close()


def test_a_busiest_hour_outlives_the_daemon(tmp_path, request):
    service = Service(tmp_path / "home", accountlimits="* recipients=0 surge=2")
    request.addfinalizer(service.close)
    caller = service.connect()
    (service.home / "run/auth/accounts").write_text("+40junk\nbob 400\n\xff\n")
    assert caller.say("XSESSION login=bob recipients=201")[:3] == "450"
    assert service.daemon.stop() == 0
    (service.home / "run/auth/accounts").write_text("+4junk 5\nbob 400\nx -1\n")
    service.daemon = start("mq-auth", service.home)
    caller = service.connect()
    assert caller.say("XSESSION login=bob recipients=700")[:3] == "250"
    assert caller.say("XSESSION login=bob recipients=201")[:3] == "450"
    assert service.daemon.stop() == 0
    assert (service.home / "run/auth/accounts").read_text() == "bob 400\n"
