"""xmtpd and what people put in front of it: msmtp, mail programs as they talk, openssl s_client, swaks;
Postfix, haproxy, tcpserver. What the queue has got says whether it was understood."""

import base64
import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

from support.certificates import make_authority
from support.daemons import Client, make_home, records, start
from support.eximserver import USER
from support.home import ME, ROOT, SECONDS, free_port, run, wait_until
from support.postfixserver import PostfixServer
from support.programs import need

pytestmark = pytest.mark.e2e
PASSWORD = "p=ss w,rd+"
TOKEN = "ya29.token"
MECHANISMS = "plain,login,scram-sha-256,scram-sha-256-plus,cram-md5,oauthbearer,xoauth2"
ROLES = {"mx": "", "submission": "role=submission", "submissions": "role=submissions",
         "lmtp": "role=lmtp", "modern": "role=submissions set=modern",
         "certs": "role=submission set=certs",
         "proxy": "proxy=127.0.0.0/8", "behind": "role=submission set=behind proxy=127.0.0.0/8"}
SETS = f"""\
submission auth={MECHANISMS}
submissions auth={MECHANISMS}
modern tlsmin=1.3
certs clientcert=ask auth=external,plain
behind tls=none authplain=yes
"""
THERE = "far@example.net"

HOOKS = """
from mqmail.policy.verdict import Verdict
from mqmail.xmtp.reply import reply

def header(session):
    return Verdict(recipients=tuple([(one, reply(550, "5.7.1", "not for you"))
                                     for one in session.fields("X-Not-For")]))
"""


