"""mq-send alone with a service of the tests' own for ``remote``: sites, forced runs, facts, reports."""

import os
import shutil
import signal
import threading
import time

import pytest

from mqmail.base import xtext
from mqmail.queue import ids, lines, record
from mqmail.queue.record import Envelope, Recipient
from support.home import SECONDS, Home, owner_name, start_alone, wait_until
from support.lmtpservice import LmtpService

pytestmark = pytest.mark.e2e

BODY = b"Received: from here\r\nSubject: hello\r\n\r\nhello\r\n"
DAY = 86400.0


class Rig:
    """A home with mq-send, a service for ``remote`` and one for ``error``."""

    def __init__(self, answer, **control):
        self.home = Home()
        self._made = 0
        self.remote = LmtpService(f"{self.home.top}/remote.sock", answer)
        self.error = LmtpService(f"{self.home.top}/error.sock", lambda ask: "250 2.0.0 id=x")
        self.home.control(destinations=f"remote:lmtp:unix:{self.home.top}/remote.sock\n"
                                       f"error:lmtp:unix:{self.home.top}/error.sock\n", **control)
        self._owner = owner_name(self.home.path)
        self.process = None

    def start(self):
        self._log = open(f"{self.home.top}/log", "a")  # noqa: SIM115  closed in stop()
        self.process = start_alone("mq-send", self.home.path, self._log)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(SECONDS) == 0
            self._log.close()
            self.process = None

    def close(self):
        self.stop()
        self.remote.__exit__()
        self.error.__exit__()
        self.home.remove()

    def put(self, *recipients, at=None, wait=None):
        """A message in the queue to (address or Recipient), which mq-send does not know of yet; *wait*:
        it waits until then. Its id."""
        self._made += 1
        at = time.time() if at is None else at
        id = ids.make(int(at * 1e6) + self._made, 7)
        given = [one if isinstance(one, Recipient) else Recipient(str(n), "remote", one)
                 for n, one in enumerate(recipients, 1)]
        envelope = Envelope(id, at, len(BODY), False, False, "a@example.org", "", "", {"proto": "esmtp"})
        text = lines.head(envelope, given)
        if wait is not None:
            text += b"".join([lines.wait_line(one.seq, at, "4.4.1", wait) for one in given])
        self._write("mess", id, BODY)
        path = self._write("new" if wait is None else "wait", id, text)
        if wait is not None:
            os.utime(path, (wait, wait))
        return id

    def path(self, place, id):
        return self.home.path / "queue" / place / ids.directory(id) / id

    def _write(self, place, id, data):
        path = self.path(place, id)
        path.write_bytes(data)
        shutil.chown(path, self._owner)
        return path

    def record(self, id):
        """The record as it is, None when the message is finished."""
        for place in ("wait", "new"):
            try:
                return record.parse(self.path(place, id).read_bytes())
            except FileNotFoundError:
                continue
        return None

    def events(self, kind, **facts):
        found = [xtext.parse_facts(line.split(" ")) for line in self.home.log(f"event={kind} ")]
        return [one for one in found if all(one.get(name) == text for name, text in facts.items())]

    def wait_for(self, count, kind, **facts):
        wait_until(lambda: len(self.events(kind, **facts)) >= count, f"{count} of {kind} {facts}")
        return self.events(kind, **facts)


