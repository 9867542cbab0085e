"""mq-rspawn as a process, driven as mq-send does; the other hosts: smtp-sink and support/badserver."""

import os
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from mqmail.base import unix, waiter, xtext
from mqmail.net.blocking import over_socket
from mqmail.net.session import Session
from mqmail.xmtp.client import FILE, Transaction
from mqmail.xmtp.reply import facts_of
from support.badserver import CLOSE, OFFER, READ, SILENT, BadServer
from support.home import SECONDS, Home, free_port, start_alone, wait_until
from support.programs import need

pytestmark = pytest.mark.e2e

ID = "1kq3v9s0c0g00a2f"
BODY = b"Subject: lunch\r\n\r\nShall we?\r\n.\r\n..\r\nbye\r\n"
PATIENCE = 2            # timeoutremote and timeoutconnect, in seconds, where they are waited for


class Rig:
    """A home with mq-rspawn alone. Other hosts have *patience* seconds for each step."""

    def __init__(self, patience=60, **control):
        self.home = Home()
        self.home.control(**{"timeoutremote": f"{patience}\n", "timeoutconnect": f"{patience}\n",
                             "helohost": "we.example\n", **control})
        self.log = open(self.home.path / "log", "w")  # noqa: SIM115  closed in stop()
        self.process = start_alone("mq-rspawn", self.home.path, self.log)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(SECONDS)
        self.log.close()
        self.home.remove()
        assert code == 0

    def events(self, *kinds):
        """The facts of the log's events of these kinds."""
        lines = (self.home.path / "log").read_text().split("\n")[:-1]
        return [xtext.parse_facts(line.split(" ")) for line in lines
                if line.startswith(tuple([f"event={kind} " for kind in kinds]))]

    def reload(self):
        """Have the planner and all workers read their files."""
        pid, before = self.process.pid, len(self.events("reloaded"))
        wanted = before + len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self.events("reloaded")) >= wanted, "planner and workers reloaded")

    def route(self, *routes):
        """Write smtproutes, and have it read."""
        self.home.control(smtproutes="".join([f"{route}\n" for route in routes]))
        self.reload()

    def send(self, *recipients, **options):
        """One transaction; (code, status, facts) for each recipient."""
        call = Call(self, recipients, **options)
        call.run()
        return call.verdicts()


