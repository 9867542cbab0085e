"""Any damage to any queue: mq-fsck ends with a sound one, and every octet that was there still is."""

import os
import shutil
import tempfile
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqmail.base import program
from mqmail.prog import mq_fsck
from mqmail.prog.mq_send import report
from mqmail.queue import check, ids, lines, paths, record
from mqmail.queue.check import Entry, Message, Seen, Setting
from support.queuefiles import path_of, put, tree
from support.queuefiles import record as record_of

slow = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
often = settings(deadline=None, max_examples=300)

NOW = 1732252800
OUTSIDE = "outside"         # what links point to: later damage goes through them
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1,
                max_size=120).filter(lambda name: name not in (".", ".."))
places = st.sampled_from(check.PLACES)
states = st.sampled_from(check.STATES)
contents = st.binary(max_size=60)


# --- pure ---

@given(st.lists(st.sampled_from(["queue", "wait", "mess", "3f", "1kq3v9s0c0g00a2f"]) | names, min_size=1,
                max_size=4))
@often
def test_a_name_in_bad_is_one_name(words):
    name = check.aside_name("/".join(["queue", *words]))
    assert 0 < len(name.encode("utf-8", "surrogateescape")) <= 250
    assert "/" not in name
    assert name not in (".", "..")


notifies = st.sampled_from([(), ("never",), ("success",), ("failure",), ("success", "failure"),
                            ("delay",)])


@st.composite
def histories(draw):
    """What mq-send writes about three recipients, cut anywhere."""
    text = lines.to_line("1", "mailbox", "a@b.example", draw(notifies))
    text += lines.to_line("2", "remote", "c@d.example", draw(notifies))
    for _ in range(draw(st.integers(0, 6))):
        seq = draw(st.sampled_from("123"))
        text += draw(st.sampled_from([
            lines.done_line(seq, NOW, "2.0.0"), lines.done_line(seq, NOW, "2.0.0", dsn=True),
            lines.fail_line(seq, NOW, "5.0.0"), lines.wait_line(seq, NOW, "4.0.0", NOW + 60),
            lines.told_line(seq, NOW, "failed"), lines.told_line(seq, NOW, "delivered")]))
    return text[:draw(st.integers(0, len(text)))]


ID = ids.make(NOW * 10**6, 77)


@given(histories())
@often
def test_what_is_settled_has_nothing_left_for_mq_send(history):
    data = record_of(ID, "x@a.example", "y@a.example", "z@a.example", more=history)
    text, found = check.understand(data), record.parse(data)
    assert text.complete
    assert data[:text.length] == data[:found.good_length]
    assert bool(text.torn) == (not data.endswith(b"\n"))
    left = [s for s in found.current()
            if s.kind not in ("done", "fail") or report.action(s) not in ("", "none")]
    if text.settled:
        assert left == []
    waits = [s.until for s in found.current() if s.kind == "wait"]
    assert text.until in (0, *waits)


def seen(path, mtime, size=100):
    return Seen(path, check.FILE, 8, 0o640, size, mtime, (1, hash(path)))


@given(histories(), states, st.booleans(), st.floats(NOW - 10 * 86400, NOW + 6 * 86400))
@often
def test_a_sound_message_is_no_problem(history, state, running, mtime):
    """Whatever its history; but for what is finished, or torn."""
    data = record_of(ID, "x@a.example", "y@a.example", "z@a.example", more=history)
    text = check.understand(data)
    entry = Entry(seen(path_of(state, ID), mtime, len(data)), text)
    message = Message(ID, (entry,), Entry(seen(path_of("mess", ID), mtime)), False, False)
    found = check.judge(message, Setting(NOW, running, 8, 604800))
    assert [one.kind for one in found] == ["torn"] * bool(text.torn) + ["finished"] * text.settled


@given(st.binary(max_size=200) | histories() | st.builds(
    lambda cut: record_of(ID)[:cut], st.integers(0, 250)))
@often
def test_a_message_in_flight_is_no_problem(data):
    """Body alone, or any part of the record in ``new``, or removed in any order that mq-send may."""
    setting = Setting(NOW, True, 8, 604800)
    body = Entry(seen(path_of("mess", ID), NOW - 100))
    assert check.judge(Message(ID, (), body, False, False), setting) == []
    assert check.judge(Message(ID, (), None, False, False), setting) == []
    text = check.understand(data)
    if not text.error and not text.complete:
        half = Entry(seen(path_of("new", ID), NOW - 1, len(data)), text)
        assert check.judge(Message(ID, (half,), body, False, False), setting) == []


# --- the whole ---

def unlink(path, *_):
    os.unlink(path)


def cut(path, _id, length):
    os.truncate(path, length)


