"""Remote delivery to Postfix, Exim and Dovecot: what they log, and what is in their Maildirs.

One system sends everything. Postfix listens at a loopback address for each thing it can be like; it is
the MX host ``mx.NAME.test`` of the domain ``NAME.test``.
"""

import email
import email.policy
import os
import smtplib
import socket
import subprocess
from pathlib import Path

import pytest

from mqmail.base import xtext
from support.certificates import make_authority
from support.dnsserver import DnsServer
from support.dovecot import Dovecot
from support.eximserver import EximServer
from support.home import ME, SECONDS, Home, free_port, wait_until
from support.postfixserver import PostfixServer
from support.programs import Program, need

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="only root can run Postfix")]

PASSWORDS = {"alice": "wonder land", "carol": "s3cret=+"}
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256")
TEXT = b"Subject: lunch\r\n\r\nShall we?\r\n.\r\n..\r\nbye\r\n"
OTHERS = {      # domains with a host that is named for another one
    "unknownmay": "unknown", "expiredmay": "expired", "plainencrypt": "plain", "brokenencrypt": "broken",
    "oddencrypt": "odd", "ancientencrypt": "ancient", "wrongencrypt": "wrong", "named": "wrong",
    "new": "tls12", "none": "tls", "second": "sni"}
DELAY, FAILURE, SUCCESS = "deferred", "failed", "delivered"


