"""A clock that jumps by a day: no mail is lost, returned, sent too often, or kept too long."""

import os
import re
from pathlib import Path

import pytest

from support.home import ME, free_port

pytestmark = pytest.mark.e2e

DAY = 86400
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
_FIRST = 200        # seconds: beyond the first retry of every destination, before the next attempts


class Clock:
    """What the programs of a home take for the time: ours, and so many seconds more."""

    def __init__(self, home):
        self._path = Path(home.top, "clock")
        self.set(0)
        home.environment = {**os.environ, "LD_PRELOAD": str(LIBRARIES[0]),
                            "FAKETIME_TIMESTAMP_FILE": str(self._path), "FAKETIME_NO_CACHE": "1",
                            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def set(self, seconds):
        new = self._path.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.chmod(0o644)
        new.replace(self._path)


@pytest.fixture
def world(new_home):
    """(home, clock, the waiting message's id): bob's mailbox and a host far away do not take it now."""
    if not LIBRARIES:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("not installed: libfaketime")
    home = new_home("alice", "bob")
    clock = Clock(home)
    home.control(relayclients="127.0.0.1\n", smtproutes=f":127.0.0.1:{free_port()}\n")
    home.qmail("bob", f"|test -e {home.path}/open || exit 111\n./Maildir/\n")
    home.start()
    id = home.deliver(f"bob@{ME}", "dave@far.example.net", sender=f"alice@{ME}")
    for address in (f"bob@{ME}", "dave@far.example.net"):
        home.wait_for_log("event=deferred", id, f"address={address}")
    return home, clock, id


def knock(home):
    """A message that arrives, so mq-send has looked at the clock; its id."""
    before = len(home.maildir("alice"))
    id = home.deliver(f"alice@{ME}")
    home.wait_for("alice", before + 1)
    return id


@pytest.mark.parametrize("direction", [DAY, -DAY], ids=["forward", "back"])
def test_what_waits_is_due_when_it_was_to_be(world, direction):
    home, clock, id = world
    ids = [id]
    if direction > 0:               # all are due at once, and then older by a day
        (home.path / "open").touch()
    clock.set(direction)
    ids.append(knock(home))
    (home.path / "open").touch()
    clock.set(direction + _FIRST)
    ids.append(knock(home))
    home.wait_for("bob")
    clock.set(direction)
    ids.append(knock(home))
    clock.set(0)
    ids.append(knock(home))
    assert len(home.maildir("bob")) == 1
    assert home.log("event=failed") == home.log("event=bounced") == home.log("event=bug") == []
    assert len(set(ids)) == len(ids)
    for address in (f"bob@{ME}", "dave@far.example.net"):       # a few attempts, no flood
        assert len(home.log("event=deferred", id, f"address={address}")) <= 5
    told = [int(re.search(r"seconds=(\d+)", line)[1]) for line in home.log("event=clock_set_back")]
    wanted = [_FIRST, DAY] if direction > 0 else [DAY, _FIRST]
    assert [abs(one - two) <= 30 for one, two in zip(told, wanted, strict=True)] == [True, True]


def test_a_clock_that_was_set_back_while_nothing_ran(world):
    home, clock, id = world
    assert home.stop() == 0
    clock.set(-DAY)
    (home.path / "open").touch()
    home.start()
    home.wait_for("bob")
    home.wait_for_log("event=delivered", id, f"address=bob@{ME}")


def test_the_lifetime_is_not_over_before_a_last_attempt(world):
    """Ten days forward: what would be returned is tried once more, and goes."""
    home, clock, id = world
    (home.path / "open").touch()
    clock.set(10 * DAY)
    knock(home)
    home.wait_for("bob")
    assert home.log("event=failed", id, "address=bob") == []
    home.wait_for_log("event=failed", id, "address=dave@far.example.net")
