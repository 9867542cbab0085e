"""mq-bounce and mq-queue as processes, driven as mq-send does: a report is durable, or was not taken."""

import email
import email.policy
import email.utils
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from mqmail.base import unix, waiter, xtext
from mqmail.net.blocking import over_socket
from mqmail.net.session import Session
from mqmail.queue import ids, record
from mqmail.xmtp.client import FILE, Transaction
from support.home import SECONDS, start_alone, wait_until

pytestmark = pytest.mark.e2e

ID = ids.make(1732252800_000000, 77)        # Fri, 22 Nov 2024 05:20:00
ORIGINAL = (b"From: Alice <alice@example.com>\r\nTo: bob@example.net\r\nSubject: lunch\r\n\r\n"
            b"Shall we?\r\n--=_mqmail.\r\n.\r\n")


class Rig:
    """A home with mq-queue and mq-bounce only."""

    def __init__(self, home):
        self.home = home
        self.path = home.path
        self.log = open(home.path / "log", "w+")  # noqa: SIM115  closed in stop()
        self.running = {}

    def start(self, name):
        self.running[name] = start_alone(name, self.path, self.log)

    def stop(self, *names):
        for name in names or list(self.running):
            process = self.running.pop(name)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0

    def events(self, kind):
        """The facts of the log's events of one kind."""
        lines = (self.path / "log").read_text().split("\n")[:-1]
        return [xtext.parse_facts(line.split(" ")) for line in lines
                if line.startswith(f"event={kind} ")]

    def logged(self, kind):
        """As events(), once there are any: a reply leaves before the lines of its turn of the loop."""
        wait_until(lambda: self.events(kind), f"event={kind}")
        return self.events(kind)

    def peak(self, name):
        """The most memory that a program has used, in bytes."""
        status = Path(f"/proc/{self.running[name].pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def ask(self, recipients, sender="alice@example.com", original=ORIGINAL, via="proto=esmtp",
            size=None, words=()):
        """One transaction; the replies, one for each of *recipients*: (address, facts) pairs."""
        path = os.path.join(self.path, "run/bounce.sock")
        session = Session(over_socket(unix.connect(path)), "lmtp", "here.example", 60.0)
        with tempfile.TemporaryFile() as body:
            body.write(original)
            body.seek(3)                    # the reader goes by position
            rcpts = [(f"@error:{address}", parameters(**facts)) for address, facts in recipients]
            mail = [f"SIZE={len(original)}", f"XID={ID}", f"XVIA={xtext.encode(via)}", *words]
            transaction = Transaction(sender, rcpts, mail, FILE)
            body.flush()
            size = len(original) if size is None else size
            waiter.run(self._run(session, transaction, body.fileno(), size))
        return transaction.verdicts

    @staticmethod
    async def _run(session, transaction, fd, size):
        assert await session.open(), session.broken
        await session.run(transaction, fd, size)
        session.close()

    def queued(self):
        """(record, body) of all messages in the queue."""
        found = []
        for path in sorted((self.path / "queue/new").rglob("*")):
            if path.is_file():
                body = self.path / "queue/mess" / path.parent.name / path.name
                found.append((record.parse(path.read_bytes()), body.read_bytes()))
        return found

    def report(self):
        """(record, parsed report) of the one message in the queue."""
        [(found, body)] = self.queued()
        assert found.complete
        assert found.envelope.sender == ""
        return found, email.message_from_bytes(body, policy=email.policy.default)


def parameters(action="failed", status="5.1.1", said="", host="", orcpt="", more=()):
    words = [f"XACTION={action}", f"XSTATUS={status}", *more]
    words += [f"XSAID={xtext.encode(said)}"] if said else []
    words += [f"XHOST={xtext.encode(host)}"] if host else []
    return words + ([f"ORCPT={orcpt}"] if orcpt else [])


def fields(report):
    """The fields of the delivery-status part: of the message, then of each recipient."""
    return [dict(block.items()) for block in report.get_payload(1).get_payload()]


def recipients(found):
    return [(state.recipient.destination, state.recipient.address) for state in found.current()]


@pytest.fixture
def rig(new_home):
    home = new_home("alice")
    home.control(me="mx.example.org\n", bouncehost="bounces.example.org\n",
                 doublebouncehost="double.example.org\n")
    rig = Rig(home)
    rig.start("mq-queue")
    rig.start("mq-bounce")
    yield rig
    rig.stop()
    rig.log.close()


