"""docs/examples/counter.py, a destination as somebody may write one."""

import shutil
import sys
from pathlib import Path

import pytest

from support.home import ME, ROOT, free_port, owner_name, wait_until

pytestmark = pytest.mark.e2e
TEXT = b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n\xc3\xbc\r\n"


@pytest.fixture(params=["tcp", "unix"])
def counter(request, new_home, launch):
    """(a running home, the file of counts); all mail for mailboxes goes to the example."""
    home = new_home("alice", "bob")
    counts = Path(home.top, "counter", "counts")
    counts.parent.mkdir()
    command = [sys.executable, ROOT / "docs/examples/counter.py", counts]
    if request.param == "tcp":
        port = free_port()
        launch(*command, f"127.0.0.1:{port}").wait_for_port(port)
        home.control(destinations=f"mailbox:lmtp:tcp:127.0.0.1:{port}\n")
    else:
        path = Path(home.top, "counter.sock")
        launch(*command, path)
        wait_until(path.exists, "the service's socket")
        shutil.chown(path, owner_name(home.path))
        home.control(destinations=f"mailbox:lmtp:unix:{path}\n")
    return home.start(), counts


def size_of(home, id):
    """As the queue says: the message with our Received field."""
    return home.wait_for_log("event=queued", f"id={id}").partition(" size=")[2].split(" ")[0]


def test_it_gets_each_message_whole_and_once_for_each_recipient(counter):
    home, counts = counter
    ids = [home.deliver(f"alice@{ME}", f"bob@{ME}", text=TEXT * times) for times in range(1, 21)]
    home.wait_until_empty()
    expected = [f"{name}@{ME} {size_of(home, id)}" for id in ids for name in ("alice", "bob")]
    assert sorted(counts.read_text().splitlines()) == sorted(expected)
    assert home.log("event=delivered", f"id={ids[0]}", "destination=mailbox", "counted")
    assert not home.maildir("alice")


def test_its_trouble_is_temporary(counter):
    home, counts = counter
    counts.parent.rename(counts.parent.with_name("away"))
    id = home.deliver(f"alice@{ME}", text=TEXT)
    assert " status=4." in home.wait_for_log("event=deferred", f"id={id}")
    counts.parent.with_name("away").rename(counts.parent)
    home.run("sendmail", "-q")
    home.wait_until_empty()
    assert counts.read_text() == f"alice@{ME} {size_of(home, id)}\n"


def test_a_service_that_is_restarted_gets_what_came_meanwhile(new_home, launch):
    home = new_home("alice")
    port, counts = free_port(), Path(home.top, "counts")
    home.control(destinations=f"mailbox:lmtp:tcp:127.0.0.1:{port}\n")
    home.start()
    command = [sys.executable, ROOT / "docs/examples/counter.py", counts, f"127.0.0.1:{port}"]
    first = launch(*command).wait_for_port(port)
    home.deliver(f"alice@{ME}")
    home.wait_until_empty()
    first.process.kill()
    first.process.wait()
    home.deliver(f"alice@{ME}")
    home.wait_for_log("event=service_away", "destination=mailbox")
    launch(*command).wait_for_port(port)
    home.wait_until_empty()
    assert len(counts.read_text().splitlines()) == 2