class Call:
    """A transaction of mq-send's."""

    def __init__(self, rig, recipients, body=BODY, size=None, words=(), sender="a@example.org", xconn=1):
        self.session = Session(over_socket(unix.connect(str(rig.home.path / "run/remote.sock"))), "lmtp",
                               "here.example", SECONDS)
        recipients = [one if isinstance(one, tuple) else (one, ()) for one in recipients]
        self.transaction = Transaction(sender, [(f"@remote:{a}", w) for a, w in recipients],
                                       [f"XID={ID}", f"XCONN={xconn}", *words], FILE)
        self.body = body
        self.size = len(body) if size is None else size

    def run(self):
        with tempfile.TemporaryFile() as file:
            file.write(self.body)
            file.flush()
            waiter.run(self._run(file.fileno()))

    async def _run(self, fd):
        assert await self.session.open(), self.session.broken
        await self.session.run(self.transaction, fd, self.size)

    def start(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        return self

    def verdicts(self):
        assert None not in self.transaction.verdicts, self.session.broken
        self.session.close()
        return [(a.code, a.status, facts_of(a.text)) for a in self.transaction.verdicts]


@pytest.fixture(scope="module")
def rig():
    made = Rig()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def hasty():
    """For hosts whose time is waited for."""
    made = Rig(PATIENCE)
    yield made
    made.stop()


def one_verdict(rig, server, **options):
    """What becomes of one recipient at *server*."""
    rig.route(f"x.example:127.0.0.1:{server.port}")
    return rig.send("u@x.example", **options)[0]


# --- smtp-sink ---

class Sink:
    """Postfix's smtp-sink with *options*."""

    def __init__(self, *options):
        self.port = free_port()
        self.directory = tempfile.TemporaryDirectory()
        os.chmod(self.directory.name, 0o777)
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        self._process = subprocess.Popen(
            [need("smtp-sink"), *user, *options, "-d", f"{self.directory.name}/m.",
             f"127.0.0.1:{self.port}", "100"], stderr=subprocess.DEVNULL)

    def __enter__(self):
        wait_until(self._answers, "smtp-sink")
        return self

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def __exit__(self, *_error):
        self._process.terminate()
        self._process.wait()
        self.directory.cleanup()

    def messages(self):
        """What it was sent: header fields with the envelope, then the message."""
        names = sorted(os.listdir(self.directory.name))
        return [Path(self.directory.name, name).read_bytes() for name in names]


@pytest.mark.parametrize("options", [(), ("-p",), ("-e",), ("-8",), ("-N", "-E")])
def test_a_message_reaches_a_host(rig, options):
    body = b"Subject: x\r\n\r\n.\r\n..\r\nend\r\n"
    with Sink(*options) as sink:
        rig.route(f".example:127.0.0.1:{sink.port}")
        found = rig.send("u@one.example", "v@two.example", body=body)
        (message,) = sink.messages()
    where = f"127.0.0.1[127.0.0.1]:{sink.port}"
    assert [(code, status[0], facts["host"]) for code, status, facts in found] == [(250, "2", where)] * 2
    assert found[0][2]["said"].startswith("250 ")
    assert b"<a@example.org>" in message
    assert b"<u@one.example>" in message and b"<v@two.example>" in message
    assert message.rstrip(b"\n").endswith(body.replace(b"\r\n", b"\n").rstrip(b"\n"))


HARD, SOFT = "550 5.1.1 no", "450 4.2.1 later"


@pytest.mark.parametrize(("options", "code", "status"), [
    *[(("-B", HARD, "-f", stage), 550, "5.1.1") for stage in ("CONNECT", "MAIL", "RCPT", "DATA", ".")],
    *[(("-b", SOFT, "-r", stage), 451, "4.2.1") for stage in ("CONNECT", "MAIL", "RCPT", "DATA", ".")],
    *[(("-q", stage), 451, "4.4.2") for stage in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".")],
    *[(("-Q", stage), 451, "4.3.2") for stage in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".")],
    (("-f", "EHLO"), 250, "2.0.0"),                 # HELO will do
    (("-f", "EHLO,HELO"), 451, "4.5.0"),            # 500: about how we speak
    (("-f", "RCPT"), 451, "4.5.0"),
    (("-A", "1"), 550, "5.0.0"),                    # reads no message
])
def test_refusals_of_smtp_sink(rig, options, code, status):
    with Sink(*options) as sink:
        found = one_verdict(rig, sink)
    assert (found[0], found[1] if status != "4.3.2" else found[1][:1]) == \
        (code, status if status != "4.3.2" else "4"), found


# --- hosts that do wrong ---

STAGES = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY")


@pytest.mark.parametrize("offer", [OFFER, (), (*OFFER, "CHUNKING")])
@pytest.mark.parametrize("stage", STAGES)
def test_a_lost_connection_is_no_verdict(rig, stage, offer):
    if stage == "DATA" and "CHUNKING" in offer:
        pytest.skip("BDAT comes without DATA")
    with BadServer({stage: CLOSE}, offer) as server:
        code, status, facts = one_verdict(rig, server)
    assert (code, status) == (451, "4.4.2")
    assert "closed" in facts["said"]


@pytest.mark.parametrize("garbage", [
    b"\0\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"999 x\r\n", b"250-a\r\n251 b\r\n", b"\xff\xfe" * 5000,
    b"2" * 100000])
@pytest.mark.parametrize("stage", STAGES)
def test_garbage_is_no_verdict(rig, stage, garbage):
    with BadServer({stage: (garbage, CLOSE)}) as server:
        code, status, _ = one_verdict(rig, server)
    assert (code, status) == (451, "4.4.2")


@pytest.mark.parametrize("stage", STAGES)
def test_silence_ends(hasty, stage):
    with BadServer({stage: SILENT}) as server:
        code, status, facts = one_verdict(hasty, server)
    assert (code, status) == (451, "4.4.2")
    assert facts["said"].endswith(f" within {PATIENCE} s")


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "BODY"])
def test_an_endless_reply_ends(rig, stage):
    with BadServer({stage: (b"250-more\r\n" * 100000, SILENT)}) as server:
        code, _, facts = one_verdict(rig, server)
    assert code == 451
    assert facts["said"].startswith("reply of too many lines")


