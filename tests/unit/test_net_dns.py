"""Questions to a DNS server on loopback, which may do wrong; domains looked up through it."""

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.base.waiter import Running
from mqmail.control import lines
from mqmail.control.routes import Routing, parse_fallback, parse_senderroutes, parse_smtproutes
from mqmail.control.tlspolicy import parse_tlspolicy
from mqmail.mail.mxlist import FAILED, FOUND, NOTHING, UNKNOWN, Answer, Choice, Limits, NoHosts, Way
from mqmail.net import dns as net_dns
from mqmail.net import mx
from mqmail.net.daemon import new_loop
from mqmail.net.dns import Resolver, _parse, read, system_servers
from mqmail.net.stream import Deadlines
from support.dnsserver import DnsServer
from support.home import free_port

ZONE = "\n".join([
    "x.test. 60 IN MX 20 B.test.", "x.test. 60 IN MX 10 a.test.", "a.test. 50 IN A 192.0.2.1",
    "a.test. 60 IN AAAA 2001:db8::1", "b.test. 60 IN CNAME c.test.", "c.test. 40 IN A 192.0.2.3",
    "www.x.test. 60 IN CNAME x.test.", "loop.test. 60 IN CNAME pool.test.",
    "pool.test. 60 IN CNAME loop.test.",
    "null.test. 60 IN MX 0 .", "plain.test. 60 IN A 192.0.2.4", "zero.test. 0 IN A 192.0.2.5",
    "xn--fa-hia.test. 60 IN A 192.0.2.6", "us.test. 60 IN MX 0 us.example.",
    'text.test. 60 IN TXT "v=spf1 " "\\195\\188 -all"', "text.test. 60 IN TXT x",
    'long.test. 60 IN TXT ' + f'"{"x" * 250}" ' * 20,
    "1.2.0.192.in-addr.arpa. 60 IN PTR A.test.",
    "lost.test. 60 IN MX 0 nowhere.test.", "lost.test. 60 IN MX 5 drop.test.",
    *[f"big.test. 60 IN MX {n} h{n}.big.test." for n in range(100)],
    *[f"huge.test. 60 IN MX {n} h.test." for n in range(101)],
    *[f"many.test. 60 IN A 198.51.{n // 100}.{n % 100}" for n in range(501)],
    *[f"wide.test. 60 IN A 198.51.100.{n}" for n in range(100)]])


class Rig:
    """A loop and a resolver."""

    def __init__(self, *servers, names=("us.example",), refused=()):
        self.loop = new_loop()
        self.resolver = Resolver(self.loop, Deadlines(self.loop), [(s.ip, s.port) for s in servers])
        limits = Limits(frozenset(names), lambda ip: False, lambda ip: ip in refused)
        self._limits = limits
        self.route()

    def run(self, *coroutines):
        """What they give, run side by side."""
        found = {}

        def start(number, coroutine):
            def finished(result, error):
                found[number] = (result, error)
                if len(found) == len(coroutines):
                    self.loop.stop()
            Running(coroutine, finished)

        for number, coroutine in enumerate(coroutines):
            self.loop.call_soon(start, number, coroutine)
        self.loop.run_forever()
        assert [error for _, error in found.values()] == [None] * len(found)
        return [found[number][0] for number in range(len(coroutines))]

    def ask(self, name, kind):
        return self.run(self.resolver.ask(name, kind))[0]

    def route(self, domains="", senders="", fallback="", tls=""):
        """Have these control files."""
        routing = Routing(*[lines.parse("x", text.encode(), parser, "") for text, parser in (
            (domains, parse_smtproutes), (senders, parse_senderroutes), (fallback, parse_fallback),
            (tls, parse_tlspolicy))])
        self.finder = mx.Finder(self.loop, self.resolver, self._limits, routing)

    def find(self, domain, sender=""):
        return self.run(self.finder.find(domain, sender))[0]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(net_dns, "PATIENCE", (0.3, 0.3))
    monkeypatch.setattr(mx, "TOTAL", 2.0)


@pytest.fixture(scope="module")
def server():
    with DnsServer(ZONE) as made:
        yield made


