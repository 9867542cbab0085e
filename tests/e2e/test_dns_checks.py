"""The checks that ask DNS, with a real name server, as xmtpd makes them from control files."""

import time

import pytest

from mqmail.base.waiter import Running, run
from mqmail.control import reader
from mqmail.net.daemon import new_loop
from mqmail.net.stream import Deadlines
from mqmail.policy import dnschecks
from mqmail.policy.facts import Facts
from mqmail.policy.stages import Stages, fields_of, for_recipient
from mqmail.policy.verdict import NO_OPINION
from support.nsd import Nsd
from support.programs import need

pytestmark = pytest.mark.e2e

RECORDS = [
    'good.test. 60 IN TXT "v=spf1 include:_spf.good.test -all exp=why.good.test"',
    '_spf.good.test. 60 IN TXT "v=spf1 ip4:127.0.0.2 a:mx.good.test ?all"',
    'why.good.test. 60 IN TXT "%{i} is none of our hosts"',
    "good.test. 60 IN MX 10 mx.good.test.", "mx.good.test. 60 IN A 127.0.0.4",
    "null.test. 60 IN MX 0 .", "client.test. 60 IN A 127.0.0.2", "liar.test. 60 IN A 127.0.0.9",
    "3.0.0.127.bl.test. 60 IN A 127.0.0.2", '3.0.0.127.bl.test. 60 IN TXT "a bad one"',
    "4.0.0.127.bl.test. 60 IN A 127.0.0.2", "4.0.0.127.good.wl.test. 60 IN A 127.0.5.1"]
REVERSE = ["2.0.0.127.in-addr.arpa. 60 IN PTR client.test.",
           "4.0.0.127.in-addr.arpa. 60 IN PTR liar.test."]


@pytest.fixture(scope="module")
def nsd():
    with Nsd(need("nsd"), RECORDS, {"127.in-addr.arpa": REVERSE}) as server:
        yield server


class Services:
    """What xmtpd has for checks."""

    def __init__(self, loop):
        self.loop = loop
        self.deadlines = Deadlines(loop) if loop is not None else None
        self.kept = {}


class Client:
    """Sessions under control files; *shell*: loop or blocking."""

    def __init__(self, path, shell, **files):
        (path / "control").mkdir()
        files = {"reversename": "look\n", "senderdomain": "mark\n", "spf": "mark\n", **files}
        for name, text in files.items():
            (path / "control" / name).write_text(text)
        for one in (path, path / "control", *(path / "control").iterdir()):
            one.chmod(0o755 if one.is_dir() else 0o644)
        control = reader.load(str(path), dnschecks.CONTROL)
        self.loop = new_loop() if shell == "loop" else None
        services = Services(self.loop)
        makers = [dnschecks.reverse_name, *[make for _, make in dnschecks.FACTORIES]]
        made = [make(control, services) for make in makers]
        checks = [check for check in made if check is not None]
        self.stages = Stages(checks, lambda *_: None, self._failed)

    def _failed(self, check, error):
        raise AssertionError(check.name) from error

    def run(self, coroutine):
        if self.loop is None:
            return run(coroutine)
        found = []

        def ended(*result):
            found.append(result)
            self.loop.stop()

        self.loop.call_soon(Running, coroutine, ended)
        self.loop.run_forever()
        assert found[0][1] is None
        return found[0][0]

    async def _session(self, facts):
        for stage in ("connect", "helo", "mail"):
            await self.stages.run(stage, facts)
        return for_recipient(facts, NO_OPINION)

    def mail(self, ip, sender, helo="client.test"):
        """(facts, what a recipient's RCPT is told, "" if nothing)."""
        facts = Facts("s", listener="127.0.0.1:25", ip=ip)
        facts.helo, facts.sender, facts.verb = helo, sender, "EHLO"
        said = self.run(self._session(facts))
        return facts, said.reply.said() if said.reply else ""


@pytest.fixture(params=["loop", "blocking"])
def client(request, nsd, tmp_path):
    made = Client(tmp_path, request.param, me="mx.test\n", resolvers=f"127.0.0.1:{nsd.port}\n",
                  dnsbl="bl.test\n!good.wl.test\n", spf="reject\n", senderdomain="reject\n")
    yield made
    if made.loop is not None:
        made.loop.close()


def test_a_good_client(client):
    facts, said = client.mail("127.0.0.2", "a@good.test")
    assert (said, facts.host, facts.marks) == ("", "client.test", {"spf": "pass"})
    field = fields_of(facts)[0]
    assert field.startswith("Received-SPF: pass (mx.test: good.test permits 127.0.0.2)\r\n")


def test_a_client_on_a_list(client):
    _, said = client.mail("127.0.0.3", "a@good.test")
    assert said == "550 5.7.1 127.0.0.3 is listed by bl.test: a bad one"


def test_a_client_on_a_white_list_and_its_false_name(client):
    facts, said = client.mail("127.0.0.4", "a@good.test")
    assert (said, facts.host) == ("", "")
    assert facts.marks == {"reversename": "unconfirmed", "spf": "pass", "dnsbl": "bl.test"}


@pytest.mark.parametrize(("sender", "expected"), [
    ("a@null.test", "550 5.7.27 the sender's domain null.test takes no mail (null MX)"),
    ("a@none.test", "550 5.1.8 the sender's domain none.test does not exist"),
    ("a@good.test", "550 5.7.23 SPF: good.test does not permit 127.0.0.5 to send its mail"
                    " good.test explains: 127.0.0.5 is none of our hosts"),
])
def test_senders(client, sender, expected):
    assert client.mail("127.0.0.5", sender)[1] == expected


def test_all_checks_of_a_message_cost_little_once_dns_has_answered(client):
    """At most 0.3 ms of CPU; three times as much here, for slow machines, at their best moment."""
    client.mail("127.0.0.2", "a@good.test")
    rounds, spent = 50, []

    async def many():
        for _ in range(rounds):
            facts = Facts("s", listener="127.0.0.1:25", ip="127.0.0.2")
            facts.helo, facts.sender = "client.test", "a@good.test"
            await client._session(facts)

    for _ in range(10):
        begun = time.process_time()
        client.run(many())
        spent.append((time.process_time() - begun) / rounds * 1000)
    print(f"{min(spent):.3f} ms")
    assert min(spent) < 0.9