def test_a_reply_that_drips_ends(hasty):
    stop = threading.Event()

    def drip(_line):
        def acts():
            while not stop.wait(0.2):
                yield b"2"
            yield CLOSE
        return tuple_like(acts())

    with BadServer({"MAIL": drip}) as server:
        code, status, _ = one_verdict(hasty, server)
        stop.set()
    assert (code, status) == (451, "4.4.2")


class tuple_like(tuple):  # noqa: N801, SLOT001
    """A tuple that is made while it is read."""

    def __new__(cls, acts):
        made = super().__new__(cls)
        made.acts = acts
        return made

    def __iter__(self):
        return self.acts


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("said", "code", "status"), [
    (b"450 4.2.1 later\r\n", 451, "4.2.1"),
    (b"550 5.7.1 never\r\n", 550, "5.7.1"),
    (b"554 not here\r\n", 550, "5.0.0"),
])
def test_replies_pass_on(rig, stage, said, code, status, split):
    script = {stage: said, **({"HELO": said} if stage == "EHLO" else {})}
    with BadServer(script, split=split) as server:
        found = one_verdict(rig, server)
    assert found[:2] == (code, status)
    assert found[2]["host"] == f"127.0.0.1[127.0.0.1]:{server.port}"
    assert said.decode().strip() in found[2]["said"]


@pytest.mark.parametrize(("stage", "said", "code", "status"), [
    ("RCPT", b"551 5.1.6 <@local:root@mail.example.org>\r\n", 550, "5.1.6"),
    ("RCPT", b"551 User not local; please try <x@y.example>\r\n", 550, "5.1.6"),
    *[("RCPT", b"%d 5.5.4 what\r\n" % n, 451, "4.5.0") for n in (500, 502, 503, 504, 555)],
    ("MAIL", b"555 5.5.4 what\r\n", 451, "4.5.0"),
    ("RCPT", b"501 5.1.3 bad address\r\n", 550, "5.1.3"),
    ("RCPT", b"552 too many recipients\r\n", 451, "4.5.3"),
    ("RCPT", b"552 5.2.2 mailbox full\r\n", 550, "5.2.2"),
    ("BODY", b"552 too much\r\n", 550, "5.0.0"),
    ("BODY", b"354 more\r\n", 451, "4.4.2"),
    ("RCPT", b"550 4.1.1 who\r\n", 550, "5.0.0"),          # the status does not fit the code
    ("CONNECT", b"421 busy\r\n", 451, "4.4.1"),
])
def test_codes_that_mean_something_else(rig, stage, said, code, status):
    with BadServer({stage: said}) as server:
        assert one_verdict(rig, server)[:2] == (code, status)


def test_each_recipient_has_its_own_verdict(rig):
    answers = {"no": b"550 5.1.1 unknown\r\n", "later": b"450 4.2.1 later\r\n"}
    with BadServer({"RCPT": lambda line: answers.get(line[9:].split("@")[0], b"250 ok\r\n")}) as server:
        rig.route(f":127.0.0.1:{server.port}")
        found = rig.send("yes@a.example", "no@b.example", "later@a.example", "also@c.example")
        assert len(server.bodies) == len(server.sessions) == 1
    assert [(code, status) for code, status, _ in found] == [
        (250, "2.0.0"), (550, "5.1.1"), (451, "4.2.1"), (250, "2.0.0")]
    wait_until(lambda: len(_of_these(rig)) == 4, "lines of the log")
    logged = _of_these(rig)
    assert {(f["event"], f["id"], f["address"], f["status"]) for f in logged} == {
        ("sent", ID, "yes@a.example", "2.0.0"), ("refused", ID, "no@b.example", "5.1.1"),
        ("put_off", ID, "later@a.example", "4.2.1"), ("sent", ID, "also@c.example", "2.0.0")}


def _of_these(rig):
    """What the log has of them: a reply leaves before the lines of its turn of the loop."""
    return [f for f in rig.events("sent", "refused", "put_off")
            if f["address"] in ("yes@a.example", "no@b.example", "later@a.example", "also@c.example")]


def test_words_of_the_peer_are_bounded_and_safe(rig):
    words = "\x1b]0;owned\x07 a=b +00 \N{SNOWMAN}".encode() + b"x" * 3000
    with BadServer({"RCPT": b"550 5.1.1 " + words + b"\r\n"}) as server:
        code, _, facts = one_verdict(rig, server)
    assert code == 550
    assert len(facts["said"]) == 500
    assert facts["said"].startswith("550 5.1.1 ?]0;owned? a=b +00 \N{SNOWMAN}xxx")


