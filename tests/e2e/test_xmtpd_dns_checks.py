"""xmtpd asks a real name server about its clients, with an event loop and on fd 0/1."""

import os
import smtplib
import subprocess

import pytest
from test_dns_checks import RECORDS, REVERSE

from support.home import ME, ROOT, SECONDS
from support.nsd import Nsd
from support.programs import need

pytestmark = pytest.mark.e2e

SAID = [
    ("127.0.0.2", "a@good.test", (250, b"2.1.5 recipient ok")),
    ("127.0.0.3", "a@good.test", (550, b"5.7.1 127.0.0.3 is listed by bl.test: a bad one")),
    ("127.0.0.5", "a@good.test", (550, b"5.7.23 SPF: good.test does not permit 127.0.0.5 to send its"
                                       b" mail\n5.7.23 good.test explains:\n"
                                       b"5.7.23 127.0.0.5 is none of our hosts")),
    ("127.0.0.5", "a@null.test", (550, b"5.7.27 the sender's domain null.test takes no mail (null MX)")),
    ("127.0.0.1", "a@null.test", (250, b"2.1.5 recipient ok")),
]
ALICE = f"alice@{ME}"
MESSAGE = b"From: a@good.test\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n\r\nhi\r\n"


@pytest.fixture
def judging(new_home):
    with Nsd(need("nsd"), RECORDS, {"127.in-addr.arpa": REVERSE}) as nsd:
        home = new_home("alice")
        home.control(resolvers=f"127.0.0.1:{nsd.port}\n", dnsbl="bl.test\n!good.wl.test\n",
                     reversename="look\n", spf="reject\n", senderdomain="reject\n")
        yield home.start()


def test_many_sessions(judging):
    for ip, sender, expected in SAID:
        with smtplib.SMTP(*judging.address, source_address=(ip, 0), timeout=SECONDS) as client:
            client.ehlo("client.test")
            client.mail(sender)
            assert client.rcpt(ALICE) == expected
            if ip == "127.0.0.2":
                assert client.data(MESSAGE)[0] == 250
    judging.wait_for_log("event=delivered")
    [path] = (judging.path / "mail").glob("*/Maildir/new/*")
    assert b"\nReceived-SPF: pass (mail.example.org: good.test permits 127.0.0.2)\n" in path.read_bytes()


def test_one_session_without_a_loop(judging):
    for ip, sender, (code, text) in SAID:
        commands = f"EHLO client.test\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{ALICE}>\r\nQUIT\r\n"
        done = subprocess.run([ROOT / "bin/xmtpd", "--home", judging.path], input=commands.encode(),
                              check=True, capture_output=True, timeout=SECONDS,
                              env={**os.environ, "PROTO": "TCP", "TCPREMOTEIP": ip})
        last = text.split(b"\n")[-1]
        assert done.stdout.split(b"\r\n")[-3] == b"%d %s" % (code, last)
