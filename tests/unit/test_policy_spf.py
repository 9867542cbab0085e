"""SPF: the test suite of RFC 7208 (tests/spf), and what it leaves out."""

import json
from pathlib import Path

import pytest

from mqmail.base.waiter import run
from mqmail.control.networks import parse_networks
from mqmail.mail.mxlist import FAILED, FOUND, NOTHING, UNKNOWN, Answer
from mqmail.policy import spf as policy_spf
from mqmail.policy import spfcheck
from mqmail.policy.facts import Facts
from mqmail.policy.spf import Question, Result, check_host
from mqmail.policy.spfcheck import SpfCheck, received_spf
from mqmail.policy.spfmacro import expand_name, parse_text

DATA = Path(__file__).parents[1] / "spf" / "rfc7208-tests.json"
PARTS = json.loads(DATA.read_text(encoding="utf-8"))
SUITE = [pytest.param(part["zonedata"], test, id=name)
         for part in PARTS for name, test in part["tests"].items()]


def octets(text):
    """TXT data as the suite writes it: a string, or a list of strings."""
    return "".join([text] if isinstance(text, str) else text).encode("latin-1")


class Zone:
    """DNS as the suite describes it: name to a list of {type: data}, "TIMEOUT" for the types that are
    not there. SPF stands for TXT unless the name has that too."""

    def __init__(self, data):
        self.names = {name.lower().removesuffix("."): rows for name, rows in data.items()}
        self.asked = []

    async def lookup(self, name, kind):
        self.asked.append((name, kind))
        rows = self.names.get(name)
        if rows is None:
            return Answer(UNKNOWN)
        has_txt = any("TXT" in row for row in rows if isinstance(row, dict))
        wanted = "SPF" if kind == "TXT" and not has_txt else kind
        found = []
        for row in rows:
            if row == "TIMEOUT":
                if not found:
                    return Answer(FAILED, why="no answer in time")
            elif "CNAME" in row:
                return await self.lookup(row["CNAME"].lower(), kind)
            elif wanted in row:
                data = row[wanted]
                if data == "TIMEOUT":
                    return Answer(FAILED, why="no answer in time")
                if data != "NONE":
                    found.append(_record(kind, data))
        return Answer(FOUND, tuple(found)) if found else Answer(NOTHING)


def _record(kind, data):
    if kind == "TXT":
        return octets(data)
    if kind == "MX":
        return data[0], data[1].lower().removesuffix(".") or "."
    return data.lower().removesuffix(".") if kind == "PTR" else data


def ask(zone, ip="1.2.3.4", sender="foo@a.example", helo="mail.example.com", **more):
    return run(check_host(Question(ip, sender, helo, **more), zone.lookup))


@pytest.mark.parametrize(("data", "test"), SUITE)
def test_the_suite(data, test):
    """A list of results holds those that the RFC allows."""
    sender = test["mailfrom"] or "postmaster@" + test["helo"]
    found = ask(Zone(data), test["host"], sender, test["helo"])
    allowed = test["result"] if isinstance(test["result"], list) else [test["result"]]
    assert found.result in allowed, found
    expected = test.get("explanation", found.explanation)
    wanted = "" if expected == "DEFAULT" else expected     # hex digits may be of either case
    assert found.explanation.lower() == wanted.lower()


def spf(text, **names):
    """A zone where a.example has the record *text*."""
    return Zone({"a.example": [{"TXT": text}], **{k.replace("_", "."): v for k, v in names.items()}})


@pytest.mark.parametrize(("text", "why"), [
    ("v=spf1 " + "ip4:192.0.2.1 " * 600 + "-all", "longer than 8192"),
    ("v=spf1 ip4:010.0.0.1 -all", "the address of"),
    ("v=spf1 a:%{d99999999999999999999}", None), ("v=spf1 a/033", "the prefix length"),
    ("v=spf1 redirect=b.example redirect=b.example", "redirect= twice"),
    ("v=spf1 1x=y", "the modifier"), ("v=spf1 all:a.example", "the mechanism"),
    ("v=spf1\ta", None), ("v=spf1 a:%{x}.example", "the macro %{x}"),
])
def test_records_with_mistakes(text, why):
    found = ask(spf(text))
    if why is None:
        assert found.result in ("none", "neutral", "permerror")
    else:
        assert found.result == "permerror"
        assert why in found.why


def test_ten_terms_are_looked_up_and_no_more():
    zone = spf("v=spf1 " + " ".join([f"exists:e{n}.test.example" for n in range(2)])
               + " mx:m.example" * 30 + " -all", m_example=[{"MX": [0, "h.example"]}],
               h_example=[{"A": "192.0.2.9"}])
    assert ask(zone).result == "permerror"
    assert len(zone.asked) == 1 + 2 + 8 * 2