@pytest.fixture
def rig(server):
    made = Rig(server)
    server.faults, server.asked[:] = {}, []
    yield made
    made.loop.close()


@pytest.mark.parametrize(("name", "kind", "expected"), [
    ("x.test", "MX", Answer(FOUND, ((20, "b.test"), (10, "a.test")), 60)),
    ("X.Test", "MX", Answer(FOUND, ((20, "b.test"), (10, "a.test")), 60)),
    ("www.x.test", "MX", Answer(FOUND, ((20, "b.test"), (10, "a.test")), 60)),
    ("a.test", "AAAA", Answer(FOUND, ("2001:db8::1",), 60)),
    ("b.test", "A", Answer(FOUND, ("192.0.2.3",), 40)),
    ("null.test", "MX", Answer(FOUND, ((0, "."),), 60)),
    ("text.test", "TXT", Answer(FOUND, (b"v=spf1 \xc3\xbc -all", b"x"), 60)),
    ("1.2.0.192.in-addr.arpa", "PTR", Answer(FOUND, ("a.test",), 60)),
    ("plain.test", "MX", Answer(NOTHING, (), 30)),
    ("none.test", "MX", Answer(UNKNOWN, (), 30)),
    ("a..test", "A", Answer(UNKNOWN, (), 3600, "not a name")),
    ("x" * 64 + ".test", "A", Answer(UNKNOWN, (), 3600, "not a name")),
])
def test_answers(rig, name, kind, expected):
    found = rig.ask(name, kind)
    assert (found.kind, set(found.records), found.ttl, found.why) == (
        expected.kind, set(expected.records), expected.ttl, expected.why)


@pytest.mark.parametrize(("fault", "why"), [
    ("drop", "no answer in time"), ("servfail", "SERVFAIL"), ("refused", "REFUSED"),
    ("wrong", "no answer in time"),
    ("garbage", "no answer in time"), ("lame", "knows nothing of it (lame)")])
def test_faults(rig, server, fault, why):
    server.faults = {"a.test": fault}
    assert rig.ask("a.test", "A") == Answer(FAILED, (), 30, f"127.0.0.1: {why}")


def test_a_loop_of_aliases_ends(rig):
    assert rig.ask("loop.test", "A").kind == FAILED


def test_nobody_listens():
    class Nobody:
        ip, port = "127.0.0.1", free_port()
    rig = Rig(Nobody)
    found = rig.ask("a.test", "A")
    rig.loop.close()
    assert found == Answer(FAILED, (), 30, "127.0.0.1: Connection refused")


@pytest.mark.parametrize("fault", ["lie", "tc", "noedns"])
def test_what_is_got_over(rig, server, fault):
    server.faults = {"a.test": fault}
    assert rig.ask("a.test", "A").records == ("192.0.2.1",)
    assert ("a.test", "A", "tcp") in server.asked or fault != "tc"


def test_an_answer_that_only_fits_tcp(rig, server):
    server.faults = {"big.test": "tc"}
    assert len(rig.ask("big.test", "MX").records) == 100


@pytest.mark.parametrize(("name", "kind"), [("huge.test", "MX"), ("many.test", "A")])
def test_an_answer_that_would_take_too_long_to_read(rig, server, name, kind):
    server.faults = {name: "tc"}
    found = rig.ask(name, kind)
    assert (found.kind, found.ttl) == (FAILED, 30)
    assert found.why.startswith("127.0.0.1: an answer of ")


@pytest.mark.parametrize("fault", ["drop", "servfail", "refused", "lame", "garbage"])
def test_the_next_server_is_asked(server, fault):
    with DnsServer(ZONE, {"x.test": fault}) as bad:
        rig = Rig(bad, server)
        assert rig.ask("x.test", "MX").kind == FOUND
        assert rig.ask("a.test", "A").kind == FOUND
        rig.loop.close()
        assert [name for name, _, _ in bad.asked] == ["x.test"]     # it has come last then


