"""The model of what a power cut leaves, on cases where the answer is known."""

import random

from support.diskmodel import Disk


def left(disk):
    """All states that the model finds, each once."""
    return {tuple(sorted(state.items())) for state in disk.states(random.Random(1), samples=50)}


def made(*names):
    disk = Disk({})
    for name in names:
        disk.feed("create", name)
        disk.feed("write", name, data=b"0123456789")
    return disk


def test_what_was_not_flushed_may_be_there_in_part():
    assert left(made("d/a")) == {(), (("d/a", b""),), (("d/a", b"01234"),), (("d/a", bytes(10)),),
                                 (("d/a", b"0123456789"),)}


def test_a_flushed_file_may_have_no_name():
    disk = made("d/a")
    disk.feed("sync", "d/a")
    assert left(disk) == {(), (("d/a", b"0123456789"),)}


def test_a_flushed_name_may_have_no_content():
    disk = made("d/a")
    disk.feed("sync", "d")
    assert (("d/a", b""),) in left(disk)
    assert () not in left(disk)


def test_what_was_flushed_twice_is_sure():
    disk = made("d/a")
    disk.feed("sync", "d/a")
    disk.feed("sync", "d")
    assert left(disk) == {(("d/a", b"0123456789"),)}


def test_another_directorys_flush_is_of_no_use():
    disk = made("d/a")
    disk.feed("sync", "d/a")
    disk.feed("sync", "e")
    assert () in left(disk)


def test_a_name_that_comes_later_may_be_there_alone():
    disk = made("d/a", "d/b")
    disk.feed("sync", "d/a")
    disk.feed("sync", "d/b")
    assert {tuple([path for path, _ in state]) for state in left(disk)} == {
        (), ("d/a",), ("d/b",), ("d/a", "d/b")}


def test_a_rename_leaves_the_old_name_the_new_or_both():
    disk = Disk({"d/a": b"x"})
    disk.feed("rename", "d/a", "e/b")
    assert left(disk) == {(("d/a", b"x"),), (("d/a", b"x"), ("e/b", b"x")), (("e/b", b"x"),)}
    disk.feed("sync", "e")
    assert left(disk) == {(("d/a", b"x"), ("e/b", b"x")), (("e/b", b"x"),)}
    disk.feed("sync", "d")
    assert left(disk) == {(("e/b", b"x"),)}


def test_the_old_directorys_flush_takes_the_new_name_along():
    disk = Disk({"d/a": b"x"})
    disk.feed("rename", "d/a", "e/b")
    disk.feed("sync", "d")
    assert left(disk) == {(("e/b", b"x"),)}


def test_a_removal_may_not_have_happened():
    disk = Disk({"d/a": b"x"})
    disk.feed("unlink", "d/a")
    assert left(disk) == {(), (("d/a", b"x"),)}
    disk.feed("sync", "d")
    assert left(disk) == {()}


def test_an_appended_line_may_be_torn_and_what_was_there_stays():
    disk = Disk({"d/a": b"one\n"})
    disk.feed("write", "d/a", data=b"four\n", offset=4)
    disk.feed("write", "d/a", data=b"six\n", offset=9)
    assert {dict(state)["d/a"] for state in left(disk)} == {
        b"one\n", b"one\nfo", b"one\n\0\0\0\0\0", b"one\nfour\n", b"one\nfour\nsi",
        b"one\nfour\n\0\0\0\0", b"one\nfour\nsix\n"}


def test_a_cut_file():
    disk = Disk({"d/a": b"one\ntorn"})
    disk.feed("truncate", "d/a", size=4)
    assert left(disk) == {(("d/a", b"one\ntorn"),), (("d/a", b"one\n"),)}
    assert disk.state() == {"d/a": b"one\n"}


def test_a_linked_file_has_one_content():
    disk = Disk({"d/a": b"x"})
    disk.feed("link", "d/a", "e/b")
    disk.feed("write", "e/b", data=b"y")
    disk.feed("sync", "d/a")
    disk.feed("sync", "e")
    assert left(disk) == {(("d/a", b"y"), ("e/b", b"y"))}
