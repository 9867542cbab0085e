"""mq-rspawn and mq-route with MX look-ups: DNS servers and hosts on loopback addresses."""

import contextlib
import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from test_rspawn import Call, Rig

from support.badserver import CLOSE, SILENT, BadServer
from support.dnsserver import DnsServer
from support.home import SECONDS, free_port, run, wait_until
from support.nsd import SHARED_ADDRESSES, SHARED_IPS, Nsd, answers, shared_hosts
from support.programs import need

pytestmark = pytest.mark.e2e


def free_port_of_all(ips):
    """A port that is free at each of *ips*."""
    while True:
        port = free_port()
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for ip in ips:
                stack.enter_context(socket.create_server((ip, port)))
            return port


class World:
    """mq-rspawn, a DNS server with *zone*, hosts at 127.0.0.2 and so on: *scripts* says for
    ``a.test`` … how they behave (None: nobody listens there)."""

    def __init__(self, zone, faults=None, **scripts):
        self.ips = {name: f"127.0.0.{number}" for number, name in enumerate(scripts, 2)}
        self.port = free_port_of_all(self.ips.values())
        self.hosts = {name: BadServer(script, ip=self.ips[name], port=self.port)
                      for name, script in scripts.items() if script is not None}
        records = [f"{name}.test. 60 IN A {ip}" for name, ip in self.ips.items()]
        self.dns = DnsServer("\n".join([*zone, *records]), faults)
        self.rig = Rig(resolvers=f"127.0.0.1:{self.dns.port}\n", refusednetworks="# none\n",
                       smtproutes=f"::{self.port}\n")

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.rig.stop()
        for one in (self.dns, *self.hosts.values()):
            one.__exit__()

    def send(self, *addresses, **options):
        """(status, host's name) for each address."""
        return [(status, facts.get("host", "").partition("[")[0])
                for _, status, facts in self.rig.send(*addresses, **options)]


def test_hosts_by_preference_until_one_takes_it():
    busy = {"CONNECT": (b"421 4.3.2 busy\r\n", CLOSE)}
    later = {"RCPT": b"450 4.2.0 later\r\n"}
    zone = ["x.test. 60 IN MX 10 down.test.", "x.test. 60 IN MX 20 busy.test.",
            "x.test. 60 IN MX 30 later.test.", "x.test. 60 IN MX 40 good.test.",
            "x.test. 60 IN MX 50 last.test."]
    with World(zone, down=None, busy=busy, later=later, good={}, last={}) as world:
        assert world.send("u@x.test") == [("2.0.0", "good.test")]
        assert world.hosts["last"].sessions == []
        assert len(world.hosts["busy"].sessions) == len(world.hosts["later"].sessions) == 1


def test_no_host_reached():
    zone = ["x.test. 60 IN MX 10 one.test.", "x.test. 60 IN MX 20 two.test.",
            "y.test. 60 IN MX 5 one.test.", "z.test. 60 IN MX 5 gone.test.",
            "w.test. 60 IN MX 5 refuses.test."]
    with World(zone, {"gone.test": "servfail"}, one=None, two=None,
               refuses={"CONNECT": (b"554 5.7.1 not you\r\n", CLOSE)}) as world:
        found = world.rig.send("u@x.test", "u@y.test", "u@z.test", "u@w.test")
    assert [status for _, status, _ in found] == ["4.4.1", "4.4.1", "4.4.3", "5.7.1"]
    assert found[0][2]["said"] == "Connection refused"
    assert found[0][2]["host"].startswith("one.test[")
    assert "gone.test known: 127.0.0.1: SERVFAIL" in found[2][2]["said"]


def test_verdicts_of_recipients():
    """A 5xx is final; some 4xx wait; all 4xx go on."""
    answers = {"no": b"550 5.1.1 no\r\n", "later": b"450 4.2.1 later\r\n", "yes": b"250 ok\r\n"}
    picky = {"RCPT": lambda line: answers[line[9:].split("@")[0]]}
    zone = ["x.test. 60 IN MX 10 picky.test.", "x.test. 60 IN MX 20 third.test.",
            "y.test. 60 IN MX 10 picky.test.", "y.test. 60 IN MX 15 second.test."]
    with World(zone, picky=picky, second={}, third={}) as world:
        found = world.send("yes@x.test", "later@x.test", "no@x.test", "later@y.test", "no@y.test")
        assert found == [("2.0.0", "picky.test"), ("4.2.1", "picky.test"), ("5.1.1", "picky.test"),
                         ("2.0.0", "second.test"), ("5.1.1", "picky.test")]
        assert world.hosts["second"].heard("RCPT") == ["RCPT TO:<later@y.test>"]
        assert len(world.hosts["picky"].heard("MAIL")) == 1


