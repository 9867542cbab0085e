"""Next hops of control/: their syntax, the order in which they are looked up, the policies for them."""

import pytest

from mqmail.control import lines
from mqmail.control.routes import (
    BY_MX,
    Route,
    Routing,
    parse_fallback,
    parse_hop,
    parse_senderroutes,
    parse_smtproutes,
)
from mqmail.control.tlspolicy import parse_tlspolicy
from mqmail.mail.mxlist import Way

PARSERS = {"domains": parse_smtproutes, "senders": parse_senderroutes, "fallback": parse_fallback,
           "tls": parse_tlspolicy}


def routing(**files):
    return Routing(**{name: lines.parse(name, text.encode(), PARSERS[name], "")
                      for name, text in files.items()})


HOPS = [
    ("h.example", "h.example", 25, Way()),
    ("H.Example:26", "h.example", 26, Way()),
    ("smtp:h.example", "h.example", 25, Way()),
    ("smtp", "smtp", 25, Way()),
    ("smtp:smtp:25", "smtp", 25, Way()),
    ("smtps:h.example", "h.example", 465, Way("smtps")),
    ("smtps:h.example:4650", "h.example", 4650, Way("smtps")),
    ("lmtp:h.example", "h.example", 24, Way("lmtp")),
    ("lmtp:/run/l=x.sock", "/run/l=x.sock", 0, Way("lmtp", "none")),
    ("lmtp:/run/l.sock auth=a", "/run/l.sock", 0, Way("lmtp", "none", auth="a")),
    ("192.0.2.1", "192.0.2.1", 25, Way()),
    ("[192.0.2.1]:26", "192.0.2.1", 26, Way()),
    ("[2001:DB8::1]:26", "2001:db8::1", 26, Way()),
    ("lmtp:[2001:db8::1]", "2001:db8::1", 24, Way("lmtp")),
    ("h.example:587 auth=me@isp.example", "h.example", 587, Way(auth="me@isp.example")),
    ("h.example \t prefer=ipv6  source=2001:DB8::9,192.0.2.9", "h.example", 25,
     Way(sources=("192.0.2.9", "2001:db8::9"), prefer="ipv6")),
    ("", "", 25, Way()),
    (":26", "", 26, Way()),
    (" prefer=ipv4", "", 25, Way(prefer="ipv4")),
    (":26 source=192.0.2.9", "", 26, Way(sources=("192.0.2.9",))),
]


@pytest.mark.parametrize(("text", "host", "port", "way"), HOPS)
def test_a_hop(text, host, port, way):
    assert parse_hop(text, "smtproutes") == Route(host, port, way, "smtproutes")


def hosts_of(found, *pairs):
    return [found.route(domain, sender).host for domain, sender in pairs]


def test_the_order_of_look_ups():
    found = routing(
        domains="a.example:exact\n.a.example:below\nmx.example:\n:rest\n",
        senders="Alice@home.example:alice\nhome.example:home\n.home.example:under\n<>:reports\n"
                '"a:b c"@home.example:quoted\nelse.example:\n')
    assert hosts_of(found, ("A.example", "alice@home.example"), ("b.a.example", "alice@home.example"),
                    ("mx.example", "alice@home.example"), ("x.example", "ALICE@home.example"),
                    ("x.example", "bob@home.example"), ("x.example", "bob@y.z.home.example"),
                    ("x.example", '"a:b c"@home.example'), ("x.example", ""),
                    ("x.example", "bob@nothome.example"), ("x.example", "bob@else.example"),
                    ("a.example", ""), ("", "alice@home.example"), ("", "postmaster")) == [
        "exact", "below", "", "alice", "home", "under", "quoted", "reports", "rest", "", "exact",
        "alice", "rest"]
    assert [found.route("x.example", sender).file for sender in ("bob@home.example", "b@c.example")] == [
        "senderroutes", "smtproutes"]


def test_without_a_line_it_is_mx():
    found = routing(domains="a.example:h\n", senders="<>:h\n", fallback="late.example\n")
    assert found.route("b.example", "x@y.example") is BY_MX
    assert (BY_MX.host, BY_MX.port, BY_MX.way, BY_MX.file) == ("", 25, Way(), "")


def test_address_literals_are_keys_like_others():
    found = routing(domains="[192.0.2.7]:h4\n[IPv6:2001:DB8::7]:h6:26\n")
    assert found.route("[192.0.2.7]", "") == Route("h4", 25, Way(), "smtproutes")
    assert found.route("[ipv6:2001:db8::7]", "") == Route("h6", 26, Way(), "smtproutes")


def test_a_sender_whose_name_is_not_ascii():
    found = routing(senders="j\u00f6rg@home.example:h\n")
    assert hosts_of(found, ("x", "j\u00f6rg@Home.example"), ("x", "jorg@home.example")) == ["h", ""]


def test_the_fallback_is_one_hop():
    assert routing(fallback="# a comment\n\nlate.example:26 auth=x\n").fallback == Route(
        "late.example", 26, Way(auth="x"), "fallbackroute")
    assert routing(fallback="# nothing\n").fallback is None


def test_the_way_has_what_route_and_policy_say():
    found = routing(domains="a.example:smtps:h.example auth=a source=192.0.2.9 prefer=ipv4\n"
                            "b.example:lmtp:/run/l.sock\n",
                    tls="a.example: verify min=1.3 sni=s.example\nb.example: verify\n")
    assert found.way("a.example", found.route("a.example", "")) == Way(
        "smtps", "verify", ("h.example",), "1.3", "s.example", "a", ("192.0.2.9",), "ipv4")
    assert found.way("b.example", found.route("b.example", "")) == Way("lmtp", "none")
