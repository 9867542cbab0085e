"""mq-fsck: each kind of damage, how it is named, and that its repair loses nothing."""

import os
import threading
import time

import pytest

from mqmail.base import lock, program
from mqmail.prog import mq_fsck
from mqmail.queue import check, ids, lines, orphans, paths
from mqmail.queue.check import Entry, Message, Seen, Setting, Text
from support.queuefiles import new_id, path_of, put, record, tree, write

NOW = 1732252800
WAITS = lines.wait_line("1", NOW, "4.2.1", int(time.time()) + 500)
TOLD = lines.fail_line("1", NOW, "5.1.1") + lines.told_line("1", NOW, "failed")
HOURS = 3600.0


@pytest.fixture
def fsck(tmp_path, monkeypatch, capfd):
    """A function that runs mq-fsck on a home, which is the current directory, and gives its exit code
    and its lines; the pause between two looks is short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mq_fsck, "PAUSE", 0.01)
    for name in ("control", "run"):
        os.mkdir(name)
    paths.make_directories(".")

    def run(*arguments, uid=None):
        pid = os.fork()                 # its locks end with it
        if pid == 0:
            if uid is not None:
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os._exit(program.run("mq-fsck", mq_fsck.main, ["--home", ".", "-q", *arguments]))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = capfd.readouterr()
        assert (said.err == "") == (code in (0, 1))
        return code, said.out.splitlines() or said.err.splitlines()

    return run


def repaired(fsck, before):
    """Repair; every content is still there, and all is well. What was said."""
    code, said = fsck("--repair")
    assert code == 0, said
    assert fsck() == (0, [])
    missing = [path for path, data in before.items() if data not in tree().values()]
    assert missing == []
    return said


def problem(fsck, path, kind):
    """The one line that a check prints; it changes nothing."""
    before = tree()
    code, said = fsck()
    assert code == 1
    assert len(said) == 1, said
    assert said[0].startswith(f"{path}: {kind}: ")
    assert " [repair: " in said[0]
    assert tree() == before
    return before


def test_a_sound_queue(fsck):
    put("new")
    put("wait", WAITS)
    put("hold")
    aside = new_id()
    write(f"queue/bad/{aside}", b"whatever")
    write(path_of("mess", aside), b"its body\r\n")
    write("queue/bad/what is this", b"")
    os.mkdir("queue/lost+found")
    before = tree()
    assert fsck() == (0, [])
    assert fsck("--repair") == (0, [])
    assert tree() == before


def test_a_body_without_a_record(fsck):
    id = new_id()
    write(path_of("mess", id), b"body\r\n")
    before = problem(fsck, path_of("mess", id), "no-record")
    said = repaired(fsck, before)
    assert said == [f"{path_of('mess', id)}: no-record: a body of 6 bytes without a record"
                    f" [repaired: move to queue/bad/{id}.mess]"]


@pytest.mark.parametrize("name", ["mq-queue", "mq-send"])
def test_what_may_be_under_way_is_no_problem(fsck, name):
    """Not before mq-send would have removed it."""
    fresh, old = new_id(), new_id(age=39 * HOURS)
    for id, age in ((fresh, 0), (old, 37 * HOURS)):
        write(path_of("mess", id), b"body\r\n", time.time() - age)
        write(path_of("new", id), b"mqmail1 " + id.encode(), time.time() - age)
    fd = lock.hold(f"run/{name}.lock", name)
    assert fsck() == (0, [])
    assert fsck("--repair") == (0, [])
    os.utime(path_of("mess", old), (0, 0))
    os.utime(path_of("new", old), (0, 0))
    problem(fsck, path_of("new", old), "incomplete")
    os.unlink(path_of("new", old))
    problem(fsck, path_of("mess", old), "no-record")
    os.close(fd)
    assert sorted([line.split(": ")[1] for line in fsck()[1]]) == ["incomplete", "no-record"]


def test_a_record_without_its_body(fsck):
    id = put("wait", WAITS)
    os.unlink(path_of("mess", id))
    before = problem(fsck, path_of("wait", id), "no-body")
    repaired(fsck, before)
    assert os.listdir("queue/bad") == [f"{id}.wait"]


@pytest.mark.parametrize("place", ["new", "wait", "hold"])
@pytest.mark.parametrize("data", [b"", b"mqmail1 ", "head"])
def test_a_record_without_ok(fsck, place, data):
    id = put(place)
    data = record(id)[:-3] if data == "head" else data
    write(path_of(place, id), data, time.time())
    before = problem(fsck, path_of(place, id), "incomplete")
    repaired(fsck, before)
    assert os.listdir("queue/bad") == [f"{id}.{place}"]
    assert os.path.exists(path_of("mess", id))      # its body, which store does not take for an orphan
    os.utime(path_of("mess", id), (1, 1))
    assert [path for path in orphans.remove_orphans(time.time()) if path] == []


def test_a_torn_line_is_cut_and_the_time_kept(fsck):
    id = put("wait", WAITS + b"done 1 173225\xff")
    path = path_of("wait", id)
    due = os.stat(path).st_mtime_ns
    problem(fsck, path, "torn")
    code, said = fsck("--repair")
    assert code == 0
    assert "done 1 173225" in said[0]
    assert tree()[path] == record(id, more=WAITS)
    assert os.stat(path).st_mtime_ns == due
    assert fsck() == (0, [])


@pytest.mark.parametrize("junk", [b"what is this\n", b"\0" * 4096 + b"\n", b"done 9 1 2.0.0\n",
                                  b"x" * 70000])
def test_a_bad_record(fsck, junk):
    id = put("wait", junk)
    before = problem(fsck, path_of("wait", id), "bad")
    repaired(fsck, before)
    assert os.listdir("queue/bad") == [f"{id}.wait"]


def test_a_body_of_another_size(fsck):
    id = put("new")
    write(path_of("mess", id), b"short\r\n")
    before = problem(fsck, path_of("new", id), "size")
    repaired(fsck, before)
    assert tree()[path_of("mess", id)] == b"short\r\n"


@pytest.mark.parametrize("name", ["{other}", "lost.txt", "#123"])
@pytest.mark.parametrize("bucket", ["", "00/", "7f/"])
def test_a_record_under_another_name_finds_its_place(fsck, name, bucket):
    """What a file system's check has found, and an admin has put into the queue."""
    id, other = put("wait", WAITS), new_id()
    wrong = f"queue/wait/{bucket}{name.format(other=other)}"
    os.rename(path_of("wait", id), wrong)
    due = os.stat(wrong).st_mtime_ns
    code, said = fsck()
    assert code == 1
    assert len(said) == 2                               # and a body without a record
    repaired(fsck, tree())
    assert tree()[path_of("wait", id)] == record(id, more=WAITS)
    assert os.stat(path_of("wait", id)).st_mtime_ns == due
    assert os.listdir("queue/bad") == []