def test_answers_are_kept_and_equal_questions_asked_once(rig, server):
    found = rig.run(*[rig.resolver.ask("a.test", "A") for _ in range(5)])
    found += [rig.ask("a.test", "A"), rig.ask("none.test", "A"), rig.ask("none.test", "A")]
    assert len(set(found)) == 2
    assert server.asked == [("a.test", "A", "udp"), ("none.test", "A", "udp")]
    rig.ask("zero.test", "A")
    rig.ask("zero.test", "A")
    assert server.asked.count(("zero.test", "A", "udp")) == 2


def test_the_answers_that_are_kept_are_bounded(rig, monkeypatch):
    monkeypatch.setattr(net_dns, "MOST_KEPT", 10)
    rig.run(*[rig.resolver.ask(f"n{n}.test", "A") for n in range(40)])
    assert 0 < len(rig.resolver._kept) <= 10


def test_large_answers_are_not_kept(rig, server):
    for _ in range(2):
        assert rig.ask("wide.test", "A").kind == rig.ask("x.test", "MX").kind == FOUND
    assert [name for name, _, _ in server.asked] == ["wide.test", "x.test", "wide.test"]


def test_many_questions_take_turns(rig, server, monkeypatch):
    monkeypatch.setattr(net_dns, "MOST_AT_ONCE", 3)
    found = rig.run(*[rig.resolver.ask(f"n{n}.test", "A") for n in range(50)])
    assert [answer.kind for answer in found] == [UNKNOWN] * 50
    assert rig.resolver._running == 0