def test_a_report_says_when_and_how_the_host_was_spoken_to(rig):
    rig.ask([("bob@example.net", {"host": "mx.example.net[192.0.2.1]:25", "more": [
        "XTLS=TLSv1.3:TLS_AES_256_GCM_SHA384", "XTIME=1732252800"]})])
    _, report = rig.report()
    [_, one] = fields(report)
    assert one["X-Mqmail-TLS"] == "TLSv1.3:TLS_AES_256_GCM_SHA384"
    assert email.utils.parsedate_to_datetime(one["Last-Attempt-Date"]).timestamp() == 1732252800


def test_a_delay_is_reported_with_its_end_and_without_the_body(rig):
    rig.ask([("bob@example.net", {"action": "delayed", "status": "4.4.1",
                                  "more": ["XUNTIL=1732857600"]})],
            words=("RET=FULL",))
    _, report = rig.report()
    [_, one] = fields(report)
    assert (one["Action"], one["Status"]) == ("delayed", "4.4.1")
    assert email.utils.parsedate_to_datetime(one["Will-Retry-Until"]).timestamp() == 1732857600
    assert report["Subject"] == "Delayed mail: bob@example.net"
    assert "Shall we?" not in report.as_string()


def test_two_failures_make_one_durable_report(rig):
    replies = rig.ask([("bob@example.net", {"said": "550 5.1.1 no bob", "host": "mx.example.net",
                                            "orcpt": "rfc822;bobby@example.net"}),
                       ("eve@example.net", {"status": "5.2.2", "said": "mailbox full"})],
                      words=("ENVID=QQ1", "RET=FULL"))
    found, report = rig.report()
    assert [str(reply.code) + reply.text for reply in replies] == [
        f"250#{n} id={found.envelope.id}" for n in (1, 2)]
    assert recipients(found) == [("new", "alice@example.com")]
    assert found.envelope.via == {"proto": "bounce", "of": ID}
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert report["From"] == "Mail Delivery System <MAILER-DAEMON@bounces.example.org>"
    assert report["To"] == "alice@example.com"
    assert report["Message-ID"].startswith(f"<{ID}.")
    assert report["Message-ID"].endswith("@mx.example.org>")
    text, _, original = report.get_payload()
    assert "<eve@example.net>" in text.get_content()
    message, bob, eve = fields(report)
    assert message == {"Reporting-MTA": "dns; mx.example.org", "Original-Envelope-Id": "QQ1",
                       "Arrival-Date": "Fri, 22 Nov 2024 05:20:00 +0000"}
    assert bob == {"Original-Recipient": "rfc822; bobby@example.net",
                   "Final-Recipient": "rfc822; bob@example.net",
                   "Action": "failed", "Status": "5.1.1", "Remote-MTA": "dns; mx.example.net",
                   "Diagnostic-Code": "smtp; 550 5.1.1 no bob"}
    assert eve["Status"] == "5.2.2"
    assert original.get_content_type() == "message/rfc822"
    assert ORIGINAL in rig.queued()[0][1]
    [logged] = rig.logged("bounced")
    assert logged == {"event": "bounced", "prog": "mq-bounce", "id": ID, "report": found.envelope.id,
                      "recipients": "2", "to": "alice@example.com", "proto": "bounce"}


@pytest.mark.parametrize("answers", [True, False])
def test_what_is_refused_to_an_account_is_counted_and_holds_nothing_up(rig, answers):
    """An address counts once, what time ran out for not at all; mq-auth may be away."""
    rig.home.control(accountlimits="carol@example.com refused=1\n")
    if answers:
        rig.start("mq-auth")
    rig.ask([("bob@example.net", {"status": "5.2.2"}), ("bob@example.net", {}),
             ("late@example.net", {"status": "5.4.7"}), ("hidden@example.net", {"action": "none"}),
             ("slow@example.net", {"action": "delayed", "status": "4.4.1"})],
            via="proto=esmtp auth=carol@example.com")
    _, report = rig.report()
    assert b"hidden" not in report.as_bytes()
    if answers:
        assert rig.logged("account_stopped")[0]["refused"] == "2"
    else:
        assert rig.logged("accounts_not_told")[0]["logins"] == "1"