def test_a_record_with_the_name_of_another_message(fsck):
    id, other = put("new"), put("new")
    os.unlink(path_of("new", id))
    os.unlink(path_of("mess", id))
    write(path_of("new", id), record(other))
    before = problem(fsck, path_of("new", id), "misnamed")
    repaired(fsck, before)
    assert os.listdir("queue/bad") == [f"{id}.new"]


def test_a_wrong_directory(fsck):
    id = put("wait", WAITS)
    wrong = "00" if ids.directory(id) != "00" else "01"
    for place in ("wait", "mess"):
        os.rename(path_of(place, id), f"queue/{place}/{wrong}/{id}")
    code, said = fsck()
    assert (code, len(said)) == (1, 2)
    assert all(": misplaced: " in line for line in said)
    repaired(fsck, tree())
    assert sorted(tree()) == [path_of("mess", id), path_of("wait", id)]


def test_a_wrong_directory_when_the_right_place_is_taken(fsck):
    id = put("wait", WAITS)
    wrong = "00" if ids.directory(id) != "00" else "01"
    write(f"queue/wait/{wrong}/{id}", record(id, more=b"what\n"))
    write(f"queue/mess/{wrong}/{id}", b"another")
    before = tree()
    repaired(fsck, before)
    assert sorted(os.listdir("queue/bad")) == [f"{id}.mess", f"{id}.wait"]
    assert tree()[path_of("wait", id)] == record(id, more=WAITS)


