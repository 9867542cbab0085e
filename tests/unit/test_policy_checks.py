"""The checks of a stranger's address, name, HELO, patience and sender."""

from types import SimpleNamespace

import pytest

from mqmail.base.waiter import run
from mqmail.control import lines
from mqmail.control.badmailfrom import parse_badmailfrom
from mqmail.control.dnsbl import parse_dnsbl
from mqmail.control.networks import parse_networks
from mqmail.mail.mxlist import FAILED, FOUND, NOTHING, UNKNOWN, Answer
from mqmail.policy import dnschecks
from mqmail.policy.badmailfrom import BadMailFrom
from mqmail.policy.clientname import NameRequired, ReverseName
from mqmail.policy.dnsbl import Dnsbl
from mqmail.policy.facts import Facts
from mqmail.policy.names import EarlyTalkers, HeloCheck, judge_helo
from mqmail.policy.reverse import reverse_name, reversed_ip
from mqmail.policy.senderdomain import SenderDomain
from mqmail.policy.spfcheck import SpfCheck
from mqmail.policy.verdict import OK, Verdict

NOBODY = parse_networks([], "")
MX = "b.example", "MX"
PTR = "1.2.0.192.in-addr.arpa", "PTR"
FAILS = Answer(FAILED, why="no answer in time")


class Dns:
    """*found*: (name, type) to records, or to an Answer."""

    def __init__(self, found=()):
        self.found = dict(found)
        self.asked = []

    async def ask_all(self, questions, seconds):
        assert seconds > 0
        self.asked += questions
        return [self._answer(question) for question in questions]

    async def ask(self, name, kind, seconds):
        return (await self.ask_all([(name, kind)], seconds))[0]

    def _answer(self, question):
        records = self.found.get(question, UNKNOWN)
        if records is UNKNOWN:
            return Answer(UNKNOWN)
        return records if isinstance(records, Answer) else Answer(FOUND, tuple(records))


def stranger(ip="192.0.2.1", sender="a@b.example", helo="h.example"):
    facts = Facts("s", listener="198.51.100.1:25", ip=ip)
    facts.sender, facts.helo, facts.verb = sender, helo, "EHLO"
    return facts


def judged(check, facts):
    said = check.look(facts)
    return said if isinstance(said, Verdict) else run(said)


def said(check, facts):
    """(action, status) of the verdict."""
    found = judged(check, facts)
    return found.action, found.reply.status if found.reply else ""


# --- addresses in reverse ---

@pytest.mark.parametrize(("ip", "found"), [
    ("192.0.2.99", "99.2.0.192"),
    ("2001:db8:1:2:3:4:567:89ab", "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2")])
def test_addresses_in_reverse(ip, found):
    """The examples of RFC 5782 sections 2.1 and 2.4."""
    assert reversed_ip(ip) == found
    assert reverse_name(ip) == found + (".ip6.arpa" if ":" in ip else ".in-addr.arpa")


# --- dnsbl ---

def dnsbl(text, answers, ip="192.0.2.1", now=lambda: 0.0):
    """A check by control/dnsbl, and its DNS: zone to addresses, for that *ip*."""
    dns = Dns({(f"{reversed_ip(ip)}.{zone}", "A"): found for zone, found in answers.items()})
    return Dnsbl(lines.parse("control/dnsbl", text.encode(), parse_dnsbl, ""), NOBODY, dns, now), dns


@pytest.mark.parametrize(("text", "answers", "refused"), [
    ("a.test", {"a.test": ["127.0.0.2"]}, True),
    ("a.test", {}, False),
    ("a.test", {"a.test": FAILS}, False),
    ("a.test", {"a.test": ["192.0.2.80"]}, False),                  # a parked domain
    ("a.test", {"a.test": ["127.0.0.1"]}, False),
    ("a.test", {"a.test": ["127.255.255.254"]}, False),
    ("a.test answer=127.0.0.4/30", {"a.test": ["127.0.0.2"]}, False),
    ("a.test answer=127.0.0.4/30", {"a.test": ["127.0.0.2", "127.0.0.7"]}, True),
    ("a.test\nb.test\nthreshold=2", {"a.test": ["127.0.0.2"]}, False),
    ("a.test\nb.test\nthreshold=2", {"a.test": ["127.0.0.2"], "b.test": ["127.0.0.9"]}, True),
    ("a.test weight=3\nthreshold=3", {"a.test": ["127.0.0.2"]}, True),
    ("a.test\n!w.test", {"a.test": ["127.0.0.2"], "w.test": ["127.0.0.3"]}, False),
    ("a.test\n!w.test", {"a.test": ["127.0.0.2"], "w.test": ["127.0.0.255"]}, True),
    ("a.test weight=5\n!w.test weight=3\nthreshold=2", {"a.test": ["127.0.0.2"], "w.test": FAILS}, True),
    ("a.test weight=5\n!w.test weight=3\nthreshold=2",
     {"a.test": ["127.0.0.2"], "w.test": ["127.0.0.3"]}, True),
    ("a.test weight=4\n!w.test weight=3\nthreshold=2",
     {"a.test": ["127.0.0.2"], "w.test": ["127.0.0.3"]}, False),
    ("!w.test", {"w.test": ["127.0.0.3"]}, False),
])
def test_lists(text, answers, refused):
    check, _ = dnsbl(text, answers)
    assert said(check, stranger()) == (("reject", "5.7.1") if refused else ("next", ""))