def test_only_what_nobody_wants_to_hear_of_makes_no_report(rig):
    [said] = rig.ask([("bob@example.net", {"action": "none"})])
    assert (said.code, said.text) == (250, "#1 nobody to tell")
    assert not rig.queued()


def test_ret_hdrs_returns_the_header_only(rig):
    rig.ask([("bob@example.net", {})], words=("RET=HDRS",))
    _, report = rig.report()
    assert report.get_payload(2).get_content_type() == "text/rfc822-headers"
    assert b"Subject: lunch" in rig.queued()[0][1]
    assert b"Shall we?" not in rig.queued()[0][1]


def test_success_is_told_with_the_header_even_if_all_was_asked_for(rig):
    rig.ask([("bob@example.net", {"action": "delivered", "status": "2.0.0"})], words=("RET=FULL",))
    _, report = rig.report()
    assert fields(report)[1]["Action"] == "delivered"
    assert b"Shall we?" not in rig.queued()[0][1]


def test_a_failed_bounce_goes_to_the_postmaster(rig):
    rig.ask([("bob@example.net", {"said": "no bob"}),
             ("eve@example.net", {"action": "relayed", "status": "2.0.0"})],
            sender="", via="proto=bounce of=x")
    found, report = rig.report()
    assert recipients(found) == [("new", "postmaster@double.example.org")]
    assert found.envelope.via["proto"] == "double"
    assert [one.get("Final-Recipient") for one in fields(report)] == [None, "rfc822; bob@example.net"]
    assert "<>" in report.get_payload(0).get_content()


def test_a_failed_double_bounce_is_dropped_and_logged(rig):
    [reply] = rig.ask([("postmaster@example.org", {"said": "550 no postmaster"})], sender="",
                      via="proto=double")
    assert reply.code == 250
    assert rig.queued() == []
    [logged] = rig.logged("double_bounce_dropped")
    assert (logged["id"], logged["recipients"]) == (ID, "1")
    assert logged["said"] == "<postmaster@example.org> 550 no postmaster"


def test_a_double_bounce_that_a_list_owner_gets_is_not_the_start_of_a_circle(rig):
    rig.ask([("bob@example.net", {})], sender="owner-postmaster@example.org", via="proto=double")
    found, _ = rig.report()
    assert recipients(found) == [("new", "owner-postmaster@example.org")]
    assert found.envelope.via["proto"] == "double"


def test_nobody_is_told_that_a_bounce_arrived(rig):
    [reply] = rig.ask([("bob@example.net", {"action": "delivered", "status": "2.0.0"})], sender="")
    assert (reply.code, rig.queued()) == (250, [])
    assert [one["id"] for one in rig.logged("nobody_to_tell")] == [ID]


def test_without_the_queue_reports_come_later(rig):
    rig.stop("mq-queue")
    [reply] = rig.ask([("bob@example.net", {})])
    assert reply.code == 451
    assert [one["id"] for one in rig.logged("bounce_deferred")] == [ID]
    rig.start("mq-queue")
    [reply] = rig.ask([("bob@example.net", {})])
    assert reply.code == 250
    assert len(rig.queued()) == 1


def test_a_full_disk_means_later(rig):
    rig.home.control(minfree="1000000G\n")
    rig.running["mq-queue"].send_signal(signal.SIGHUP)
    wait_until(lambda: rig.events("reloaded"), "mq-queue has reloaded")
    replies = []
    wait_until(lambda: replies.extend(rig.ask([("bob@example.net", {})])) or replies[-1].code == 451,
               "a worker that knows of it")
    assert "452" in replies[-1].text


def test_a_report_too_large_for_the_queue_is_sent_with_the_header(rig):
    rig.home.control(databytes="20000\n")
    rig.stop("mq-queue")
    rig.start("mq-queue")
    [reply] = rig.ask([("bob@example.net", {})], original=ORIGINAL + b"x" * 70 + b"\r\n" * 20000,
                      words=("RET=FULL",))
    assert reply.code == 250
    _, report = rig.report()
    assert report.get_payload(2).get_content_type() == "text/rfc822-headers"
    assert len(rig.logged("report_refused")) == 1