# --- the message ---

@pytest.mark.parametrize("offer", [OFFER, (*OFFER, "CHUNKING")])
def test_a_large_message_arrives_as_it_is(rig, offer):
    body = b"Subject: large\r\n\r\n" + b"".join([b".%d\r\n" % n * 9 for n in range(40000)])
    with BadServer(offer=offer) as server:
        assert one_verdict(rig, server, body=body)[0] == 250
    assert server.bodies == [body]


@pytest.mark.parametrize("flaw", [b"a\nb\r\n", b"a\rb\r\n", b"x" * 999 + b"\r\n"])
def test_text_that_data_cannot_carry(rig, flaw):
    body = b"Subject: x\r\n\r\n" + flaw
    with BadServer() as server:
        code, status, facts = one_verdict(rig, server, body=body)
        server.wait_for(lambda: server.sessions[0][-1] == "end")
    assert (code, status[:4]) == (550, "5.6.")
    assert facts["said"].partition("the message holds a ")[2]
    assert server.bodies == []
    with BadServer(offer=(*OFFER, "CHUNKING")) as server:
        assert one_verdict(rig, server, body=body)[0] == 250
    assert server.bodies == [body]


def test_a_message_over_the_announced_size(rig):
    with BadServer(offer=("SIZE 20",)) as server:
        assert one_verdict(rig, server)[:2] == (550, "5.3.4")
    assert server.heard("MAIL") == []
    for good in ("SIZE", "SIZE 0", f"SIZE {len(BODY)}", "SIZE lots"):
        with BadServer(offer=(good,)) as server:
            assert one_verdict(rig, server)[0] == 250
        assert server.heard("MAIL") == [f"MAIL FROM:<a@example.org> SIZE={len(BODY)}"]


def test_parameters_follow_what_is_offered(rig):
    recipients = [("u@x.example", ["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;o+2Bx@x.example"])]
    words = ["BODY=8BITMIME", "SMTPUTF8", "RET=HDRS", "ENVID=e+2B1"]
    for offer, mail, rcpt in (
            (("8BITMIME", "SMTPUTF8", "DSN"), " BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e+2B1",
             " NOTIFY=FAILURE,DELAY ORCPT=rfc822;o+2Bx@x.example"), ((), "", "")):
        with BadServer(offer=offer) as server:
            rig.route(f"x.example:127.0.0.1:{server.port}")
            assert rig.send(*recipients, words=words, sender="")[0][0] == 250
        assert server.heard("EHLO") == ["EHLO we.example"]
        assert server.heard("MAIL") == [f"MAIL FROM:<>{mail}"]
        assert server.heard("RCPT") == [f"RCPT TO:<u@x.example>{rcpt}"]


@pytest.mark.parametrize(("sender", "body", "good"), [
    ("a@example.org", BODY, ["u@x.example"]),
    ("gr\xfc\xdfe@example.org", BODY, []),
    ("a@example.org", b"Subject: gr\xc3\xbc\xc3\x9fe\r\n\r\n", []),
    ("a@example.org", b"Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n", ["u@x.example"]),
])
def test_smtputf8_is_asked_for_only_where_it_is_needed(rig, sender, body, good):
    addresses = ["u@x.example", "\xfc@x.example"]
    with BadServer() as server:
        rig.route(f"x.example:127.0.0.1:{server.port}")
        found = rig.send(*addresses, sender=sender, body=body, words=["SMTPUTF8"])
    assert [(code, status) for code, status, _ in found] == [
        (250, "2.0.0") if a in good else (550, "5.6.7") for a in addresses]
    assert server.heard("RCPT") == [f"RCPT TO:<{a}>" for a in good]


def test_a_body_shorter_than_its_size_is_not_sent(rig):
    with BadServer() as server:
        assert one_verdict(rig, server, size=len(BODY) + 70000)[:2] == (451, "4.3.0")
        server.wait_for(lambda: server.sessions[0][-1] == "end")
    assert server.bodies == []


def test_a_refusal_amid_the_message_is_heard(rig):
    body = b"Subject: x\r\n" + b"\r\n" * 8000000
    with BadServer({"DATA": (b"354 go\r\n", READ, b"552 5.3.4 too much\r\n", CLOSE)}) as server:
        assert one_verdict(rig, server, body=body)[:2] == (550, "5.3.4")


