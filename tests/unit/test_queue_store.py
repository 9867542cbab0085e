import errno
import os
import resource
import shutil
import subprocess
import sys

import pytest

from mqmail.base.failure import BadFile
from mqmail.queue import ids, incoming, lines, orphans, paths, record, store
from mqmail.queue.together import at_once

NOW = 1732252800123456
PLACES = ("mess", "new", "wait", "hold")


@pytest.fixture()
def home(tmp_path, monkeypatch):
    paths.make_directories(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def head(id: str, size: int = 6) -> bytes:
    return lines.head(record.Envelope(id, NOW / 1e6, size, False, False, "a@b.example", "", "", {}),
                      [record.Recipient("1", "new", "c@d.example")])


def begun(at: int = NOW, body: bytes = b"body\r\n") -> incoming.Incoming:
    message = incoming.Incoming.begin(at, 7)
    message.write(body)
    return message


def accepted(at: int = NOW) -> str:
    message = begun(at)
    assert incoming.commit([(message, head(message.id))]) == {message: None}
    return message.id


def path(place: str, id: str) -> str:
    return f"queue/{place}/{ids.directory(id)}/{id}"


def everything() -> list[str]:
    return sorted(f"{where[6:]}/{name}" for where, _, names in os.walk("queue") for name in names)


# Directories

def test_make_directories_makes_all_and_changes_nothing_that_is_there(home):
    for place in PLACES:
        assert sorted(os.listdir(f"queue/{place}")) == [f"{n:02x}" for n in range(256)]
    assert os.path.isdir("queue/bad")
    os.chmod("queue/new", 0o700)
    id = accepted()
    shutil.rmtree("queue/hold")
    paths.make_directories(str(home))
    assert os.stat("queue/new").st_mode & 0o777 == 0o700
    assert store.read("new", id) == head(id)
    assert len(os.listdir("queue/hold")) == 256


def test_space_is_what_the_system_says(home):
    size, inodes = paths.space()
    assert size == pytest.approx(shutil.disk_usage("queue").free, rel=0.05)
    assert inodes == pytest.approx(os.statvfs("queue").f_favail, rel=0.05)


# Accepting

def test_a_committed_message_is_body_and_record(home):
    message = begun(body=b"one\r\n")
    message.write(b"two\r\n")
    assert message.size == 10
    assert everything() == [f"mess/{ids.directory(message.id)}/{message.id}"]
    assert incoming.commit([(message, head(message.id, 10))]) == {message: None}
    assert store.read("new", message.id) == head(message.id, 10)
    with open(path("mess", message.id), "rb") as body:
        assert body.read() == b"one\r\ntwo\r\n"
    for place in ("mess", "new"):
        assert os.stat(path(place, message.id)).st_mode & 0o777 == 0o640 & ~umask()


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_abort_leaves_nothing_but_never_touches_what_is_committed(home):
    message = begun()
    message.abort()
    message.abort()
    assert everything() == []
    kept = begun()
    incoming.commit([(kept, head(kept.id))])
    kept.abort()
    assert len(everything()) == 2


def test_an_id_that_is_taken_moves_on_to_the_next_microsecond(home):
    messages = [begun() for _ in range(5)]
    assert [ids.microseconds(m.id) for m in messages] == [NOW + n for n in range(5)]


def test_missing_directories_are_made(home):
    bucket = ids.directory(ids.make(NOW, 7))
    for place in PLACES:
        os.rmdir(f"queue/{place}/{bucket}")
    id = accepted()
    store.move(id, "new", "wait")
    assert everything() == [f"mess/{bucket}/{id}", f"wait/{bucket}/{id}"]


def test_one_message_of_a_batch_fails_alone(home):
    messages = [begun(NOW + n) for n in range(3)]
    other = path("new", messages[1].id)
    with open(other, "wb") as taken:
        taken.write(b"somebody's")
    results = incoming.commit([(m, head(m.id)) for m in messages])
    assert [type(results[m]) for m in messages] == [type(None), FileExistsError, type(None)]
    with open(other, "rb") as taken:
        assert taken.read() == b"somebody's"
    assert not os.path.exists(path("mess", messages[1].id))
    assert len(everything()) == 5


def test_a_directory_that_cannot_be_synced_fails_its_messages_only(home):
    near, far = begun(NOW), begun(NOW + (1 << 14))
    bucket = ids.directory(near.id)
    os.rename(f"queue/mess/{bucket}", "queue/mess/elsewhere")
    results = incoming.commit([(near, head(near.id)), (far, head(far.id))])
    assert isinstance(results[near], FileNotFoundError)
    assert results[far] is None
    assert not os.path.exists(path("new", near.id))
    assert store.read("new", far.id) == head(far.id)


def test_a_body_that_somebody_removed_is_not_acknowledged(home):
    message = begun()
    os.unlink(path("mess", message.id))
    assert isinstance(incoming.commit([(message, head(message.id))])[message], FileNotFoundError)
    assert everything() == []


def limited(limit: int):
    """Files may not grow beyond *limit* bytes: a write is short, then fails with EFBIG."""
    class Limit:
        def __enter__(self):
            self.old = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, self.old[1]))

        def __exit__(self, *_):
            resource.setrlimit(resource.RLIMIT_FSIZE, self.old)
    return Limit()


