"""A power cut at any moment: what was accepted is whole in the queue, or has arrived.

The calls with which the real programs change files are recorded, for each scenario; from them a model
makes the states of the disk that a cut after each call may leave (tests/support/diskmodel.py). Each is
looked at by the code that reads records; on some of them everything is started again and must come to
its end. MQMAIL_CRASH=all: more states at random, more starts, more cuts (``make crash``).

For root also a real cut: an ext4 file system that is shut down without writing its log when mail was
accepted.
"""

import fcntl
import os
import random
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mqmail.base.failure import BadFile
from mqmail.queue import ids
from mqmail.queue import record as records
from support import tracing
from support.crashing import SCENARIOS, SECONDS, System, copies, in_lanes, settle
from support.diskmodel import Disk
from support.home import ME, wait_until
from support.launcher import Launcher

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900),
              pytest.mark.skipif(tracing.missing() != "", reason=tracing.missing())]
ALL = os.environ.get("MQMAIL_CRASH") == "all"
SAMPLES = 40 if ALL else 6          # states at random after each call
STARTS = 150 if ALL else 12         # states of each scenario on which everything is started again
LANES = 5
_ACCEPTED = re.compile(rb"250 2\.0\.0 id=([0-9a-v]{16})")
_PLACES = ("new", "wait", "hold")
FLUSHES = {         # what is flushed, by program and path: without any one of them mail can be lost
    "the body": ("mq-queue", r"queue/mess/../.+"), "the body's name": ("mq-queue", r"queue/mess/.."),
    "the record": ("mq-queue", r"queue/new/../.+"), "the record's name": ("mq-queue", r"queue/new/.."),
    "the delivered file": ("mq-local", r"mail/.*/tmp/.+"),
    "the delivered file's name": ("mq-local", r"mail/.*/new")}


class Recorder:
    """A judge that lets everything happen and notes what succeeds: ``events`` are (program, kind, path,
    target, data, offset, size), paths relative to the home; and ("", "accepted", id, ...)."""

    def __init__(self, home):
        self.home = os.path.realpath(home) + "/"
        self.events = []
        self.files = dict(self._read())     # what is there at first

    def _read(self):
        for top in ("queue", "mail"):
            for directory, _, names in os.walk(self.home + top):
                for name in names:
                    path = f"{directory}/{name}"
                    with open(path, "rb") as file:
                        yield path.removeprefix(self.home), file.read()

    def __call__(self, call):
        if call.kind == "send":
            if call.program == "mq-queue":
                for id in _ACCEPTED.findall(call.data):
                    self.events.append(("", "accepted", id.decode(), "", b"", 0, 0))
        elif call.path.startswith((f"{self.home}queue/", f"{self.home}mail/")) and _succeeds(call):
            self.events.append((call.program, call.kind, call.path.removeprefix(self.home),
                                call.target.removeprefix(self.home), call.data, call.offset, call.size))


def _succeeds(call):
    """Whether a call that is about to be made will be successful, and changes anything."""
    if call.kind == "create":
        return os.path.isdir(os.path.dirname(call.path)) and not os.path.lexists(call.path)
    if call.kind in ("rename", "link"):
        return os.path.lexists(call.path) and os.path.isdir(os.path.dirname(call.target))
    if call.kind == "unlink":
        return os.path.lexists(call.path)
    return call.kind in ("write", "truncate", "sync")


class Expected:
    """What a message must come to, and how far it is in a state of the disk."""

    def __init__(self, scenario, mark):
        self.scenario = scenario
        self.mark = mark
        self.first = ""             # the id of the message itself; others are its bounces

    def problem(self, files, accepted, removed, others=()):
        """What is wrong with state *files* when the ids *accepted* had been said, and those *removed*
        had been finished; "" when all is well. *others*: ids of messages that are none of this one's."""
        try:
            arrived = copies({path: data for path, data in files.items() if path.startswith("mail/")
                              and "/new/" in path})
        except AssertionError as error:
            return str(error)
        found = {path.rpartition("/")[2]: self._live(path, data, files)
                 for path, data in files.items() if path.startswith("queue/") and path[6:10] != "mess"}
        for id, live in found.items():
            if live == "no body" and id not in removed:
                return f"{id}: a record with ok and no whole body"
        for id in accepted:
            for mailbox, kind in self._wanted(id, others):
                there = (mailbox, kind, self.mark) in arrived
                if not there and not self._waits(id, mailbox, kind, found):
                    return f"{id}: {mailbox} has no {kind}, and nothing of it is left"
        return ""

    def _wanted(self, id, others):
        if id in others:
            return ()
        return self.scenario.outcome if id == self.first else [("bob", "bounce")]

    def _live(self, path, data, files):
        """The Record, "no body", or "" when it was never accepted."""
        try:
            record = records.parse(data)
        except BadFile:
            return ""
        if not record.complete:
            return ""
        body = files.get(f"queue/mess/{path[-19:]}", b"")
        whole = len(body) == record.envelope.size and b"end of mark-" in body
        return record if whole else "no body"

    def _waits(self, id, mailbox, kind, found):
        """Whether a record in *found* says that this is still to be done."""
        if kind == "bounce":
            bounces = [r for r in found.values() if isinstance(r, records.Record)
                       and r.envelope.sender == "" and _open(r, ("bob",))]
            names = ("closed", "nobody-here")
        else:
            bounces, names = [], (mailbox, "team")
        record = found.get(id)
        if not isinstance(record, records.Record):
            return bool(bounces)
        return bool(bounces) or _open(record, ("bob",) if id != self.first else names)