def test_the_same_id_twice(fsck):
    """The longer record is the later; a second name of the same file is nothing."""
    id, same = put("new"), put("wait", WAITS)
    write(path_of("wait", id), record(id, more=WAITS))
    os.link(path_of("wait", same), path_of("new", same))
    code, said = fsck()
    assert (code, len(said)) == (1, 2)
    before = tree()
    said = repaired(fsck, before)
    assert os.listdir("queue/bad") == [f"{id}.new"]
    assert not os.path.exists(path_of("new", same))
    assert tree()[path_of("wait", same)] == record(same, more=WAITS)
    assert tree()[path_of("wait", id)] == record(id, more=WAITS)


@pytest.mark.parametrize("more", [b"", WAITS + b"what\n"], ids=["", "more"])
def test_of_two_records_the_one_that_knows_more_stays(fsck, more):
    id = put("new", WAITS)
    write(path_of("wait", id), record(id, more=more))
    repaired(fsck, tree())
    assert os.listdir("queue/bad") == [f"{id}.wait"]
    assert tree()[path_of("new", id)] == record(id, more=WAITS)


@pytest.mark.parametrize("body", [None, b"short"])
def test_a_record_goes_nowhere_without_its_body(fsck, body):
    id = put("new")
    os.unlink(path_of("mess", id))
    os.rename(path_of("new", id), "queue/new/note")
    if body is not None:
        write(f"queue/mess/{ids.directory(id)}/{id}", body)
    assert "[repair: move to queue/bad/new.note]" in fsck()[1][0]
    repaired(fsck, tree())
    assert "new.note" in os.listdir("queue/bad")


@pytest.mark.parametrize("place", ["new", "wait", "hold"])
@pytest.mark.parametrize("part", [0, 40, None])
def test_a_copy_that_mq_send_began(fsck, place, part):
    """All that it has the record has."""
    id = put(place, WAITS)
    copy = write(path_of("wait", id) + paths.COPY, record(id, more=WAITS)[:part])
    before = problem(fsck, copy, "leftover")
    del before[copy]
    [line] = repaired(fsck, before)
    assert line.endswith("[repaired: remove the copy]")
    assert tree() == before


def test_a_copy_is_left_to_mq_send_while_that_runs(fsck):
    id = put("new")
    copy = write(path_of("wait", id) + paths.COPY, record(id)[:40])
    held = lock.hold("run/mq-send.lock", "mq-send")
    assert fsck() == (0, [])
    assert fsck("--repair") == (0, [])
    long_ago = time.time() - 39 * HOURS
    os.utime(copy, (long_ago, long_ago))
    code, said = fsck("--repair")
    assert (code, len(said)) == (1, 1)
    assert said[0].endswith("[left: remove the copy: stop mq-send first]")
    os.close(held)


def test_a_copy_that_says_something_else_is_kept(fsck):
    id = put("wait")
    write(path_of("wait", id) + paths.COPY, record(id, more=WAITS))
    repaired(fsck, tree())
    assert os.listdir("queue/bad") == [f"wait.{ids.directory(id)}.{id}{paths.COPY}"]


def test_a_copy_whose_record_is_gone_is_the_record(fsck):
    whole, part = put("new"), put("new")
    os.rename(path_of("new", whole), path_of("wait", whole) + paths.COPY)
    os.rename(path_of("new", part), path_of("wait", part) + paths.COPY)
    os.truncate(path_of("wait", part) + paths.COPY, 40)
    repaired(fsck, tree())
    assert tree()[path_of("wait", whole)] == record(whole)
    assert sorted(os.listdir("queue/bad")) == sorted(
        [f"{part}.mess", f"wait.{ids.directory(part)}.{part}{paths.COPY}"])


