"""mq-rspawn against hosts that do wrong on purpose: the right verdict, in bounded time and memory.

What takes time goes to all the bad hosts at once, in one message: so none of them holds up another.
"""

import contextlib
import os
import threading
from pathlib import Path

import pytest
from test_mx import World
from test_rspawn import BODY, PATIENCE, STAGES, Call, Rig, one_verdict, tuple_like

from support.badserver import CLOSE, OFFER, READ, RESET, SILENT, STUCK, BadServer, Endless
from support.home import SECONDS

pytestmark = pytest.mark.e2e

GOOD = {"CONNECT": b"220 bad.example ESMTP\r\n", "EHLO": b"250-bad.example\r\n250 PIPELINING\r\n",
        "MAIL": b"250 2.1.0 ok\r\n", "RCPT": b"250 2.1.5 ok\r\n", "DATA": b"354 go\r\n",
        "BODY": b"250 2.0.0 taken\r\n"}
CODES = {stage: answer[:3] for stage, answer in GOOD.items()}
CHUNKED = (*OFFER, "CHUNKING")
BIG = b"Subject: big\r\n\r\n" + b"0123456789" * 80 + b"\r\n" * 12_000_000
MEMORY = 12 << 20           # octets that a handful of bad sessions may cost
NO_REPLY = ("4.4.2", "4.5.0")


@pytest.fixture(scope="module")
def rig():
    yield from running(f"starttls {PATIENCE}\n")


@pytest.fixture(scope="module")
def hasty():
    """For hosts whose time is waited for at each step."""
    steps = "greeting hello starttls auth mail rcpt data block end rset".split()
    yield from running("".join([f"{step} {PATIENCE}\n" for step in steps]))


def running(timeouts):
    made = Rig(concurrencyremote="60\n", remotetimeouts=timeouts,
               tlspolicy=".encrypt.example: encrypt\n")
    try:
        with BadServer() as server:
            one_verdict(made, server)       # everything is loaded
        yield made
    finally:
        made.stop()


def tree(pid):
    """*pid* and all processes below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *[one for child in children for one in tree(int(child))]]


def octets(pid, name):
    """A size in /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextlib.contextmanager
def bounded(rig):
    """What happens inside takes less than MEMORY of every process of the daemon; as for time, nobody
    waits longer than SECONDS for verdicts."""
    sizes = {}
    for pid in tree(rig.process.pid):
        Path(f"/proc/{pid}/clear_refs").write_text("5")         # the peak is now what is in use
        sizes[pid] = octets(pid, "VmHWM")
    yield
    grown = {pid: octets(pid, "VmHWM") - size for pid, size in sizes.items()}
    assert all(more < MEMORY for more in grown.values()), grown


def verdicts(rig, scripts, under="example"):
    """One message to a host for each script (label to script, or to (script, offer)): label to verdict,
    and label to server. *under*: where their domains are."""
    with contextlib.ExitStack() as stack:
        pairs = {label: one if isinstance(one, tuple) else (one,) for label, one in scripts.items()}
        servers = {label: stack.enter_context(BadServer(*pair)) for label, pair in pairs.items()}
        rig.route(*[f"{n}.{under}:127.0.0.1:{one.port}" for n, one in enumerate(servers.values())])
        found = rig.send(*[f"u@{n}.{under}" for n in range(len(servers))], xconn=len(servers))
    return dict(zip(servers, found, strict=True)), servers


def assert_put_off(found, statuses=("4.4.2",)):
    wrong = {label: verdict for label, verdict in found.items()
             if verdict[0] != 451 or verdict[1] not in statuses}
    assert not wrong


# --- too much ---