def test_a_loop_of_includes_ends():
    zone = spf("v=spf1 include:a.example")
    assert ask(zone).result == "permerror"
    assert len(zone.asked) == 11


def test_names_of_the_client_are_looked_up_once_and_ten_at_the_most():
    names = [{"PTR": f"h{n}.b.example"} for n in range(50)]
    zone = Zone({"a.example": [{"TXT": "v=spf1 ptr:x.example exists:%{p}.c.example ptr:y.example -all"}],
                 "4.3.2.1.in-addr.arpa": names,
                 **{f"h{n}.b.example": [{"A": "1.2.3.4"}] for n in range(50)}})
    assert ask(zone).result == "fail"
    assert len([name for name, _ in zone.asked if name.endswith(".b.example")]) == 10


@pytest.mark.parametrize(("sender", "result"), [
    ("j\u00f6rg@a.example", "fail"), ("joerg@a.example", "pass")])
def test_a_local_part_that_is_not_ascii_matches_nothing(sender, result):
    zone = spf("v=spf1 exists:%{l}.u.example -all", joerg_u_example=[{"A": "127.0.0.2"}])
    assert ask(zone, sender=sender).result == result


def test_a_backslash_in_a_local_part_stays_one():
    zone = spf("v=spf1 exists:%{l}.u.example -all")
    ask(zone, sender="a\\b@a.example")
    assert zone.asked[-1] == ("a\\\\b.u.example", "A")


def test_an_explanation_that_is_not_printable_is_not_shown():
    zone = spf("v=spf1 -all exp=e.example", e_example=[{"TXT": "%{s}"}])
    assert ask(zone).explanation == "foo@a.example"
    assert ask(zone, sender="j\u00f6@a.example").explanation == ""


class Dns:
    """What Asker has, from a Zone."""

    def __init__(self, zone):
        self.zone = zone
        self.answers = {}

    def known(self, name, kind):
        return self.answers.get((name, kind))

    async def ask(self, name, kind, seconds):
        assert 0 < seconds <= 20
        known = self.known(name, kind)
        if known is None:
            known = self.answers[name, kind] = await self.zone.lookup(name, kind)
        return known


def facts(sender="foo@a.example", ip="192.0.2.1", helo="h.example"):
    found = Facts("s", ip=ip)
    found.helo, found.sender = helo, sender
    return found


def make(dns, refuses=False):
    return SpfCheck(refuses, "mx.test", parse_networks(["192.0.2.200"], ""), dns, lambda: 5.0,
                    lambda: 1e9)


def check(zone, what, refuses=False):
    said = make(Dns(zone), refuses).look(what)
    return said if hasattr(said, "action") else run(said)


@pytest.mark.parametrize("record", ["v=spf1 include:b.example -all", "v=spf1 redirect=b.example"])
def test_a_result_is_remembered_as_long_as_the_answers_it_came_from_hold(monkeypatch, record):
    evaluated = []
    monkeypatch.setattr(spfcheck, "check_host", lambda *args: evaluated.append(1) or check_host(*args))
    dns = Dns(Zone({"a.example": [{"TXT": record}],
                    "b.example": [{"TXT": "v=spf1 ip4:192.0.2.1 -all"}]}))
    tried = make(dns)

    def result(sender, ip="192.0.2.1"):
        what = facts(sender, ip)
        run(tried.look(what))
        return what.marks["spf"], len(evaluated)

    assert result("foo@a.example") == ("pass", 1)
    assert result("bar@a.example") == ("pass", 1)
    assert result("foo@a.example", "192.0.2.2") == ("fail", 2)
    dns.zone = Zone({"a.example": [{"TXT": record}], "b.example": [{"TXT": "v=spf1 -all"}]})
    assert result("foo@a.example") == ("pass", 2)
    del dns.answers["b.example", "TXT"]
    assert result("foo@a.example") == ("fail", 3)


@pytest.mark.parametrize("term", ["exists:%{l}.u.example", "include:%{h}", "a:%{s}.u.example"])
def test_a_result_that_hangs_on_the_sender_or_helo_name_is_not_remembered(term):
    zone = Zone({"a.example": [{"TXT": f"v=spf1 {term} -all"}],
                 "foo.u.example": [{"A": "127.0.0.2"}], "h.example": [{"TXT": "v=spf1 +all"}],
                 "foo@a.example.u.example": [{"A": "192.0.2.1"}],
                 "i.example": [{"TXT": "v=spf1 -all"}]})
    tried, found = make(Dns(zone)), []
    for sender, helo in (("foo@a.example", "h.example"), ("bar@a.example", "i.example")):
        what = facts(sender, helo=helo)
        run(tried.look(what))
        found.append(what.marks["spf"])
    assert found == ["pass", "fail"]