class Site:
    """A home with all kinds of listeners, and nobody who takes mail out of its queue."""

    def __init__(self):
        self.top = Path(tempfile.mkdtemp(prefix="mqmail-"))
        self.top.chmod(0o755)       # accounts of ours run a program in it
        self.ports = {role: free_port() for role in ROLES}
        self.path = make_home(
            self.top / "home", users=f"alice@{ME}\n@many.example:alice", logins="*: *",
            authbackends=f"passwd\noauth {self._tokens()}", processesincoming="2", optionsets=SETS,
            listeners="\n".join([f"127.0.0.1:{self.ports[role]} {ROLES[role]}" for role in ROLES]))
        (self.path / "control/hooks.py").write_text(HOOKS)
        self._certify()
        run("mq-passwd", "--home", str(self.path), "--readable", "alice", text=f"{PASSWORD}\n".encode())
        self._daemons = []

    def _tokens(self):
        """A program that knows the one access token."""
        path = self.top / "tokens"
        path.write_text(f"#!/bin/sh\nread -r token\n[ \"$token\" = {TOKEN} ] && echo alice\n")
        path.chmod(0o755)
        return path

    def _certify(self):
        tls = self.path / "tls"
        tls.mkdir()
        self.authority = make_authority(tls)
        lines = []
        for name, names in (("*", [ME, "127.0.0.1"]), ("other.example", ["other.example"])):
            pair = self.authority.certificate(names, tls)
            lines.append(" ".join([name, *[f"tls/{path.name}" for path in pair]]))
        owner = os.stat(self.path)
        for path in (tls, *tls.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        (self.path / "control/tlscertificates").write_text("\n".join([*lines, ""]))
        (self.path / "control/tlsclientauthorities").write_text(f"tls/{self.authority.file.name}\n")

    def start(self):
        for name in ("mq-queue", "mq-resolve", "mq-auth"):
            self._daemons.append(start(name, self.path))
        self._daemons.append(start("xmtpd", self.path, "--listen"))
        return self

    @property
    def log(self):
        """xmtpd's."""
        return self._daemons[-1]

    def stop(self):
        for daemon in reversed(self._daemons):
            daemon.kill()

    def queued(self, sender):
        """The one message of *sender*."""
        [found] = records(self.path, sender)
        return found

    def via(self, sender):
        """How it came: name to text."""
        return dict([word.split("=", 1) for word in self.queued(sender)["via"].split()])

    def context(self):
        return ssl.create_default_context(cafile=self.authority.file)


@pytest.fixture(scope="module")
def site():
    made = Site()
    try:
        yield made.start()
    finally:
        made.stop()
        shutil.rmtree(made.top)


def call(name, *arguments, text=b"", **options):
    """Run a program to its end; (exit code, all it has printed)."""
    done = subprocess.run([need(name), *map(str, arguments)], input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=SECONDS, check=False, **options)
    return done.returncode, done.stdout.decode("utf-8", "replace")


# --- msmtp ---

def msmtp(site, role, sender, mechanism, user="alice", secret=PASSWORD, trusted=None, certificate=()):
    options = [f"--tls-{kind}-file={path}" for kind, path in zip(("cert", "key"), certificate,
                                                                 strict=False)]
    return call("msmtp", "--host=127.0.0.1", f"--port={site.ports[role]}", "--tls=on",
                f"--tls-starttls={'off' if role == 'submissions' else 'on'}", "--timeout=30",
                f"--tls-trust-file={trusted or site.authority.file}",
                f"--auth={mechanism}", f"--user={user}", f"--passwordeval=echo '{secret}'",
                f"--from={sender}", *options, THERE,
                text=b"Subject: by msmtp\n\n.\n..\nhello\n",
                env={"HOME": str(site.top), "PATH": os.environ["PATH"]})


@pytest.mark.parametrize(("role", "mechanism"), [
    ("submission", "plain"), ("submissions", "login"), ("submission", "cram-md5"),
    ("submissions", "scram-sha-256"), ("submission", "oauthbearer"), ("submissions", "xoauth2")])
def test_msmtp(site, role, mechanism):
    sender = f"{mechanism}@msmtp.example"
    code, said = msmtp(site, role, sender, mechanism, secret=TOKEN if "oauth" in mechanism else PASSWORD)
    assert code == 0, said
    assert site.via(sender)["auth"] == "alice"
    assert site.queued(sender)["body"].endswith(b"\r\n\r\n.\r\n..\r\nhello\r\n")
    site.log.wait_for("event=authenticated", f"mechanism={mechanism.upper()}")


def test_msmtp_with_a_certificate_of_its_own(site):
    certificate, key = site.authority.certificate(["laptop.example"], site.top)
    code, said = msmtp(site, "certs", "external@msmtp.example", "external", user="laptop.example",
                       certificate=(certificate, key))
    assert code == 0, said
    assert site.via("external@msmtp.example")["auth"] == "laptop.example"


def test_msmtp_is_told_of_a_wrong_password(site):
    code, said = msmtp(site, "submission", "wrong@msmtp.example", "plain", secret="wrong")
    assert code == 77, said     # EX_NOPERM
    assert "535 5.7.8 login or password wrong" in said


def test_msmtp_trusts_nobody_unknown(site, tmp_path):
    code, said = msmtp(site, "submission", "unknown@msmtp.example", "plain",
                       trusted=make_authority(tmp_path).file)
    assert code == 69, said     # EX_UNAVAILABLE
    assert not records(site.path, "unknown@msmtp.example")


# --- mail programs, as they talk ---

class Secure(Client):
    """A client that goes on by TLS when it is told to, or does so *at_once*."""

    def __init__(self, port, context, at_once=False):
        self._context, self._at_once = context, at_once
        super().__init__(port)

    def read(self):
        if self._at_once:
            self._at_once = False
            self.secure()
        return super().read()

    def secure(self):
        self._file.close()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=ME)
        self._file = self.sock.makefile("rb")

    def begin_tls(self):
        assert self.say("STARTTLS")[:3] == "220"
        self.secure()


def b64(text):
    return base64.b64encode(text.encode()).decode()


