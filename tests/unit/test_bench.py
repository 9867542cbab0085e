"""The parts of bench/ that only count, read and write text; and its own load generator."""

import importlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from mqmail.control import access, lines
from mqmail.queue import ids, record
from support.programs import need

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module", autouse=True)
def bench_on_path():
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def module(name):
    return importlib.import_module(name)


# --- procs ---

def process(pid, name="mq-send", user=0.0, system=0.0, ended=0.0, parent=1, started=1):
    return module("procs").Process(pid, started, parent, name, user, system, ended, 0.0)


def test_a_stat_line_is_read_whatever_the_name_holds():
    text = ("17 (a (b) c) S 3 17 17 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 1 0 4711 1000 200 "
            "18446744073709551615")
    found = module("procs").parse_stat(text, ticks=100)
    assert (found.pid, found.parent, found.name, found.started) == (17, 3, "a (b) c", 4711)
    assert (found.user, found.system, found.ended_user, found.ended_system) == (1.5, 0.5, 0.3, 0.2)


def test_our_own_process_is_found_with_its_memory():
    procs = module("procs")
    [found] = [one for one in procs.look(os.getpid()) if one.pid == os.getpid()]
    assert found.parent == os.getppid()
    assert procs.memory(os.getpid())[found.name] > 1000
    assert os.getpid() in procs.threads(os.getpid())


def test_a_tree_has_all_that_descend_and_nobody_else():
    tree = [process(5, parent=4), process(2), process(4, parent=3), process(3), process(1, parent=0)]
    assert [one.pid for one in module("procs").select_tree(tree, 3)] == [3, 4, 5]


def test_cpu_is_summed_by_program():
    before = [process(1, "mq-send", 1.0, 1.0), process(2, "xmtpd", 5.0), process(3, "xmtpd", 7.0)]
    after = [process(1, "mq-send", 1.5, 1.25), process(2, "xmtpd", 6.0), process(3, "xmtpd", 9.0)]
    spent = module("procs").spent(before, after)
    assert {name: (times.user, times.system) for name, times in spent.items()} == {
        "mq-send": (0.5, 0.25), "xmtpd": (3.0, 0.0)}


def test_cpu_of_processes_that_ended_and_were_restarted_is_not_lost():
    before = [process(1, "mq-start", 1.0), process(2, "mq-send", 4.0, ended=1.0)]
    after = [process(1, "mq-start", 1.0, ended=6.5), process(7, "mq-send", 2.0)]
    spent = module("procs").spent(before, after)
    assert spent["mq-send"].total == 2.0            # the new one
    assert spent["(ended)"].total == 1.5            # the old one, after the first look


def test_a_pid_that_is_used_again_is_another_process():
    before = [process(1, "mq-start"), process(2, "old", 4.0, started=10)]
    after = [process(1, "mq-start", ended=4.0), process(2, "new", 1.0, started=20)]
    spent = module("procs").spent(before, after)
    assert spent["new"].total == 1.0
    assert "(ended)" not in spent


def test_the_busiest_process_is_one_process_not_a_program():
    before = [process(1, "a", 9.0), process(2, "b"), process(3, "b")]
    after = [process(1, "a", 12.0), process(2, "b", 2.0), process(3, "b", 2.0)]
    assert module("procs").busiest(before, after) == ("a", 3.0)


def test_memory_and_idle_time_are_read():
    procs = module("procs")
    assert procs.parse_pss("0-f [rollup]\nRss: 9 kB\nPss:    3456 kB\nPss_Anon: 1 kB\n") == 3456
    assert procs.parse_pss("") == 0
    assert procs.parse_idle("cpu  10 1 20 300 40 5 6 7 8 9\ncpu0 1 2 3\n") == (340, 389)


# --- disk ---

