"""mq-qread as a command, on records as mq-queue and mq-send write them."""

import json
import os
import subprocess

import pytest

from mqmail.queue import ids, lines, paths
from mqmail.queue.record import Envelope, Recipient
from support.home import ROOT, SECONDS

pytestmark = pytest.mark.e2e

AT = 1732252800.25       # 22 Nov 2024 05:20:00 GMT


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("control", 0o755)
    paths.make_directories(".")
    return tmp_path


def put(place, recipients, number=0, sender="alice@example.org", more=b"", **facts):
    id = ids.make(int(AT * 1e6) + number * 1_000_000, 77)
    envelope = Envelope(id, AT + number, 5321, facts.get("eightbit", False), False, sender,
                        facts.get("ret", ""), facts.get("envid", ""), facts.get("via", {}))
    given = [Recipient(str(n), "new", address) for n, address in enumerate(recipients, 1)]
    path = f"queue/bad/{id}" if place == "bad" else f"queue/{place}/{ids.directory(id)}/{id}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(lines.head(envelope, given) + more)
    return id


def qread(home, *arguments, **options):
    done = subprocess.run([ROOT / "bin" / "mq-qread", "--home", home, *arguments], capture_output=True,
                          timeout=SECONDS, check=False, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_an_empty_queue(home):
    assert qread(home) == (0, "Mail queue is empty\n", "")
    assert qread(home, "--json") == (0, "", "")


def test_text(home):
    targets = [("remote", "y@c.example", None), ("remote", "z@d.example", None)]
    history = (lines.to_line("1", "remote", "x@b.example")
               + lines.wait_line("1", AT, "4.2.1", AT + 400, "mx[192.0.2.1]:25", "450 4.2.1 come back")
               + lines.to_line("2", "mailbox", "carol@example.org") + lines.done_line("2", AT, "2.0.0")
               + lines.replacements("3", targets)
               + lines.fail_line("3.2", AT, "5.1.1", "mx.d", "550 no"))
    new = put("new", ["bob@example.com"], 0, sender="")
    wait = put("wait", ["bob@example.com", "carol@example.org", "team@example.org"], 1, more=history)
    told = lines.fail_line("1", AT, "5.1.1") + lines.told_line("1", AT, "failed")
    hold = put("hold", ["no@example.com", "gr\xfc\xdfe@example.com"], 2, more=told)
    assert qread(home) == (0, f"""\
22 Nov 2024 05:20:00 GMT  #{new}  5321  <>
\tnew\tbob@example.com
22 Nov 2024 05:20:01 GMT  #{wait}  5321  <alice@example.org>  bouncing
\tremote\tx@b.example\tnext 22 Nov 2024 05:26:40 GMT\t4.2.1 mx[192.0.2.1]:25 450 4.2.1 come back
  done\tmailbox\tcarol@example.org\t2.0.0
  failed\tremote\tz@d.example\t5.1.1 mx.d 550 no
\tremote\ty@c.example
22 Nov 2024 05:20:02 GMT  #{hold}  5321  <alice@example.org>  hold
  failed\tnew\tno@example.com\t5.1.1
\tnew\tgr\xfc\xdfe@example.com
-- 3 messages in queue
""", "")


def test_json(home):
    id = put("wait", ["team@example.org"],
             ret="hdrs", envid="e 1", eightbit=True, via={"proto": "esmtp"},
             more=lines.to_line("1", "remote", "x@b.example", notify=("failure", "delay"),
                                orcpt="rfc822;t@example.org", sender="owner@example.org")
             + lines.wait_line("1", AT, "4.2.1", AT + 400, "mx", "450 \udcff\x1b"))
    put("new", ["bob@example.com"], 1)
    code, out, err = qread(home, "--json")
    assert (code, err) == (0, "")
    assert out.isascii()
    first, second = map(json.loads, out.splitlines())
    assert first == {
        "id": id, "place": "wait", "arrival": AT, "size": 5321, "sender": "alice@example.org",
        "eightbit": True, "utf8": False, "ret": "hdrs", "envid": "e 1", "via": {"proto": "esmtp"},
        "recipients": [{
            "seq": "1", "destination": "remote", "address": "x@b.example", "given": "team@example.org",
            "sender": "owner@example.org", "notify": ["failure", "delay"],
            "orcpt": "rfc822;t@example.org", "state": "wait", "time": 1732252800, "status": "4.2.1",
            "host": "mx", "said": "450 \N{REPLACEMENT CHARACTER}\x1b", "next": 1732253200, "told": ""}]}
    assert second["recipients"][0]["state"] == "pending"
    assert second["recipients"][0]["next"] is None


def test_nothing_that_others_said_reaches_the_terminal(home):
    put("wait", ["bob@example.com"], more=lines.fail_line("1", AT, "5.0.0", "h", "550 \x1b[2J\r\nx\x9b"))
    out = qread(home)[1]
    assert "\tnew\tbob@example.com\t5.0.0 h 550 [2J x\n" in out
    assert all(char.isprintable() or char in "\t\n" for char in out)


def test_bad_records(home):
    aside, unread = put("bad", ["bob@example.com"], 0, more=b"what\n"), put("wait", ["b@x.example"], 1)
    good = put("wait", ["c@x.example"], 2)
    kept = put("bad", ["d@x.example"], 3)
    with open(f"queue/wait/{ids.directory(unread)}/{unread}", "ab") as file:
        file.write(b"done 7 1 2.0.0\n")
    code, out, _ = qread(home)
    listed = out.splitlines()
    assert code == 111
    assert listed[0] == (f"22 Nov 2024 05:20:01 GMT  #{unread}  wait"
                         f"  queue/wait/{unread} line 8: unknown recipient '7'")
    assert listed[1] == f"22 Nov 2024 05:20:02 GMT  #{good}  5321  <alice@example.org>"
    assert listed[3].startswith(f"22 Nov 2024 05:20:00 GMT  #{aside}  bad  queue/bad/{aside} line 8: ")
    assert listed[4] == f"22 Nov 2024 05:20:03 GMT  #{kept}  5321  <alice@example.org>  bad"
    assert listed[-1] == "-- 4 messages in queue, 2 of them bad"
    found = [json.loads(line) for line in qread(home, "--json")[1].splitlines()]
    assert [(one["id"], one["place"], "error" in one) for one in found] == [
        (unread, "wait", True), (good, "wait", False), (aside, "bad", True), (kept, "bad", False)]


def test_messages_by_id(home):
    one, two = put("new", ["bob@example.com"], 0), put("wait", ["bob@example.com"], 1)
    code, out, err = qread(home, f"#{two}")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"22 Nov 2024 05:20:01 GMT  #{two}  5321  <alice@example.org>",
                                "\tnew\tbob@example.com"]
    none = ids.make(5, 5)
    code, out, err = qread(home, none, one)
    assert (code, err) == (1, f"mq-qread: no message {none} in the queue\n")
    assert out.startswith(f"22 Nov 2024 05:20:00 GMT  #{one}  ")
    assert qread(home, "../../etc") == (
        100, "", "mq-qread: '../../etc' is no queue id: those have 16 letters and digits\n")


def test_no_home(tmp_path):
    assert qread(tmp_path) == (
        111, "", f"mq-qread: {tmp_path} has no queue (queue/new: No such file or directory):"
                 f" make a home with mq-setup --home {tmp_path}\n")


def test_a_user_who_may_not_read(home):
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    os.chmod("queue", 0o750)
    for path in (home, *home.parents):
        if path.stat().st_mode & 1 == 0:
            os.chmod(path, path.stat().st_mode | 0o11)
    code, out, err = qread(home, user=65534, group=65534, extra_groups=[])
    assert (code, out, err) == (
        111, "", f"mq-qread: the queue of {home} may be read only by root\n")
    os.chown("queue", 8, 8)
    assert qread(home, user=65534, group=65534, extra_groups=[])[2].endswith(" only by root and mail\n")
    assert qread(home, user=8, group=8, extra_groups=[])[0] == 111     # queue/new is still root's


def test_a_reader_that_has_seen_enough(home):
    for number in range(3000):
        put("new", [f"{n}@example.com" for n in range(10)], number)
    process = subprocess.Popen([ROOT / "bin" / "mq-qread", "--home", home], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(SECONDS) == -13