def test_bad_is_never_overwritten(fsck):
    id = put("wait", b"what\n")
    write(f"queue/bad/{id}.wait", b"first")
    write(f"queue/bad/{id}.wait.1", b"second")
    repaired(fsck, tree())
    assert len(os.listdir("queue/bad")) == 3


def test_a_move_that_was_cut_off_between_its_two_names(fsck):
    id = put("wait", b"what\n")
    os.link(path_of("wait", id), f"queue/bad/{id}.wait")
    repaired(fsck, tree())
    assert os.listdir("queue/bad") == [f"{id}.wait"]


@pytest.mark.parametrize("path", ["queue/note", "queue/wait/note", "queue/mess/3f/.note.123",
                                  "queue/new/3f/a b\n\x1b[2J", "queue/hold/3f/\udcff", "queue/...",
                                  "queue/wait/3f/" + "\u20ac" * 80])
@pytest.mark.parametrize("form", ["file", "directory", "symlink", "fifo"])
def test_foreign_things(fsck, path, form):
    put("new")
    raw = os.fsencode(path)
    if form == "file":
        write(raw.decode("utf-8", "surrogateescape"), b"important")
    elif form == "directory":
        os.mkdir(raw)
        write(f"{path}/inside", b"important")
    elif form == "symlink":
        with open("precious", "wb") as file:
            file.write(b"precious")
        os.symlink(os.path.abspath("precious"), raw)
    else:
        os.mkfifo(raw)
    code, said = fsck()
    assert (code, len(said)) == (1, 1)
    assert said[0].isprintable()
    assert said[0].split(": ")[1] == ("foreign" if form in ("file", "directory") else
                                      "special" if form == "fifo" else form)
    before = tree()
    repaired(fsck, before)
    assert len(os.listdir("queue/bad")) == 1
    target = f"queue/bad/{os.listdir('queue/bad')[0]}"
    assert os.path.islink(target) == (form == "symlink")
    assert os.path.isdir(target) == (form == "directory")


@pytest.mark.parametrize("place", ["new", "mess"])
def test_no_regular_file_where_one_belongs(fsck, place):
    id = put("new")
    os.rename(path_of(place, id), "elsewhere")
    os.symlink(os.path.abspath("elsewhere"), path_of(place, id))
    problem(fsck, path_of(place, id), "symlink")
    code, _ = fsck("--repair")
    assert code == 0
    assert os.path.islink(f"queue/bad/{id}.{place}")
    assert os.path.getsize("elsewhere") > 0
    assert fsck() == (0, [])


def test_missing_directories(fsck):
    for path in ("queue/wait/3f", "queue/bad"):
        os.rmdir(path)
    for number in range(256):
        os.rmdir(f"queue/hold/{number:02x}")
    os.rmdir("queue/hold")
    id = put("new", b"what\n")
    code, said = fsck()
    assert code == 1
    assert [line.split(":")[:2] for line in said] == [
        ["queue/bad", " missing"], ["queue/hold", " missing"], *sorted([
            ["queue/wait/3f", " missing"], [path_of("new", id), " bad"]],
            key=lambda one: one[0].split("/")[2])]
    repaired(fsck, tree())
    assert os.listdir("queue/bad") == [f"{id}.new"]
    assert len(os.listdir("queue/hold")) == 256


def test_a_directory_that_is_a_link_to_another_disk_is_left_alone(fsck):
    """And nothing is said to be missing that may be there."""
    id = put("wait", WAITS)
    os.rename("queue/wait", "elsewhere")
    os.symlink("../elsewhere", "queue/wait")
    assert fsck() == (1, ["queue/wait: symlink: a symbolic link instead of a directory: not followed"
                          " [repair: by hand]"])
    code, said = fsck("--repair")
    assert code == 1
    assert said == ["queue/wait: symlink: a symbolic link instead of a directory: not followed"
                    " [left: by hand]"]
    assert os.path.islink("queue/wait")
    assert os.path.exists(path_of("mess", id))


def test_a_file_instead_of_a_directory(fsck):
    os.rmdir("queue/wait/3f")
    write("queue/wait/3f", b"important")
    before = problem(fsck, "queue/wait/3f", "foreign")
    repaired(fsck, before)
    assert os.path.isdir("queue/wait/3f")
    assert os.listdir("queue/bad") == ["wait.3f"]