FLOODS = {
    "lines": lambda code: code + b"-more of it\r\n" * 1000,
    "one line": lambda code: code + b" " + b"x" * 65536,
    "no code": lambda _code: b"y" * 65536,
    "nothing but line ends": lambda _code: b"\r\n" * 30000,
    "binary": lambda _code: os.urandom(65536),
    "zeros": lambda _code: bytes(65536),
    "replies": lambda code: (code + b" again\r\n") * 5000,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_at_each_step(rig, flood):
    """Without end. Where replies that are right come too often, the first may count: after the body."""
    scripts = {stage: {stage: Endless(FLOODS[flood](CODES[stage]))} for stage in STAGES}
    with bounded(rig):
        found, servers = verdicts(rig, scripts)
    if flood == "replies":
        assert found.pop("BODY")[0] == 250
        assert len(servers["BODY"].bodies) == 1
    assert_put_off(found, NO_REPLY)


def test_a_reply_of_megabytes_in_one_line(rig):
    scripts = {stage: {stage: CODES[stage] + b" " + b"x" * (4 << 20) + b"\r\n"} for stage in STAGES}
    with bounded(rig):
        found, _ = verdicts(rig, scripts)
    assert_put_off(found)


def test_thousands_of_extensions(rig):
    some = [*[f"X-WORD{n} {'y' * 300}" for n in range(80)], "SIZE 999"]
    many = [f"X-WORD{n}" for n in range(5000)]
    with bounded(rig):
        found, servers = verdicts(rig, {"some": ({}, some), "many": ({}, many)})
    assert found["some"][0] == 250
    assert servers["some"].heard("MAIL") == [f"MAIL FROM:<a@example.org> SIZE={len(BODY)}"]
    assert found["many"][:2] == (451, "4.4.2")


def test_a_refusal_of_many_lines_is_kept_in_part(rig):
    said = b"550-5.7.1 %s\r\n" % (b"word " * 90) * 90 + b"550 5.7.1 no\r\n"
    with bounded(rig):
        found, _ = verdicts(rig, {stage: {stage: said} for stage in STAGES if stage != "EHLO"})
    assert {(code, status, len(facts["said"])) for code, status, facts in found.values()} == {
        (550, "5.7.1", 500)}


# --- too slow ---

def test_hosts_that_fall_silent_amid_a_reply(hasty):
    scripts = {f"{stage} {half}": {stage: (CODES[stage] + half, SILENT)}
               for stage in STAGES for half in (b"-half\r\n", b" no end of line", b"-half\r\n25")}
    with bounded(hasty):
        found, _ = verdicts(hasty, scripts)
    assert_put_off(found)
    assert all(facts["said"].endswith(f" within {PATIENCE} s") for _, _, facts in found.values())


def test_hosts_that_drip(hasty):
    """Each line comes in time, and the reply never ends."""
    scripts = {stage: {stage: Endless(CODES[stage] + b"-more\r\n", PATIENCE / 4)} for stage in STAGES}
    with bounded(hasty):
        found, _ = verdicts(hasty, scripts)
    assert_put_off(found)


@pytest.mark.parametrize("offer", [OFFER, CHUNKED])
def test_a_host_that_does_not_read_the_message(hasty, offer):
    stage = "RCPT" if offer is CHUNKED else "DATA"
    with bounded(hasty), BadServer({stage: (GOOD[stage], STUCK)}, offer) as server:
        code, status, facts = one_verdict(hasty, server, body=BIG)
    assert (code, status) == (451, "4.4.2")
    assert f"within {PATIENCE} s" in facts["said"]


def test_a_host_that_does_not_let_go(rig):
    """Nobody waits for the answer to QUIT."""
    with bounded(rig), BadServer({"QUIT": SILENT}) as server:
        assert one_verdict(rig, server)[0] == 250


def test_every_octet_by_itself(rig):
    offer = (*CHUNKED, *[f"X-WORD{n}" for n in range(30)])
    with BadServer(offer=offer, split=True) as server:
        rig.route(f"x.example:127.0.0.1:{server.port}")
        found = rig.send(*[f"u{n}@x.example" for n in range(5)])
    assert [code for code, _, _ in found] == [250] * 5
    assert server.bodies == [BODY]


# --- cut off ---

CUTS = {
    "part of a reply": lambda stage: (CODES[stage] + b"-half\r\n", CLOSE),
    "part of a line": lambda stage: (CODES[stage] + b" no end of line", CLOSE),
    "part of a code": lambda stage: (CODES[stage][:2], CLOSE),
    "a reset": lambda _stage: RESET,
    "a reset amid a reply": lambda stage: (CODES[stage] + b"-half\r\n", RESET),
    "a good reply": lambda stage: (GOOD[stage], CLOSE),
}


@pytest.mark.parametrize("offer", [OFFER, (), CHUNKED])
@pytest.mark.parametrize("cut", CUTS)
def test_connections_that_end_behind(rig, cut, offer):
    """Once the message is taken it may end as it likes."""
    stages = [stage for stage in STAGES if not (stage == "DATA" and offer is CHUNKED)]
    with bounded(rig):
        found, servers = verdicts(rig, {stage: ({stage: CUTS[cut](stage)}, offer) for stage in stages})
    if "good" in cut:
        assert found.pop("BODY")[0] == 250
    assert_put_off({"CONNECT": found.pop("CONNECT")}, ("4.4.1", "4.4.2"))
    assert_put_off(found)
    assert all(not servers[stage].bodies for stage in stages if stage != "BODY")


def test_421_after_the_message(rig):
    bye = b"421 4.3.2 closing\r\n"
    found, servers = verdicts(rig, {
        "and closed": {"BODY": (bye, CLOSE)}, "and not closed": {"BODY": bye},
        "by chunks": ({"BODY": (bye, CLOSE)}, CHUNKED),
        "without status": {"BODY": (b"421 bye\r\n", CLOSE)}})
    assert {label: verdict[:2] for label, verdict in found.items()} == {
        "and closed": (451, "4.3.2"), "and not closed": (451, "4.3.2"), "by chunks": (451, "4.3.2"),
        "without status": (451, "4.0.0")}
    assert {len(server.heard("MAIL")) for server in servers.values()} == {1}


def test_no_other_host_gets_what_one_may_have_taken():
    ends = {"half": (b"250-half\r\n", CLOSE), "reset": RESET, "silent": SILENT, "wrong": b"354 more\r\n"}
    zone = [f"{name}.x.test. 60 IN MX {preference} {host}.test." for name in ends
            for preference, host in ((10, name), (20, "other"))]
    with World(zone, other={}, **{name: {"BODY": what} for name, what in ends.items()}) as world:
        world.rig.home.control(remotetimeouts=f"end {PATIENCE}\n")
        world.rig.reload()
        found = world.send(*[f"u@{name}.x.test" for name in ends])
        assert found == [("4.4.2", f"{name}.test") for name in ends]
        assert world.hosts["other"].sessions == []


# --- replies out of place ---

WRONG = {
    "CONNECT": [b"354 go", b"150 wait", b"334 AAAA", b"999 x", b"2200 x", b"22 x", b"-220 x", b"220x"],
    "EHLO": [b"354 go", b"334 AAAA", b"150 wait"],
    "MAIL": [b"354 go", b"334 AAAA", b"150 wait", b"\xef\xbb\xbf250 ok", b"+OK"],
    "RCPT": [b"354 go", b"150 wait", b"250\tok", "\u0662\u0665\u0660 ok".encode()],
    "DATA": [b"250 ok", b"220 ok", b"150 wait", b"334 AAAA", b"355 go"],
    "BODY": [b"354 go", b"150 wait", b"334 AAAA", b"* OK"],
}


def test_replies_of_the_wrong_kind(rig):
    scripts = {(stage, said): {stage: said + b"\r\n"}
               for stage, wrong in WRONG.items() for said in wrong}
    with bounded(rig):
        found, servers = verdicts(rig, scripts)
    assert_put_off(found, NO_REPLY)
    assert all(not server.bodies for (stage, _), server in servers.items() if stage != "BODY")


@pytest.mark.parametrize("offer", [OFFER, ()])
def test_more_replies_than_commands(rig, offer):
    with bounded(rig):
        found, servers = verdicts(rig, {stage: ({stage: GOOD[stage] * 2}, offer)
                                        for stage in ("CONNECT", "MAIL", "RCPT", "DATA")})
    assert_put_off(found, NO_REPLY)
    assert all(not server.bodies for server in servers.values())


def test_all_replies_at_once_are_no_delivery(hasty):
    everything = b"".join([GOOD[stage] for stage in STAGES])
    found, _ = verdicts(hasty, {
        "greeting": {"CONNECT": (everything, SILENT)}, "closed": {"CONNECT": (everything, CLOSE)},
        "EHLO": {"EHLO": (everything[len(GOOD["CONNECT"]):], SILENT)},
        "DATA": {"DATA": (GOOD["DATA"] + GOOD["BODY"], SILENT)},
        "DATA, closed": {"DATA": (GOOD["DATA"] + GOOD["BODY"], CLOSE)}})
    assert_put_off(found, NO_REPLY)


@pytest.mark.parametrize("end", [CLOSE, RESET, STUCK])
def test_taken_before_the_end_of_the_message_is_not_taken(hasty, end):
    with bounded(hasty), BadServer({"DATA": (GOOD["DATA"], READ, GOOD["BODY"], end)}) as server:
        assert one_verdict(hasty, server, body=BIG)[:2] == (451, "4.4.2")
    with bounded(hasty), BadServer({"RCPT": (GOOD["RCPT"], READ, GOOD["BODY"], end)}, CHUNKED) as server:
        assert one_verdict(hasty, server, body=BIG)[:2] == (451, "4.4.2")


def test_of_two_replies_to_the_message_the_first_counts_and_the_session_ends(rig):
    yes, no = b"250 2.0.0 taken\r\n", b"550 5.7.1 or not\r\n"
    found, servers = verdicts(rig, {"yes": {"BODY": yes + no}, "no": {"BODY": no + yes}})
    assert {label: verdict[0] for label, verdict in found.items()} == {"yes": 250, "no": 550}
    for server in servers.values():
        server.wait_for(lambda lines=server.sessions[0]: lines[-1] == "end")


def test_words_that_look_like_facts_of_ours(rig):
    said = b"450 4.2.1 #2 site=evil.x retry=999999 host=evil said=no reached=no dsn=1 secs=9 tls=no\r\n"
    found, servers = verdicts(rig, {stage: {stage: said} for stage in STAGES if stage != "EHLO"})
    for stage, (code, status, facts) in found.items():
        assert (code, status) == (451, "4.2.1")
        assert facts["host"] == f"127.0.0.1[127.0.0.1]:{servers[stage].port}"
        assert facts["said"].endswith(said.decode().rstrip()[4:])
        assert "evil" not in facts.get("site", "")
        assert facts.get("retry") != "999999" and facts.get("tls") != "no" and facts.get("secs") != "9"
        assert "dsn" not in facts and "reached" not in facts


def test_odd_extensions_are_no_hindrance(rig):
    offer = ("", "pipelining", "PIPELINING", "SIZE 99999999999999999999999999", "SIZE=5", "-",
             "AUTH=PLAIN", "8bitmime x y z", "LIMITS RCPTMAX=x MAILMAX=-1 =", "XMQ", "XFD", "DSN\tDSN",
             "\x01", "SIZE")
    with BadServer(offer=offer) as server:
        assert one_verdict(rig, server)[0] == 250
    assert server.bodies == [BODY]


# --- STARTTLS ---

TLS = (*OFFER, "STARTTLS")
GO = b"220 2.0.0 go\r\n"
HANDSHAKES = {
    "refused": b"454 4.7.0 not now\r\n",
    "refused and closed": (b"454 4.7.0 not now\r\n", CLOSE),
    "closed": CLOSE,
    "closed at once": (GO, CLOSE),
    "closed amid": (GO, READ, CLOSE),
    "reset": (GO, READ, RESET),
    "silent": (GO, STUCK),
    "plain text": (GO, READ, b"500 5.5.2 what?\r\n", CLOSE),
    "junk": (GO, READ, os.urandom(5000), CLOSE),
    "a record too long": (GO, READ, b"\x16\x03\x03\xff\xff" + b"x" * 70000, CLOSE),
    "an alert": (GO, READ, b"\x15\x03\x03\x00\x02\x02\x28", STUCK),
    "endless": (GO, Endless(b"x" * 65536)),
    "endless records": (GO, Endless(b"\x16\x03\x03\x40\x00" + b"\2" * 16384)),
    "words behind the reply": (GO + b"250-bad.example\r\n250 AUTH PLAIN\r\n", STUCK),
}


def test_handshakes_that_fail_cost_the_encryption_only(rig):
    with bounded(rig):
        found, servers = verdicts(rig, {label: ({"STARTTLS": what}, TLS)
                                        for label, what in HANDSHAKES.items()})
    assert {label: code for label, (code, _, _) in found.items()} == dict.fromkeys(HANDSHAKES, 250)
    for label, server in servers.items():
        assert len(server.heard("STARTTLS")) == 1, label
        assert server.bodies == [BODY]
        assert len(server.heard("MAIL")) == 1, label


def test_handshakes_that_fail_where_there_must_be_one(rig):
    with bounded(rig):
        found, servers = verdicts(rig, {label: ({"STARTTLS": what}, TLS)
                                        for label, what in HANDSHAKES.items()}, under="encrypt.example")
    assert {label: code for label, (code, _, _) in found.items()} == dict.fromkeys(HANDSHAKES, 451)
    for label, server in servers.items():
        assert server.heard("STARTTLS"), label
        assert not server.heard("MAIL"), label


# --- limits (RFC 9422) ---

def limited(rig, limits, *addresses):
    """What a host with LIMITS *limits* hears of mail to *addresses*: RCPTs of each transaction."""
    with BadServer(offer=(*OFFER, f"LIMITS {limits}")) as server:
        rig.route(f":127.0.0.1:{server.port}")
        assert [code for code, _, _ in rig.send(*addresses)] == [250] * len(addresses)
    assert len(server.bodies) == len(server.heard("MAIL"))
    sizes = []
    for line in [line for lines in server.sessions for line in lines]:
        if line.startswith("MAIL"):
            sizes.append(0)
        elif line.startswith("RCPT"):
            sizes[-1] += 1
    return sizes, server


FIVE = [f"u{n}@x.example" for n in range(5)]


@pytest.mark.parametrize(("limits", "sizes"), [
    ("RCPTMAX=1", [1] * 5), ("RCPTMAX=2", [1, 2, 2]), ("MAILMAX=1 RCPTMAX=3", [2, 3]),
    ("rcptmax=2 FUTURE=9", [1, 2, 2])])
def test_limits_split_a_transfer(rig, limits, sizes):
    assert sorted(limited(rig, limits, *FIVE)[0]) == sizes


@pytest.mark.parametrize("limits", [
    "", "RCPTMAX", "RCPTMAX=", "RCPTMAX=0", "RCPTMAX=-1", "RCPTMAX=x", "RCPTMAX=1_0", "RCPTMAX=5",
    "RCPTMAX=99999999999999999999999", "MAILMAX=0"])
def test_limits_that_forbid_nothing(rig, limits):
    assert limited(rig, limits, *FIVE)[0] == [5]


def test_a_session_carries_no_more_messages_than_the_host_says(rig):
    sizes, server = limited(rig, "MAILMAX=1 RCPTMAX=1", *FIVE[:3])
    assert sizes == [1, 1, 1]
    mails = [sum(line.startswith("MAIL") for line in lines) for lines in server.sessions]
    assert mails == [1, 1, 1]


# --- and after all that ---

def test_good_hosts_get_their_mail_while_bad_ones_do_their_worst(rig):
    """Silent ones are so until the good ones have their mail."""
    enough = threading.Event()

    def silent(_line):
        enough.wait(SECONDS)
        return CLOSE

    def half(_line):
        def acts():
            yield b"25"
            yield silent("")
        return tuple_like(acts())

    bad = [BadServer({stage: what}) for stage in STAGES
           for what in (Endless(b"250-more\r\n" * 1000), silent, half)]
    with contextlib.ExitStack() as stack:
        for server in bad:
            stack.enter_context(server)
        good = stack.enter_context(BadServer())
        rig.route(*[f"{n}.example:127.0.0.1:{server.port}" for n, server in enumerate(bad)],
                  f"good.example:127.0.0.1:{good.port}")
        slow = Call(rig, [f"u@{n}.example" for n in range(len(bad))], xconn=len(bad)).start()
        with bounded(rig):
            assert [rig.send("u@good.example")[0][0] for _ in range(10)] == [250] * 10
        enough.set()
        slow.thread.join(SECONDS)
        assert {code for code, _, _ in slow.verdicts()} == {451}