def own_address():
    """An address of this host that is not loopback, "" if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))      # sends nothing
        except OSError:
            return ""
        ip = sock.getsockname()[0]
        return "" if ip.startswith("127.") else ip


class Receivers:
    """Postfix, Exim and Dovecot, and what DNS and the control files must say to reach them. The name of
    a Postfix listener is that of its domain without ``.test``."""

    def __init__(self, home, launch):
        self.home = home
        self.port = free_port()
        self.ips, self.zone = {}, []
        top = Path(home.top, "postfix")
        for path in (top, Path(home.top, "exim")):
            path.mkdir()
        self.authority = make_authority(top)
        self.dovecot = Dovecot(home, launch, "maildir:~/Maildir", PASSWORDS)
        self.postfix = PostfixServer(top, self.port, smtpd_sasl_path=self.dovecot.auth)
        self._top = top
        self._tls()
        self._auth()
        self._lacking()
        self.exim = EximServer(
            Path(home.top, "exim"), launch, self._host("exim"), self.port,
            self.authority.certificate(["mx.exim.test"], top), "*.closed.test", "alice",
            PASSWORDS["alice"])

    def start(self):
        for server in (self.dovecot, self.postfix, self.exim):
            server.start()
        return self

    def _host(self, name):
        """The address of the new MX host of a domain."""
        ip = self.ips[name] = f"127.0.1.{len(self.ips) + 1}"
        self.zone += [f"{name}.test. 60 IN MX 10 mx.{name}.test.", f"mx.{name}.test. 60 IN A {ip}"]
        return ip

    def _listen(self, name, certificate=None, wrapper=False, **settings):
        """*certificate*: (certificate, key) of a host that does TLS."""
        tls = {"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": certificate[0],
               "smtpd_tls_key_file": certificate[1]} if certificate else {}
        self.postfix.listen(self._host(name), wrapper, **{**tls, **settings})

    def _tls(self):
        def made(*names, **options):
            return self.authority.certificate(names, self._top, **options)

        good = made("mx.tls.test")
        stranger = self._top / "stranger"
        stranger.mkdir()
        self._listen("tls", good)
        self._listen("plain")
        self._listen("strict", made("mx.strict.test"), smtpd_tls_security_level="encrypt")
        self._listen("broken", (good[0], made("mx.broken.test")[1]))
        self._listen("odd", good, smtpd_tls_protocols="TLSv1.2", tls_medium_cipherlist="PSK")
        self._listen("ancient", good, smtpd_tls_protocols="TLSv1", smtpd_tls_mandatory_protocols="TLSv1",
                     tls_medium_cipherlist="ALL:@SECLEVEL=0")
        self._listen("tls12", made("mx.tls12.test"), smtpd_tls_protocols="TLSv1.2",
                     smtpd_tls_mandatory_protocols="TLSv1.2")
        self._listen("wrong", made("mx.wrong.example"))
        self._listen("expired", made("mx.expired.test", days=-1))
        self._listen("unknown", make_authority(stranger).certificate(["mx.unknown.test"], stranger))
        self._listen("smtps", made("mx.smtps.test"), wrapper=True, smtpd_tls_security_level="encrypt")
        self._listen("sni", made("other.example"), tls_server_sni_maps=self._sni_map(
            {name: made(name) for name in ("mx.sni.test", "second.example")}))
        self.zone += [f"{name}.test. 60 IN MX 10 mx.{host}.test." for name, host in OTHERS.items()]

    def _sni_map(self, certificates):
        """tls_server_sni_maps for name to (certificate, key)."""
        text = ""
        for name, pair in certificates.items():
            chain = self._top / f"{name}.chain"
            chain.write_text(pair[1].read_text() + pair[0].read_text())
            text += f"{name} {chain}\n"
        (self._top / "sni").write_text(text)
        config = self._top / "none"
        config.mkdir()
        (config / "main.cf").write_text("")
        subprocess.run([need("postmap"), "-c", config, "-F", f"hash:{self._top}/sni"], check=True)
        return f"hash:{self._top}/sni"

    def _auth(self):
        certificate = self.authority.certificate(["mx.auth.test"], self._top)
        required = {"smtpd_sasl_auth_enable": "yes", "smtpd_tls_auth_only": "yes",
                    "smtpd_client_restrictions": "permit_sasl_authenticated, reject"}
        for mechanism in MECHANISMS:
            self._listen(f"auth-{mechanism.lower()}", certificate, **required,
                         smtpd_sasl_mechanism_filter=mechanism)
        self._listen("auth", certificate, **required)
        self._listen("plainauth", **{**required, "smtpd_tls_auth_only": "no"})
        self.outside = own_address()
        if self.outside:
            self.postfix.listen(self.outside, **{**required, "smtpd_tls_auth_only": "no"})

    def _lacking(self):
        self._listen("seven", smtpd_discard_ehlo_keywords="8bitmime, chunking, smtputf8")
        self._listen("nodsn", smtpd_discard_ehlo_keywords="dsn")
        self._listen("bare", smtpd_discard_ehlo_keywords="8bitmime, chunking, smtputf8, dsn, pipelining,"
                     " size, enhancedstatuscodes")
        self._listen("small", message_size_limit="20000")
        self._listen("picky", self.authority.certificate(["mx.picky.test"], self._top),
                     smtpd_recipient_restrictions="check_recipient_access inline:{"
                     " { no@picky.test = 550 5.1.1 nobody of that name } }")

        self._listen("strikes", smtpd_hard_error_limit="5", recipient_delimiter="+",
                     smtpd_recipient_restrictions="check_recipient_access inline:{"
                     " { no@strikes.test = 550 5.1.1 nobody } }")
        self._listen("few", smtpd_recipient_limit="10")
        hasty = self.authority.certificate(["mx.hasty.test"], self._top)
        self._listen("hasty", hasty, smtpd_timeout="1")

    def hop(self, name):
        """A listener as routes have it."""
        return f"{self.ips[name]}:{self.port}"

    def control(self, resolver):
        """Control files."""
        hop = self.hop
        routes = [
            f"::{self.port}", f"smtps.test:smtps:{hop('smtps')}",
            f"lmtp.test:lmtp:127.0.0.1:{self.dovecot.lmtp}", f"unix.test:lmtp:{self.dovecot.socket}",
            *[f"auth-{name.lower()}.test:{hop('auth-' + name.lower())} auth={name}"
              for name in MECHANISMS],
            f"badpassword.test:{hop('auth')} auth=bad", f"noentry.test:{hop('auth')} auth=missing",
            f"noauth.test:{hop('auth')}", f"notoffered.test:{hop('tls')} auth=alice",
            f"hasty.test:{hop('hasty')}", f"plainauth.test:{hop('plainauth')} auth=alice",
            *[f"{name.lower()}.closed.test:{hop('exim')} auth={name}" for name in MECHANISMS[:3]]]
        policies = [
            *[f"{name}encrypt.test: encrypt" for name in ("plain", "broken", "odd", "ancient", "wrong")],
            "new.test: encrypt min=1.3", "none.test: none",
            "named.test: verify names=.wrong.example,mx.wrong.example",
            "sni.test: verify", "second.test: verify names=second.example sni=second.example",
            "exim.test: verify min=1.3",
            *[f"{name}.test: verify" for name in ("strict", "wrong", "expired", "unknown")],
            "smtps.test: verify names=mx.smtps.test"]
        entries = [*[f'{name} {name} "{password}"' for name, password in PASSWORDS.items()],
                   *[f'{name} alice "{PASSWORDS["alice"]}" {name}' for name in MECHANISMS],
                   "bad alice wrong"]
        if self.outside:
            routes.append(f"outside.test:{self.outside}:{self.port} auth=alice")
        senders = [f"{name}@senders.test:{hop('auth')} auth={name}" for name in PASSWORDS]
        files = {"smtproutes": routes, "tlspolicy": policies, "credentials": entries,
                 "senderroutes": senders, "remotesessions": ["idle 1"], "resolvers": [resolver],
                 "refusednetworks": ["# none"], "relayclients": ["127.0.0.1"],
                 "tlsauthorities": [str(self.authority.file)]}
        return {name: "".join([f"{line}\n" for line in lines]) for name, lines in files.items()}


class World:
    """A running mqmail that sends to the Receivers."""

    def __init__(self, home, receivers):
        self.home, self.receivers = home, receivers
        self.postfix, self.exim, self.dovecot = receivers.postfix, receivers.exim, receivers.dovecot

    def send(self, *recipients, text=TEXT, sender="a@senders.example", mail=(), rcpt=()):
        """Send a message with these parameters of MAIL and RCPT; the queue's id."""
        with smtplib.SMTP(*self.home.address, "client.example", timeout=SECONDS) as client:
            client.ehlo()
            if not all([one.isascii() for one in (sender, *recipients)]):
                client.command_encoding, mail = "utf-8", (*mail, "SMTPUTF8", "BODY=8BITMIME")
            replies = [client.mail(sender, mail), *[client.rcpt(one, rcpt) for one in recipients],
                       client.data(text)]
        assert [code for code, _ in replies] == [250] * len(replies), replies
        return replies[-1][1].decode().split()[-1]

    def verdicts(self, id, count=1):
        """Address to (delivered, deferred or failed, status, said, the facts that mq-rspawn logged) of
        the message's *count* recipients."""
        def found(prog, *kinds):
            lines = [line for kind in kinds
                     for line in self.home.log(f"event={kind} prog={prog} id={id} ", "address=")]
            facts = [xtext.parse_facts(line.split(" ")) for line in lines]
            return facts if len(facts) >= count else None

        ours = wait_until(lambda: found("mq-send", DELAY, FAILURE, SUCCESS), f"verdicts for {id}")
        theirs = wait_until(lambda: found("mq-rspawn", "sent", "put_off", "refused"), "mq-rspawn's log")
        more = {facts["address"]: facts for facts in theirs}
        return {facts["address"]: (facts["event"], facts["status"], facts["said"],
                                   more[facts["address"]]) for facts in ours}

    def verdict(self, address, **options):
        """Send a message; what became of it."""
        return self.verdicts(self.send(address, **options))[address]

    def deliver(self, address, **options):
        """Send a message to Postfix; (what mq-rspawn logged, octets that arrived, the same parsed)."""
        event, status, said, facts = self.verdict(address, **options)
        assert (event, status) == (SUCCESS, "2.0.0"), said
        return facts, *self.postfix.wait_for(address)

    def closed(self, name, count=1):
        """What Postfix has counted in the last session with a listener, *count* sessions at least being
        over: command to number."""
        ip = self.receivers.ips[name]
        lines = wait_until(lambda: self._ended(ip)[count - 1:], f"{count} sessions of {name}")
        words = [word.partition("=")[::2] for word in lines[-1].split() if "=" in word]
        return {verb: text for verb, text in words}  # noqa: C416  pairs

    def _ended(self, ip):
        lines = self.postfix.log(f"postfix/{ip}/smtpd", "disconnect from")
        return [line for line in lines if "ehlo=" in line]


