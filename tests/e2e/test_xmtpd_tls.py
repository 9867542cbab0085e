"""Listeners with roles: TLS, PROXY, XCLIENT, PRDR, reloading; with other people's clients."""

import email
import os
import smtplib
import socket
import ssl
import subprocess

import pytest

from support.certificates import make_authority
from support.home import ME, ROOT, SECONDS, Home, free_port, wait_until
from support.programs import need

pytestmark = pytest.mark.e2e


class Secure:
    """A home with certificates of an authority of its own, and ports for the roles."""

    def __init__(self, home):
        self.home = home
        self.directory = home.path / "tls"
        self.directory.mkdir()
        self.authority = make_authority(self.directory)
        self.ports = {role: free_port() for role in ("submission", "submissions", "proxy", "lmtp")}
        self.sets = ""

    def write(self, *names, more=""):
        """Certificates for ME and *names*, and the listeners."""
        lines = []
        for name in ("*", *names):
            pair = self.authority.certificate([ME if name == "*" else name], self.directory)
            lines.append(f"{name} {pair[0]} {pair[1]}\n")
        owner = os.stat(self.home.path)
        for path in (self.directory, *self.directory.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        ports = self.ports
        self.home.control(
            tlscertificates="".join(lines), tlsclientauthorities=f"{self.authority.file}\n",
            optionsets=self.sets,
            listeners=f"127.0.0.1:{self.home.port} xclient=127.0.0.1\n"
                      f"127.0.0.1:{ports['submission']} role=submission\n"
                      f"127.0.0.1:{ports['submissions']} role=submissions\n"
                      f"127.0.0.1:{ports['proxy']} proxy=127.0.0.0/8\n"
                      f"127.0.0.1:{ports['lmtp']} role=lmtp\n{more}")

    def context(self):
        return ssl.create_default_context(cafile=self.authority.file)

    def reload(self):
        self.home.process.send_signal(1)


@pytest.fixture(scope="module")
def secure():
    made = Secure(Home("alice", "bob"))
    made.sets = "certs clientcert=require\ntwelve tlsmin=1.3\nwaits tls=implicit greetdelay=60\n"
    made.certs, made.new, made.waits = free_port(), free_port(), free_port()
    made.write("other.example", more=f"127.0.0.1:{made.certs} set=certs\n"
                                     f"127.0.0.1:{made.waits} set=waits\n")
    try:
        made.home.control(authbackends="passwd\n")
        subprocess.run([ROOT / "bin" / "mq-passwd", "--home", made.home.path, "bob"], input=b"secret\n",
                       check=True, capture_output=True, timeout=SECONDS)
        made.home.start()
        yield made
    finally:
        made.home.remove()


def swaks(port, *arguments):
    """A message to alice; (exit code, what was said)."""
    command = [need("swaks"), "--server", "127.0.0.1", "--port", str(port), "--ehlo", "client.example",
               "--from", "sender@example.net", "--to", f"alice@{ME}", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
                          check=False)
    return done.returncode, done.stdout.decode() + done.stderr.decode()


def arrived(secure, subject):
    """The message with this subject."""
    def there():
        found = [path.read_bytes() for path in secure.home.maildir("alice")]
        return [text for text in found if f"\nSubject: {subject}\n".encode() in text]

    [text] = wait_until(there, subject)
    return text


def received(secure, subject):
    """Its Received: field, in one line."""
    text = arrived(secure, subject)
    return " ".join(text.decode().partition("\nReceived: ")[2].partition("\n\n")[0].split())


def test_starttls_with_swaks(secure):
    code, said = swaks(secure.home.port, "--tls", "--h-Subject", "by starttls")
    assert code == 0, said
    assert "250-STARTTLS" in said
    assert "STARTTLS" not in said.partition("TLS started")[2]
    field = received(secure, "by starttls")
    assert field.startswith(
        f"from client.example ([127.0.0.1]) by {ME} with ESMTPS (TLSv1.3/TLS_AES_256_GCM_SHA384) id ")
    secure.home.wait_for_log("event=tls ", "version=TLSv1.3")


def test_tls_from_the_first_octet_wants_a_login(secure):
    code, said = swaks(secure.ports["submissions"], "--tlsc")
    assert code != 0
    assert "<~* 530 5.7.0 authentication required" in said


def test_submission_wants_tls_first(secure):
    code, said = swaks(secure.ports["submission"])
    assert "<** 530 5.7.0 say STARTTLS first" in said
    assert "AUTH" not in said
    _, said = swaks(secure.ports["submission"], "--tls")
    assert "AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS" in said


@pytest.mark.parametrize(("text", "there", "gone"), [
    ("Subject: {0}\r\nBcc: carol@example.net\r\n\r\nhi\r\n", ["Date", "Message-ID", "From"], ["Bcc"]),
    ("Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nSubject: {0}\r\nMessage-ID: <own@x>\r\n"
     f"From: bob@{ME}\r\n\r\nBcc: stays\r\n", ["Date", "Message-ID", "From"], []),
    ("Subject: {0}\r\n", ["Date", "Message-ID", "From"], []),
])
def test_what_users_submit_is_made_whole(secure, text, there, gone):
    subject = f"whole{abs(hash(text))}"
    with smtplib.SMTP_SSL("127.0.0.1", secure.ports["submissions"], timeout=SECONDS) as client:
        client.login("bob", "secret")
        client.sendmail(f"bob@{ME}", [f"alice@{ME}"], text.format(subject))
    found = email.message_from_bytes(arrived(secure, subject))
    assert [len(found.get_all(name, [])) for name in there] == [1] * len(there)
    assert not [name for name in gone if name in found]
    assert ("Message-ID: <own@x>" in text) == (found["Message-ID"] == "<own@x>")
    body = text.format(subject).partition("\r\n\r\n")[2].replace("\r\n", "\n")
    assert found.get_payload() == body


def shown_to(secure, *arguments):
    """The subject alternative names that openssl s_client is shown."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.ports['submissions']}", "-CAfile",
         secure.authority.file, *arguments], input=b"QUIT\r\n", capture_output=True, timeout=SECONDS,
        check=False)
    text = done.stdout.decode()
    names = subprocess.run(["openssl", "x509", "-noout", "-ext", "subjectAltName"], input=done.stdout,
                           capture_output=True, timeout=SECONDS, check=False).stdout.decode()
    assert "Verify return code: 0 (ok)" in text, text
    return names.split()[-1]


def test_the_certificate_is_chosen_by_name(secure):
    assert shown_to(secure, "-servername", "other.example") == "DNS:other.example"
    assert shown_to(secure, "-servername", "unknown.example") == f"DNS:{ME}"
    assert shown_to(secure, "-noservername") == f"DNS:{ME}"


def test_smtplib_over_starttls_and_old_versions(secure):
    with smtplib.SMTP("127.0.0.1", secure.home.port, timeout=SECONDS) as client:
        client._host = ME
        client.starttls(context=secure.context())
        client.sendmail("s@example.net", [f"alice@{ME}"], "Subject: smtplib\r\n\r\nx\r\n")
    assert "with ESMTPS" in received(secure, "smtplib")
    with smtplib.SMTP(*secure.home.address, timeout=SECONDS) as client:
        assert client.docmd("EHLO", "x.example")[0] == 250
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.home.port}", "-starttls", "smtp",
         "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"], input=b"QUIT\r\n", capture_output=True,
        timeout=SECONDS, check=False)
    assert done.returncode != 0
    secure.home.wait_for_log("event=tls_refused", "ip=127.0.0.1")


def test_what_came_before_tls_is_forgotten(secure):
    """RFC 3207 section 4.2, and what was pipelined behind STARTTLS."""
    sock = socket.create_connection(("127.0.0.1", secure.home.port), SECONDS)
    sock.recv(1000)
    sock.sendall(b"EHLO client.example\r\n")
    sock.recv(1000)
    sock.sendall(b"STARTTLS\r\nMAIL FROM:<plain@example.net>\r\n")
    assert sock.recv(1000) == b"220 2.0.0 go ahead\r\n"
    with secure.context().wrap_socket(sock, server_hostname=ME) as tls:
        tls.sendall(b"MAIL FROM:<a@example.net>\r\n")
        assert tls.recv(1000) == b"503 5.5.1 say EHLO first\r\n"
        tls.sendall(b"EHLO client.example\r\n")
        assert b"STARTTLS" not in tls.recv(1000)
        tls.sendall(b"QUIT\r\n")
        assert tls.recv(1000) == b"221 2.0.0 goodbye\r\n"
        assert tls.recv(1000) == b""


def test_sessions_are_resumed_by_every_process(secure):
    context = secure.context()

    def connect(session=None):
        plain = socket.create_connection(("127.0.0.1", secure.ports["submissions"]), SECONDS)
        with context.wrap_socket(plain, server_hostname=ME, session=session) as tls:
            tls.recv(1000)
            return tls.session_reused, tls.session

    _, session = connect()
    assert [connect(session)[0] for _ in range(8)] == [True] * 8


def test_a_client_certificate(secure, tmp_path):
    certificate, key = secure.authority.certificate(["laptop.example"], tmp_path)
    with pytest.raises(OSError), smtplib.SMTP("127.0.0.1", secure.certs, timeout=SECONDS) as client:  # noqa: PT011
        client.starttls(context=secure.context())
        client.noop()
    context = secure.context()
    context.load_cert_chain(certificate, key)
    with smtplib.SMTP("127.0.0.1", secure.certs, timeout=SECONDS) as client:
        client._host = ME
        client.ehlo()
        assert client.docmd("MAIL FROM:<a@example.net>")[0] == 530
        client.starttls(context=context)
        client.ehlo()
        assert client.docmd("MAIL FROM:<a@example.net>")[0] == 250
    secure.home.wait_for_log("event=tls ", "certificate=laptop.example")


def test_who_does_not_wait_for_the_greeting_within_tls_is_understood(secure):
    with secure.context().wrap_socket(socket.create_connection(("127.0.0.1", secure.waits), SECONDS),
                                      server_hostname=ME) as tls, tls.makefile("rwb") as file:
        file.write(b"EHLO client.example\r\nQUIT\r\n")
        file.flush()
        heard = [line[:4] for line in file]
        assert (heard[0], heard[-1]) == (b"220 ", b"221 ")


def talk(port, *pieces):
    """Send *pieces*, each after something has come; all that was said."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.settimeout(SECONDS)
        for piece in pieces:
            sock.sendall(piece)
            said += sock.recv(65536)
        while piece := sock.recv(65536):
            said += piece
    return said.decode()


V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x30\x39\x00\x19"


@pytest.mark.parametrize(("head", "ip"), [
    (b"PROXY TCP4 192.0.2.9 127.0.0.1 4711 25\r\n", "192.0.2.9"),
    (b"PROXY TCP6 2001:db8::9 ::1 4711 25\r\n", "2001:db8::9"),
    (V2, "192.0.2.7")])
def test_the_proxy_protocol(secure, head, ip):
    said = talk(secure.ports["proxy"], head + b"EHLO x.example\r\nQUIT\r\n")
    assert said.startswith(f"220 {ME} ESMTP\r\n250-")
    secure.home.wait_for_log("event=connect", f"ip={ip}", "proxy=127.0.0.1")


def test_a_client_in_place_of_the_proxy_is_closed(secure):
    assert talk(secure.ports["proxy"], b"EHLO x.example\r\n") == ""
    assert talk(secure.ports["proxy"], b"PROXY TCP4 1.2.3.4\r\n") == ""
    secure.home.wait_for_log("event=proxy_refused")


def test_xclient_with_swaks(secure):
    code, said = swaks(secure.home.port, "--xclient-addr", "192.0.2.33", "--xclient-name", "far.example",
                       "--xclient-helo", "helo.example", "--h-Subject", "by xclient")
    assert code == 0, said
    assert "([192.0.2.33])" in received(secure, "by xclient")
    secure.home.wait_for_log("event=xclient", "ip=192.0.2.33", "host=far.example")
    code, said = swaks(secure.ports["lmtp"], "--protocol", "LMTP", "--xclient-addr", "192.0.2.33")
    assert code != 0


def test_prdr_is_offered_and_a_common_answer_is_one(secure):
    said = talk(secure.home.port, b"EHLO x.example\r\nMAIL FROM:<s@example.net> PRDR\r\n"
                + f"RCPT TO:<alice@{ME}>\r\nRCPT TO:<bob@{ME}>\r\nDATA\r\n".encode(),
                b"Subject: prdr\r\n\r\nx\r\n.\r\n", b"QUIT\r\n")
    assert "250 PRDR\r\n" in said or "250-PRDR\r\n" in said
    assert "354" in said
    assert said.partition("354")[2].count("250 2.0.0 ok") == 1


def test_starttls_by_who_started_us(secure):
    """UCSPI-TLS: the program is asked on one descriptor, and the session goes on on two others."""
    asked, answering = socket.socketpair()
    plain, inside = socket.socketpair(), socket.socketpair()
    fd = str(inside[1].fileno())
    process = subprocess.Popen(
        [ROOT / "bin/xmtpd", "--home", secure.home.path, "--set", "twelve"], stdin=plain[1],
        stdout=plain[1],
        pass_fds=[answering.fileno(), inside[1].fileno()], stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PROTO": "TCP", "TCPREMOTEIP": "192.0.2.1",
             "SSLCTLFD": str(answering.fileno()), "SSLREADFD": fd, "SSLWRITEFD": fd})
    for sock in (plain[1], inside[1], answering):
        sock.close()
    with plain[0], inside[0], asked, process:
        for sock in (plain[0], inside[0], asked):
            sock.settimeout(SECONDS)
        assert plain[0].recv(1000)[:4] == b"220 "
        plain[0].sendall(b"EHLO x.example\r\n")
        assert b"STARTTLS" in plain[0].recv(1000)
        plain[0].sendall(b"STARTTLS\r\n")
        assert plain[0].recv(1000)[:4] == b"220 "
        assert asked.recv(1) == b"Y"
        asked.sendall(b"SSL_PROTOCOL=TLSv1.3\0SSL_CIPHER=A-CIPHER\0\0")
        inside[0].sendall(b"EHLO x.example\r\n")
        assert b"STARTTLS" not in inside[0].recv(1000)
        inside[0].sendall(b"QUIT\r\n")
        assert inside[0].recv(1000) == b"221 2.0.0 goodbye\r\n"
        assert b"version=TLSv1.3 cipher=A-CIPHER" in process.stderr.read()