def test_a_chunk_that_is_refused_ends_the_message(rig):
    body = b"Subject: x\r\n" + b"\r\n" * 8000000
    with BadServer({"BDAT": b"552 5.3.4 too much\r\n"}, offer=(*OFFER, "CHUNKING")) as server:
        assert one_verdict(rig, server, body=body)[:2] == (550, "5.3.4")
        assert len(server.heard("BDAT")) < 100


# --- next hops ---

def test_routes_are_found_as_qmail_does(rig):
    with BadServer() as one, BadServer() as two, BadServer() as three:
        rig.route(f"a.example:127.0.0.1:{one.port}", f".example:127.0.0.1:{two.port}",
                  f":127.0.0.1:{three.port}")
        found = rig.send("1@A.example", "2@b.example", "3@x.a.example", "4@other.test", xconn=3)
        assert [code for code, _, _ in found] == [250] * 4
        assert [server.heard("RCPT") for server in (one, two, three)] == [
            ["RCPT TO:<1@A.example>"], ["RCPT TO:<2@b.example>", "RCPT TO:<3@x.a.example>"],
            ["RCPT TO:<4@other.test>"]]


def test_hosts_that_cannot_be_reached(rig):
    rig.route(f"refused.example:127.0.0.1:{free_port()}", "unknown.example:no-such-host.invalid")
    found = rig.send("u@refused.example", "u@unknown.example", xconn=2)
    assert [(code, status) for code, status, _ in found] == [(451, "4.4.1"), (451, "4.4.3")]
    assert found[0][2]["said"] == "Connection refused"
    assert found[1][2]["host"] == "no-such-host.invalid:25"


def test_a_name_is_looked_up_and_every_address_tried(rig):
    with BadServer() as server:             # on 127.0.0.1; localhost may be ::1 first
        rig.route(f"x.example:localhost:{server.port}")
        code, _, facts = rig.send("u@x.example")[0]
    assert (code, facts["host"]) == (250, f"localhost[127.0.0.1]:{server.port}")


def test_no_more_transactions_at_a_time_than_xconn_says(rig):
    go = threading.Event()
    held = {"CONNECT": lambda _line: go.wait(SECONDS) and b"220 ok\r\n"}
    with BadServer(held) as a, BadServer(held) as b, BadServer(held) as c:
        servers = (a, b, c)
        rig.route(*[f"{n}.example:127.0.0.1:{server.port}" for n, server in enumerate(servers)])
        call = Call(rig, [f"u@{n}.example" for n in range(3)], xconn=2).start()
        wait_until(lambda: sum(len(s.sessions) for s in servers) == 2, "two connections")
        with pytest.raises(AssertionError):
            wait_until(lambda: sum(len(s.sessions) for s in servers) > 2, "a third", seconds=0.3)
        go.set()
        call.thread.join(SECONDS)
        assert [code for code, _, _ in call.verdicts()] == [250] * 3


def test_verdicts_come_as_they_are_known(rig):
    go = threading.Event()
    held = {"BODY": lambda _line: go.wait(SECONDS) and b"250 slow\r\n"}
    with BadServer(held) as slow, BadServer() as quick:
        rig.route(f"slow.example:127.0.0.1:{slow.port}", f"quick.example:127.0.0.1:{quick.port}")
        call = Call(rig, ["u@slow.example", "u@quick.example"], xconn=2).start()
        wait_until(lambda: call.transaction.verdicts[1], "the quick one's verdict")
        assert call.transaction.verdicts[0] is None
        go.set()
        call.thread.join(SECONDS)
        assert [code for code, _, _ in call.verdicts()] == [250] * 2


# --- sessions ---

def test_a_session_is_used_again_and_then_ended():
    rig = Rig(remotesessions="idle 60\n")
    with BadServer() as server:
        rig.route(f"x.example:127.0.0.1:{server.port}")
        for _ in range(3):
            assert rig.send("u@x.example")[0][0] == 250
        rig.stop()
        server.wait_for(lambda: server.sessions[0][-1] == "end")
        assert len(server.sessions) == 1
        assert [line for line in server.sessions[0] if line[:4] in ("MAIL", "QUIT")] == [
            "MAIL FROM:<a@example.org>"] * 3 + ["QUIT"]


