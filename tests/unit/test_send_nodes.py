"""Which mail waits for a domain that somebody asks for, and how often it is looked for."""

import time

import pytest

from mqmail.base.waiter import Waiter
from mqmail.prog.mq_send import nodes
from mqmail.prog.mq_send.agenda import Wanted
from mqmail.queue import lines, store
from mqmail.queue.record import Envelope, Recipient

ID = "1kq3v9s0c0g00a2f"


def record(*addresses, done=(), ok=True):
    """Of a message whose recipients wait, but for those *done*."""
    envelope = Envelope(ID, 1000.0, 5, False, True, "from@wanted.example", "", "", {"proto": "esmtp"})
    given = [Recipient(str(n), "remote", one) for n, one in enumerate(addresses, 1)]
    data = lines.head(envelope, given)
    for number, address in enumerate(addresses, 1):
        data += lines.done_line(str(number), 1001.0, "2.0.0", "", "") if address in done else \
            lines.wait_line(str(number), 1001.0, "4.4.1", 2000.0, "", "")
    return data


def waiting(data, *names):
    return sorted(nodes.waiting_for(data, frozenset(names)))


def test_recipients_that_wait_in_the_domain_and_no_others():
    data = record("a@wanted.example", "b@WANTED.example", "c@other.example", "d@x.wanted.example",
                  "e@wanted.example", done=["e@wanted.example"])
    assert waiting(data, "wanted.example") == ["1", "2"]
    assert waiting(data, ".wanted.example") == ["4"]
    assert waiting(data, "wanted.example", ".wanted.example") == ["1", "2", "4"]
    assert waiting(data, "anted.example", "example", "mail.wanted.example") == []


def test_a_name_in_utf_8_is_found_by_its_a_label():
    assert waiting(record("a@bücher.example"), "xn--bcher-kva.example") == ["1"]


def test_what_comes_by_datagram_is_looked_at():
    data = b"Example.COM\n.example.org\n*run\n\n.\n-x\na..b\n\xff.example\n[1.2.3.4\na b\n" + b"x" * 300
    assert nodes.names_of(data) == ["example.com", ".example.org"]


def test_a_datagram_holds_the_two_names_of_one_etrn_and_costs_no_time():
    longest = ".".join(["x" * 63] * 3 + ["x" * 61])
    assert nodes.names_of(f".{longest}\n{longest}".encode()) == [f".{longest}", longest]
    assert len(nodes.names_of(b"x\n" * 30000)) == nodes.LONGEST // 2


class Timer:
    def __init__(self, at, call):
        self.at, self.call = at, call

    def cancel(self):
        self.call = None


class Loop:
    """A clock, and what is to come."""

    def __init__(self):
        self.now = 0.0
        self.timer = None

    def time(self):
        return self.now

    def call_at(self, at, call):
        self.timer = Timer(at, call)
        return self.timer

    def next(self):
        """Go to the time of the timer."""
        timer, self.timer = self.timer, None
        self.now = timer.at
        timer.call()


class Disk:
    """Threads that are slow: each step takes *seconds* of the loop's time."""

    def __init__(self, loop, seconds):
        self.loop, self.seconds, self.steps = loop, seconds, 0

    def do(self, function, *arguments):
        self.steps += 1
        self.loop.now += self.seconds
        done = Waiter()
        done.set(function(*arguments))
        return done


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A message for wanted.example waits."""
    path = tmp_path / "queue/wait" / store.paths.path("wait", ID).split("/")[2]
    path.mkdir(parents=True)
    (path / ID).write_bytes(record("a@wanted.example", "b@other.example"))
    monkeypatch.chdir(tmp_path)
    return path


def looker(seconds=0.0):
    loop, brought = Loop(), []
    found = nodes.Nodes(loop, Disk(loop, seconds), time.time, brought.extend)
    return found, loop, brought


def test_what_waits_is_brought_forward_as_wanted(queue):
    found, _, brought = looker()
    found.ask(b"wanted.example")
    [(id, seqs)] = brought
    assert (id, set(seqs), type(seqs)) == (ID, {"1"}, Wanted)
    assert abs(seqs.at - time.time()) < 60
    (queue / ID).write_bytes(b"nonsense wanted.example")
    found, _, brought = looker()
    found.ask(b"wanted.example")
    assert brought == []


def test_the_same_domain_is_looked_for_once_a_minute(queue):
    found, loop, brought = looker()
    for _ in range(50):
        found.ask(b"wanted.example")
    assert (len(brought), loop.timer.at) == (1, nodes.AGAIN)
    loop.next()
    assert len(brought) == 2


def test_looking_takes_a_tenth_of_the_time_whoever_asks(queue):
    found, loop, brought = looker(seconds=5.0)
    found.ask(b"one.example")
    assert loop.now == 10.0
    for number in range(20):
        found.ask(b"other%d.example\nwanted.example" % number)
    assert (loop.timer.at, brought) == (10.0 + nodes.SHARE * 10.0, [])
    loop.next()
    assert (loop.now, len(brought)) == (110.0, 1)


def test_so_many_domains_and_no_more(queue):
    found, _, _ = looker(seconds=1.0)
    found.ask(b"first.example")
    for number in range(nodes.MOST + 10):
        found.ask(b"x%d.example" % number)
    assert len(found._asked) == nodes.MOST