@pytest.mark.parametrize("text", [
    "a.test\n!w.test", "a.test weight=4\n!w.test weight=3\nthreshold=2"])
def test_nobody_is_refused_for_good_whom_a_good_list_might_have(text):
    check, _ = dnsbl(text, {"a.test": ["127.0.0.2"], "w.test": FAILS})
    assert said(check, stranger()) == ("defer", "4.7.1")


def test_a_list_that_fails_again_and_again_is_left_alone_for_a_while():
    clock = [0.0]
    check, dns = dnsbl("a.test\nb.test", {"a.test": ["127.0.0.2"], "b.test": FAILS},
                       now=lambda: clock[0])

    def asked():
        dns.asked.clear()
        assert said(check, stranger()) == ("reject", "5.7.1")
        return ("1.2.0.192.b.test", "A") in dns.asked

    assert [asked() for _ in range(12)] == [True] * 10 + [False] * 2
    clock[0] = 30.0
    assert [asked(), asked()] == [True, False]
    clock[0], dns.found["1.2.0.192.b.test", "A"] = 60.0, ["127.0.0.2"]
    assert [asked(), asked()] == [True, True]


def test_lists_do_not_wait_for_what_strangers_choose():
    services = SimpleNamespace(loop=None, kept={})
    control = SimpleNamespace(
        is_there=bool, resolvers=(), relayclients=NOBODY, me="h.example", spf="mark",
        senderdomain="mark",
        dnsbl=lines.parse("control/dnsbl", b"a.test", parse_dnsbl, ""))
    factories = dict(dnschecks.FACTORIES)
    made = {name: factories[name](control, services) for name in ("dnsbl", "senderdomain", "spf")}
    assert made["spf"]._dns is made["senderdomain"]._dns is not made["dnsbl"]._dns


def test_what_the_client_hears():
    answers = {"a.test": ["127.0.0.2"], "b.test": ["127.0.0.2"]}
    check, _ = dnsbl("a.test weight=2 go away, %i\nb.test", answers)
    facts = stranger()
    assert judged(check, facts).reply.text == "go away, 192.0.2.1"
    assert facts.marks == {"dnsbl": "a.test,b.test"}
    check, dns = dnsbl("b.test", answers)
    assert judged(check, facts).reply.text == "192.0.2.1 is listed by b.test"
    dns.found["1.2.0.192.b.test", "TXT"] = [b"see\r\n 220 \xff http://x"]
    assert judged(check, facts).reply.text == "192.0.2.1 is listed by b.test: see?? 220 ? http://x"


def test_an_ipv6_client_is_looked_up():
    check, dns = dnsbl("a.test", {"a.test": ["127.0.0.2"]}, ip="2001:db8::1")
    assert said(check, stranger("2001:db8::1")) == ("reject", "5.7.1")
    assert dns.asked[0] == ("1." + "0." * 23 + "8.b.d.0.1.0.0.2.a.test", "A")


def test_trouble_with_a_list_is_logged_once_an_hour(capfd):
    clock = [0.0]
    check, _ = dnsbl("a.test\nb.test", {"a.test": ["127.255.255.254"], "b.test": FAILS},
                     now=lambda: clock[0])
    lines_of = {}
    for clock[0] in (0.0, 3599.0, 3600.0):
        judged(check, stranger())
        lines_of[clock[0]] = [line.split(" ", 2)[2] for line in capfd.readouterr().err.splitlines()]
    both = ["zone=a.test why=refuses+20us:+20127.255.255.254", "zone=b.test why=no+20answer+20in+20time"]
    assert lines_of == {0.0: both, 3599.0: [], 3600.0: both}


