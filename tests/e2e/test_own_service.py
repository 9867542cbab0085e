"""docs/examples/counter.py, a destination as somebody may write one."""

import shutil
import sys
from pathlib import Path

import pytest

from support.home import ME, ROOT, free_port, owner_name, reply, wait_until
from support.lmtpservice import LmtpService

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
    home.wait_for_log("event=delivered", f"id={ids[0]}", "destination=mailbox", "counted")
    assert not home.maildir("alice")


def test_all_recipients_of_a_message_go_in_one_transaction(new_home):
    """Dovecot keeps one copy for all then."""
    home = new_home("alice", "bob")
    path = Path(home.top, "service.sock")
    home.control(destinations=f"mailbox:lmtp:unix:{path}\n")
    with LmtpService(path, lambda ask: "250 2.0.0 taken", xmq=False) as service:
        home.start()
        home.deliver(f"alice@{ME}", f"bob@{ME}")
        home.wait_until_empty()
    assert [(ask.address, ask.number) for ask in service.asked] == [(f"alice@{ME}", 0), (f"bob@{ME}", 1)]


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


def test_a_whole_domain_goes_there_by_aliases(new_home, launch):
    home = new_home("alice")
    port, counts = free_port(), Path(home.top, "counts")
    command = [sys.executable, ROOT / "docs/examples/counter.py", counts, f"127.0.0.1:{port}"]
    launch(*command).wait_for_port(port)
    home.control(destinations=f"counter:lmtp:tcp:127.0.0.1:{port}\n", relayclients="",
                 aliases="postmaster: alice\n@count.example: @counter:\n"
                         "one: @counter:one.of.us@count.example\n")
    home.start()
    id = home.deliver("Any.Body@count.example", f"alice@{ME}", f"one@{ME}", text=TEXT)
    home.wait_until_empty()
    size = size_of(home, id)
    assert sorted(counts.read_text().splitlines()) == [
        f"Any.Body@count.example {size}", f"one.of.us@count.example {size}"]
    assert len(home.wait_for("alice")) == 1
    home.wait_for_log("event=delivered", f"id={id}", "destination=counter", count=2)


def test_only_the_domain_of_the_alias_is_accepted(new_home):
    home = new_home("alice")
    home.control(destinations="counter:lmtp:unix:run/none.sock\n", relayclients="",
                 aliases="@count.example: @counter:\n")
    home.start()
    with home.connect() as sock, sock.makefile("rwb") as file:
        reply(file)
        for command in ("EHLO x.example", "MAIL FROM:<a@b.example>", "RCPT TO:<x@count.example>"):
            reply(file, f"{command}\r\n".encode())
        for address in ("x@sub.count.example", "x@far.example", f"nobody@{ME}"):
            file.write(f"RCPT TO:<{address}>\r\n".encode())
            file.flush()
            assert file.readline().startswith(b"550 5.")


def test_an_alias_to_a_service_that_is_not_named_keeps_everything_from_starting(new_home):
    home = new_home("alice")
    home.control(aliases="x: alice\n@count.example: @counter:\n")
    home.start(wait=False)
    home.wait_for_log("control/aliases", "line", "there", "is", "no", "destination", "counter")