@pytest.fixture(scope="module")
def world():
    home = Home("alice")
    programs = []

    def launch(*command, **options):
        programs.append(Program(*command, log=Path(home.top, f"{len(programs)}.log"), **options))
        return programs[-1]

    receivers = Receivers(home, launch)
    try:
        receivers.start()
        with DnsServer("\n".join(receivers.zone)) as dns:
            home.control(**receivers.control(f"127.0.0.1:{dns.port}"))
            (home.path / "control/credentials").chmod(0o600)
            home.start()
            yield World(home, receivers)
            home.stop()
    finally:
        receivers.postfix.stop()
        for program in reversed(programs):
            program.stop()
        home.remove()


def received(parsed):
    """The topmost Received field, on one line."""
    return " ".join(parsed["Received"].split())


# --- TLS ---

@pytest.mark.parametrize("name", ["tls", "strict", "tls12", "ancient", "unknownmay", "expiredmay",
                                  "wrongencrypt", "named", "sni", "second", "smtps"])
def test_tls_is_used(world, name):
    facts, octets, parsed = world.deliver(f"u@{name}.test")
    version, cipher = facts["tls"].split(":")
    assert f"(using {version} with cipher {cipher} (" in received(parsed)
    assert version == {"tls12": "TLSv1.2", "ancient": "TLSv1"}.get(name, "TLSv1.3")
    host = OTHERS.get(name, name)
    ip, port = world.receivers.ips[host], world.receivers.port
    shown = ip if name == "smtps" else f"mx.{host}.test"
    assert facts["host"] == f"{shown}[{ip}]:{port}"
    assert octets.endswith(TEXT.replace(b"\r\n", b"\n"))