def test_a_short_write_of_a_body_is_an_error(home):
    message = incoming.Incoming.begin(NOW, 7)
    with limited(1000), pytest.raises(OSError) as caught:
        message.write(b"x" * 1500)
    assert caught.value.errno == errno.EFBIG
    assert os.stat(path("mess", message.id)).st_size == 1000
    message.abort()
    assert everything() == []


def test_a_short_write_of_a_record_leaves_nothing(home):
    message = begun()
    with limited(50):
        results = incoming.commit([(message, head(message.id))])
    assert results[message].errno == errno.EFBIG
    assert everything() == []


@pytest.fixture()
def tiny(tmp_path, monkeypatch):
    """A home on a file system of 2 MiB and 1100 inodes."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=1100", "tmpfs", tmp_path]
    if os.getuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    try:
        paths.make_directories(str(tmp_path))
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            yield tmp_path
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk(tiny):
    message = incoming.Incoming.begin(NOW, 7)
    with pytest.raises(OSError) as caught:
        for _ in range(100):
            message.write(b"x" * 65536)
    assert caught.value.errno == errno.ENOSPC
    assert paths.space()[0] == 0
    message.abort()
    assert everything() == []
    assert paths.space()[0] > 1 << 20


def test_a_disk_that_is_full_when_the_record_comes(tiny):
    message = begun()
    with open("filler", "wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(b"x" * 4096)
    results = incoming.commit([(message, head(message.id))])
    assert results[message].errno == errno.ENOSPC
    assert everything() == []


def test_no_inodes(tiny):
    made = []
    with pytest.raises(OSError) as caught:
        for n in range(2000):
            made.append(incoming.Incoming.begin(NOW + n, 7))
    assert caught.value.errno == errno.ENOSPC
    assert paths.space()[1] == 0
    results = incoming.commit([(m, head(m.id)) for m in made])
    assert {e.errno for e in results.values()} == {errno.ENOSPC}
    assert everything() == []


_BATCH = """
import sys
from mqmail.queue import incoming
messages = [incoming.Incoming.begin(413000000 << 22 | n, 7) for n in range(int(sys.argv[1]))]
for m in messages:
    m.write(b"x")
