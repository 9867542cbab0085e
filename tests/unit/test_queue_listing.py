"""Reading the queue from outside, while it changes."""

import os

import pytest

from mqmail.queue import ids, lines, listing, paths, store
from mqmail.queue.record import Envelope, Recipient


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.make_directories(".")
    return tmp_path


def put(place, number, more=b""):
    """A record in *place*; its id, which grows with *number*."""
    id = ids.make(1732252800_000000 + number * 30_000_000, 77)
    head = lines.head(Envelope(id, 1732252800.0, 10, False, False, "a@example.org", "", "", {}),
                      [Recipient("1", "new", "b@example.com")])
    write(place, id, head + more)
    return id


def write(place, id, data):
    path = f"queue/bad/{id}" if place == "bad" else f"queue/{place}/{ids.directory(id[:16])}/{id}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return path


def seen(found):
    return [(one.id, one.place, one.error) for one in found]


def test_all_places_oldest_first_and_bad_last():
    bad = put("bad", 0)
    found = [put(place, number) for number, place in enumerate(("hold", "new", "wait", "new"), 1)]
    assert [one.id for one in listing.everything()] == [*found, bad]
    assert [one.place for one in listing.everything()] == ["hold", "new", "wait", "new", "bad"]
    assert all(one.record.envelope.sender == "a@example.org" for one in listing.everything())


def test_what_vanishes_is_left_out_and_what_moves_is_found():
    first, moved, gone = (put("new", number) for number in range(3))
    found = listing.everything()
    assert next(found).id == first
    store.move(moved, "new", "wait")
    os.unlink(f"queue/new/{ids.directory(gone)}/{gone}")
    assert seen(found) == [(moved, "wait", "")]


def test_a_message_in_two_places_at_once_is_listed_once():
    id = put("new", 1)
    put("wait", 1)
    assert seen(listing.everything()) == [(id, "wait", "")]


def test_what_was_never_acknowledged_is_no_message():
    id = put("new", 1)
    write("new", id, b"mqmail1 " + id.encode() + b"\nat 1732252800.000000\n")
    assert seen(listing.everything()) == []


def test_a_torn_last_line_is_left_out():
    put("wait", 1, lines.done_line("1", 5, "2.0.0") + b"fail 1 6 5.")
    (found,) = listing.everything()
    assert found.record.recipients["1"].kind == "done"


def test_bad_records_say_what_is_wrong_and_stop_nothing():
    a, good, b, c = (put("wait", number) for number in range(4))
    path = f"queue/wait/{ids.directory(a)}/{a}"
    os.unlink(path)
    os.mkfifo(path)
    write("wait", b, b"mqmail1 " + good.encode() + b"\n" + b"nonsense\n")
    write("wait", c, store.read("wait", good))
    write("bad", b, b"")
    write("bad", f"{c}.1", b"\xff\n")
    write("bad", "odd", b"x\n")
    found = list(listing.everything())
    assert [(one.id, one.place, one.record is None) for one in found] == [
        (good, "wait", False), (b, "wait", True), (c, "wait", False),
        (b, "bad", True), (f"{c}.1", "bad", True), ("odd", "bad", True)]
    assert [one.error for one in found] == [
        "", f"queue/wait/{b} line 2: at expected, not 'nonsense'", f"queue/wait/{c}: says it is {good}",
        f"queue/bad/{b}: no ok line", f"queue/bad/{c}.1 line 1: not UTF-8",
        "queue/bad/odd line 1: mqmail1 expected, not 'x'"]


def test_one():
    id, other = put("hold", 1), put("wait", 2)
    write("bad", f"{id}.1", b"x\n")
    assert [(one.id, one.place) for one in listing.one(id)] == [(id, "hold"), (f"{id}.1", "bad")]
    assert [(one.id, one.place) for one in listing.one(other)] == [(other, "wait")]
    assert list(listing.one(ids.make(5, 5))) == []