def test_tls_is_not_used(world):
    """By a host that has none, and by control/tlspolicy."""
    for name in ("plain", "none"):
        facts, _, parsed = world.deliver(f"u@{name}.test")
        assert "tls" not in facts
        assert "with ESMTP id" in received(parsed)
        assert "TLS" not in received(parsed)


@pytest.mark.parametrize(("name", "trouble"), [
    ("broken", "starttls=0/1"),         # 454, as its key is another certificate's
    ("odd", "no shared cipher"),
])
def test_a_handshake_that_fails_is_followed_by_plain_text(world, name, trouble):
    facts, _, parsed = world.deliver(f"u@{name}.test")
    assert "tls" not in facts
    assert "TLS" not in received(parsed)
    assert world.postfix.log(world.receivers.ips[name], trouble)


@pytest.mark.parametrize(("name", "status", "said"), [
    ("plainencrypt", "4.7.", "TLS is required, and this host does not offer it"),
    ("brokenencrypt", "4.7.", "454 4.7.0 TLS not available due to local problem"),
    ("oddencrypt", "4.7.", "handshake failure"),
    ("ancientencrypt", "4.7.", "protocol version"),
    ("new", "4.7.", "protocol version"),
    ("wrong", "4.7.", "the certificate is not for wrong.test or .wrong.test"),
    ("expired", "4.7.", "expired"),
    ("unknown", "4.7.", "unable to get local issuer"),
])
def test_nothing_is_sent_with_less_tls_than_is_asked_for(world, name, status, said):
    address = f"u@{name}.test"
    id = world.send(address)
    event, found, words, facts = world.verdicts(id)[address]
    assert (event, found[:4]) == (DELAY, status), words
    assert said in words
    assert "tls" not in facts
    [path] = wait_until(lambda: list(world.home.path.glob(f"queue/wait/*/{id}")), "the record waits")
    [line] = [line for line in path.read_text().splitlines() if line.startswith("wait 1 ")]
    kept = xtext.parse_facts(line.split(" ")[4:])
    assert (kept["host"], kept["said"]) == (facts["host"], words)
    assert facts["host"].endswith(f".test[{facts['host'].partition('[')[2]}")
    assert world.postfix.messages(address) == []