print([e for e in incoming.commit([(m, b"record") for m in messages]).values() if e is not None])
"""


def traced(count: int, *options: str) -> tuple[str, list[str]]:
    """Commit a batch under strace; (what it printed, the paths of its fsyncs below the home)."""
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    lib = os.path.dirname(os.path.dirname(os.path.dirname(store.__file__)))
    done = subprocess.run(
        ["strace", "-f", "-o", "trace", "-y", "-e", "trace=fsync,fdatasync", *options,
         sys.executable, "-c", _BATCH, str(count)],
        check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": lib})
    with open("trace") as trace:
        synced = [line.split("<")[1].split(">")[0] for line in trace if "sync(" in line]
    return done.stdout.strip(), [os.path.relpath(p) for p in synced]


def batch_paths(place: str, count: int) -> list[str]:
    """What a batch must sync below *place*: the files, and their directory once."""
    batch = [ids.make(413000000 << 22 | n, 7) for n in range(count)]
    return [*[path(place, id) for id in batch], os.path.dirname(path(place, batch[0]))]


@pytest.mark.parametrize("count", [1, 20])
def test_flushes_of_a_batch(home, count):
    said, synced = traced(count)
    print(f"batch of {count}: {len(synced)} fsyncs")
    assert said == "[]"
    assert sorted(synced[:count + 1]) == sorted(batch_paths("mess", count))
    assert sorted(synced[count + 1:]) == sorted(batch_paths("new", count))


@pytest.mark.parametrize("place", ["mess", "new"])
@pytest.mark.parametrize(("failing", "lost"), [(0, 1), (2, 1), (3, 3)])
def test_a_failed_flush_is_not_tried_again_and_leaves_nothing(home, place, failing, lost):
    bad = os.path.abspath(batch_paths(place, 3)[failing])
    said, synced = traced(3, "-P", bad, "-e", "inject=fsync:error=EIO")
    assert said.count("OSError(5") == lost
    assert synced == [os.path.relpath(bad)]
    assert len(everything()) == 2 * (3 - lost)


# Records

def test_scan_names(home, capfd):
    made = [accepted(NOW + n * (1 << 22)) for n in range(3)]
    moved = accepted(NOW + 5)
    store.move(moved, "new", "wait")
    store.set_due("wait", moved, 1234567890.5)
    assert sorted(store.scan_names("new", stat=False)) == sorted((id, 0.0) for id in made)
    assert list(store.scan_names("wait")) == [(moved, 1234567890.5)]
    assert list(store.scan_names("hold")) == []
    assert capfd.readouterr().err == ""


def precious():
    """A file that has nothing to do with the queue."""
    with open("precious", "w") as file:
        file.write("precious")
    return os.path.abspath("precious")


def test_scan_names_leaves_odd_files_alone_and_says_so(home, capfd):
    id = accepted()
    other = ids.make(NOW + 1, 8)
    bucket = ids.directory(id)
    os.symlink(precious(), path("new", other))
    os.mkdir(path("new", ids.make(NOW + 2, 8)))
    shutil.copy(path("new", id), f"queue/new/ff/{id}")
    with open(f"queue/new/{bucket}/a b\n", "w"):
        pass
    os.rmdir("queue/new/00")
    assert [name for name, _ in store.scan_names("new")] == [id]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 4
    assert f"event=queue_odd_file prog=mqmail path=queue/new/{bucket}/a+20b+0A" in said


def test_100_000_names_are_found(home):
    made = [ids.make(NOW + n * 10007, 7) for n in range(100_000)]
    for id in made:
        os.close(os.open(path("wait", id), os.O_CREAT | os.O_WRONLY))
    found = {name for name, _ in store.scan_names("wait")}
    assert found == set(made)


def test_append_writes_after_the_last_whole_line(home):
    id = accepted()
    length = store.append("new", id, len(head(id)), b"done 1 5 2.0.0\n", sync=True)
    assert store.read("new", id) == head(id) + b"done 1 5 2.0.0\n"
    assert length == len(head(id)) + 15
    with open(path("new", id), "ab") as torn:
        torn.write(b"wait 1 and much more than what will be written now")
    assert store.append("new", id, length, b"told 1 6 none\n", sync=False) == length + 14
    assert store.read("new", id) == head(id) + b"done 1 5 2.0.0\ntold 1 6 none\n"


def test_an_append_that_fails_has_not_happened(home):
    id = accepted()
    length = len(head(id))
    with limited(length + 5), pytest.raises(OSError) as caught:
        store.append("new", id, length, b"done 1 5 2.0.0\n", sync=True)
    assert caught.value.errno == errno.EFBIG
    assert store.read("new", id) == head(id)


def test_append_to_a_record_that_shrank(home):
    id = accepted()
    with pytest.raises(BadFile, match=f"{path('new', id)}: "):
        store.append("new", id, 5000, b"done 1 5 2.0.0\n", sync=False)
    assert store.read("new", id) == head(id)


def test_read_is_bounded_and_follows_nothing(home):
    id = accepted()
    with pytest.raises(BadFile, match="larger than 10 bytes"):
        store.read("new", id, limit=10)
    os.unlink(path("new", id))
    os.symlink(precious(), path("new", id))
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        store.read("new", id)
    os.unlink(path("new", id))
    os.mkfifo(path("new", id))
    with pytest.raises(BadFile, match="not a regular file"):
        store.read("new", id)


@pytest.mark.parametrize("call", [
    lambda id: store.read("new", id), lambda id: store.open_body(id), lambda id: store.remove("new", id),
    lambda id: store.move(id, "new", "wait"), lambda id: store.set_aside("new", id),
    lambda id: store.append("new", id, 0, b"", False), lambda id: store.set_due("new", id, 1.0)])
@pytest.mark.parametrize("id", ["", "../../control/me", "../../../../etc/p"])
def test_only_ids_become_paths(home, call, id):
    with pytest.raises(ValueError, match="no queue id"):
        call(id)


def test_move_keeps_the_record(home):
    id = accepted()
    store.move(id, "new", "wait", sync=True)
    store.move(id, "wait", "hold")
    assert store.read("hold", id) == head(id)
    with pytest.raises(FileNotFoundError):
        store.move(id, "wait", "hold")


def test_open_body(home):
    id = accepted()
    fd = store.open_body(id, size=6)
    assert os.read(fd, 100) == b"body\r\n"
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.write(fd, b"x")
    os.close(fd)
    with pytest.raises(BadFile, match="not a file of 7 bytes"):
        store.open_body(id, size=7)
    os.unlink(path("mess", id))
    os.mkfifo(path("mess", id))
    with pytest.raises(BadFile):
        store.open_body(id)
    os.unlink(path("mess", id))
    with pytest.raises(FileNotFoundError):
        store.open_body(id)


def test_remove_takes_the_record_first(home, capfd):
    gone, bodiless, recordless = accepted(), accepted(NOW + 1), accepted(NOW + 2)
    store.remove("new", gone)
    assert len(everything()) == 4
    os.unlink(path("mess", bodiless))
    store.remove("new", bodiless)
    assert f"event=queue_body_not_removed prog=mqmail id={bodiless}" in capfd.readouterr().err
    os.unlink(path("new", recordless))
    with pytest.raises(FileNotFoundError):
        store.remove("new", recordless)
    assert everything() == [path("mess", recordless)[6:]]


def test_set_aside_overwrites_nothing(home):
    id = accepted()
    with open(f"queue/bad/{id}", "wb") as earlier:
        earlier.write(b"earlier")
    assert store.set_aside("new", id) == f"queue/bad/{id}.1"
    with open(f"queue/bad/{id}", "rb") as earlier, open(f"queue/bad/{id}.1", "rb") as later:
        assert (earlier.read(), later.read()) == (b"earlier", head(id))
    assert not os.path.exists(path("new", id))
    assert os.path.exists(path("mess", id))


# Orphans

def age(place: str, id: str, hours: float) -> None:
    then = NOW / 1e6 - hours * 3600
    os.utime(path(place, id), (then, then))


def swept() -> list[str]:
    return sorted(p[6:] for p in orphans.remove_orphans(NOW / 1e6) if p)


def test_orphans_that_are_old_are_removed_and_nothing_else(home, capfd):
    spread = iter(range(0, 1 << 40, 3 << 22))
    kept = {place: accepted(NOW + next(spread)) for place in ("new", "wait", "hold", "bad")}
    for place, id in kept.items():
        if place == "bad":
            store.set_aside("new", id)
        elif place != "new":
            store.move(id, "new", place)
        age("mess", id, 99)
    age("new", kept["new"], 99)
    old, young, torn, torn_young, damaged = (begun(NOW + next(spread)) for _ in range(5))
    age("mess", old.id, 36.1)
    age("mess", young.id, 35.9)
    for message, hours in ((torn, 36.1), (torn_young, 35.9), (damaged, 99)):
        with open(path("new", message.id), "wb") as file:
            file.write(b"rubbish\n" if message is damaged else head(message.id)[:-1])
        age("mess", message.id, 99)
        age("new", message.id, hours)
    before = everything()
    removed = swept()
    assert removed == sorted(
        [path("mess", old.id)[6:], path("new", torn.id)[6:], path("mess", torn.id)[6:]])
    assert everything() == [p for p in before if p not in removed]
    assert capfd.readouterr().err.count("event=queue_orphan_removed") == 3


def test_orphans_are_sought_in_small_steps(home):
    for n in range(20):
        age("mess", begun(NOW + n).id, 99)
    steps = list(orphans.remove_orphans(NOW / 1e6))
    assert len(steps) == 256 + 20
    assert everything() == []


def test_a_step_that_ends_in_an_unknown_way_has_failed():
    def bug(_argument):
        raise RuntimeError("not what a step raises")

    def fine(_argument):
        return None

    for _ in range(3):          # nor does it take anything along with it
        outcomes = at_once([(fine, 1), (bug, 2), (fine, 3)])
        assert (outcomes[0], outcomes[2]) == (None, None)
        assert isinstance(outcomes[1], OSError)
        assert "not what a step raises" in str(outcomes[1])


_NO_THREADS = """
import os, resource, threading
from mqmail.queue.together import at_once
taken = []
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0:
    os.setuid(65534)            # for root there is no limit