@pytest.mark.parametrize(("mode", "good"), [(0o640, True), (0o600, True), (0o644, False), (0o660, False),
                                            (0o440, False), (0o750, False), (0o4640, False)])
def test_modes_of_files(fsck, mode, good):
    id = put("new")
    path = path_of("mess", id)
    os.chmod(path, mode)
    if good:
        assert fsck() == (0, [])
    else:
        repaired(fsck, problem(fsck, path, "mode"))
        assert os.stat(path).st_mode & 0o7777 == 0o640


@pytest.mark.parametrize(("path", "mode"), [("queue", 0o755), ("queue/bad", 0o777),
                                            ("queue/wait/3f", 0o770)])
def test_modes_of_directories(fsck, path, mode):
    os.chmod(path, mode)
    repaired(fsck, problem(fsck, path, "mode"))
    assert os.stat(path).st_mode & 0o7777 == 0o750


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@needs_root
def test_owners(fsck):
    """Root mends as the owner of the home, but for giving away; and only what has no other name."""
    id, linked = put("new"), put("new")
    for top in (".", "queue"):
        for folder, names, files in os.walk(top):
            for name in [".", *names, *files]:
                os.chown(f"{folder}/{name}", 65534, 65534)
    os.link(path_of("mess", linked), "another name")
    for path in ("queue/wait/3f", path_of("new", id), path_of("mess", id), path_of("mess", linked)):
        os.chown(path, 0, 0)
    os.chmod(path_of("new", id), 0o600)
    os.chmod("queue/wait/3f", 0o700)
    write("queue/note", b"of root")
    os.chmod(".", 0o755)
    code, said = fsck()
    assert code == 1
    assert sorted([line.split(": ")[1] for line in said]) == ["foreign", *["owner"] * 4]
    code, said = fsck("--repair")
    assert code == 1
    assert said[-1].startswith(f"{path_of('mess', linked)}: owner: belongs to uid 0 [left: give it to")
    for path in ("queue/wait/3f", path_of("new", id), path_of("mess", id)):
        assert os.stat(path).st_uid == 65534
    assert os.stat("another name").st_uid == 0
    os.chown("another name", 65534, 65534)
    assert fsck() == (0, [])


@needs_root
def test_what_cannot_be_read_hides_nothing_from_repair(fsck):
    """A directory that is closed to us may hold the record: its body is not taken away."""
    id = put("wait", WAITS)
    bucket = os.path.dirname(path_of("wait", id))
    for folder, names, files in os.walk("."):
        for name in [".", *names, *files]:
            os.chown(f"{folder}/{name}", 65534, 65534)
    os.chown(bucket, 0, 0)
    os.chmod(bucket, 0o700)
    before = tree()
    os.chmod(".", 0o755)
    code, said = fsck("--repair", uid=65534)
    assert code == 1
    assert said[0].split(": ")[:2] == [bucket, "owner"]
    assert tree() == before


@pytest.mark.parametrize(("mtime", "good"), [
    (1, True), (0, False), (-5, False), (time.time() + 6 * 86400, True),
    (time.time() + 9 * 86400, False)], ids=["1", "0", "-5", "6 days", "9 days"])
def test_times_of_next_attempts(fsck, mtime, good):
    id, new = put("wait", WAITS), put("new")
    os.utime(path_of("new", new), (mtime, mtime))
    os.utime(path_of("wait", id), (mtime, mtime))
    if good:
        assert fsck() == (0, [])
        return
    repaired(fsck, problem(fsck, path_of("wait", id), "time"))
    until = int(WAITS.rpartition(b"until=")[2])
    assert os.stat(path_of("wait", id)).st_mtime == until       # what the record says


def test_a_time_that_the_record_does_not_know(fsck):
    id = put("wait", due=1e9)
    problem(fsck, path_of("wait", id), "time")
    assert fsck("--repair")[0] == 0
    assert abs(os.stat(path_of("wait", id)).st_mtime - time.time()) < 60