# --- AUTH ---

@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_auth(world, mechanism):
    address = f"u@auth-{mechanism.lower()}.test"
    facts, _, parsed = world.deliver(address)
    assert facts["tls"].startswith("TLSv1.3:")
    assert "(Authenticated sender: alice)" in received(parsed)
    assert world.postfix.log(world.receivers.ips[f"auth-{mechanism.lower()}"],
                             f"sasl_method={mechanism}, sasl_username=alice")


def test_auth_that_fails_puts_off(world):
    """It is our configuration that is wrong, and can be put right."""
    event, status, said, _ = world.verdict("u@badpassword.test")
    assert (event, status[:2]) == (DELAY, "4.")
    assert "535 5.7.8" in said
    event, status, said, _ = world.verdict("u@noentry.test")
    assert (event, status[:2]) == (DELAY, "4.")
    assert "missing" in said
    event, status, said, _ = world.verdict("u@notoffered.test")
    assert (event, status[:2]) == (DELAY, "4.")
    assert "AUTH" in said
    for name in ("badpassword", "noentry", "notoffered"):
        assert world.postfix.messages(f"u@{name}.test") == []


def test_a_host_that_wants_auth_and_gets_none(world):
    event, status, said, _ = world.verdict("u@noauth.test")
    assert (event, status) == (FAILURE, "5.7.1")
    assert "Access denied" in said


def test_auth_over_loopback_needs_no_tls(world):
    facts, _, parsed = world.deliver("u@plainauth.test")
    assert "tls" not in facts
    assert "(Authenticated sender: alice)" in received(parsed)


def test_no_auth_without_tls(world):
    if not world.receivers.outside:
        pytest.skip("this host has no address but loopback")
    event, status, said, _ = world.verdict("u@outside.test")
    assert (event, status[:4]) == (DELAY, "4.7."), said
    assert not world.postfix.log(f"postfix/{world.receivers.outside}/smtpd", "auth=")


def test_senders_have_routes_and_accounts_of_their_own(world):
    for name in PASSWORDS:
        _, _, parsed = world.deliver(f"{name}@tls.test", sender=f"{name}@senders.test")
        assert f"(Authenticated sender: {name})" in received(parsed)
    _, _, parsed = world.deliver("other@tls.test", sender="other@senders.test")
    assert "Authenticated" not in received(parsed)


# --- reports ---

def status_of(report):
    """The second part of a delivery status notification, on one line, without spaces behind types."""
    part = report.get_payload(1)
    assert part.get_content_type() == "message/delivery-status"
    return " ".join(part.as_string().split()).replace("; ", ";")


def test_a_host_that_knows_dsn_reports_success(world):
    id = world.send("u@plain.test", sender="dsn@tls.test", mail=["RET=HDRS", "ENVID=QQ+2B1"],
                    rcpt=["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;first@x.example"])
    assert world.verdicts(id)["u@plain.test"][0] == SUCCESS
    octets, report = world.postfix.wait_for("dsn@tls.test")
    status = status_of(report)
    assert "Reporting-MTA: dns;postfix.test" in status
    assert "Original-Envelope-Id: QQ+1" in status
    assert "Original-Recipient: rfc822;first@x.example" in status
    assert "Action: delivered" in status
    assert b"Shall we?" not in octets       # RET=HDRS
    world.home.wait_for_log("event=finished", f"id={id}")
    assert world.home.log("event=bounced", f"id={id}") == []


