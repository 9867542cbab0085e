"""What strangers have done to mail servers, done to xmtpd with mq-resolve and mq-queue behind it.

Where each attack is tried (here: the test's name alone):

  end of data: look-alikes, trimming, NUL,    unit/test_xmtp_smuggling.py, all of it;
    line ends of Python's, buffer edges, dots   e2e/test_xmtpd.py test_nothing_but_crlf_dot_crlf_ends_...
  end of data in a chunk                      e2e/test_xmtpd.py test_in_a_chunk_no_dot_ends_anything
  bare CR and LF in commands                  unit/test_xmtp_smuggling.py test_nothing_of_a_line_with...
  commands behind STARTTLS                    unit/test_xmtp_smuggling.py test_what_was_said_before...;
                                                e2e/test_xmtpd_tls.py
  early talkers                               test_who_talks_before_the_greeting_is_answered_in_order
  long lines, memory                          unit/test_xmtp_limits.py test_a_line_too_long...;
                                                test_a_line_of_32_mib_costs_no_memory
  octets in and behind an address             test_junk_behind_an_address_changes_no_recipient
  control characters, log injection           golden/errors.smtp; test_nothing_a_client_says_forges_...
  octet by octet                              property/test_xmtp_server_properties.py test_any_cut...;
                                                test_octet_by_octet
  bad commands, and those that lead nowhere   unit/test_xmtp_limits.py test_errors_end_the_session,
                                                test_commands_that_lead_nowhere;
                                                test_who_only_makes_mistakes_is_sent_away
  sequence                                    golden/errors.smtp, golden/arguments.smtp;
                                                property/test_xmtp_server_properties.py test_every_...
  WIZ, DEBUG, TURN, XCLIENT, PROXY, HTTP      test_commands_of_other_times_and_protocols
  pipelining                                  test_pipelined_replies_are_all_there_in_order
  BDAT: sizes, order, refused chunks          golden/chunks.smtp; test_chunks, test_chunks_that_are_...,
                                                test_20000_tiny_chunks
  LMTP: a reply for each recipient            golden/lmtp.smtp; e2e/test_xmtpd.py test_lmtp_answers...
  shell, files and programs in addresses      test_addresses_are_text; deliveries: unit/test_command.py,
                                                unit/test_dotqmail.py
  quoting, literals, parameters, xtext        golden/arguments.smtp, unit/test_resolve.py
  UTF-8: bad, overlong, look-alike domains    golden/utf8.smtp; test_no_spelling_relays
  relaying                                    unit/test_resolve.py test_no_spelling_in_a_local_part...;
                                                test_no_spelling_relays, test_nobody_relays_by_...
  loops                                       test_a_loop_is_cut_at_101_hosts; double bounces:
                                                e2e/test_bounce.py
  header injection                            unit/test_header_rules.py test_a_carriage_return...
  header floods, a false SIZE                 test_large_headers, test_more_than_was_announced
  clients that stall, half-close, reset       test_clients_that_go_at_each_step, test_unread_replies
  many connections                            e2e/test_xmtpd.py test_limits; unit/test_throttle.py
  recipients: floods, harvest                 e2e/test_xmtpd.py test_limits; test_a_harvest_is_ended
  AUTH: long lines, guessing                  unit/test_xmtp_limits.py; e2e/test_auth.py
  the queue's disk                            e2e/test_back_pressure.py, e2e/test_faults.py
"""

import os
import re
import socket
import struct
from pathlib import Path

import pytest

from support.daemons import Client, make_home, queue_files, records, start, start_listener
from support.home import ME, SECONDS, wait_until

pytestmark = pytest.mark.e2e
ALICE = f"alice@{ME}"
MIB = 1 << 20


class System:
    """A home with xmtpd, mq-resolve and mq-queue."""

    def __init__(self, path):
        self.home = make_home(path, processesincoming="1")
        self.daemons = [start("mq-queue", self.home), start("mq-resolve", self.home)]
        self.listener = start_listener(self.home)
        self.daemons.append(self.listener)

    def logged(self, *words):
        """The lines of xmtpd's log that hold all *words*."""
        return [line for line in list(self.listener.lines) if all([word in line for word in words])]

    def connect(self):
        return Client(self.listener.port)

    def say(self, data, end=b"QUIT\r\n"):
        """Everything that is answered to *data* and QUIT in one write, with the greeting."""
        with socket.create_connection(("127.0.0.1", self.listener.port), SECONDS) as sock:
            sock.sendall(data + end)
            return sock.makefile("rb").read()

    def memory(self):
        """The worker's resident octets."""
        worker, = self.listener.workers()
        return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def end(self):
        for daemon in self.daemons:
            daemon.kill()


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    made = System(tmp_path_factory.mktemp("attacks") / "home")
    yield made
    made.end()