def _open(record, names):
    """Whether one of *names* is a recipient for whom something is to be done."""
    addresses = [f"{name}@{ME}" for name in names]
    return any([state.recipient.address in addresses and state.kind != "done"
                and not (state.kind == "fail" and state.told) for state in record.current()])


class Recording:
    """A scenario, as it was recorded, with *count* messages at the same time."""

    def __init__(self, system, scenario, count):
        self.scenario = scenario
        self.expected = [Expected(scenario, system.mark()) for _ in range(count)]
        system.close_later()
        system.kill()
        recorder = Recorder(system.path)
        system.start(scenario.without, sync=True)
        system.judge = recorder
        with ThreadPoolExecutor(count) as pool:
            for one, id in zip(self.expected, pool.map(
                    lambda one: system.put(scenario, one.mark), self.expected), strict=True):
                one.first = id
        if scenario.without:
            system.kill()
            system.start(sync=True)
        for one in self.expected:
            settle(system, scenario, one.mark, True)
        system.kill()
        system.judge = None
        self.files, self.events = recorder.files, recorder.events
        self.left = dict(recorder._read())
        system.empty_mailboxes()

    def problem(self, files, accepted, removed):
        """See Expected.problem."""
        firsts = {one.first for one in self.expected}
        found = [one.problem(files, accepted, removed, firsts - {one.first}) for one in self.expected]
        return "; ".join([text for text in found if text])

    def states(self, seed=1, without=None):
        """(files, accepted ids, ids that were finished) for each state that a cut may leave. *without*:
        a (program, pattern) whose flushes do not happen."""
        chance = random.Random(seed)
        disk, accepted, removed = Disk(self.files), [], set()
        for program, kind, path, *rest in self.events:
            if kind == "accepted":
                accepted.append(path)
            elif kind != "sync" or not without or not (
                    program == without[0] and re.fullmatch(without[1], path)):
                disk.feed(kind, path, *rest)
            if kind == "unlink" and path.startswith("queue/") and "/mess/" not in path:
                removed.add(path[-16:])
            for files in disk.states(chance, SAMPLES):
                yield files, tuple(accepted), frozenset(removed)

    def final(self):
        """What the model says is there at the end."""
        disk = Disk(self.files)
        for _, kind, *rest in self.events:
            if kind != "accepted":
                disk.feed(kind, *rest)
        return disk.state()


@pytest.fixture(scope="module")
def launcher():
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def recordings(launcher):
    """Name to Recording: each scenario, and one with messages at the same time."""
    system = System(launcher)
    found = {scenario.name: Recording(system, scenario, 1) for scenario in SCENARIOS}
    yield found | {"together": Recording(system, SCENARIOS[3], 5)}
    system.remove()


NAMES = [*[scenario.name for scenario in SCENARIOS], "together"]


@pytest.mark.parametrize("name", NAMES)
def test_the_recording_is_complete(recordings, name):
    """What the model says is there without a cut is what was there."""
    assert recordings[name].final() == recordings[name].left


@pytest.mark.parametrize("name", NAMES)
def test_every_state_of_the_disk_has_what_was_accepted(recordings, name, record_property):
    recording = recordings[name]
    count, distinct = 0, set()
    for files, accepted, removed in recording.states():
        count += 1
        key = hash((frozenset(files.items()), accepted))
        if key not in distinct:
            distinct.add(key)
            assert recording.problem(files, accepted, removed) == "", sorted(files)
    record_property("states", count)
    print(f"power cut: {name}: {len(recording.events)} calls, {count} states, {len(distinct)} different")
    assert count > 150


@pytest.mark.parametrize("name", NAMES)
def test_everything_comes_to_its_end_after_a_cut(launcher, recordings, name, record_property):
    """The programs themselves, started on some of the states."""
    recording = recordings[name]
    states = list({(frozenset(files.items()), accepted): (files, accepted)
                   for files, accepted, _ in recording.states()}.values())
    chosen = random.Random(name).sample(states, min(STARTS, len(states)))
    cases = [(recording, *state) for state in chosen]
    with in_lanes(launcher, LANES, start_on, cases) as starts:
        for start in starts:
            start.result()
    record_property("starts", len(chosen))
    print(f"power cut: {name}: started on {len(chosen)} of {len(states)} states")