LETTER = (b"Message-ID: <5f0c@example.org>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0100\r\n"
          b"MIME-Version: 1.0\r\nUser-Agent: Mozilla Thunderbird\r\nFrom: Alice <%s>\r\n"
          b"To: alice@mail.example.org\r\nSubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\n"
          b"Content-Type: text/plain; charset=UTF-8; format=flowed\r\n"
          b"Content-Transfer-Encoding: 8bit\r\n\r\n\xc3\xbc\r\n..\r\n")


@pytest.mark.parametrize("initial", [True, False], ids=["initial response", "asked for it"])
def test_thunderbird(site, initial):
    """Its address in brackets for a name, 8BITMIME and SIZE, several recipients."""
    sender = f"thunderbird{initial}@example.org"
    letter = LETTER % sender.encode()
    with Secure(site.ports["submission"], site.context()) as client:
        offered = client.say("EHLO [127.0.0.1]")
        assert "250-8BITMIME" in offered
        assert "AUTH" not in offered
        client.begin_tls()
        assert "AUTH PLAIN LOGIN SCRAM-SHA-256" in client.say("EHLO [127.0.0.1]")
        secret = b64(f"\0alice\0{PASSWORD}")
        if initial:
            assert client.say(f"AUTH PLAIN {secret}")[:9] == "235 2.7.0"
        else:
            assert client.say("AUTH PLAIN") in ("334", "334 ")
            assert client.say(secret)[:9] == "235 2.7.0"
        assert client.say(f"MAIL FROM:<{sender}> BODY=8BITMIME SIZE={len(letter)}")[:3] == "250"
        for recipient in (f"alice@{ME}", THERE, "anna@many.example"):
            assert client.say(f"RCPT TO:<{recipient}>")[:3] == "250"
        assert client.data(letter.replace(b"\r\n..", b"\r\n..."))[:3] == "250"
        assert client.say("QUIT")[:3] == "221"
    found = site.queued(sender)
    assert found["body"] == letter
    assert found["to"] == [f"{number} new {address}" for number, address in
                           enumerate([f"alice@{ME}", THERE, "anna@many.example"], 1)]


def test_outlook(site):
    """TLS from the first octet, LOGIN, and a goodbye that it does not wait for."""
    sender = "outlook@example.org"
    with Secure(site.ports["submissions"], site.context(), at_once=True) as client:
        assert client.greeting.startswith(f"220 {ME} ESMTP")
        assert "AUTH PLAIN LOGIN" in client.say("EHLO DESKTOP-4711")
        assert client.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        assert client.say(b64("alice")) == "334 UGFzc3dvcmQ6"
        assert client.say(b64(PASSWORD))[:3] == "235"
        assert client.say(f"MAIL FROM: <{sender}>")[:3] == "250"       # the blank is a mistake of many
        assert client.say(f"RCPT TO: <{THERE}>")[:3] == "250"
        assert client.data(b"From: Alice\r\nSubject: hi\r\n\r\nhi\r\n")[:3] == "250"
        client.send("QUIT\r\n")
    assert site.via(sender)["auth"] == "alice"
    assert b"Message-ID: <" in site.queued(sender)["body"]


def test_login_with_the_name_at_once(site):
    """As the SmtpClient of .NET has it."""
    with Secure(site.ports["submission"], site.context()) as client:
        client.say("EHLO DESKTOP-4711")
        client.begin_tls()
        client.say("EHLO DESKTOP-4711")
        assert client.say(f"AUTH login {b64('alice')}") == "334 UGFzc3dvcmQ6"
        assert client.say(b64(PASSWORD))[:3] == "235"


def test_a_client_that_does_not_say_goodbye(site):
    """Neither QUIT nor close_notify: what was taken stays."""
    sender = "rude@example.net"
    with Secure(site.ports["mx"], site.context()) as client:
        client.say("EHLO rude.example")
        client.begin_tls()
        client.begin(sender, f"alice@{ME}")
        assert client.data(b"Subject: rude\r\n\r\nx\r\n")[:3] == "250"
        client.say(f"MAIL FROM:<{sender}>")
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    session = site.via(sender)["session"]
    assert "why=lost messages=1" in site.log.wait_for("event=disconnect", f"session={session}")