def append(path, _id, data):
    with open(path, "ab") as file:
        file.write(data)


def overwrite(path, _id, data):
    with open(path, "wb") as file:
        file.write(data)


def copy(path, _id, place, name):
    shutil.copy(path, f"queue/{place}/3f/{name}")


def copy_to(path, id, place):
    shutil.copy(path, path_of(place, id))


def link(path, id, place):
    os.link(path, path_of(place, id))


def move(path, id, bucket):
    os.rename(path, f"queue/{path.split('/')[1]}/{bucket:02x}/{id}")


def rename(path, _id, other):
    os.rename(path, f"{os.path.dirname(path)}/{other}")


def swap(path, _id, other):
    os.rename(path, path_of(path.split("/")[1], other))


def add_file(_path, _id, place, name, data):
    with open(f"queue/{place}/3f/{name}", "xb") as file:
        file.write(data)


def add_directory(_path, _id, place, name):
    os.mkdir(f"queue/{place}/{name}")


def add_link(_path, _id, place, name):
    os.symlink(os.path.abspath(OUTSIDE), f"queue/{place}/3f/{name}")


def replace_by_link(path, *_):
    os.unlink(path)
    os.symlink(os.path.abspath(OUTSIDE), path)


def change_mode(path, _id, mode):
    os.chmod(path, mode)


def change_time(path, _id, mtime):
    os.utime(path, (mtime, mtime))


def lose_directory(path, *_):
    folder = os.path.dirname(path)
    os.rename(folder, f"{os.path.dirname(folder)}/gone")


def fill_bad(_path, id, place, data):
    with open(f"queue/bad/{id}.{place}", "xb") as file:
        file.write(data)


damages = st.one_of(
    st.tuples(st.sampled_from([unlink, replace_by_link, lose_directory])),
    st.tuples(st.just(cut), st.integers(0, 120)),
    st.tuples(st.sampled_from([append, overwrite]), contents),
    st.tuples(st.sampled_from([copy, add_directory, add_link]), places, names),
    st.tuples(st.sampled_from([copy_to, link]), places), st.tuples(st.just(move), st.integers(0, 255)),
    st.tuples(st.just(rename), names), st.tuples(st.just(swap), st.just(ids.make(5, 5))),
    st.tuples(st.just(add_file), places, names, contents),
    st.tuples(st.just(change_mode), st.integers(0, 0o777)),
    st.tuples(st.just(change_time), st.integers(-10, 2**33)),
    st.tuples(st.just(fill_bad), states, contents))


def harm(damage, place, id):
    """Do it to the file of message *id* in *place*, if it can be done."""
    change, *more = damage
    try:
        change(path_of(place, id), id, *more)
    except OSError:
        pass


def fsck(*arguments):
    """Its exit code, and its lines."""
    with tempfile.TemporaryFile() as output:
        pid = os.fork()                     # its locks end with it
        if pid == 0:
            os.dup2(output.fileno(), 1)
            mq_fsck.PAUSE = 0.0
            os._exit(program.run("mq-fsck", mq_fsck.main, ["--home", ".", "-q", *arguments]))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        return code, output.read().decode().splitlines()


@given(st.lists(st.tuples(damages, places, st.integers(0, 3)), min_size=1, max_size=8))
@slow
def test_any_damage_is_repaired_and_nothing_is_lost(harms):
    before_all = os.getcwd()
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        try:
            check_one(harms)
        finally:
            os.chdir(before_all)


def check_one(harms):
    for name in ("control", "run"):
        os.mkdir(name)
    paths.make_directories(".")
    waits = lines.wait_line("1", NOW, "4.2.1", int(time.time()) + 500)
    with open(OUTSIDE, "wb") as file:
        file.write(record_of(ID))
    messages = [put("new"), put("wait", waits), put("hold", waits), put("wait", waits)]
    sound = put("wait", waits)
    for damage, place, number in harms:
        harm(damage, place, messages[number])
    before = tree()
    found = fsck()
    assert found[0] in (0, 1)
    assert tree() == before
    assert all(line.isprintable() and line.endswith("]") for line in found[1])
    code, said = fsck("--repair")
    assert code == 0, said
    assert bool(said) == bool(found[1])
    assert fsck() == (0, [])
    after = tree()
    kept = list(after.values())
    for path, data in before.items():
        whole = data[:data.rfind(b"\n") + 1]        # a torn line is cut
        assert data in kept or whole in kept, path
    for place in ("mess", "wait"):
        assert after[path_of(place, sound)] == before[path_of(place, sound)]
    assert all(os.lstat(f"{folder}/{name}").st_nlink < 3
               for folder, _, names in os.walk("queue") for name in names)