@pytest.fixture(autouse=True)
def it_lives(system):
    """Whatever was done to it, the next client is served, by the same process."""
    before = system.listener.workers()
    yield
    with system.connect() as client:
        assert client.begin("after@x.example", ALICE) == ["250 2.1.5 recipient ok"]
    assert system.listener.workers() == before


def codes(answers):
    """Of the last lines of replies."""
    return [int(line[:3]) for line in answers.decode().split("\r\n") if line[3:4] == " "]


HELLO = b"EHLO x.example\r\n"


def mail(sender, *recipients, body=b"Subject: x\r\n\r\nhello\r\n"):
    """A transaction in one write."""
    rcpts = b"".join([b"RCPT TO:<%s>\r\n" % one.encode() for one in recipients])
    return b"MAIL FROM:<%s>\r\n" % sender.encode() + rcpts + b"DATA\r\n" + body + b".\r\n"


# --- commands ---

def test_who_talks_before_the_greeting_is_answered_in_order(system):
    answers = system.say(HELLO + mail("early@x.example", ALICE))
    assert codes(answers) == [220, 250, 250, 250, 354, 250, 221]
    assert len(records(system.home, "early@x.example")) == 1


def test_a_line_of_32_mib_costs_no_memory(system):
    with system.connect() as client:
        client.begin("long@x.example")
        before = system.memory()
        for _ in range(32):
            client.send(b"RSET " * (MIB // 5))
        assert system.memory() - before < 4 * MIB
        assert client.say("") == "500 5.5.2 line too long"
        assert client.say(f"RCPT TO:<{ALICE}>") == "250 2.1.5 recipient ok"


@pytest.mark.parametrize("junk", [
    b" ", b"x", b" x=" + b"y" * 400, b"@x" * 20, b"\0", b" \0", b" SIZE=1"])
@pytest.mark.parametrize("inside", [False, True])
def test_junk_behind_an_address_changes_no_recipient(system, junk, inside):
    path = b"<alice@mail.example.org" + (junk + b">" if inside else b">" + junk)
    answers = system.say(HELLO + b"MAIL FROM:<junk@x.example>\r\nRCPT TO:" + path + b"\r\n")
    wanted = [250] if junk == b" " and not inside else [500, 501, 550, 555]     # trailing blanks are cut
    assert codes(answers)[3] in wanted


@pytest.mark.parametrize("size", [900, 1900, 3000, 9000])
def test_an_address_too_long_is_nobody_elses(system, size):
    answers = system.say(HELLO + b"MAIL FROM:<junk@x.example>\r\nRCPT TO:<alice@mail.example.org"
                         + b"x" * size + b">\r\n")
    assert codes(answers)[3] in (500, 501)


def test_octet_by_octet(system):
    with system.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in HELLO + mail("octets@x.example", ALICE) + b"QUIT\r\n":
            client.send(bytes([octet]))
        assert [client.read()[:3] for _ in range(6)] == ["250", "250", "250", "354", "250", "221"]
    record, = records(system.home, "octets@x.example")
    assert record["body"] == b"Subject: x\r\n\r\nhello\r\n"


@pytest.mark.parametrize("line", [
    b"WIZ", b"DEBUG", b"TURN", b"ETRN x.example", b"SEND FROM:<a@b.c>", b"SOML FROM:<a@b.c>", b"KILL",
    b"XCLIENT ADDR=127.0.0.1", b"XFORWARD ADDR=127.0.0.1", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 25",
    b"XHOP host=x", b"XSESSION ip=127.0.0.1", b"XFD 5", b"ATRN", b"BURL x", b"\r\n",
    b"\x16\x03\x01\x02\x00",
    b"\r\n\r\n\0\r\nQUIT\n!\x11"])
def test_commands_of_other_times_and_protocols(system, line):
    answers = codes(system.say(HELLO + line + b"\r\nMAIL FROM:<>\r\nRCPT TO:<x@far.example>\r\n"))
    assert answers[:2] == [220, 250]
    assert set(answers[2:-3]) <= {500, 502}
    assert answers[-3:] == [250, 550, 221]


def test_a_browser_is_no_client(system):
    """As in attacks that have a browser send mail: the body of a POST is a session."""
    post = b"POST / HTTP/1.1\r\nHost: mail.example.org:25\r\nContent-Type: text/plain\r\n\r\n"
    answers = system.say(post + HELLO + mail("browser@x.example", "x@far.example"))
    assert codes(answers)[1] == 500
    assert records(system.home, "browser@x.example") == []


def test_who_only_makes_mistakes_is_sent_away(system):
    answers = system.say(HELLO + b"FOO\r\n" * 500)
    assert codes(answers)[-1] == 421
    assert len(codes(answers)) < 60


def test_a_harvest_is_ended(system):
    found = []
    with system.connect() as client:
        client.begin("harvest@x.example")
        while "421" not in found:
            client.send(b"RCPT TO:<guess@mail.example.org>\r\n" * 10)
            found += [client.read()[:3] for _ in range(10)]
    assert set(found[:found.index("421")]) == {"550"}
    assert found.index("421") < 1000


def test_pipelined_replies_are_all_there_in_order(system):
    rcpts = [ALICE, f"nobody@{ME}", "x@far.example"] * 30
    answers = system.say(HELLO + mail("pipe1@x.example", *rcpts) + mail("pipe2@x.example", ALICE)
                         + b"MAIL FROM:<<>\r\nRCPT TO:<alice@mail.example.org>\r\nDATA\r\n")
    assert codes(answers) == [220, 250, 250, *[250, 550, 550] * 30, 354, 250, 250, 250, 354, 250,
                              501, 503, 503, 221]
    assert len(records(system.home, "pipe1@x.example")[0]["to"]) == 30
    assert len(records(system.home, "pipe2@x.example")) == 1


@pytest.mark.parametrize(("chunk", "found"), [
    (b"BDAT 0 LAST\r\n", [250]), (b"BDAT -1\r\n", [501]), (b"BDAT 1_0\r\n", [501]), (b"BDAT\r\n", [501]),
    (b"BDAT 5 FIRST\r\nRSET\n", [501]),
    (b"BDAT 3\r\nabcDATA\r\n", [250, 503]), (b"BDAT 3\r\nabcRSET\r\n", [250, 250]),
    (b"BDAT 6 LAST\r\n.\r\n.\r\n", [250])])
def test_chunks(system, chunk, found):
    before = HELLO + b"MAIL FROM:<chunk@x.example>\r\nRCPT TO:<alice@mail.example.org>\r\n"
    answers = codes(system.say(before + chunk))
    assert answers[4:4 + len(found)] == found
    assert answers[-1] == 221


def test_a_chunk_that_nobody_could_send_ends_the_session(system):
    answers = system.say(HELLO + b"MAIL FROM:<a@x.example>\r\nRCPT TO:<alice@mail.example.org>\r\n"
                         + b"BDAT 1%s\r\n" % (b"0" * 40))
    assert codes(answers)[-1] == 552


def test_chunks_that_are_refused_are_eaten(system):
    smuggled = HELLO + mail("eaten@x.example", ALICE)
    answers = system.say(HELLO + b"BDAT %d\r\n" % len(smuggled) + smuggled
                         + b"MAIL FROM:<a@x.example>\r\nBDAT %d LAST\r\n" % len(smuggled) + smuggled)
    assert codes(answers) == [220, 250, 503, 250, 503, 221]
    assert records(system.home, "eaten@x.example") == []


def test_20000_tiny_chunks(system):
    chunks = b"BDAT 2\r\n\r\n" * 20000
    with system.connect() as client:
        client.begin("tiny@x.example", ALICE)
        before = system.memory()
        client.sock.setblocking(False)
        sent, got = 0, b""
        while got.count(b"\r\n") < 20000:
            try:
                sent += client.sock.send(chunks[sent:sent + 65536]) if sent < len(chunks) else 0
            except BlockingIOError:
                pass
            try:
                got += client.sock.recv(65536)
            except BlockingIOError:
                pass
        assert set(re.findall(rb"(\d+) .*\r\n", got)) == {b"250"}
        assert system.memory() - before < 8 * MIB


# --- addresses ---

@pytest.mark.parametrize("address", [
    ";touch canary;", "$(touch${IFS}canary)@x.example", "`touch${IFS}canary`@x.example",
    "a|touch${IFS}canary@x.example", "|/bin/touch${IFS}canary@x.example", "/etc/passwd@x.example",
    '":include:/etc/passwd"@x.example', '"|/usr/bin/touch canary"@x.example',
    '"() { :;}; touch canary"@x.example',
    "${run{/bin/touch\\tcanary}}@x.example", "-oQ/tmp@x.example", "../../canary@x.example",
    '"../../canary"@x.example', "--@x.example", "%s%n%x@x.example", '"a\\\nb"@x.example',
    "-f@x.example"])
@pytest.mark.parametrize("where", ["sender", "recipient"])
def test_addresses_are_text(system, address, where):
    """As a sender it is kept as it is; as a recipient at our host it is nobody."""
    local = address.rpartition("@x.example")[0] or address
    sender, recipient = (address, ALICE) if where == "sender" else ("text@x.example", f"{local}@{ME}")
    count = len(queue_files(system.home))
    answers = codes(system.say(HELLO + mail(sender, recipient)))
    if where == "recipient":
        assert 250 not in answers[3:4]
        assert len(queue_files(system.home)) == count
    elif answers[2] == 250:
        kept = [line for path in system.home.glob("queue/new/*/*")
                for line in path.read_text().splitlines() if line.startswith("from ")]
        assert any([unescaped(line[5:].split(" ")[0]) == address for line in kept])
    else:
        assert answers[2] in (500, 501)
    assert list(system.home.rglob("canary*")) == []


def unescaped(text):
    return re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), text)