@pytest.fixture
def rig():
    """A function that makes Rigs, not yet started."""
    made = []

    def make(*arguments, **control):
        made.append(Rig(*arguments, **control))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_many_messages_for_a_dead_site_cost_one_question_in_its_time(rig):
    up = threading.Event()

    def answer(ask):
        if up.is_set():
            return "250 2.0.0 site=mx.dead host=mx.dead"
        return "451 4.4.1 site=mx.dead retry=2 host=mx.dead said=no+20answer"

    one = rig(answer, concurrencyremote="4\n")

    def asked():
        """How many questions but for those of each round of 2 s since the start."""
        number = len(one.remote.asked)
        return number - (time.monotonic() - began) // 2.0

    past = time.time() - 1.0
    made = [one.put(f"u{n}@d{n % 3}.example", at=past - 600.0, wait=past) for n in range(300)]
    began = time.monotonic()
    one.start()
    one.wait_for(300, "deferred")
    first = len(one.remote.asked)
    assert asked() <= 12            # three domains, not known to share a site, three quarters of 4 slots
    down = len(one.events("site_down"))
    one.wait_for(down + 2, "site_down")
    assert asked() <= 13
    assert len(set(one.remote.addresses()[first:])) == 1
    lengths = [one.record(id).lines for id in made]
    assert sorted(lengths)[:-1] == [9] * 299        # one line more than before, but for who asks
    up.set()
    one.home.wait_until_empty()                     # their own times are half a minute away
    [back] = one.wait_for(1, "site_back")
    assert int(back["waiting"]) > 200
    assert asked() <= 13 + 300


def test_only_who_waits_for_the_site_is_brought_forward(rig):
    up = threading.Event()

    def answer(ask):
        if "grey" in ask.address:
            return "451 4.7.1 site=mx.dead host=mx.dead said=451+20later"
        if up.is_set():
            return "250 2.0.0 site=mx.dead"
        return "451 4.4.1 site=mx.dead retry=600"

    one = rig(answer)
    one.start()
    id = one.put("x@dead.example", "y@grey.example", "z@dead.example")
    one.home.trigger(id)
    one.wait_for(3, "deferred")
    up.set()
    other = one.put("o@other.example")
    one.home.trigger(other)
    one.wait_for(2, "delivered", id=id)
    assert sorted(one.remote.addresses()) == [
        "o@other.example", "x@dead.example", "x@dead.example", "y@grey.example", "z@dead.example",
        "z@dead.example"]
    assert [state.kind for state in one.record(id).current()] == ["done", "wait", "done"]


def test_a_message_of_whom_nobody_is_asked_still_expires(rig):
    one = rig(lambda ask: "451 4.4.1 site=mx.dead retry=600 host=mx.dead said=no+20answer")
    one.start()
    one.home.trigger(one.put("x@dead.example"))
    one.wait_for(1, "deferred")
    old = one.put("y@dead.example", at=time.time() - 8 * DAY)
    one.home.trigger(old)
    [failed] = one.wait_for(1, "failed", id=old)
    assert (failed["status"], failed["asked"]) == ("5.4.7", "no")
    assert failed["said"].endswith("last: no answer")
    one.wait_for(1, "finished", id=old)
    assert one.remote.addresses() == ["x@dead.example"]
    assert [ask.address for ask in one.error.asked] == ["y@dead.example"]


def test_who_forces_a_run_has_everybody_asked_about(rig):
    one = rig(lambda ask: "451 4.4.1 site=mx.dead retry=600")
    one.start()
    for number in range(5):
        one.home.trigger(one.put(f"u{number}@dead.example"))
    one.wait_for(5, "deferred")
    one.process.send_signal(signal.SIGALRM)
    one.wait_for(10, "deferred")
    forced = [ask.address for ask in one.remote.asked if "XFORCE=" in ask.mail]
    assert sorted(forced) == [f"u{n}@dead.example" for n in range(5)]


def test_a_hint_without_a_site_is_for_its_recipient_alone(rig):
    one = rig(lambda ask: "451 4.4.1 retry=300")
    one.start()
    made = [one.put("x@late.example"), one.put("y@late.example")]
    one.home.trigger(*made)
    found = one.wait_for(2, "deferred")
    assert all(200 < int(line["retry"]) <= 300 for line in found)
    assert len(one.remote.asked) == 2


def test_hints_that_make_no_sense_cost_no_mail(rig):
    hints = ["site= retry=5", "site=x retry=-1", "site=x retry=99999999999999", "site=x retry=0",
             "site=x retry=1e3", f"site={'x' * 300} retry=5", "site=+00 retry=5", "site=x retry=+D9+A1",
             "site=x site=y retry=999999"]
    one = rig(lambda ask: f"451 4.4.1 {hints[int(ask.address.partition('@')[0])]}")
    one.start()
    for number in range(len(hints)):
        one.home.trigger(one.put(f"{number}@d{number}.example"))
    found = one.wait_for(len(hints), "deferred")
    assert all(0 <= int(line["retry"]) <= 86400 for line in found)


