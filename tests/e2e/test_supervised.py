"""Homes under s6, daemontools and runit, by the service directories that mq-services writes: such as
belong to one account, and system homes, in which each program becomes its own.
"""

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from support.accounts import Accounts
from support.badserver import BadServer
from support.home import ME, Home, free_port, run, wait_until
from support.supervision import DAEMONS, S6, Daemontools, Flow, Runit
from support.systemhome import SystemHome

pytestmark = pytest.mark.e2e
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="for root")
SUPERVISORS = (S6, Daemontools, Runit)
KINDS = (Home, pytest.param(SystemHome, marks=root_only))
SAYS = {"mq-queue": "event=queued", "mq-send": "event=delivered", "xmtpd": "event=accepted"}


@pytest.fixture(params=KINDS)
def kind(request):
    """The class of home."""
    return request.param


@pytest.fixture(params=SUPERVISORS)
def supervised(request, kind, new_home, launch):
    """Everything runs, each daemon under a supervisor of its own."""
    services = request.param(new_home("alice", "bob", kind=kind), launch)
    yield services
    services.stop()


def arrived(home):
    """How often each message of the flow has come to alice."""
    found = [re.search(rb"\nSubject: (flow-\d+)\n", path.read_bytes()) for path in home.maildir("alice")]
    return Counter([match[1].decode() for match in found])


def test_mail_flows_while_each_daemon_is_restarted(supervised):
    home = supervised.home
    with Flow(home, "alice") as flow:
        for name in DAEMONS:
            flow.wait_for_more()
            supervised.restart(name)
        flow.wait_for_more()
    home.run("sendmail", "-q")      # what met a service that was just closing waits for ten seconds
    home.wait_until_empty()
    found = arrived(home)
    assert [name for name in flow.accepted if name not in found] == []
    assert [name for name, times in found.items() if times > 1] == []
    for name, event in SAYS.items():
        wait_until(lambda name=name, event=event: event in supervised.log(name), f"{event} of {name}")
    bugs = [line for name in DAEMONS for line in supervised.log(name).splitlines()
            if "event=bug" in line]
    assert bugs == []


def acknowledged(home):
    """The records in the queue of messages that were accepted."""
    found = [path for path in home.queued() if "mess" not in path.parts]
    return [path for path in found if b"\nok\n" in path.read_bytes()]


def test_mail_flows_after_each_daemon_is_killed(supervised):
    home = supervised.home
    with Flow(home, "alice") as flow:
        for name in DAEMONS:
            flow.wait_for_more()
            supervised.kill(name)
        flow.wait_for_more()

    def nothing_waits():
        home.run("sendmail", "-q")
        try:
            return not acknowledged(home)
        except FileNotFoundError:       # just finished
            return False

    wait_until(nothing_waits, "no acknowledged message in the queue")
    home.run("mq-fsck")     # what was never acknowledged may be left, and is no problem
    found = arrived(home)
    assert [name for name in flow.accepted if name not in found] == []


@pytest.mark.parametrize("order", [DAEMONS, DAEMONS[::-1]], ids=["forwards", "backwards"])
def test_the_order_of_starting_does_not_matter(order, kind, new_home, launch):
    services = S6(new_home("alice", kind=kind), launch, order)
    services.home.deliver(f"alice@{ME}")
    services.home.wait_for("alice")
    services.stop()


@pytest.mark.parametrize("kind", [Home])
def test_logs_have_times(supervised):
    """As the logger of each kind writes them; and mq-log tells a message's story from all of them."""
    id = supervised.home.deliver(f"alice@{ME}")
    stamp = {"s6": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+  ", "daemontools": "@[0-9a-f]{24} ",
             "runit": r"\d{4}-\d\d-\d\d_\d\d:\d\d:\d\d\.\d+ "}[supervised.name]

    def told():
        """The events, when all loggers have written theirs; each has its own idea of the time."""
        lines = run("mq-log", id, str(supervised.services)).stdout.decode().splitlines()
        return len(lines) >= 8 and [line.split(" ")[3] for line in lines]

    events = wait_until(told, "all lines of the logs")
    assert sorted(events) == ["accepted", "connect", "delivered", "disconnect", "finished",
                              "header_marked", "queued", "replaced"]
    assert [one for one in events if one in ("connect", "accepted", "disconnect")] == [
        "connect", "accepted", "disconnect"]
    lines = supervised.log("xmtpd").splitlines()
    assert [line for line in lines if not re.match(stamp + "event=", line)] == []


@pytest.mark.parametrize("kind", [Home])
def test_a_failure_is_reported(supervised):
    home = supervised.home
    home.control(aliases="team: bob, gone\n")
    supervised.restart("mq-resolve")
    home.deliver(f"team@{ME}", sender=f"alice@{ME}")
    assert f"Final-Recipient: rfc822; team@{ME}".encode() in home.wait_for("alice")[0]
    home.wait_for("bob")
    home.wait_until_empty()


def uids(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return set(status.partition("\nUid:")[2].splitlines()[0].split())


@root_only
def test_only_who_needs_root_keeps_it(supervised):
    """The others answer a little before they have given it up."""
    home = supervised.home
    if isinstance(home, SystemHome):
        wanted = {name: home.accounts.of(name).uid for name in DAEMONS if name != "mq-lspawn"}
    else:
        wanted = dict.fromkeys(DAEMONS, os.stat(home.path).st_uid)
    wanted["mq-lspawn"] = 0
    for name, uid in wanted.items():
        wait_until(lambda name=name, uid=uid: uids(supervised.pid(name)) == {str(uid)}, f"uid of {name}")


@root_only
@pytest.mark.parametrize("kind", [SystemHome])
def test_mail_of_each_kind(supervised):
    """From the network to a virtual mailbox, to an account and to its program, to another host now and
    later; from a user; a report of what failed."""
    home = supervised.home
    with Accounts(2) as (account, other), BadServer() as server:
        other.write(".qmail", "|cat >got\n")
        home.control(smtproutes=f"here.example:127.0.0.1:{server.port}\n"
                                f"later.example:127.0.0.1:{free_port()}\n",
                     injectors="* local\n", localusers="passwd\n")
        for name in ("mq-queue", "mq-resolve", "mq-rspawn", "mq-lspawn"):
            supervised.restart(name)
        home.deliver(*[f"{name}@{ME}" for name in ("alice", account.name, other.name)])
        run("mq-inject", "--home", str(home.path), "-f", f"bob@{ME}", f"gone@{ME}", "x@here.example",
            "x@later.example", text=b"Subject: by a user\n\nhello\n", user=other.uid)
        home.wait_for("alice")
        assert b"\nFinal-Recipient: rfc822; gone@" in home.wait_for("bob")[0]
        wait_until(lambda: "event=deferred" in supervised.log("mq-send"), "a message for later")
        home.control(smtproutes=f"later.example:127.0.0.1:{server.port}\n")
        supervised.restart("mq-rspawn")
        home.run("sendmail", "-q")
        home.wait_until_empty()
        assert [path for path in (account.home / "Maildir/new").iterdir()]
        assert "Subject: hello" in (other.home / "got").read_text()
        assert sorted([b"Subject: by a user" in body for body in server.bodies]) == [True, True]