FAR = "far.example"
SPELLINGS = [
    f"x@{FAR}", f"x@{FAR}.", f'"x@{FAR}"', f'"x%{FAR}"@[127.0.0.1]', f"x%{FAR}@[127.0.0.1]",
    f"x%{FAR}@{ME}",
    f"x%{FAR}%{ME}@{ME}", f"{FAR}!x@{ME}", f"{FAR}!x", f"x@{FAR}@{ME}", f"x@{ME}@{FAR}",
    f'"x@{FAR}"@{ME}', f"@{ME}:x@{FAR}", f"@{FAR}:x@{FAR}", f"x\\@{FAR}@{ME}", f"x:{FAR}@{ME}",
    f"x/{FAR}@{ME}",
    f"x@evil{ME}",    f"x@{ME}.{FAR}", f"x@.{ME}", f"x@[{FAR}]", "x@[192.0.2.1]", "x@[IPv6:2001:db8::1]",
    "x@2130706433",
    "x@0x7f000001", f"x@{FAR},alice@{ME}", f"x@{FAR}>,<alice@{ME}", f"(alice@{ME})x@{FAR}",
    f"alice@{ME} x@{FAR}", f"x@{FAR}\talice@{ME}", f"x@{FAR}\0@{ME}", f"x@{FAR}\r@{ME}",
    "x@*", "x@",
    f"<x@{FAR}>", "x@mail\uff0eexample\uff0eorg", "x@\uff4dail.example.org",
    "x@mail\u3002example\u3002org",
    "x@ma\u0131l.example.org", "x@mail.example.or\u0261", f"x@xn--{ME}", f"@mailbox:x@{FAR}",
    f"@remote:x@{FAR}", "@local:root@x.example"]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