@pytest.mark.parametrize("place", ["new", "wait", "hold"])
@pytest.mark.parametrize("body", [True, False])
def test_a_finished_message_is_removed(fsck, place, body):
    id = put(place, TOLD)
    kept = put(place, lines.fail_line("1", NOW, "5.1.1"))       # nobody has been told yet
    if not body:
        os.unlink(path_of("mess", id))
    problem(fsck, path_of(place, id), "finished")
    assert fsck("--repair")[0] == 0
    assert set(tree()) == {path_of("mess", kept), path_of(place, kept)}
    assert fsck() == (0, [])


def test_beside_mq_send_only_what_is_not_its_own(fsck):
    fd = lock.hold("run/mq-send.lock", "mq-send")
    bad, torn = put("wait", b"what\n"), put("wait", WAITS + b"torn")
    id, moved = put("new"), put("wait", WAITS)
    wrong = "00" if ids.directory(moved) != "00" else "01"
    os.rename(path_of("mess", moved), f"queue/mess/{wrong}/{moved}")
    os.chmod(path_of("new", id), 0o666)
    os.rmdir("queue/hold/3f")
    write("queue/wait/3f/note", b"note")
    code, said = fsck("--repair")
    assert code == 1
    left = [line for line in said if "[left: " in line]
    assert sorted([line.split(":")[0] for line in left]) == sorted([path_of("wait", bad),
                                                                    path_of("wait", torn)])
    assert all(line.endswith(": stop mq-send first]") for line in left)
    assert os.path.exists(path_of("mess", moved))
    assert os.path.exists("queue/hold/3f")
    assert os.listdir("queue/bad") == ["wait.3f.note"]
    os.close(fd)


def test_two_repairs_at_a_time(fsck):
    fd = lock.hold("run/mq-fsck.lock", "mq-fsck --repair")
    code, said = fsck("--repair")
    assert code == 111
    assert "mq-fsck --repair already runs here" in said[0]
    assert fsck() == (0, [])
    os.close(fd)


def test_what_changes_between_two_looks_is_alive(fsck, monkeypatch):
    """Each look finds another state of a record that is being written."""
    monkeypatch.setattr(mq_fsck, "PAUSE", 0.5)
    path, ended = path_of("wait", put("wait", WAITS)), threading.Event()
    whole = tree()[path]

    def live():
        number = 0
        while not ended.is_set():
            number += 1
            write(path, whole + b"wait 1 " + str(number).encode())

    writer = threading.Thread(target=live)
    writer.start()
    try:
        found = fsck()
    finally:
        ended.set()
        writer.join()
    assert found == (0, [])
    assert fsck()[0] == 1


# --- the judgement alone ---

def seen(path, form=check.FILE, mtime=NOW, size=100):
    return Seen(path, form, 8, 0o640, size, mtime, (1, hash(path)))


def test_what_is_in_flight():
    """A body whose record is not there yet, a record that is not whole yet; but not for ever."""
    id = ids.make(NOW * 10**6, 5)
    body = Entry(seen(f"queue/mess/{ids.directory(id)}/{id}"))
    half = Entry(seen(f"queue/new/{ids.directory(id)}/{id}"), Text(length=20))
    waits = Entry(seen(f"queue/wait/{ids.directory(id)}/{id}"), Text(length=20))
    running, stopped = Setting(NOW + 10, True, 8, 604800), Setting(NOW + 10, False, 8, 604800)
    late = Setting(NOW + 40 * 3600, True, 8, 604800)
    for entries, kind in (((), "no-record"), ((half,), "incomplete")):
        message = Message(id, entries, body, False, False)
        assert check.judge(message, running) == []
        assert [one.kind for one in check.judge(message, stopped)] == [kind]
        assert [one.kind for one in check.judge(message, late)] == [kind]
    assert [one.kind for one in check.judge(Message(id, (waits,), body, False, False), running)] == [
        "incomplete"]
    assert check.judge(Message(id, (), body, True, False), stopped) == []
    assert check.judge(Message(id, (), body, False, True), stopped) == []
