"""control/tlspolicy: whose line counts, and what it asks of a host."""

import pytest

from mqmail.control import lines
from mqmail.control.tlspolicy import Policy, parse_tlspolicy
from mqmail.mail.mxlist import DIRECT, Way


def parse(text):
    return lines.parse("control/tlspolicy", text.encode(), parse_tlspolicy, "")


def test_the_order_of_look_ups():
    found = parse("d.example: none\n.d.example: encrypt\nh.test: verify\n.h.test: may min=1.2\n"
                  ": may min=1.3\n")
    assert [found.lookup(*pair).level for pair in (
        ("D.example", "h.test"), ("x.y.d.example", "h.test"), ("e.example", "H.test"))] == [
        "none", "encrypt", "verify"]
    assert found.lookup("e.example", "a.b.h.test") == Policy(minimum="1.2")
    assert found.lookup("e.example", "") == found.lookup("", "") == Policy(minimum="1.3")
    assert parse("d.example: none\n").lookup("e.example", "h.test") == Policy()


def test_facts():
    found = parse("a.example: verify names=A.example,.b.example,2001:DB8::1 min=1.2 sni=S.example\n")
    assert found.lookup("a.example", "") == Policy(
        "verify", ("a.example", ".b.example", "2001:db8::1"), "1.2", "s.example")


@pytest.mark.parametrize(("domain", "host", "names"), [
    ("a.example", "", ("a.example", ".a.example")),
    ("a.example", "h.test", ("h.test",)),
    ("a.example", "192.0.2.1", ("192.0.2.1",)),
    ("[192.0.2.1]", "", ("192.0.2.1",)),
    ("[ipv6:2001:db8::1]", "", ("2001:db8::1",)),
])
def test_whom_a_certificate_is_for_goes_without_saying(domain, host, names):
    assert parse(": verify\n").way(domain, host, DIRECT) == Way(tls="verify", names=names)
    assert parse(": verify names=x.test\n").way(domain, host, DIRECT).names == ("x.test",)


@pytest.mark.parametrize(("level", "expected"), [
    ("none", "encrypt"), ("may", "encrypt"), ("encrypt", "encrypt"), ("verify", "verify")])
def test_tls_from_the_first_octet_is_at_least_encrypted(level, expected):
    assert parse(f": {level}\n").way("a.example", "h.test", Way("smtps")).tls == expected
    assert parse(f": {level}\n").way("a.example", "h.test", Way("lmtp")).tls == level


def test_addresses_of_hosts_and_of_domains_are_told_apart():
    found = parse("192.0.2.1: encrypt\n[2001:DB8::1]: verify\n[IPv6:2001:db8::1]: none\n")
    assert [found.lookup("e.example", ip).level for ip in ("192.0.2.1", "2001:db8::1")] == [
        "encrypt", "verify"]
    assert found.lookup("[ipv6:2001:db8::1]", "").level == "none"
    assert found.lookup("[192.0.2.1]", "").level == "may"