MOUNTS = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
30 21 254:16 / /var rw - xfs /dev/vdb rw
31 30 7:0 / /var/my\\040disk rw - ext4 /dev/loop0 rw
"""


@pytest.mark.parametrize("path, mount", [
    ("/work", ("/", "ext4", "/dev/vda", "254:0")),
    ("/var", ("/var", "xfs", "/dev/vdb", "254:16")),
    ("/variable", ("/", "ext4", "/dev/vda", "254:0")),
    ("/var/my disk/x", ("/var/my disk", "ext4", "/dev/loop0", "7:0")),
])
def test_the_mount_of_a_path(path, mount):
    assert module("disk").find_mount(path, MOUNTS) == mount


@pytest.mark.parametrize("kind, has_jbd2, journal", [
    ("ext4", True, True), ("ext4", False, False), ("xfs", False, True), ("tmpfs", False, False),
    ("overlay", False, None)])
def test_what_has_a_journal(kind, has_jbd2, journal):
    assert module("disk").judge_journal(kind, has_jbd2)[0] is journal


def test_the_limit_counts_files_and_removes_them(tmp_path):
    assert module("disk").limit(str(tmp_path), 2, 0.05) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_failing_process_is_told(tmp_path, capfd):
    forks = module("forks")
    assert forks.parallel(lambda number: number * 2, [1, 2]) == [2, 4]
    with pytest.raises(forks.Trouble, match="open failed in one of 1"):
        forks.parallel(open, [str(tmp_path / "missing")])
    assert "missing" in capfd.readouterr().err


# --- what the environment asks for ---

def test_options_have_defaults_and_quick_ones():
    read = module("options").read_options
    assert read({}).records == 100_000
    assert read({}).journal is None
    quick = read({"BENCH_QUICK": "1", "BENCH_DIR": "/mnt"})
    assert (quick.records, quick.journal, quick.directory) == (10_000, False, "/mnt")
    assert quick.seconds < read({}).seconds
    assert quick.dead < read({}).dead == 10_000
    assert read({"BENCH_QUICK": "1", "BENCH_RECORDS": "7", "BENCH_JOURNAL": "1"}).records == 7
    assert read({"BENCH_QUICK": "1", "BENCH_JOURNAL": "1"}).journal is True


def test_sections_are_chosen():
    read = module("options").read_options
    assert all([read({}).wants(name) for name in module("options").SECTIONS])
    chosen = read({"BENCH_ONLY": "tls, slow"})
    assert [name for name in module("options").SECTIONS if chosen.wants(name)] == ["tls", "slow"]


@pytest.mark.parametrize("name, value", [
    ("BENCH_RECORDS", "1_000"), ("BENCH_RECORDS", "-1"), ("BENCH_QUICK", "yes"),
    ("BENCH_GENERATOR", "swaks"), ("BENCH_ONLY", "tls,memory")])
def test_a_wrong_environment_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        module("options").read_options({name: value})


# --- figures ---

def test_figures_of_a_load():
    before = [process(1, "mq-send", 1.0), process(2, "xmtpd", 1.0)]
    after = [process(1, "mq-send", 1.5, 0.5), process(2, "xmtpd", 1.25)]
    found = module("load").figures(500, 2.0, 2.5, before, after)
    assert (found["accepted_per_s"], found["delivered_per_s"]) == (250, 200)
    assert (found["cpu_ms"], found["user_ms"], found["system_ms"]) == (2.5, 1.5, 1.0)
    assert (found["busiest"], found["busiest_share"], found["cpu_share"]) == ("mq-send", 0.4, 0.5)
    assert found["by_program"]["xmtpd"] == {"user_ms": 0.5, "system_ms": 0.0}


def test_medians_are_compared_with_the_first():
    found = module("startup").compare({"bare": [8.0, 10.0, 30.0], "xmtpd": [20.0, 25.0, 18.0]})
    assert found["bare"] == {"median_ms": 10.0, "least_ms": 8.0, "ratio": 1.0}
    assert found["xmtpd"] == {"median_ms": 20.0, "least_ms": 18.0, "ratio": 2.0}


STRACE = """\
11 fsync(7) = 0
12 fdatasync(9 <unfinished ...>
11 fsync(7)                          = 0
12 <... fdatasync resumed>)          = 0
13    fsync(3) = -1 EIO (Input/output error)
11 +++ exited with 0 +++
"""


def test_flushes_are_counted_once_each_by_program():
    names = {11: "mq-queue", 12: "mq-local"}
    assert module("flushes").count(STRACE, names) == {"mq-queue": 2, "mq-local": 1, "(other)": 1}


def test_tables_align_words_left_and_numbers_right():
    text = module("tables").table(("name", "n"), [["a", 1.234], ["long name", 123.4], ["x"]])
    assert text == "  name          n\n  a          1.23\n  long name   123\n  x"


def test_a_load_that_failed_has_a_line_of_its_own():
    report = module("report")
    good = {"system": "mqmail", "sessions": 1, "reuse": True, "idle": 0.5,
            **module("load").figures(100, 1.0, 1.0, [process(1)], [process(1, user=0.2)])}
    bad = {"system": "mqmail", "sessions": 50, "reuse": False, "trouble": "refused"}
    lines = report.loads([good, bad]).splitlines()
    assert lines[1].split()[:7] == ["mqmail", "1", "yes", "100", "100", "100", "2.00"]
    assert lines[2].split() == ["mqmail", "50", "no", "refused"]
    assert "0.00+" not in report.programs([good, bad]) and "2.00+0.00" in report.programs([good, bad])


# --- waiting records ---

def test_waiting_records_are_good_and_spread():
    waiting = module("waiting")
    made = [waiting.make_record(number, 2000, 1.7e9) for number in range(2000)]
    assert len({id for id, _, _ in made}) == 2000
    assert len({ids.directory(id) for id, _, _ in made}) > 200
    for id, text, due in made[:20]:
        found = record.parse(text)
        assert found.complete and found.envelope.id == id
        [state] = found.recipients.values()
        assert (state.kind, state.until) == ("wait", int(due))
        assert 1.7e9 + 3600 <= due <= 1.7e9 + 3600 + 86400


def test_the_log_says_how_many_were_found():
    scanned = module("waiting").scanned
    assert scanned("event=ready\nevent=scanned prog=mq-send waiting=12\nevent=x\n") == 12
    assert scanned("event=ready\n") is None


def test_waiting_records_can_be_due_already():
    made = [module("waiting").make_record(number, 10, 1.7e9, -60.0, 0.0) for number in range(10)]
    assert {due for _, _, due in made} == {1.7e9 - 60}
    assert record.parse(made[3][1]).recipients["1"].until == int(1.7e9 - 60)


# --- other hosts ---

def test_the_last_whole_line_of_counters_counts():
    parse = module("sink").parse_counters
    assert parse("") == parse("sess=1 qu") == (0, 0)
    assert parse("sess=0 quit=0 mesg=1\rsess=3 quit=2 mesg=47\r") == (47, 3)
    assert parse("mesg=1\rsess=3 quit=2 mesg=47\rsess=4 quit=3 mesg=4") == (47, 3)


def test_a_sink_counts_messages_and_sessions_and_nothing_else(tmp_path):
    need("smtp-sink")
    system = module("system")
    with module("sink").Sink(str(tmp_path), "127.0.0.1") as sink:
        assert sink.counters() == (0, 0)
        assert generate(sink.port).returncode == generate(sink.port, "-d").returncode == 0
        assert system.wait_for(lambda: sum(sink.counters()), 7) == 7
        assert sink.counters() == (4, 3)
        relay = module("relay").Relay(SimpleNamespace(name="x", port=1, pid=2), sink, True)
        relay.clear()
        assert generate(sink.port).returncode == 0
        assert system.wait_for(relay.arrived, 2) == 2


def test_attempts_at_one_host_are_counted():
    to = 'connect(5, {sa_family=AF_INET, sin_port=htons(%d), sin_addr=inet_addr("127.0.0.%d")}, 16'
    text = "\n".join([f"11 {to % (4711, 2)}) = -1 ECONNREFUSED", f"12 {to % (4711, 2)} <unfinished ...>",
                      "12 <... connect resumed>) = -1 EINPROGRESS", f"11 {to % (47110, 2)}) = 0",
                      f"11 {to % (4711, 20)}) = 0", '11 connect(3, {sa_family=AF_UNIX}, 9) = 0'])
    assert module("dead").count(text, "127.0.0.2", 4711) == 2


def test_records_that_wait_for_later_are_counted(tmp_path):
    for name, due in (("00/a", 1000.0), ("00/b", 1001.0), ("ff/c", 2000.0)):
        path = tmp_path / "queue/wait" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (due, due))
    assert module("dead").later(str(tmp_path), 1000.0) == 2


def test_delivered_recipients_are_counted_in_the_log():
    log = "event=delivered prog=mq-send id=x\nevent=sent prog=mq-rspawn\nevent=delivered prog=mq-send\n"
    assert module("mailing").sent(log) == 2


def test_what_other_hosts_saw_is_printed_beside_the_fewest():
    report = module("report")
    assert "12 transactions over 11 connections\n  (the fewest possible: 10)" in report.mailing(
        {"recipients": 1000, "domains": 100, "hosts": 10, "transactions": 12, "connections": 11,
         "fewest": 10, "seconds": 1.0})
    assert "3 connection attempts in one retry time (the fewest possible: 1)" in report.dead(
        {"messages": 1000, "attempts": 3, "put_off": 1000, "seconds": 1.0})


# --- xmtpd ---

def test_a_process_beside_us_says_that_it_is_ready_and_ends_with_us():
    forks = module("forks")

    def hold(ready, word):
        ready()
        threading.Event().wait()

    with forks.Beside(hold, "a word") as beside:
        beside.wait()
        os.kill(beside.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(beside.pid, 0)
    with forks.Beside(lambda _ready: None) as ended, pytest.raises(forks.Trouble, match="failed"):
        ended.wait()


def test_an_access_map_has_as_many_keys_as_it_has_lines():
    made = module("policy").access_lines(10_000)
    parsed = lines.parse("access", "".join(made).encode(), access.parse_access, "")
    assert len(parsed.entries) == 10_000
    assert parsed.words >= {"connect", "from", "to"}


def test_a_bare_tls_server_is_shaken_hands_with_and_knows_sessions_again(tmp_path):
    need("openssl")
    handshakes, clients, system = module("handshakes"), module("clients"), module("system")
    certificate, key = clients.make_certificate(str(tmp_path))
    for later, shake in ((False, handshakes.shake_first), (True, handshakes.shake_later)):
        port = system.free_port()
        with module("forks").Beside(handshakes.serve, port, certificate, key, later) as server:
            server.wait()
            assert handshakes._one_by_one(shake, port, True, 3) == (3, 2)
            assert handshakes._one_by_one(shake, port, False, 2) == (2, 0)
            assert len(module("procs").look(server.pid)) == 2


def test_a_slow_client_says_an_octet_at_a_time_and_comes_back():
    heard, over = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve_twice():
            for octets in (3, 1):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"220 mx\r\n")
                    heard.append(b"".join([connection.recv(1) for _ in range(octets)]))
                    assert octets == 3 or over.wait(30)

        server = threading.Thread(target=serve_twice)
        server.start()
        client = module("slow").Slow(lambda _sock, _recipient: b"xy", listener.getsockname()[1], "")
        while len(heard) < 2:
            client.say()
        over.set()
        server.join(30)
        client.close()
    assert heard == [b"xyx", b"x"]


def test_what_is_asked_of_xmtpd_stands_beside_what_it_does():
    face = module("face")
    text = face.idle_text([{"secure": True, "sessions": 2000, "rest_kib": 1024, "total_kib": 2048,
                            "xmtpd_kib": 512, "each_kib": 0.5, "asked_mib": 150}])
    assert " ".join(text.splitlines()[1].split()) == "TLS 2000 1.00 2.00 below 150 0.50 0.50"
    found = [{"server": name, "how": "STARTTLS", "resume": False, "sessions": 9, "reused": 0,
              "per_s": 1.0, "cpu_ms": 1.0, "per_cpu_s": rate}
             for name, rate in (("ssl alone", 100.0), ("xmtpd", 60.0))]
    module("handshakes")._compare(found)
    assert [one["ratio"] for one in found] == [1.0, 0.6]
    assert "0.60\n  asked: at least 0.50" in face.tls_text(found)
    text = face.slow_text({"sessions": 10, "messages": 9, "without_per_s": [100.0, 110.0],
                           "with_per_s": [99.0], "change": -0.05, "noise": 0.1})
    assert "without them: 100, 110; with them: 99\n  change: -5% (asked: at most 10%)" in text


def test_what_policy_costs_is_the_median_of_pairs():
    def load(cpu, xmtpd):
        return {"cpu_ms": cpu, "by_program": {"xmtpd": {"user_ms": xmtpd, "system_ms": 0.25}}}

    policy = module("policy")
    found = {"off": [load(2.0, 0.25), load(3.0, 0.25), load(9.0, 0.5)],
             "on": [load(2.5, 0.5), load(3.25, 0.25), load(9.0, 0.25)]}
    assert policy._medians(found, lambda one: one["cpu_ms"]) == {"off": 3.0, "on": 3.25, "more": 0.25}
    assert policy._medians(found, policy._xmtpd) == {"off": 0.5, "on": 0.5, "more": 0.0}
    text = module("face").policy_text([
        {"sessions": 10, "reuse": True, "messages": 9, "entries": 1000,
         "all": {"off": 2.0, "on": 2.5, "more": 0.5}, "xmtpd": {"off": 0.5, "on": 0.75, "more": 0.25}}])
    assert " ".join(text.splitlines()[1].split()) == "10 yes 9 2.00 2.50 0.50 0.50 0.75 0.25"
    assert text.endswith("1000 entries in control/access.cdb; asked: at most 0.30 ms more")


# --- the load generator ---

def test_replies_of_several_lines_are_awaited():
    complete = module("generator").complete
    assert complete(b"250 ok\r\n")
    assert complete(b"250-a\r\n250 b\r\n")
    assert not complete(b"250-a\r\n")
    assert not complete(b"250 o")


def serve(listener, sessions, heard):
    """A mail server for so many sessions, one after the other."""
    for _ in range(sessions):
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as file:
            words = []
            _say(file, b"220-mx\r\n220 mx")
            for line in file:
                words.append(line.split(b":")[0].strip().decode())
                if words[-1] == "DATA":
                    _say(file, b"354 go")
                    heard.append(list(iter(file.readline, b".\r\n")))
                _say(file, b"221 bye" if words[-1] == "QUIT" else b"250 ok")
        heard.append(words)


def _say(file, text):
    file.write(text + b"\r\n")
    file.flush()


def test_the_generator_can_come_from_another_address_with_other_senders():
    plan = module("generator").Plan(2, 100, "s*@b.example", "c@d.example", True)
    assert [said for said, _ in plan.dialogue() if said.startswith(b"MAIL")] == [
        b"MAIL FROM:<s1@b.example>\r\n", b"MAIL FROM:<s0@b.example>\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        session = module("generator").Session(listener.getsockname(), "127.0.0.2", plan)
        connection, where = listener.accept()
        session.socket.close()
        connection.close()
    assert where[0] == "127.0.0.2"


@pytest.mark.parametrize("reuse, sessions, commands", [
    (False, 2, [["HELO client.example.net", "MAIL FROM", "RCPT TO", "DATA", "QUIT"]] * 2),
    (True, 1, [["HELO client.example.net", *["MAIL FROM", "RCPT TO", "DATA"] * 2, "QUIT"]])])
def test_the_generator_sends_all_with_and_without_reuse(reuse, sessions, commands):
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener, sessions, heard))
        server.start()
        done = generate(listener.getsockname()[1], *["-d"] * reuse)
        server.join(30)
    assert (done.returncode, done.stderr) == (0, b"")
    messages = [one for one in heard if isinstance(one[0], bytes)]
    assert [one for one in heard if isinstance(one[0], str)] == commands
    assert [4096 <= len(b"".join(text)) < 4200 for text in messages] == [True, True]
    assert all(line.endswith(b"\r\n") and len(line) <= 80 for text in messages for line in text)


def generate(port, *options):
    return subprocess.run(
        [sys.executable, str(BENCH / "generator.py"), *options, "-s", "1", "-m", "2", "-l", "4096",
         "-f", "a@b.example", "-t", "c@d.example", f"127.0.0.1:{port}"],
        capture_output=True, check=False, timeout=60)


def test_a_refusal_is_told_and_ends_the_load():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def refuse():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"421 too busy\r\n")
                connection.recv(100)

        server = threading.Thread(target=refuse)
        server.start()
        done = generate(listener.getsockname()[1])
        server.join(30)
    assert done.returncode == 1
    assert b"expected 220, got b'421 too busy" in done.stderr