def test_no_spelling_relays(system, spelling):
    """With any sender, behind a good recipient: nothing of it is queued."""
    sender = f"relay{SPELLINGS.index(spelling)}@x.example"
    for number, name in enumerate((sender, "", f"x@{ME}", ALICE)):
        answers = system.say(HELLO + b"MAIL FROM:<%s> SMTPUTF8\r\n" % name.encode()
                             + b"RCPT TO:<alice@mail.example.org>\r\n"
                             + b"RCPT TO:<%s>\r\n" % spelling.encode()
                             + (b"DATA\r\nSubject: x\r\n\r\n.\r\n" if not number else b""))
        assert codes(answers)[2:4] == [250, 250]
        assert codes(answers)[4] in (500, 501, 550, 553)
    record, = records(system.home, sender)
    assert record["to"] == [f"1 new {ALICE}"]


@pytest.mark.parametrize("hello", ["localhost", ME, "[127.0.0.1]"])
@pytest.mark.parametrize("parameter", [
    b"", b" AUTH=<>", b" AUTH=root@mail.example.org", b" XVIA=relay=1"])
def test_nobody_relays_by_a_name_or_parameter(system, hello, parameter):
    answers = system.say(b"EHLO %s\r\nMAIL FROM:<>%s\r\nRCPT TO:<x@far.example>\r\n"
                         % (hello.encode(), parameter))
    assert codes(answers)[3] in (503, 550)


# --- what is logged ---

