"""Removing finished messages together: each has its own outcome."""

import threading

import pytest

from mqmail.net.threads import Threads
from mqmail.prog.mq_send.removal import AT_ONCE, Removal
from mqmail.queue import incoming, lines, paths, record
from support.shells import Looping


@pytest.fixture()
def shell(tmp_path, monkeypatch):
    paths.make_directories(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = Looping()
    yield made
    made.close()


def message(number):
    one = incoming.Incoming.begin(1732252800123456 + number, 7)
    one.write(b"body\r\n")
    head = lines.head(record.Envelope(one.id, 1.5, 6, False, False, "a@b.example", "", "", {}),
                      [record.Recipient("1", "new", "c@d.example")])
    assert incoming.commit([(one, head)]) == {one: None}
    return one.id


async def all_of(waiters):
    """What each of them gives or raises."""
    found = []
    for waiter in waiters:
        try:
            found.append(await waiter)
        except OSError as error:
            found.append(type(error))
    return found


def test_one_that_is_not_there_costs_the_others_nothing(shell, tmp_path):
    ids = [message(n) for n in range(10)]
    gone, odd = ids[5], ids[7]
    (tmp_path / paths.path("new", gone)).unlink()
    (tmp_path / paths.path("new", odd)).unlink()
    (tmp_path / paths.path("new", odd)).mkdir()
    removal = Removal(Threads(shell.loop))
    found = shell.run(all_of([removal.remove("new", id) for id in ids]))
    assert found == [FileNotFoundError if id == gone else IsADirectoryError if id == odd else None
                     for id in ids]
    left = [path.name for path in tmp_path.glob("queue/*/*/*")]
    assert sorted(left) == sorted([gone, odd, odd])


def test_what_comes_while_threads_are_busy_goes_together(shell):
    ids = [message(n) for n in range(10)]
    threads, rounds = Threads(shell.loop), []
    do, hold = threads.do, threading.Event()

    def held(function, batch):
        rounds.append(len(batch))
        return do(lambda: hold.wait(30) and function(batch))

    threads.do = held
    removal = Removal(threads)
    waiters = [removal.remove("new", id) for id in ids]
    shell.loop.call_soon(hold.set)
    assert shell.run(all_of(waiters)) == [None] * 10
    assert rounds == [1] * AT_ONCE + [10 - AT_ONCE]