FACTS = "host=mx.example[192.0.2.1]:25 tls=TLSv1.3:AES secs=0.25 said=250+20taken"


def test_facts_are_in_the_log_and_in_the_record(rig):
    go = threading.Event()

    def answer(ask):
        if ask.number:
            go.wait(SECONDS)
            return "451 4.2.0 later"
        return f"250 2.0.0 {FACTS} site=mx.example dsn=1"

    one = rig(answer)
    one.start()
    id = one.put("x@a.example", "y@a.example")
    one.home.trigger(id)
    [line] = one.wait_for(1, "delivered")
    assert [line[name] for name in ("host", "tls", "secs", "said")] == [
        "mx.example[192.0.2.1]:25", "TLSv1.3:AES", "0.25", "250 taken"]
    path = one.path("new", id)
    text = wait_until(lambda: b"\ndone" in path.read_bytes() and path.read_text(), "a done line")
    done = text.splitlines()[-1].split(" ")
    assert done[:2] == ["done", "1"]
    assert sorted(done[4:]) == sorted([*FACTS.split(" "), "dsn=1"])
    go.set()
    one.wait_for(1, "deferred")


@pytest.mark.parametrize(("fact", "told"), [("", ["relayed"]), (" dsn=1", []), (" dsn=0", ["relayed"])])
def test_relayed_is_told_unless_the_next_hop_reports_itself(rig, fact, told):
    one = rig(lambda ask: f"250 2.0.0 site=mx.example{fact}")
    one.start()
    id = one.put(Recipient("1", "remote", "x@a.example", ("success", "failure")))
    one.home.trigger(id)
    one.wait_for(1, "finished", id=id)
    assert [line["action"] for line in one.events("told", id=id)] == told
    assert "NOTIFY=SUCCESS,FAILURE" in one.remote.asked[0].rcpt


def test_a_restart_forgets_sites_and_loses_nobody(rig):
    one = rig(lambda ask: "451 4.4.1 site=mx.dead retry=1")
    one.start()
    made = [one.put(f"u{n}@dead.example") for n in range(20)]
    one.home.trigger(*made)
    one.wait_for(20, "deferred")
    one.stop()
    assert all(one.record(id).current()[0].kind == "wait" for id in made)
    asked = len(one.remote.asked)
    one.start()
    wait_until(lambda: len(one.remote.asked) > asked, "another question")
    assert all(one.record(id) for id in made)


def test_the_sender_hears_once_that_a_recipient_is_late(rig):
    one = rig(lambda ask: "451 4.4.1 later", delaywarn="3600\n")
    one.start()
    old = one.put(Recipient("1", "remote", "x@a.example", ("delay",)), at=time.time() - 3700.0)
    one.home.trigger(old)
    one.wait_for(1, "told", id=old)
    one.process.send_signal(signal.SIGALRM)
    one.wait_for(2, "deferred", id=old)
    soon = one.put(Recipient("1", "remote", "y@a.example", ("delay",)), at=time.time() - 3598.0)
    one.home.trigger(soon)
    assert [line["action"] for line in one.wait_for(1, "told", id=soon)] == ["delayed"]
    assert len(one.events("deferred", id=soon)) == 1        # nobody was asked again for that
    assert [ask.address for ask in one.error.asked] == ["x@a.example", "y@a.example"]
    assert all("XACTION=delayed" in ask.rcpt and "XUNTIL=" in ask.rcpt for ask in one.error.asked)
    [state] = wait_until(lambda: one.record(soon).current()[0].delayed and one.record(soon).current(),
                         "a told line")
    assert (state.kind, state.told) == ("wait", "delayed")
    wait_until(lambda: int(one.path("wait", soon).stat().st_mtime) == state.until, "its own time again")