def test_nothing_a_client_says_forges_a_log_line(system):
    nasty = "\x1b[2J\u2028event=accepted\u0085\u202ex"
    lines = [b"EHLO x", f"MAIL FROM:<{nasty}@x.example> SMTPUTF8".encode(),
             f'MAIL FROM:<"a b event=forged c"@{nasty}.example> SMTPUTF8'.encode(),
             b'MAIL FROM:<"a b event=forged c"@x.example>',
             '\u2028event=forged'.join(["RCPT TO:<\"", f"\"@{ME}>"]).encode(),
             f"RCPT TO:<\"x event=forged\"@{ME}>".encode()]
    answers = system.say(b"\r\n".join(lines) + b"\r\n")
    assert codes(answers)[-2] == 550
    wait_until(lambda: system.logged("event=recipient_refused", "forged"), "the refusal in the log")
    for line in list(system.listener.lines):
        assert "\x1b" not in line
        assert re.fullmatch(r"event=\w+( [\w]+=[^\s=]*)*", line)
        assert "event=forged" not in line.split(" ")


# --- size, loops ---

def test_a_loop_is_cut_at_101_hosts(system):
    for hops, found in ((100, 250), (101, 554)):
        body = b"Received: from a by b; Sun, 22 Nov 2026 08:20:00 +0100\r\n" * hops + b"\r\n"
        assert codes(system.say(HELLO + mail(f"hops{hops}@x.example", ALICE, body=body)))[5] == found
    assert records(system.home, "hops101@x.example") == []


@pytest.mark.parametrize("line", [
    b"X" * 900 + b":\r\n", b"X: " + b"y" * 900 + b"\r\n", b" y" * 400 + b"\r\n"])
def test_large_headers(system, line):
    """8 MiB of header, also of one field: refused, and never held in memory."""
    body = b"Subject: x\r\n" + line * (8 * MIB // len(line)) + b"\r\n"
    before = system.memory()
    assert codes(system.say(HELLO + mail("header@x.example", ALICE, body=body)))[5] == 552
    assert system.memory() - before < 8 * MIB
    assert records(system.home, "header@x.example") == []


def test_more_than_was_announced(system):
    """SIZE is a promise; what counts is what comes."""
    body = b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n"
    text = mail("size@x.example", ALICE, body=body * 3).replace(b"e>\r\nR", b"e> SIZE=30\r\nR", 1)
    assert codes(system.say(HELLO + text))[5] == 250
    record, = records(system.home, "size@x.example")
    assert record["body"] == body * 3


# --- clients that go, or stay ---

STEPS = [b"", b"EH", HELLO, HELLO + b"MAIL FROM:<gone@x.example>\r\n",
         HELLO + b"MAIL FROM:<gone@x.example>\r\nRCPT TO:<alice@mail.example.org>\r\n",
         HELLO + b"MAIL FROM:<gone@x.example>\r\nRCPT TO:<alice@mail.example.org>\r\nDATA\r\n",
         HELLO + mail("gone@x.example", ALICE)[:-3], HELLO + mail("gone@x.example", ALICE)[:-1],
         HELLO + b"MAIL FROM:<gone@x.example>\r\nRCPT TO:<alice@mail.example.org>\r\n"
         b"BDAT 100 LAST\r\nSub"]


@pytest.mark.parametrize("step", range(len(STEPS)))
@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_clients_that_go_at_each_step(system, step, how):
    before = len(system.logged("event=disconnect"))
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", system.listener.port), SECONDS) as sock:
            sock.sendall(STEPS[step])
            if how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how == "half":
                sock.shutdown(socket.SHUT_WR)
                assert sock.makefile("rb").read()[:4] == b"220 "
    wait_until(lambda: len(system.logged("event=disconnect")) >= before + 20, "20 ends")
    assert records(system.home, "gone@x.example") == []
    assert len(os.listdir(f"/proc/{system.listener.workers()[0]}/fd")) < 60


def test_unread_replies(system):
    """Who does not read is not read from: what waits for it is bounded."""
    with system.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.begin("unread@x.example")
        before = system.memory()
        client.sock.setblocking(False)
        sent, stuck = 0, 0
        while sent < 32 * MIB and stuck < 2000:
            try:
                sent += client.sock.send(b"RCPT TO:<alice@mail.example.org>\r\n" * 1000)
                stuck = 0
            except BlockingIOError:
                stuck += 1
                with system.connect() as other:
                    assert other.say("NOOP")[:3] in ("250", "503")
                if stuck > 20:
                    break
            except ConnectionError:
                break
        assert system.memory() - before < 16 * MIB