@pytest.mark.parametrize("parting", [CLOSE, (b"421 4.4.2 bored\r\n", CLOSE)])
def test_a_session_that_ended_meanwhile_costs_nothing(rig, parting):
    def mail(_line):
        return parting if len(server.bodies) == len(server.sessions) == 1 else b"250 ok\r\n"

    with BadServer({"MAIL": mail}) as server:
        assert one_verdict(rig, server)[0] == 250
        assert one_verdict(rig, server)[0] == 250
        assert len(server.bodies) == len(server.sessions) == 2


def test_a_host_that_limits_sessions_gets_all_mail_over_those(rig):
    go = threading.Event()

    def greet(_line):
        few = len([lines for lines in server.sessions if lines[-1:] != ["end"]]) <= 2
        return b"220 x ESMTP\r\n" if few else (b"421 4.7.0 too many connections from you\r\n", CLOSE)

    with BadServer({"CONNECT": greet, "BODY": lambda _: go.wait(SECONDS) and b"250 ok\r\n"}) as server:
        rig.route(f"x.example:127.0.0.1:{server.port}")
        go.set()
        assert rig.send("u@x.example")[0][0] == 250             # it has been reached before
        go.clear()
        calls = [Call(rig, ["u@x.example"]).start() for _ in range(8)]
        server.wait_for(lambda: len(server.sessions) > 2)       # one too many was tried
        go.set()
        for call in calls:
            call.thread.join(SECONDS)
        assert [call.verdicts()[0][0] for call in calls] == [250] * 8


def test_a_host_that_dies_behind_a_session_is_known_to_be_down(rig):
    alive = threading.Event()
    alive.set()
    with BadServer({"CONNECT": lambda _line: b"220 x ESMTP\r\n" if alive.is_set() else CLOSE,
                    "BODY": (b"250 2.0.0 taken\r\n", CLOSE)}) as server:
        rig.route(f"x.example:127.0.0.1:{server.port}")
        assert rig.send("u@x.example")[0][0] == 250
        alive.clear()
        found = [rig.send("u@x.example")[0] for _ in range(5)]
        assert [(code, "retry" in facts) for code, _, facts in found] == [(451, True)] * 5
        assert len(server.sessions) == 2


def test_hup_reaches_sessions_that_are_in_use(rig):
    go = threading.Event()
    with BadServer({"BODY": lambda _line: go.wait(SECONDS) and b"250 ok\r\n"}) as server:
        rig.route(f"x.example:127.0.0.1:{server.port}")
        call = Call(rig, ["u@x.example"]).start()
        server.wait_for(lambda: server.bodies)
        rig.home.control(helohost="new.example\n")
        rig.reload()
        go.set()
        call.thread.join(SECONDS)
        assert [rig.send("u@x.example")[0][0], call.verdicts()[0][0]] == [250, 250]
        assert server.heard("EHLO") == ["EHLO we.example", "EHLO new.example"]
    rig.home.control(helohost="we.example\n")


def test_all_transactions_of_a_caller_that_has_gone_end():
    rig, go = Rig(), threading.Event()
    held = {"RCPT": lambda _line: go.wait(SECONDS) and b"250 ok\r\n"}
    with BadServer(held) as one, BadServer(held) as two, BadServer(held) as three:
        servers = one, two, three
        rig.route(*[f"{n}.example:127.0.0.1:{server.port}" for n, server in enumerate(servers)])
        call = Call(rig, ["u@0.example", "u@1.example", "u@2.example"], xconn=3).start()
        for server in servers:
            server.wait_for(lambda server=server: server.heard("RCPT"))
        call.session.stream.sock.shutdown(socket.SHUT_RDWR)
        call.thread.join(SECONDS)
        wait_until(lambda: len(rig.events("put_off")) == 3, "three verdicts that nobody hears")
        go.set()
        for server in servers:
            server.wait_for(lambda server=server: server.sessions[0][-1] == "end")
            assert server.bodies == []
        assert not rig.events("bug")
    rig.stop()


def test_a_caller_that_has_gone_gets_no_message_sent(rig):
    go = threading.Event()
    with BadServer({"RCPT": lambda _line: go.wait(SECONDS) and b"250 ok\r\n"}) as server:
        rig.route(f"x.example:127.0.0.1:{server.port}")
        call = Call(rig, ["u@x.example"]).start()
        server.wait_for(lambda: server.heard("RCPT"))
        before = len(rig.events("put_off"))
        call.session.stream.sock.shutdown(socket.SHUT_RDWR)
        call.thread.join(SECONDS)
        wait_until(lambda: len(rig.events("put_off")) > before, "a verdict that nobody hears")
        go.set()
        server.wait_for(lambda: server.sessions[0][-1] == "end")
        assert server.bodies == []