def start_on(system, recording, files, accepted):
    """Make the disk what *files* says, start, send what was not accepted, and look at the end."""
    system.kill()
    system.lay(files)
    system.start()
    for one in recording.expected:
        settle(system, recording.scenario, one.mark, one.first in accepted)
    system.kill()
    arrived = system.arrived()
    for one in recording.expected:
        for mailbox, kind in recording.scenario.outcome:
            assert 1 <= arrived.pop((mailbox, kind, one.mark)) <= 2, system.tail()
    assert arrived == {}
    for path in (system.path / "queue/bad").iterdir():      # delivered, but the body went first
        assert f"queue/mess/{ids.directory(path.name)}/{path.name}" not in files, system.tail()
        path.unlink()


@pytest.mark.parametrize("what", FLUSHES)
def test_a_flush_left_out_is_noticed(recordings, what):
    """The test of the test: no flush is there in vain, and the model sees it."""
    recording = recordings["one"]
    problems = [recording.problem(*state) for state in recording.states(without=FLUSHES[what])]
    assert any(problems)


class FileSystem:
    """An ext4 file system in a file, mounted with *options* below directory *path*."""

    def __init__(self, path, options):
        self.mounted = path / "mounted"
        self._image = path / "image"
        self._options = options
        self.mounted.mkdir()
        with open(self._image, "wb") as file:
            file.truncate(512 << 20)
        self._run("mkfs.ext4", "-q", "-m", "0", "-N", "20000", self._image)
        self.mount()

    def _run(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system to be cut off here: {command[0]}: {done.stderr.strip()}")

    def mount(self):
        self._run("mount", "-o", f"loop,commit=300,{self._options}", self._image, self.mounted)

    def unmount(self):
        """As soon as the last killed process is gone."""
        def is_unmounted():
            done = subprocess.run(["umount", self.mounted], capture_output=True, check=False)
            return done.returncode == 0
        wait_until(is_unmounted, f"the end of all use of {self.mounted}")

    def cut(self):
        """From now on nothing is written, not even the log (EXT4_IOC_SHUTDOWN)."""
        fd = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, 0x8004587D, struct.pack("=I", 2))
        finally:
            os.close(fd)


class CutAt:
    """A judge that cuts when mq-queue is about to say 250 for the *number*-th time. *flush*: whether
    fsync does anything. ``said``: the ids that were accepted."""

    def __init__(self, disk, number, flush):
        self._disk, self._number, self._flush = disk, number, flush
        self.said = []
        self.is_cut = threading.Event()

    def __call__(self, call):
        if call.kind == "send" and call.program == "mq-queue":
            self.said += _ACCEPTED.findall(call.data)
            if len(self.said) >= self._number and not self.is_cut.is_set():
                self._disk.cut()
                self.is_cut.set()
        return tracing.SKIP if call.kind == "sync" and not self._flush else None


@pytest.fixture
def cut_off(tmp_path, launcher, request):
    """A function that has a disk cut off while mail is accepted, and mounts it again; the system on it,
    and the names of the messages that had been accepted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4")
    top = tempfile.mkdtemp(prefix="mqmail-")      # a short name: sockets' may have 107 octets
    request.addfinalizer(lambda: shutil.rmtree(top))
    disk = FileSystem(Path(top), request.param)
    system = System(launcher, below=disk.mounted, log=tmp_path / "log")

    def run(number, scenario, without=(), flush=True):
        subprocess.run(["sync", "-f", disk.mounted], check=True)
        system.start(without)
        system.judge = judge = CutAt(disk, number, flush)
        accepted = {}

        deadline = time.monotonic() + SECONDS

        def send():
            while not judge.is_cut.is_set() and time.monotonic() < deadline:
                mark = system.mark()
                accepted[mark] = system.put(scenario, mark)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        system.kill()
        system.judge = None
        disk.unmount()
        disk.mount()
        assert {id for id in accepted.values() if id} <= {id.decode() for id in judge.said}
        return system, {mark for mark, id in accepted.items() if id}

    yield run
    system.kill()
    disk.unmount()


ROUNDS = 8 if ALL else 2
BOTH = pytest.mark.parametrize("cut_off", ["data=ordered", "data=writeback"], indirect=True)


@BOTH
@pytest.mark.parametrize("without", [(), ("mq-send",)], ids=["delivering", "queueing"])
def test_a_real_cut_loses_nothing(cut_off, without, record_property):
    total = 0
    for turn in range(ROUNDS):
        system, accepted = cut_off(5 + 10 * turn, SCENARIOS[3], without)
        system.start()
        for mark in accepted:
            settle(system, SCENARIOS[3], mark, True)
        system.kill()
        arrived = system.arrived()
        assert {("alice", "mail", mark) for mark in accepted} <= set(arrived)
        assert {("bob", "mail", mark) for mark in accepted} <= set(arrived)
        assert max(arrived.values()) <= 2
        system.empty_mailboxes()
        total += len(accepted)
    record_property("accepted", total)
    print(f"power cut: {ROUNDS} real ones, {total} messages accepted, none lost")
    assert total >= 10


@BOTH
def test_a_real_cut_without_flushes_loses_mail(cut_off):
    """The test of the test."""
    system, accepted = cut_off(5, SCENARIOS[3], ("mq-send",), flush=False)
    assert len(accepted) >= 5
    assert len(system.records()) < len(accepted)