for _ in range(3):
    assert at_once([(taken.append, n) for n in range(5)]) == [None] * 5
print(taken, threading.active_count())
"""


def test_without_threads_the_steps_are_taken_all_the_same():
    lib = os.path.dirname(os.path.dirname(os.path.dirname(store.__file__)))
    done = subprocess.run([sys.executable, "-c", _NO_THREADS], capture_output=True, text=True,
                          timeout=60, check=False, env={**os.environ, "PYTHONPATH": lib})
    assert done.stdout == f"{[0, 1, 2, 3, 4] * 3} 1\n", done.stderr


# Taking over what another account has made

def dies_at(call, id):
    """take_over, killed when it comes to the system call os.*call*."""
    pid = os.fork()
    if pid == 0:
        setattr(os, call, lambda *_arguments: os._exit(9))
        store.take_over(id, "new", 5.0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_a_record_is_taken_over_with_its_time(home):
    id = accepted()
    store.take_over(id, "new", 1234567890.5)
    assert [place for place, *_ in map(lambda one: one.split("/"), everything())] == ["mess", "wait"]
    assert store.read("wait", id) == head(id)
    assert list(store.scan_names("wait")) == [(id, 1234567890.5)]
    assert os.stat(path("wait", id)).st_mode & 0o777 == 0o660 & ~umask()
    assert not store.is_taken_over(accepted())


def test_one_that_waits_already_is_taken_over_in_its_place(home):
    id = accepted()
    store.move(id, "new", "wait")
    before = os.stat(path("wait", id)).st_ino
    store.take_over(id, "wait", 7.0)
    assert os.stat(path("wait", id)).st_ino != before
    assert list(store.scan_names("wait")) == [(id, 7.0)]


@pytest.mark.parametrize("call", ["rename", "utime"])
def test_killed_before_the_copy_is_complete_nothing_has_happened(home, call):
    id = accepted()
    dies_at(call, id)
    assert store.read("new", id) == head(id)
    assert not store.is_taken_over(id)
    assert list(store.scan_names("wait")) == []
    store.take_over(id, "new", 6.0)
    assert list(store.scan_names("wait")) == [(id, 6.0)]
    assert len(everything()) == 2


def test_killed_when_the_copy_is_complete_it_counts(home):
    id = accepted()
    bucket = ids.directory(id)
    pid = os.fork()
    if pid == 0:
        unlink = os.unlink
        os.unlink = lambda name: os._exit(9) if name == path("new", id) else unlink(name)
        store.take_over(id, "new", 5.0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert everything() == [f"{place}/{bucket}/{id}" for place in ("mess", "new", "wait")]
    assert store.is_taken_over(id)
    assert everything() == [f"{place}/{bucket}/{id}" for place in ("mess", "wait")]


def test_what_a_killed_one_left_is_removed_once_it_is_old(home):
    id = accepted()
    dies_at("rename", id)
    copy = f"{path('wait', id)}{paths.COPY}"
    assert os.path.exists(copy)
    assert [one for one in orphans.remove_orphans(100.0) if one] == []
    assert [one for one in orphans.remove_orphans(6.0 + orphans.STALE) if one] == [copy]


def test_a_full_disk_leaves_it_where_it_is(home):
    id = accepted()
    os.rmdir(f"queue/wait/{ids.directory(id)}")
    with open(f"queue/wait/{ids.directory(id)}", "w"):
        pass
    with pytest.raises(OSError, match="Not a directory"):
        store.take_over(id, "new", 5.0)
    assert store.read("new", id) == head(id)