def test_reload_opens_and_closes_and_cuts_nobody(secure):
    """And a mistake changes nothing."""
    home = secure.home
    with smtplib.SMTP(*home.address, timeout=SECONDS) as client:
        client.ehlo()
        before = home.path.joinpath("control/listeners").read_text()
        home.control(listeners=before + f"127.0.0.1:{secure.new} role=submissions set=nosuch\n")
        secure.reload()
        home.wait_for_log("event=reload_failed", "there+20is+20no+20option+20set+20nosuch")
        without = before.replace(f"127.0.0.1:{secure.ports['lmtp']} role=lmtp\n", "")
        home.control(listeners=without + f"127.0.0.1:{secure.new} role=submissions\n")
        secure.reload()
        home.wait_for_log("event=listening ", f"address=127.0.0.1:{secure.new}")
        home.wait_for_log("event=listening_ended", f"address=127.0.0.1:{secure.ports['lmtp']}")
        for _ in range(8):
            plain = socket.create_connection(("127.0.0.1", secure.new), SECONDS)
            with secure.context().wrap_socket(plain, server_hostname=ME) as tls:
                assert tls.recv(1000).startswith(b"220 ")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", secure.ports["lmtp"]), SECONDS)
        assert client.noop()[0] == 250
        client.sendmail("s@example.net", [f"alice@{ME}"], "Subject: still here\r\n\r\nx\r\n")