@pytest.mark.parametrize("name", ["nodsn", "bare"])
def test_a_host_without_dsn_has_it_reported_by_us(world, name):
    id = world.send(f"u@{name}.test", sender=f"{name}@tls.test", mail=["RET=HDRS", "ENVID=QQ+2B1"],
                    rcpt=["NOTIFY=SUCCESS", "ORCPT=rfc822;first@x.example"])
    _, report = world.postfix.wait_for(f"{name}@tls.test")
    status = status_of(report)
    assert f"Reporting-MTA: dns;{ME}" in status
    assert "Original-Envelope-Id: QQ+1" in status
    assert "Original-Recipient: rfc822;first@x.example" in status
    assert "Action: relayed" in status
    assert "action=relayed" in world.home.wait_for_log("event=told", f"id={id}")
    assert len(world.postfix.messages(f"u@{name}.test")) == 1


def test_a_refusal_is_reported_with_host_and_words(world):
    id = world.send("no@picky.test", "yes@picky.test", sender="refused@tls.test")
    event, status, said, facts = world.verdicts(id, 2)["no@picky.test"]
    assert (event, status) == (FAILURE, "5.1.1")
    host = f"mx.picky.test[{world.receivers.ips['picky']}]:{world.receivers.port}"
    assert facts["host"] == host
    assert facts["tls"].startswith("TLSv1.3:TLS_")
    world.postfix.wait_for("yes@picky.test")
    _, report = world.postfix.wait_for("refused@tls.test")
    status = status_of(report)
    assert "Action: failed" in status
    assert f"Remote-MTA: dns;mx.picky.test ({world.receivers.ips['picky']})" in status
    assert "Diagnostic-Code: smtp;550 5.1.1 <no@picky.test>: Recipient address rejected" in status
    assert "X-Mqmail-TLS: TLSv1.3:TLS_" in status
    assert "Last-Attempt-Date: " in status
    assert host in report.get_payload(0).get_content()
    assert "nobody of that name" in said


def test_the_record_keeps_how_it_went(world):
    id = world.send("kept@tls.test", "kept@wrong.test")
    event = world.home.wait_for_log("event=delivered prog=mq-send", f"id={id}")
    [path] = wait_until(lambda: list(world.home.path.glob(f"queue/wait/*/{id}")), "the record waits")
    [line] = [line for line in path.read_text().splitlines() if line.startswith("done 1 ")]
    kept, logged = (xtext.parse_facts(text.split(" ")) for text in (line.split(" ", 4)[4], event))
    assert kept["host"].startswith(f"mx.tls.test[{world.receivers.ips['tls']}]")
    assert kept["tls"].startswith("TLSv1.3:TLS_")
    assert float(kept["secs"]) < SECONDS
    for name in ("host", "tls", "secs", "said"):
        assert kept[name] == logged[name]


# --- what is lacking ---

EIGHT = """\
Subject: recoded
From: a@senders.example
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=one

preamble
--one
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Gr\xfc\xdfe aus K\xf6ln, {wide}
.
From here on = signs too \t
--one
Content-Type: multipart/alternative; boundary=two
Content-Transfer-Encoding: 8bit

--two
Content-Type: text/plain; charset=us-ascii

plain
--two
Content-Type: text/html; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

<p>\xe9\xe9\xe9</p>
--two--
--one
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Subject: inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

\xe4\xf6\xfc
--one
Content-Type: application/octet-stream
Content-Transfer-Encoding: base64

AAECA/8=
--one--
""".format(wide="\xe9" * 400).encode("utf-8")


def leaves(parsed):
    """(type, decoded content with LF line ends) of all parts that hold no others."""
    return [(part.get_content_type(), part.get_payload(decode=True).replace(b"\r\n", b"\n"))
            for part in parsed.walk() if not part.is_multipart()]