def test_a_connection_lost_after_the_message_goes_nowhere_else():
    zone = ["x.test. 60 IN MX 10 a.test.", "x.test. 60 IN MX 20 b.test.",
            "y.test. 60 IN MX 10 c.test.", "y.test. 60 IN MX 20 b.test."]
    with World(zone, a={"BODY": CLOSE}, b={}, c={"DATA": CLOSE}) as world:
        assert world.send("u@x.test", "u@y.test") == [("4.4.2", "a.test"), ("2.0.0", "b.test")]
        assert world.hosts["b"].heard("RCPT") == ["RCPT TO:<u@y.test>"]


def test_domains_that_nobody_takes_mail_for():
    zone = ["null.test. 60 IN MX 0 .", "ours.test. 60 IN MX 0 mail.example.org.",
            "self.test. 60 IN MX 0 me.test.", "me.test. 60 IN A 127.0.0.1",
            "lost.test. 60 IN MX 0 nowhere.test.", "ip.test. 60 IN MX 0 127.0.0.1."]
    domains = ["none.test", "null.test", "ours.test", "self.test", "lost.test", "ip.test", "bad.test",
               "[127.0.0.1]"]
    with World(zone, {"bad.test": "servfail"}) as world:
        found = world.send(*[f"u@{domain}" for domain in domains])
    assert [status for status, _ in found] == [
        "5.1.2", "5.1.10", "5.4.6", "5.4.6", "5.4.4", "5.4.4", "4.4.3", "5.4.6"]


def test_loopback_is_refused_unless_it_is_allowed():
    with World(["x.test. 60 IN MX 0 a.test."], a={}) as world:
        (world.rig.home.path / "control/refusednetworks").unlink()
        world.rig.route(f"::{world.port}")          # has control read again
        found = world.rig.send("u@x.test", "u@[127.0.0.2]")
        assert [status for _, status, _ in found] == ["5.4.4", "5.1.2"]
        assert "a.test is at 127.0.0.2, where no mail is sent to" in found[0][2]["said"]
        assert world.hosts["a"].sessions == []


def test_implicit_mx_literals_and_all_addresses():
    zone = ["b.test. 60 IN A 127.0.0.200", "alias.test. 60 IN CNAME a.test.",
            "xn--fa-hia.test. 60 IN MX 10 b.test."]
    with World(zone, {"b.test": "tc"}, a={}, b={}) as world:
        assert world.send("u@a.test", "u@[127.0.0.2]", "u@alias.test", "u@b.test", "u@fa\xdf.test",
                          words=["SMTPUTF8"]) == [
            ("2.0.0", "a.test"), ("2.0.0", "127.0.0.2"), ("2.0.0", "alias.test"), ("2.0.0", "b.test"),
            ("5.6.7", "b.test")]


def test_equal_hosts_share_the_load():
    zone = ["x.test. 0 IN MX 10 a.test.", "x.test. 0 IN MX 10 b.test."]
    with World(zone, a={}, b={}) as world:
        hosts = {world.send("u@x.test")[0][1] for _ in range(20)}
    assert hosts == {"a.test", "b.test"}


def test_slow_dns_delays_no_other_domain():
    with World(["x.test. 60 IN MX 10 a.test."], {"slow.test": "drop"}, a={}) as world:
        call = Call(world.rig, ["u@slow.test", "u@x.test"], xconn=2).start()
        wait_until(lambda: call.transaction.verdicts[1], "the quick one's verdict")
        assert call.transaction.verdicts[1].code == 250
        assert call.transaction.verdicts[0] is None
        world.dns.faults.clear()
        call.thread.join(SECONDS)
        assert [status for _, status, _ in call.verdicts()] == ["5.1.2", "2.0.0"]


def test_a_dead_host_is_tried_once():
    zone = [f"d{n}.test. 60 IN MX 10 dead.test.\nd{n}.test. 60 IN MX {20 + n} live.test."
            for n in range(30)]
    zone += [f"e{n}.test. 60 IN MX 5 live.test." for n in range(3)]
    addresses = [*[f"u@d{n}.test" for n in range(30)], *[f"u@e{n}.test" for n in range(3)]]
    with World(zone, dead={"CONNECT": CLOSE}, live={}) as world:
        found = world.send(*addresses, xconn=20)
        assert found == [("2.0.0", "live.test")] * 33
        assert len(world.hosts["dead"].sessions) == 1
        assert len(world.hosts["live"].heard("MAIL")) == 2