def test_a_header_that_the_queue_refuses_is_left_out(rig):
    [reply] = rig.ask([("bob@example.net", {})], original=b"Subject: bare\rCR\r\n\r\nx\r\n")
    assert reply.code == 250
    _, report = rig.report()
    assert fields(report)[1]["Action"] == "failed"
    assert "bare" not in report.get_payload(2).as_string()


def test_a_body_shorter_than_promised_is_our_trouble(rig):
    [reply] = rig.ask([("bob@example.net", {})], size=len(ORIGINAL) + 1, words=("RET=FULL",))
    assert reply.code == 451
    assert rig.queued() == []
    assert [path for path in (rig.path / "queue/mess").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("said", [
    "550 evil\r\n\r\n--=_mqmail.0123\r\nContent-Type: text/html\r\n\r\n<b>hi</b>",
    "550 \x1b[2J\0\x07\u202e\u2028 \udcff\udc80", "+2B +3D =", "x" * 900, "--\r\n.\r\nQUIT\r\n"])
def test_what_a_peer_says_cannot_break_the_report(rig, said):
    [reply] = rig.ask([("bob@example.net", {"said": said, "host": "evil\r\nTo: x"})])
    assert reply.code == 250
    found, report = rig.report()
    assert recipients(found) == [("new", "alice@example.com")]
    assert len(report.get_payload()) == 3
    assert [one.get("Action") for one in fields(report)] == [None, "failed"]
    raw = rig.queued()[0][1]
    assert not {octet for octet in raw if octet < 32} - {9, 10, 13}
    assert max(map(len, raw.split(b"\r\n"))) <= 998


def test_utf8_is_reported_in_utf8(rig):
    rig.ask([("süß@müller.example", {"said": "550 nö"})], sender="ünal@example.com",
            original="Subject: grün\r\n\r\nblau\r\n".encode(), words=("SMTPUTF8", "BODY=8BITMIME"))
    found, report = rig.report()
    assert found.envelope.utf8
    assert recipients(found) == [("new", "ünal@example.com")]
    assert report.get_payload(1).get_content_type() == "message/global-delivery-status"
    body = rig.queued()[0][1].decode()
    assert "Final-Recipient: utf-8; süß@müller.example" in body
    assert "grün" in body


def test_a_large_message_streams(rig):
    original = ORIGINAL + (b"y" * 998 + b"\r\n") * 80_000
    [reply] = rig.ask([("bob@example.net", {})], original=original, words=("RET=FULL",))
    assert reply.code == 250
    [(found, _)] = rig.queued()
    assert found.envelope.size > len(original)
    assert rig.peak("mq-bounce") < 64 << 20


@pytest.mark.parametrize(("command", "wanted"), [
    (b"RCPT TO:<@error:bob@example.net>", b"550 5.1.0 "),
    (b"RCPT TO:<@error:bob@example.net> XACTION=exploded", b"501 5.5.4 "),
    (b"RCPT TO:<@local:bob@example.net> XACTION=failed", b"550 5.1.6 "),
    (b"RCPT TO:<bob@example.net> XACTION=failed", b"550 5.1.6 "),
    (b"RCPT TO:<@error:bob@example.net> XACTION=failed\r\nDATA", b"502 5.5.1 "),
    (b"RSET\r\nMAIL FROM:<a@example.net> XVIA=nofact", b"501 5.5.4 "),
    (b"RCPT TO:<@error:bob@example.net> XACTION=failed\r\nBDAT 0 LAST", b"502 5.5.1 ")])
def test_what_cannot_be_reported_is_refused(rig, command, wanted):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(str(rig.path / "run/bounce.sock"))
        sock.sendall(b"LHLO here.example\r\nMAIL FROM:<alice@example.com>\r\n" + command
                     + b"\r\nQUIT\r\n")
        said = b"".join(iter(lambda: sock.recv(65536), b""))
    assert said.split(b"\r\n")[-3].startswith(wanted)
    assert rig.queued() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_accounts_get_no_service(rig):
    script = ("import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
              "s.connect(sys.argv[1]); print(s.makefile().read())")
    done = subprocess.run(["python3", "-c", script, rig.path / "run/bounce.sock"], capture_output=True,
                          timeout=SECONDS, check=True)
    assert done.stdout.startswith(b"554 5.7.1 ")
    assert [one["uid"] for one in rig.logged("caller_refused")] == ["65534"]