@pytest.mark.parametrize("name", ["seven", "bare"])
def test_eight_bit_text_is_recoded_for_a_host_without_8bitmime(world, name):
    text = EIGHT.replace(b"\n", b"\r\n")
    _, octets, parsed = world.deliver(f"eight@{name}.test", text=text, mail=["BODY=8BITMIME"])
    assert octets.isascii()
    assert max([len(line) for line in octets.split(b"\n")]) <= 998
    original = email.message_from_bytes(EIGHT, policy=email.policy.default)
    assert leaves(parsed) == leaves(original)
    assert {part.get("Content-Transfer-Encoding", "7bit") for part in parsed.walk()} <= {
        "7bit", "quoted-printable", "base64"}
    _, octets, _ = world.deliver("eight@plain.test", text=text, mail=["BODY=8BITMIME"])
    assert octets.endswith(EIGHT)


def test_what_is_signed_is_not_recoded(world):
    text = ("Subject: signed\nMIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b;"
            " protocol=\"application/pgp-signature\"; micalg=pgp-sha256\n\n--b\n"
            "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\xfc\n--b\n"
            "Content-Type: application/pgp-signature\n\nx\n--b--\n").replace("\n", "\r\n").encode()
    event, status, _, _ = world.verdict("signed@seven.test", text=text, mail=["BODY=8BITMIME"])
    assert (event, status) == (FAILURE, "5.6.3")
    assert world.postfix.messages("signed@seven.test") == []


def test_addresses_in_utf8(world):
    _, octets, _ = world.deliver("gr\xfc\xdfe@plain.test")
    assert octets.endswith(TEXT.replace(b"\r\n", b"\n"))
    event, status, _, _ = world.verdict("gr\xfc\xdfe@seven.test")
    assert (event, status) == (FAILURE, "5.6.7")
    assert world.postfix.messages("gr\xfc\xdfe@seven.test") == []


def test_a_message_over_the_size_that_is_taken_is_not_sent(world):
    large = TEXT + b"0123456789\r\n" * 2000
    event, status, _, _ = world.verdict("large@small.test", text=large)
    assert (event, status) == (FAILURE, "5.3.4")
    assert "mail" not in world.closed("small")
    world.deliver("u@small.test")


def test_chunking_where_it_is_offered(world):
    world.deliver("chunks@picky.test", text=TEXT + b"x" * 70 + b"\r\n")
    counted = world.closed("picky")
    assert "bdat" in counted and "data" not in counted
    world.deliver("chunks@bare.test")
    counted = world.closed("bare")
    assert "data" in counted and "bdat" not in counted


@pytest.mark.parametrize("name", ["tls", "bare", "smtps"])
def test_a_large_message(world, name):
    text = TEXT + b"".join([b".%07d 0123456789 abcdefghijklmnopqrstuv\r\n" % n for n in range(80000)])
    _, octets, _ = world.deliver(f"large@{name}.test", text=text)
    assert octets.endswith(text.replace(b"\r\n", b"\n"))


def test_a_host_that_takes_few_recipients(world):
    verdicts = world.verdicts(world.send(*[f"r{n}@few.test" for n in range(25)]), 25)
    assert {verdict[:2] for verdict in verdicts.values()} == {(SUCCESS, "2.0.0")}
    for address in verdicts:
        world.postfix.wait_for(address)


def test_a_host_that_hangs_up_after_errors(world):
    recipients = [f"{'no' if n < 9 else 'yes'}+{n}@strikes.test" for n in range(10)]
    verdicts = world.verdicts(world.send(*recipients), 10)
    assert [verdicts[address][:2] for address in recipients[:5]] == [(FAILURE, "5.1.1")] * 5
    assert verdicts[recipients[5]][1:3] == ("4.7.0", "421 4.7.0 postfix.test Error: too many errors")
    assert {verdicts[address][0] for address in recipients[5:]} == {DELAY}


# --- Exim ---

def test_exim_takes_it_with_verified_tls(world):
    address = "u@exim.test"
    event, _, said, facts = world.verdict(address)
    assert event == SUCCESS, said
    parsed = world.exim.wait_for(address)
    assert "with esmtps (TLS1.3) tls TLS_" in received(parsed)
    assert facts["tls"].startswith("TLSv1.3:TLS_")
    assert "K" in world.exim.log(" <= ", address)[0].split("S=")[0]     # K: CHUNKING