@pytest.mark.parametrize(("text", "why"), [
    ("spamhaus", "is not a zone"), ("a.test answer=1.2.3", "is not a network"),
    ("a.test\na.test", "twice"), ("a.test answer=::1", "IPv4"),
    ("a.test weight=0", "not a number"), ("threshold=1\nthreshold=1", "twice"),
    ("a.test answer=127.0.0.2 answer=127.0.0.3", "twice"), ("a.test caf\u00e9", "ASCII"),
    ("\n".join([f"l{n}.test" for n in range(33)]), "more than 32"), ("x" * 190 + ".test", "is not a")])
def test_mistakes_in_control_dnsbl(text, why):
    with pytest.raises(Exception, match=why):
        dnsbl(text, {})


# --- names ---

@pytest.mark.parametrize(("answers", "host", "mark"), [
    ({PTR: ["x.test", "h.test"], ("h.test", "A"): ["192.0.2.1"]}, "h.test", None),
    ({PTR: ["h.test"], ("h.test", "A"): ["192.0.2.2"]}, "", "unconfirmed"),
    ({PTR: ["h\\ .test", "[192.0.2.1]"]}, "", "none"), ({}, "", "none"), ({PTR: FAILS}, "", "unknown"),
    ({PTR: ["h.test"], ("h.test", "A"): FAILS}, "", "unknown"),
])
def test_the_name_of_an_address_confirms_it(answers, host, mark):
    facts = stranger()
    assert said(ReverseName(Dns(answers)), facts) == ("next", "")
    assert (facts.host, facts.marks.get("reversename")) == (host, mark)
    required = said(NameRequired(NOBODY), facts)
    expected = {None: ("next", ""), "unknown": ("defer", "4.7.25")}
    assert required == expected.get(mark, ("reject", "5.7.25"))


def test_no_more_than_five_names_are_looked_up():
    dns = Dns({PTR: [f"h{n}.test" for n in range(100)]})
    judged(ReverseName(dns), stranger())
    assert len(dns.asked) == 6


def test_a_name_that_is_known_is_not_looked_up():
    facts, dns = stranger(), Dns()
    facts.host = "given.test"
    judged(ReverseName(dns), facts)
    assert (dns.asked, facts.host) == ([], "given.test")


@pytest.mark.parametrize(("helo", "own"), [
    ("[IPv6:2001:DB8:0::1]", "2001:db8::1"), ("[IPv6:::ffff:192.0.2.9]", "192.0.2.9")])
def test_our_address_in_another_spelling(helo, own):
    assert judge_helo(helo, "192.0.2.1", frozenset(), own) == "own-address"
    assert judge_helo(helo, "192.0.2.1", frozenset(), "") == "other-address"


@pytest.mark.parametrize("listener", ["unix:/run/x", "", "mx.test:25"])
def test_no_address_of_ours_is_known(listener):
    facts = stranger(helo="[192.0.2.7]")
    facts.listener = listener
    judged(HeloCheck(True, frozenset(), NOBODY), facts)
    assert facts.marks == {"helocheck": "other-address"}


@pytest.mark.parametrize(("helo", "found"), [
    ("h.example", ""), ("h_x.example", ""), ("pc", "short"), ("a b", "syntax"),
    ("", "syntax"), ("-x.example", "syntax"), ("MX.test", "own-name"),
    ("[192.0.2.1]", ""), ("[192.0.2.7]", "other-address"),
    ("[198.51.100.1]", "own-address"), ("[IPv6:2001:db8::1]", "other-address"), ("192.0.2.1", "syntax"),
    ("[IPv6:::ffff:192.0.2.1]", "")])
def test_helo(helo, found):
    assert judge_helo(helo, "192.0.2.1", frozenset(["mx.test"]), "198.51.100.1") == found
    for refuses in (False, True):
        facts = stranger(helo=helo)
        action = judged(HeloCheck(refuses, frozenset(["mx.test"]), NOBODY), facts).action
        assert facts.marks == ({"helocheck": found} if found else {})
        lies = found in ("syntax", "own-name", "own-address")
        assert action == ("reject" if refuses and lies else "next")


@pytest.mark.parametrize(("early", "hasty", "mark"), [
    (True, True, "greeting"), (False, True, "pipelining"), (False, False, None)])
def test_early_talkers(early, hasty, mark):
    facts = stranger()
    facts.early, facts.hasty = early, hasty
    assert said(EarlyTalkers(False, NOBODY), facts) == ("next", "")
    assert facts.marks.get("earlytalkers") == mark
    assert said(EarlyTalkers(True, NOBODY), facts) == (("reject", "5.5.0") if mark else ("next", ""))


# --- senders ---