def test_who_has_no_turn_in_time_is_told_so(rig, server, monkeypatch):
    monkeypatch.setattr(net_dns, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(net_dns, "TOTAL", 0.3)
    server.faults = {f"n{n}.test": "drop" for n in range(20)}
    begun = rig.loop.time()
    found = rig.run(*[rig.resolver.ask(f"n{n}.test", "A") for n in range(20)])
    assert rig.loop.time() - begun < 1.5
    assert [answer.kind for answer in found] == [FAILED] * 20
    assert found[-1].why == "too many questions at once"
    assert len(server.asked) < 20       # 2, and those whose turn came just before the time was over
    assert rig.ask("a.test", "A").kind == FOUND


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_no_octets_break_it(tail, keep):
    query = dns.message.make_query("x.test", "MX", id=7)
    good = dns.message.make_response(query).to_wire()
    found = _parse(query, good[:keep] + tail)
    if found is not None:
        try:
            read(found)
        except dns.exception.DNSException:
            pass


def test_the_systems_servers(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("# x\nsearch a\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n"
                    "nameserver 2001:db8::5\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n")
    assert system_servers(str(path)) == [("192.0.2.1", 53), ("2001:db8::5", 53), ("192.0.2.2", 53)]
    assert system_servers(str(tmp_path / "none")) == [("127.0.0.1", 53)]


# --- domains ---

A, C = Choice(10, "a.test", 25, ("2001:db8::1", "192.0.2.1")), Choice(20, "b.test", 25, ("192.0.2.3",))


@pytest.mark.parametrize(("domain", "expected"), [
    ("x.test", [A, C]),
    ("www.x.test", [A, C]),
    ("plain.test", [Choice(0, "plain.test", 25, ("192.0.2.4",))]),
    ("fa\xdf.test", [Choice(0, "xn--fa-hia.test", 25, ("192.0.2.6",))]),
    ("[192.0.2.9]", [Choice(0, "[192.0.2.9]", 25, ("192.0.2.9",))]),
])
def test_domains(rig, domain, expected):
    assert rig.find(domain) == expected


@pytest.mark.parametrize(("domain", "status"), [
    ("none.test", "5.1.2"), ("null.test", "5.1.10"), ("us.test", "5.4.6"), ("loop.test", "4.4.3"),
    ("\u2488com.test", "5.1.2")])
def test_domains_without_hosts(rig, domain, status):
    found = rig.find(domain)
    assert isinstance(found, NoHosts) and found.status == status, found


def test_a_host_whose_address_is_not_known_now(rig, server):
    server.faults = {"drop.test": "drop"}
    (choice,) = rig.find("lost.test")
    assert (choice.host, choice.addresses) == ("drop.test", ())
    assert choice.trouble == "no address of drop.test known: 127.0.0.1: no answer in time"


def test_a_domain_takes_no_longer_than_it_may(rig, server, monkeypatch):
    monkeypatch.setattr(mx, "TOTAL", 0.2)
    server.faults = {f"h{n}.big.test": "drop" for n in range(100)}
    found = rig.find("big.test")
    assert len(found) == 50
    assert "no address of h49.big.test known: no answer in time" in [c.trouble for c in found]


def test_hundreds_of_hosts_cost_no_hundreds_of_questions(rig, server):
    assert rig.find("big.test").status == "5.4.4"
    assert len(server.asked) == 101


# --- routes ---

def test_hosts_of_routes_are_not_looked_up(rig, server):
    rig.route("x.test:h.test:26\n", "a@home.test:s.test\n", tls="h.test: encrypt\ny.test: verify\n")
    assert rig.finder.known("x.test", "a@home.test") == [Choice(0, "h.test", 26, way=Way(tls="encrypt"))]
    assert rig.finder.known("y.test", "a@home.test") == [
        Choice(0, "s.test", 25, way=Way(tls="verify", names=("s.test",)))]
    assert rig.finder.known("z.test", "a@home.test") == [Choice(0, "s.test", 25)]
    assert rig.finder.known("z.test", "") == []
    assert server.asked == []


def test_internationalized_domains_have_one_form_in_control_files(rig):
    rig.route("xn--fa-hia.test:h.test\n", "j\xf6rg@xn--fa-hia.test:s.test\n")
    assert [rig.finder.known(domain, "")[0].host for domain in ("fa\xdf.test", "xn--fa-hia.test")] == [
        "h.test", "h.test"]
    assert rig.finder.known("z.test", "J\xf6rg@fa\xdf.test")[0].host == "s.test"
    assert rig.finder.known("\u2488com.test", "\u2488com@\u2488com.test") == []
    rig.route(tls=": verify\n")
    assert rig.find("fa\xdf.test")[0].way.names == ("xn--fa-hia.test", ".xn--fa-hia.test")


def test_mx_hosts_get_port_family_and_policy(rig):
    rig.route("x.test::26 prefer=ipv4\n", tls="x.test: verify\n")
    way = Way(tls="verify", names=("x.test", ".x.test"), prefer="ipv4")
    assert rig.find("x.test") == [Choice(10, "a.test", 26, ("192.0.2.1", "2001:db8::1"), "", way),
                                  Choice(20, "b.test", 26, ("192.0.2.3",), "", way)]
    rig.route(":smart.test\n", "home.test: source=192.0.2.9\n")     # a sender's mail goes by MX
    assert rig.finder.known("x.test", "a@home.test") == []
    assert rig.find("plain.test", "a@home.test") == [
        Choice(0, "plain.test", 25, ("192.0.2.4",), "", Way(sources=("192.0.2.9",)))]


def test_the_fallback_route_is_the_last_of_all(rig):
    rig.route(fallback="late.test:587 auth=x\n", tls="late.test: encrypt\n")
    late = Choice(65536, "late.test", 587, way=Way(tls="encrypt", auth="x"))
    assert rig.find("x.test") == [A, C, late]
    assert rig.find("loop.test") == [late]                  # where DNS has trouble
    assert rig.find("").status == "4.4.4"
    assert [rig.find(name).status for name in ("none.test", "null.test", "us.test")] == [
        "5.1.2", "5.1.10", "5.4.6"]
    rig.route("x.test:h.test\n", fallback="late.test\n")
    assert rig.finder.known("x.test", "") == [Choice(0, "h.test", 25)]
    rig.route(fallback="b.test\n")
    assert rig.find("x.test") == [A, C]                     # it is there already


def test_own_addresses():
    assert mx.is_own_address("127.0.0.1")
    assert not mx.is_own_address("127.0.0.2")       # it answers here, yet is not what we send from
    assert not mx.is_own_address("192.0.2.1")


def test_an_answer_of_long_texts_is_not_kept(server, rig):
    for _ in range(2):
        assert len(rig.ask("long.test", "TXT").records[0]) == 5000
        rig.ask("text.test", "TXT")
    names = [name for name, _, how in server.asked if how == "udp"]
    assert names == ["long.test", "text.test", "long.test"]