# --- the service itself ---

def test_other_users_are_refused(rig):
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    script = ("import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
              "s.connect(sys.argv[1]); print(s.makefile().read(), end='')")
    done = subprocess.run(["python3", "-c", script, rig.home.path / "run/remote.sock"], timeout=SECONDS,
                          capture_output=True, check=True)
    assert done.stdout == b"554 5.7.1 uid 65534 is no program of this mail system\n"


def test_a_message_comes_by_xfd_only(rig):
    rig.route(":127.0.0.1:1")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(rig.home.path / "run/remote.sock"))
        sock.sendall(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<@remote:u@x.example>\r\nDATA\r\nQUIT\r\n")
        said = b"".join(iter(lambda: sock.recv(4096), b""))
    assert b"\r\n502 5.5.1 the body comes by XFD here\r\n" in said


def test_term_lets_a_transaction_end():
    rig, go = Rig(), threading.Event()
    with BadServer({"BODY": lambda _line: go.wait(SECONDS) and b"250 ok\r\n"}) as server:
        rig.route(f"x.example:127.0.0.1:{server.port}")
        call = Call(rig, ["u@x.example"]).start()
        server.wait_for(lambda: server.bodies)
        with socket.socket(socket.AF_UNIX) as idle, idle.makefile("rb") as file:
            idle.connect(str(rig.home.path / "run/remote.sock"))
            assert file.readline()[:3] == b"220"
            rig.process.terminate()
            assert file.readline()[:3] == b"421"        # it has heard of it
        go.set()
        call.thread.join(SECONDS)
        assert call.verdicts()[0][0] == 250
        server.wait_for(lambda: server.sessions[0][-1] == "end")
        assert server.heard("QUIT") == ["QUIT"]
    rig.stop()


def test_most_connections_of_all_messages_together():
    rig, go = Rig(concurrencyremote="2\n"), threading.Event()
    with BadServer({"BODY": lambda _line: go.wait(SECONDS) and b"250 ok\r\n"}) as server:
        rig.route(f":127.0.0.1:{server.port}")
        calls = [Call(rig, [f"u@{n}.example"]).start() for n in range(5)]
        server.wait_for(lambda: len(server.bodies) == 2)
        assert len(server.sessions) == 2
        go.set()
        for call in calls:
            call.thread.join(SECONDS)
            assert call.verdicts()[0][0] == 250
        assert len(server.sessions) == 2
    rig.stop()


# --- sessions with the workers ---

@pytest.fixture(scope="module")
def forgetful():
    """No session with a host is kept."""
    made = Rig(remotesessions="idle 0\n", processesremote="1\n")
    yield made
    made.stop()


def _sessions_with_workers(rig):
    """Of each, the worker's end has the name that the listener was made with."""
    name = f" run/transfer.sock.{rig.process.pid}"
    lines = [line for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(name)]
    return len([line for line in lines if line.split()[5] == "03"])     # SS_CONNECTED


def test_a_session_with_a_worker_is_used_for_one_host_after_the_other(forgetful):
    for count in range(3):
        with BadServer() as server:
            assert one_verdict(forgetful, server)[0] == 250
            server.wait_for(lambda: server.sessions[0][-1:] == ["end"])
            assert server.sessions[0][-2] == "QUIT"
        wait_until(lambda: _sessions_with_workers(forgetful) == 1, f"one session after {count}")
    with BadServer({"CONNECT": b"450 no\r\n"}) as server:
        assert one_verdict(forgetful, server)[0] == 451
    assert _sessions_with_workers(forgetful) == 1


def test_a_worker_that_has_died_meanwhile_costs_nobody_anything(forgetful):
    with BadServer() as server:
        assert one_verdict(forgetful, server)[0] == 250
        wait_until(lambda: _sessions_with_workers(forgetful) == 1, "a session that is kept")
        parent = forgetful.process.pid
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if Path(f"/proc/{pid}/comm").read_text() == "mq-remote\n":
                os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: _sessions_with_workers(forgetful) == 0, "the worker's end")
        assert one_verdict(forgetful, server)[0] == 250