@pytest.mark.parametrize(("answers", "verdicts", "mark"), [
    ({MX: [(10, "mx.b.example")]}, ("", "", ""), None),
    ({MX: [(0, ".")]}, ("", "5.7.27", "5.7.27"), "nullmx"),
    ({MX: [(0, "."), (5, "mx.b.example")]}, ("", "", ""), None),
    ({}, ("", "5.1.8", "5.1.8"), "missing"),
    ({MX: FAILS}, ("", "", "4.4.3"), "unknown"),
    ({MX: Answer(NOTHING), ("b.example", "AAAA"): ["2001:db8::1"]}, ("", "", ""), None),
    ({MX: Answer(NOTHING)}, ("", "5.1.8", "5.1.8"), "missing"),
    ({MX: Answer(NOTHING), ("b.example", "A"): FAILS}, ("", "", "4.4.3"), "unknown"),
])
def test_the_domain_of_a_sender(answers, verdicts, mark):
    for what, status in zip(("mark", "reject", "strict"), verdicts, strict=True):
        facts = stranger()
        found = said(SenderDomain(what, NOBODY, Dns(answers)), facts)
        assert found == ({"": "next", "4": "defer", "5": "reject"}[status[:1]], status)
        assert facts.marks.get("senderdomain") == mark


@pytest.mark.parametrize("sender", ["", "a@[192.0.2.1]"])
def test_senders_without_a_domain_pass(sender):
    assert said(SenderDomain("strict", NOBODY, Dns()), stranger(sender=sender)) == ("next", "")


def test_an_internationalized_domain_is_looked_up_in_ascii():
    dns = Dns({("xn--fa-hia.example", "MX"): [(0, "mx.example")]})
    facts = stranger(sender="a@fa\u00df.example")
    assert said(SenderDomain("reject", NOBODY, dns), facts) == ("next", "")


@pytest.mark.parametrize(("sender", "refused"), [
    ("a@b.example", True), ("A@B.Example", True), ("x@b.example", False), ("x@c.example", True),
    ("x@sub.c.example", False), ("", False)])
@pytest.mark.parametrize("login", ["", "alice"])
def test_badmailfrom(sender, refused, login):
    senders = lines.parse("x", b"a@b.example\n@C.example\n", parse_badmailfrom, "")
    facts = stranger(sender=sender)
    facts.login = login
    assert said(BadMailFrom(senders), facts) == (("reject", "5.7.1") if refused else ("next", ""))


def test_mistakes_in_control_badmailfrom():
    for text in (b"nobody\n", b"@-x\n", b"a b@c.example\n"):
        with pytest.raises(Exception, match="line 1"):
            lines.parse("control/badmailfrom", text, parse_badmailfrom, "")


# --- who is judged ---

@pytest.mark.parametrize("because", ["login", "relay", "role", "local", "loopback", "trusted", "said"])
def test_nobody_else_is_judged(because):
    facts = stranger("127.0.0.1" if because == "loopback" else "192.0.2.1")
    facts.early = True
    facts.local = because == "local"
    facts.login = "alice" if because == "login" else ""
    facts.relay = because == "relay"
    facts.role = "submission" if because == "role" else "mx"
    if because == "said":
        facts.said["connect"] = Verdict(OK)
    trusted = parse_networks(["192.0.2.0/24"] if because == "trusted" else [], "")
    check, dns = dnsbl("a.test", {"a.test": ["127.0.0.2"]})
    check._trusted = trusted
    for one in (check, EarlyTalkers(True, trusted), NameRequired(trusted),
                HeloCheck(True, frozenset(["h.example"]), trusted),
                SenderDomain("reject", trusted, dns)):
        assert said(one, facts) == ("next", ""), one.name
    assert (facts.marks, dns.asked) == ({}, [])


def test_a_client_whose_address_nobody_knows_is_a_stranger():
    facts = stranger("")
    facts.early, facts.helo = True, "[192.0.2.1]"
    check, dns = dnsbl("a.test", {"a.test": ["127.0.0.2"]})
    assert said(EarlyTalkers(True, NOBODY), facts) == ("reject", "5.5.0")
    assert said(HeloCheck(True, frozenset(), NOBODY), facts) == ("next", "")
    assert said(check, facts) == ("next", "")
    spf = SpfCheck(True, "me.example", NOBODY, dns, lambda: 0.0, lambda: 0.0)
    assert said(spf, facts) == ("next", "")
    assert ReverseName(dns).look(facts) == Verdict()
    assert said(NameRequired(NOBODY), facts) == ("defer", "4.7.25")
    assert facts.marks == {"earlytalkers": "greeting", "helocheck": "other-address",
                           "reversename": "unknown"}
    assert dns.asked == []


def test_marks_of_mail_are_forgotten_with_the_message():
    facts = stranger()
    facts.marks = {"spf": "fail", "dnsbl": "a", "reversename": "none"}
    facts.forget_message()
    assert facts.marks == {"reversename": "none"}