def test_results_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(spfcheck, "_MOST_KEPT", 3)
    dns = Dns(spf("v=spf1 -all"))
    tried = make(dns)
    for last in range(1, 9):
        run(tried.look(facts(ip=f"192.0.2.{last}")))
    assert 0 < len(tried._kept) <= 3


def test_the_field_and_the_refusal():
    zone = spf("v=spf1 -all exp=e.example", e_example=[{"TXT": "%{i} is no host of %{d}"}])
    what = facts()
    said = check(zone, what, refuses=True)
    assert (said.action, what.marks) == ("reject", {"spf": "fail"})
    assert said.reply.encode() == (
        b"550-5.7.23 SPF: a.example does not permit 192.0.2.1 to send its mail\r\n"
        b"550-5.7.23 a.example explains:\r\n550 5.7.23 192.0.2.1 is no host of a.example\r\n")
    said = check(zone, what)
    assert said.action == "next"
    assert said.fields == (
        "Received-SPF: fail (mx.test: a.example does not permit 192.0.2.1)\r\n\tclient-ip=192.0.2.1;"
        "\r\n\tenvelope-from=\"foo@a.example\";\r\n\thelo=h.example;\r\n\tidentity=mailfrom;"
        "\r\n\tmechanism=-all;\r\n\treceiver=mx.test",)


@pytest.mark.parametrize("result", ["softfail", "neutral", "none", "temperror", "permerror", "pass"])
def test_nothing_but_a_fail_is_refused(result):
    record = {"softfail": "v=spf1 ~all", "neutral": "v=spf1", "none": "x", "permerror": "v=spf1 x",
              "pass": "v=spf1 +all", "temperror": "TIMEOUT"}[result]
    what = facts()
    assert check(Zone({"a.example": [{"TXT": record}]}), what, refuses=True).action == "next"
    assert what.marks == {"spf": result}


def test_the_null_sender_is_judged_by_helo():
    zone = Zone({"h.example": [{"TXT": "v=spf1 ip4:192.0.2.0/24 -all"}]})
    what = facts(sender="")
    field = check(zone, what).fields[0]
    assert what.marks == {"spf": "pass"}
    assert 'identity=helo' in field
    assert 'envelope-from=""' in field


@pytest.mark.parametrize("trusted", ["ip", "login", "relay", "role", "local"])
def test_who_is_no_stranger_is_not_judged(trusted):
    what = facts(ip="192.0.2.200" if trusted == "ip" else "::1" if trusted == "local" else "192.0.2.1")
    what.login = "alice" if trusted == "login" else ""
    what.relay = trusted == "relay"
    what.role = "submission" if trusted == "role" else "mx"
    zone = spf("v=spf1 -all")
    assert check(zone, what, refuses=True).action == "next"
    assert zone.asked == []


def test_a_field_of_hostile_words_is_one_field():
    what = facts('"a\\"b\r\nX: y"@a.example', helo="h (evil)\r\nX: y\udc80")
    field = received_spf(Result("permerror", why='a "quote"\n'), "x@a).example\r\n", what, "mx.test")
    lines = field.split("\r\n")
    assert all(line.startswith("\t") for line in lines[1:])
    assert all(line.isprintable() for line in [line.lstrip("\t") for line in lines])
    assert lines[0] == "Received-SPF: permerror (mx.test: the SPF record of a?.example?? is wrong)"


def test_large_records_are_not_remembered():
    records = {"large.example": [{"SPF": "v=spf1 " + "a:h.example " * 50 + "-all"}],
               "small.example": [{"SPF": "v=spf1 ip4:192.0.2.7 -all"}]}
    for domain in records:
        run(check_host(Question("192.0.2.1", f"a@{domain}", "h.example"), Zone(records).lookup))
    assert b"v=spf1 ip4:192.0.2.7 -all" in policy_spf._records
    assert not [data for data in policy_spf._records if len(data) > 512]


class Counted(dict):
    asked = 0

    def __getitem__(self, key):
        self.asked += 1
        return super().__getitem__(key)


def test_no_more_macros_are_expanded_than_a_name_holds():
    values = Counted(s="local@sender.example")
    name = expand_name(parse_text("%{s}" * 2000 + ".example"), values)
    assert len(name) <= 253 and name.endswith("@sender.example.example")
    assert values.asked < 20


def test_a_long_explanation_is_not_looked_at():
    zone = {"x.example": [{"SPF": "v=spf1 -all exp=e.x.example"}],
            "e.x.example": [{"TXT": "%{S}" * 257}]}
    question = Question("192.0.2.1", "a@x.example", "h.example")
    assert run(check_host(question, Zone(zone).lookup)).explanation == ""
    zone["e.x.example"] = [{"TXT": "no %{i}"}]
    assert run(check_host(question, Zone(zone).lookup)).explanation == "no 192.0.2.1"