def test_no_further_host_is_tried_when_it_has_to_end():
    zone = ["x.test. 60 IN MX 10 stuck.test.", "x.test. 60 IN MX 20 good.test."]
    with World(zone, stuck={"EHLO": SILENT}, good={}) as world:
        call = Call(world.rig, ["u@x.test"]).start()
        wait_until(lambda: world.hosts["stuck"].heard("EHLO"), "EHLO")
        world.rig.process.terminate()
        call.thread.join(SECONDS)
        assert [status for _, status, _ in call.verdicts()] == ["4.4.2"]
        assert world.hosts["good"].sessions == []


# --- a real name server, real hosts ---

@contextlib.contextmanager
def sinks(ips, port, *options):
    """smtp-sink at each of *ips*; the directories of what they got."""
    with contextlib.ExitStack() as stack:
        found = {}
        for ip in ips:
            top = found[ip] = stack.enter_context(tempfile.TemporaryDirectory())
            os.chmod(top, 0o777)
            user = ["-u", "nobody"] if os.getuid() == 0 else []
            process = subprocess.Popen([need("smtp-sink"), *user, *options, "-d", f"{top}/m.",
                                        f"{ip}:{port}", "100"], stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for ip in ips:
            wait_until(lambda ip=ip: answers(ip, port), "smtp-sink")
        yield found


@pytest.fixture
def mailing():
    """1000 recipients in 100 domains, ten domains to each of ten hosts, whose backup is the next one:
    (addresses, control files, the sinks' directories)."""
    port = free_port_of_all(SHARED_IPS)
    with Nsd(need("nsd"), shared_hosts()) as nsd, sinks(SHARED_IPS, port) as found:
        control = {"resolvers": f"127.0.0.1:{nsd.port}\n", "refusednetworks": "# none\n",
                   "smtproutes": f"::{port}\n"}
        yield SHARED_ADDRESSES, control, found


def check_mailing(addresses, found):
    """Ten transactions, the fewest that can be, with each address once."""
    got = [Path(top, name).read_text() for top in found.values() for name in os.listdir(top)]
    assert len(got) == 10
    for address in addresses:
        assert sum(f"<{address}>" in text for text in got) == 1


def test_a_thousand_recipients_of_a_hundred_domains_with_ten_hosts(mailing):
    addresses, control, found = mailing
    rig = Rig(**control)
    try:
        verdicts = rig.send(*addresses, xconn=5)
    finally:
        rig.stop()
    assert [code for code, _, _ in verdicts] == [250] * 1000
    check_mailing(addresses, found)


def test_a_mailing_through_the_whole_system(mailing, new_home):
    addresses, control, found = mailing
    home = new_home("alice")
    home.control(**control, relayclients="127.0.0.1\n")
    home.start()
    home.deliver(*addresses)
    home.wait_until_empty()
    home.wait_for_log("event=delivered", count=1000)
    check_mailing(addresses, found)


# --- mq-route ---

def test_the_plan_is_printed():
    zone = ["x.test. 60 IN MX 10 a.test.", "x.test. 60 IN MX 20 b.test.", "y.test. 60 IN MX 5 a.test.",
            "null.test. 60 IN MX 0 ."]
    with World(zone, {"bad.test": "servfail"}, a=None, b=None) as world:
        home, port = str(world.rig.home.path), world.port
        world.rig.home.control(smtproutes=f"::{port}\nr.test:192.0.2.1:26\n")
        done = run("mq-route", "--home", home, "1@x.test", "2@Y.test", "3@null.test", "4@r.test",
                   check=False)
        assert done.returncode == 100
        lines = done.stdout.decode().splitlines()
        assert sorted(lines[:7]) == sorted([
            "x.test:", f"  10 a.test:{port} 127.0.0.2 by=mx kind=smtp tls=may",
            f"  20 b.test:{port} 127.0.0.3 by=mx kind=smtp tls=may",
            "y.test:", f"  5 a.test:{port} 127.0.0.2 by=mx kind=smtp tls=may",
            "r.test:", "  0 192.0.2.1:26 by=smtproutes kind=smtp tls=may"])
        assert sorted(lines[7:]) == sorted([
            f"to a.test:{port} kind=smtp tls=may in one transaction:", "  1@x.test", "  2@Y.test",
            "to 192.0.2.1:26 kind=smtp tls=may in one transaction:", "  4@r.test",
            "3@null.test: 550 5.1.10 null.test takes no mail (null MX)"])
        assert run("mq-route", "--home", home, "1@bad.test", check=False).returncode == 111
        assert run("mq-route", "--home", home, "1@x.test").stdout.count(b"transaction") == 1
        assert run("mq-route", "--home", home, "nobody", check=False).returncode == 100


def route_lines(world, *words):
    """What mq-route prints, a line for each transaction, which come in no certain order."""
    done = run("mq-route", "--home", str(world.rig.home.path), *words, check=False)
    domains, to, transactions = done.stdout.decode().partition("to ")
    return domains.splitlines() + sorted((to + transactions).replace(":\n  ", ": ").splitlines())


def test_routes_by_sender_policies_and_the_fallback_are_printed():
    zone = ["x.test. 60 IN MX 10 a.test.", "y.test. 60 IN MX 10 a.test."]
    with World(zone, {"bad.test": "servfail"}, a=None) as world:
        port = world.port
        world.rig.home.control(
            smtproutes=f"::{port} prefer=ipv4\nl.test:lmtp:/run/l.sock\n",
            senderroutes="alice@home.test:smtps:[2001:db8::25] auth=isp source=192.0.2.9\n"
                         "<>:null.test:26\n",
            fallbackroute="smart.test:587 auth=smart\n",
            tlspolicy="y.test: verify names=mx.y.test min=1.3\nsmart.test: encrypt\n")
        assert route_lines(world, "-f", "bob@home.test", "1@x.test", "2@y.test") == [
            "x.test:",
            f"  10 a.test:{port} 127.0.0.2 by=mx kind=smtp tls=may prefer=ipv4",
            "  65536 smart.test:587 by=fallbackroute kind=smtp tls=encrypt auth=smart",
            "y.test:",
            f"  10 a.test:{port} 127.0.0.2 by=mx kind=smtp tls=verify names=mx.y.test min=1.3"
            " prefer=ipv4",
            "  65536 smart.test:587 by=fallbackroute kind=smtp tls=verify names=mx.y.test min=1.3"
            " auth=smart",
            f"to a.test:{port} kind=smtp tls=may in one transaction: 1@x.test",
            f"to a.test:{port} kind=smtp tls=verify names=mx.y.test min=1.3 in one transaction:"
            " 2@y.test"]
        assert route_lines(world, "--sender", "Alice@HOME.test", "1@x.test", "2@l.test") == [
            "x.test:", "  0 [2001:db8::25]:465 by=senderroutes kind=smtps tls=encrypt auth=isp"
            " source=192.0.2.9",
            "l.test:", "  0 /run/l.sock by=smtproutes kind=lmtp tls=none",
            "to /run/l.sock kind=lmtp tls=none in one transaction: 2@l.test",
            "to [2001:db8::25]:465 kind=smtps tls=encrypt auth=isp source=192.0.2.9 in one transaction:"
            " 1@x.test"]
        for words in ([], ["-f", "<>"], ["-f", ""]):
            assert route_lines(world, *words, "1@x.test")[1] == (
                "  0 null.test:26 by=senderroutes kind=smtp tls=may")
        assert route_lines(world, "-f", "b@home.test", "1@bad.test")[:2] == [
            "bad.test:", "  65536 smart.test:587 by=fallbackroute kind=smtp tls=encrypt auth=smart"]
        assert route_lines(world, "-f", "b@home.test", "1@none.test") == [
            "1@none.test: 550 5.1.2 none.test does not exist"]


def test_mail_goes_by_its_sender_and_to_the_fallback():
    zone = ["x.test. 60 IN MX 10 a.test."]
    with World(zone, a=None, smart={}, fall={}) as world:
        port = world.port
        world.rig.home.control(fallbackroute=f"127.0.0.4:{port}\n",
                               senderroutes=f"away.test:127.0.0.3:{port}\n")
        world.rig.route(f"::{port}")        # has control read again
        world.rig.send("1@x.test", sender="me@away.test")
        world.rig.send("2@x.test", sender="me@home.test")
        assert world.hosts["smart"].heard("RCPT") == ["RCPT TO:<1@x.test>"]
        assert world.hosts["fall"].heard("RCPT") == ["RCPT TO:<2@x.test>"]