def test_exim_reports_success(world):
    id = world.send("reported@exim.test", sender="dsn@exim.test", mail=["ENVID=QQ314159"],
                    rcpt=["NOTIFY=SUCCESS"])
    assert world.verdicts(id)["reported@exim.test"][0] == SUCCESS
    status = status_of(world.exim.wait_for("dsn@exim.test"))
    assert "Original-Envelope-ID: QQ314159" in status
    assert "Action: delivered" in status
    world.home.wait_for_log("event=finished", f"id={id}")
    assert world.home.log("event=bounced", f"id={id}") == []


@pytest.mark.parametrize("mechanism", MECHANISMS[:3])
def test_auth_by_exim(world, mechanism):
    address = f"u@{mechanism.lower()}.closed.test"
    event, _, said, _ = world.verdict(address)
    assert event == SUCCESS, said
    assert "with esmtpsa (TLS1.3)" in received(world.exim.wait_for(address))
    assert world.exim.log(" <= ", address, f"A={mechanism.lower().partition('-')[0]}:alice")


# --- LMTP to Dovecot ---

@pytest.mark.parametrize("name", ["lmtp", "unix"])
def test_lmtp_gives_each_recipient_a_verdict(world, name):
    subject = b"Subject: by " + name.encode()
    id = world.send(*[f"{user}@{name}.test" for user in ("alice", "nobody", "carol")],
                    text=subject + b"\r\n\r\n.\r\n\xfc\r\n", mail=["BODY=8BITMIME"])
    found = world.verdicts(id, 3)
    assert {address.partition("@")[0]: verdict[:2] for address, verdict in found.items()} == {
        "alice": (SUCCESS, "2.0.0"), "nobody": (FAILURE, "5.1.1"), "carol": (SUCCESS, "2.0.0")}
    assert "User doesn't exist: nobody@" in found[f"nobody@{name}.test"][2]
    for user, password in PASSWORDS.items():
        [text] = [text for text in world.dovecot.messages(user, password) if subject in text]
        assert text.endswith(subject + b"\r\n\r\n.\r\n\xfc\r\n")


# --- the command ---

def test_the_command_does_tls_and_auth(world):
    text = TEXT.replace(b"\r\n", b"\n")
    hop = world.receivers.hop("auth")
    for entry, letter, end in (("alice", b"r2.0.0 ", b"K"), ("bad", b"s4.7.8 ", b"Z")):
        to = f"command-{entry}@auth.test"
        done = world.home.run("mq-remote", f"{hop} auth={entry}", "a@senders.example", to, text=text)
        assert done.stdout.startswith(letter)
        assert done.stdout.split(b"\0")[1].startswith(end)
    octets, parsed = world.postfix.wait_for("command-alice@auth.test")
    assert "(Authenticated sender: alice)" in received(parsed)
    assert octets.endswith(text)
    assert world.postfix.messages("command-bad@auth.test") == []


# --- kept sessions ---

def test_sessions_with_tls_are_used_again(new_home, launch):
    """One that Postfix ends meanwhile, with 421 and without being asked, is replaced."""
    home = new_home()
    receivers = Receivers(home, launch)
    try:
        receivers.dovecot.start()
        receivers.postfix.start()
        files = receivers.control("127.0.0.1")
        home.control(**{**files, "remotesessions": "idle 600\n"})
        (home.path / "control/credentials").chmod(0o600)
        world = World(home.start(), receivers)
        for number in range(3):
            world.deliver(f"u{number}@auth-plain.test")
        for number in range(3):
            facts, _, _ = world.deliver(f"u{number}@hasty.test")
            assert facts["tls"].startswith("TLSv1.3:")
            world.closed("hasty", number + 1)
        assert home.stop() == 0
        counted = world.closed("auth-plain")
        assert (counted["starttls"], counted["auth"], counted["mail"]) == ("1", "1", "3")
    finally:
        receivers.postfix.stop()