def test_smtplib(site):
    """It says EHLO by itself, and chooses the mechanism."""
    sender = "smtplib@example.org"
    with smtplib.SMTP("localhost", site.ports["submission"], timeout=SECONDS) as client:
        client._host = ME
        client.starttls(context=site.context())
        client.login("alice", PASSWORD)
        client.sendmail(sender, [THERE, f"alice@{ME}"], "Subject: hi\r\n\r\nhi", ["BODY=8BITMIME"])
    assert site.queued(sender)["body"].endswith(b"\r\n\r\nhi\r\n")


# --- openssl s_client ---

STARTTLS = {"mx": "smtp", "submission": "smtp", "certs": "smtp", "lmtp": "lmtp"}


def s_client(site, role, *options, text=b""):
    """What it prints. It says *text* and QUIT, and stays to the end."""
    starttls = ("-starttls", STARTTLS[role]) if role in STARTTLS else ()
    return call("openssl", "s_client", "-connect", f"127.0.0.1:{site.ports[role]}", "-ign_eof",
                *starttls, "-CAfile", site.authority.file, "-verify_return_error", *options,
                text=text + b"QUIT\r\n")


@pytest.mark.parametrize(("role", "version", "taken"), [
    ("mx", "-tls1_2", True), ("submissions", "-tls1_2", True), ("submissions", "-tls1", False),
    ("modern", "-tls1_2", False), ("modern", "-tls1_3", True)])
def test_versions(site, role, version, taken):
    code, said = s_client(site, role, version, "-cipher", "DEFAULT:@SECLEVEL=0")
    assert ("Verify return code: 0 (ok)" in said and "221 2.0.0 goodbye" in said) == taken, said
    assert taken or "alert protocol version" in said


@pytest.mark.parametrize("role", ["mx", "submissions", "lmtp"])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed_by_its_ticket(site, role, version, tmp_path):
    ticket = tmp_path / "ticket"
    for option, words in (("-sess_out", "New, TLSv1."), ("-sess_in", "Reused, TLSv1.")):
        _, said = s_client(site, role, version, "-servername", ME, option, ticket)
        assert words in said
        assert "221 2.0.0 goodbye" in said


def test_starttls_for_another_name(site):
    _, said = s_client(site, "mx", "-servername", "other.example", "-verify_hostname", "other.example")
    assert "221 2.0.0 goodbye" in said
    assert s_client(site, "mx", "-servername", ME, "-verify_hostname", "other.example")[0] != 0


def test_a_client_certificate_is_a_login(site, tmp_path):
    certificate, key = site.authority.certificate(["laptop.example"], tmp_path)
    _, said = s_client(site, "certs", "-cert", certificate, "-key", key,
                       text=b"EHLO laptop.example\r\nAUTH EXTERNAL =\r\n")
    assert "AUTH EXTERNAL PLAIN\r\n" in said
    assert "235 2.7.0 welcome" in said
    stranger = make_authority(tmp_path)
    certificate, key = stranger.certificate(["laptop.example"], tmp_path)
    _, said = s_client(site, "certs", "-cert", certificate, "-key", key)
    assert "alert unknown ca" in said


# --- mail systems in front ---

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it")
DSN = {"mail_options": ["BODY=8BITMIME", "RET=HDRS", "ENVID=QQ+2B314159"],
       "rcpt_options": ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Anna+2Bx@elsewhere.example"]}
MANY = [f"u{number}@many.example" for number in range(5)]
LINE = b".leading dots and \xc3\xbc\r\n"


@pytest.fixture
def postfix(site):
    """Relays to the listener for other hosts, with a certificate that it has to believe."""
    top = Path(tempfile.mkdtemp(prefix="mqmail-"))
    top.chmod(0o755)
    made = PostfixServer(top, free_port(), message_size_limit=40_000_000)
    made.listen("127.0.0.1")
    authorities = shutil.copy(site.authority.file, top)
    made.relay_to(site.ports["mx"], smtp_tls_security_level="secure", smtp_tls_CAfile=authorities,
                  smtp_tls_secure_cert_match=ME, smtp_destination_recipient_limit=2)
    try:
        yield made.start()
    finally:
        made.stop()
        shutil.rmtree(top)


def sent_by(postfix, sender, count):
    """Wait until Postfix has got rid of the messages to *count* recipients of *sender*."""
    def done():
        ids = [line.split(": ")[1] for line in postfix.log(f" from=<{sender}>", "nrcpt=")]
        sent = [line for line in postfix.log(" status=sent ") if line.split(": ")[1] in ids]
        assert not postfix.log(" status=bounced "), postfix.log()
        assert not postfix.log(" status=deferred "), postfix.log()
        return len(sent) == count
    wait_until(done, "Postfix to send it")


@only_root
def test_postfix_passes_on_what_it_has_got(site, postfix):
    letter = b"Subject: dsn\r\n\r\n" + LINE
    large = b"Subject: large\r\n\r\n" + LINE * (20_000_000 // len(LINE))
    with smtplib.SMTP("127.0.0.1", postfix.port, timeout=SECONDS) as client:
        client.sendmail("dsn@postfix.example", MANY, letter, **DSN)
        client.sendmail("large@postfix.example", MANY[:2], large)
    code, said = call("smtp-source", "-s", "10", "-m", "100", "-r", "2", "-f", "load@postfix.example",
                      "-t", MANY[0], f"127.0.0.1:{postfix.port}")
    assert code == 0, said
    for sender, count in (("dsn", 5), ("large", 2), ("load", 200)):
        sent_by(postfix, f"{sender}@postfix.example", count)
    found = records(site.path, "dsn@postfix.example")
    assert [one["from"] for one in found] == ["dsn@postfix.example ret=hdrs envid=QQ+2B314159"] * 3
    assert sorted([to.partition(" ")[2] for one in found for to in one["to"]]) == [
        f"new {one} notify=success,delay orcpt=rfc822;Anna+2Bx@elsewhere.example" for one in MANY]
    assert all([one["body"].endswith(b"\r\n" + letter) for one in found])
    assert all([one["via"].startswith("proto=esmtp ip=127.0.0.1 helo=postfix.test tls=TLSv1.3:")
                for one in found])
    assert site.queued("large@postfix.example")["body"].endswith(b"\r\n" + large)
    assert len(records(site.path, "load@postfix.example")) == 100


EXIM = """
primary_hostname = exim.test
spool_directory = {top}/spool
log_file_path = {top}/log-%s
pid_file_path =
keep_environment =
exim_path = {exim}
trusted_users = root
never_users =
dsn_advertise_hosts = *
accept_8bitmime = true
acl_smtp_rcpt = accept
acl_smtp_data = accept

begin routers
out:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out

begin transports
out:
  driver = smtp
  port = {port}
  allow_localhost
  hosts_require_tls = *
  hosts_try_chunking = *
  tls_verify_certificates = {authorities}
  tls_verify_hosts = *
  tls_verify_cert_hostnames =
  tls_sni = {name}
"""


@pytest.fixture
def exim(site):
    """A function that lets Exim pass on what it is told by SMTP; its log."""
    top = Path(tempfile.mkdtemp(prefix="mqmail-"))
    top.chmod(0o755)
    program = shutil.copy(need("exim4"), top / "exim4")     # who is root no longer must get there
    (top / "spool").mkdir()
    (top / "conf").write_text(EXIM.format(
        top=top, exim=program, port=site.ports["mx"], name=ME,
        authorities=shutil.copy(site.authority.file, top)))
    for path in (top, top / "spool"):
        shutil.chown(path, USER, USER)

    def say(*lines):
        subprocess.run([program, "-C", top / "conf", "-odf", "-bs"], check=True, capture_output=True,
                       input=b"\r\n".join([*lines, b"QUIT", b""]), timeout=SECONDS)
        return (top / "log-main").read_text()

    yield say
    shutil.rmtree(top)


@only_root
def test_exim_passes_on_what_it_has_got(site, exim):
    """By BDAT, and with PRDR: one of the recipients is refused when the header has come."""
    options = " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Anna+2Bx@elsewhere.example"
    log = exim(b"EHLO x.example",
               b"MAIL FROM:<dsn@exim.example> RET=HDRS ENVID=QQ+2B314159 BODY=8BITMIME",
               *[f"RCPT TO:<{one}>{options}".encode() for one in MANY],
               b"DATA", f"Subject: dsn\r\nX-Not-For: {MANY[1]}\r\n\r\n.".encode() + LINE + b".")
    found = site.queued("dsn@exim.example")
    assert found["from"] == "dsn@exim.example ret=hdrs envid=QQ+2B314159"
    assert found["to"] == [
        f"{number} new {one} notify=success,delay orcpt=rfc822;Anna+2Bx@elsewhere.example"
        for number, one in enumerate([MANY[0], *MANY[2:]], 1)]
    assert b"Subject: dsn\r\n" in found["body"]
    assert found["body"].endswith(b"\r\n\r\n" + LINE)
    assert [line.split()[4] for line in log.splitlines() if " ** " in line] == [MANY[1]]
    assert "550 5.7.1 not for you" in log
    assert " PRDR K C=" in log      # the log has words for PRDR and BDAT


# --- swaks ---

def swaks(site, role, sender, *options):
    return call("swaks", "--server", f"127.0.0.1:{site.ports[role]}", "--ehlo", "client.example",
                "--from", sender, *options)


@pytest.mark.parametrize(("mechanism", "role", "tls"), [
    ("PLAIN", "submission", "--tls"), ("LOGIN", "submissions", "--tls-on-connect"),
    ("CRAM-MD5", "submissions", "--tls-on-connect")])
def test_swaks_logs_in(site, mechanism, role, tls):
    sender = f"{mechanism}@swaks.example".lower()
    code, said = swaks(site, role, sender, "--to", THERE, "--auth", mechanism, "--auth-user", "alice",
                       "--auth-password", PASSWORD, tls, "--tls-verify",
                       "--tls-ca-path", site.authority.file)
    assert code == 0, said
    assert site.via(sender)["auth"] == "alice"


def test_swaks_hears_a_verdict_for_each(site):
    code, said = swaks(site, "mx", "a@prdr.example", "--prdr", "--to", ",".join(MANY[:3]),
                       "--header", f"X-Not-For: {MANY[1]}")
    assert code == 0, said
    assert said.count("\n<** 550 5.7.1 not for you\n") == 1
    assert site.queued("a@prdr.example")["to"] == [f"1 new {MANY[0]}", f"2 new {MANY[2]}"]


# --- haproxy ---

HAPROXY = """
defaults
  mode tcp
  timeout connect 10s
  timeout client 30s
  timeout server 30s
listen v1
  bind 127.0.0.1:{v1}
  server one 127.0.0.1:{port} send-proxy
listen v2
  bind 127.0.0.1:{v2}
  server one 127.0.0.1:{port} send-proxy-v2
listen tls
  bind 127.0.0.1:{tls} ssl crt {certificate}
  server one 127.0.0.1:{behind} send-proxy-v2-ssl-cn
"""


def test_haproxy_says_who_the_client_is(site, launch, tmp_path):
    """Also in front of users: it ends TLS itself."""
    ports = {name: free_port() for name in ("v1", "v2", "tls")}
    pair = site.authority.certificate(["127.0.0.1"], tmp_path)
    (tmp_path / "pair.pem").write_text("".join([path.read_text() for path in pair]))
    (tmp_path / "conf").write_text(HAPROXY.format(
        port=site.ports["proxy"], behind=site.ports["behind"], certificate=tmp_path / "pair.pem",
        **ports))
    program = launch(need("haproxy"), "-db", "-f", tmp_path / "conf")
    secure = smtplib.SMTP_SSL, {"context": site.context()}
    for number, (name, port) in enumerate(ports.items(), 70):
        program.wait_for_port(port)
        sender, ip = f"{name}@haproxy.example", f"127.0.0.{number}"
        kind, options = secure if name == "tls" else (smtplib.SMTP, {})
        with kind("127.0.0.1", port, timeout=SECONDS, source_address=(ip, 0), **options) as client:
            if name == "tls":
                client.login("alice", PASSWORD)
            client.sendmail(sender, [f"alice@{ME}"], "Subject: x\r\n\r\nx\r\n")
        assert site.via(sender)["ip"] == ip
    assert site.via("tls@haproxy.example")["auth"] == "alice"


# --- tcpserver ---

RULES = """\
127.0.0.61:allow,RELAYCLIENT=""
127.0.0.62:allow,RELAYCLIENT=".relay.example"
127.0.0.63:allow,RBLSMTPD="-you are listed"
127.0.0.64:allow,RBLSMTPD="come back"
127.0.0.65:allow,RBLSMTPD="",DATABYTES="100"
127.0.0.66:deny
:allow
"""


@pytest.fixture
def tcpserver(site, launch, tmp_path):
    """A function that sends a message from an address; the last answer."""
    code, said = call("tcprules", tmp_path / "cdb", tmp_path / "tmp", text=RULES.encode())
    assert code == 0, said
    port = free_port()
    program = launch(need("tcpserver"), "-R", "-H", "-l", "0", "-x", tmp_path / "cdb", "127.0.0.1", port,
                     ROOT / "bin/xmtpd", "--home", site.path)
    program.wait_for_port(port)

    def send(ip, recipient):
        with smtplib.SMTP("127.0.0.1", port, timeout=SECONDS, source_address=(ip, 0)) as client:
            client.ehlo()
            client.mail(f"{ip}@tcp.example")
            code, text = client.rcpt(recipient)
            if code == 250:
                code, text = client.data(b"Subject: x\r\n\r\n" + b"x" * 200)
            return code, text.decode()
    return send


@pytest.mark.parametrize(("ip", "recipient", "code", "words"), [
    ("127.0.0.60", THERE, 550, "5.7.1 relaying denied"),
    ("127.0.0.61", THERE, 250, "2.0.0 ok"),
    ("127.0.0.63", f"alice@{ME}", 553, "5.7.1 you are listed"),
    ("127.0.0.64", f"alice@{ME}", 451, "4.7.1 come back"),
    ("127.0.0.65", f"alice@{ME}", 552, "5.3.4 ")])
def test_tcprules_say_what_a_client_may(tcpserver, ip, recipient, code, words):
    found = tcpserver(ip, recipient)
    assert found[0] == code
    assert found[1].startswith(words)


def test_relayclient_goes_behind_each_recipient(site, tcpserver):
    assert tcpserver("127.0.0.62", THERE)[0] == 250
    assert site.queued("127.0.0.62@tcp.example")["to"] == [f"1 new {THERE}.relay.example"]


def test_tcprules_turn_a_client_away(tcpserver):
    with pytest.raises(smtplib.SMTPServerDisconnected):
        tcpserver("127.0.0.66", THERE)


def test_tls_by_who_started_us(site):
    """As sslserver and s6-tlsserver do it, before the first octet."""
    said = b"EHLO x.example\r\nAUTH PLAIN %s\r\nQUIT\r\n" % b64(f"\0alice\0{PASSWORD}").encode()
    done = run("xmtpd", "--home", str(site.path), "--role", "submissions", text=said,
               env={**os.environ, "PROTO": "SSL", "SSLREMOTEIP": "192.0.2.1", "SSL_PROTOCOL": "TLSv1.3",
                    "SSL_CIPHER": "A-CIPHER"})
    assert b"\r\n235 2.7.0 welcome\r\n" in done.stdout
    assert b"version=TLSv1.3 cipher=A-CIPHER" in done.stderr
