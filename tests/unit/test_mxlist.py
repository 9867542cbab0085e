"""From DNS answers to a domain's hosts."""

import pytest

from mqmail.base import xtext
from mqmail.mail.mxlist import (
    DIRECT,
    FAILED,
    FOUND,
    MOST_ADDRESSES,
    MOST_HOSTS,
    NOTHING,
    UNKNOWN,
    Answer,
    Choice,
    Limits,
    NoHosts,
    Way,
    choices,
    literal,
    names_of,
    with_way,
)

LIMITS = Limits(frozenset(["us.example"]), lambda ip: ip == "192.0.2.99",
                lambda ip: ip[:4] in ("127.", "::1"))
NONE, GONE, BROKEN = Answer(NOTHING), Answer(UNKNOWN), Answer(FAILED, (), 0, "SERVFAIL")


def mx(*records):
    return Answer(FOUND, records)


def hosts(names, **addresses):
    """choices() for x.example, ``a="192.0.2.1 2001:db8::1"`` giving a both; None: SERVFAIL."""
    found = {}
    for name, text in addresses.items():
        words = None if text is None else text.split()
        found[name] = [BROKEN, NONE] if words is None else [
            Answer(FOUND, tuple(w for w in words if ":" not in w)) if text else GONE,
            Answer(FOUND, tuple(w for w in words if ":" in w))]
    return choices("x.example", names, found, 25, LIMITS)


@pytest.mark.parametrize(("answer", "expected"), [
    (mx((20, "b"), (10, "c"), (10, "a")), [(10, "a"), (10, "c"), (20, "b")]),
    (mx((20, "a"), (10, "a")), [(10, "a")]),
    (mx((10, "a"), (0, ".")), [(10, "a")]),
    (NONE, [(0, "x.example")]),
    (mx((0, ".")), NoHosts("5.1.10", "x.example takes no mail (null MX)")),
    (GONE, NoHosts("5.1.2", "x.example does not exist")),
    (BROKEN, NoHosts("4.4.3", "the MX of x.example cannot be looked up: SERVFAIL")),
])
def test_the_mx_answer(answer, expected):
    assert names_of("x.example", answer) == expected


def test_only_the_best_of_hundreds_of_hosts():
    found = names_of("x.example", mx(*[(n, f"h{n}") for n in range(400, 0, -1)]))
    assert [preference for preference, _ in found] == list(range(1, MOST_HOSTS + 1))


def test_addresses_of_both_families_in_turn():
    many = " ".join([f"192.0.2.{n}" for n in range(1, 31)])
    (choice,) = hosts([(10, "a")], a=f"{many} 2001:db8::1")
    assert choice.addresses[:3] == ("192.0.2.1", "2001:db8::1", "192.0.2.2")
    assert len(choice.addresses) == MOST_ADDRESSES


@pytest.mark.parametrize("ours", ["us.example", "h"])
def test_our_own_place_in_the_list(ours):
    names = [(10, "a"), (20, "b"), (20, ours), (30, "c")]
    found = hosts(names, a="192.0.2.1", b="192.0.2.2", c="192.0.2.3", h="192.0.2.99")
    assert [choice.host for choice in found] == ["a"]
    found = hosts(names[1:], b="192.0.2.2", c="192.0.2.3", h="192.0.2.99")
    assert found == NoHosts("5.4.6", "x.example has this host as its best MX, yet is no domain of ours")


@pytest.mark.parametrize(("names", "addresses", "expected"), [
    ([(10, "192.0.2.1")], {},
     "5.4.4 no host takes mail for x.example: its MX 192.0.2.1 is an address, not a name"),
    ([(10, "a")], {"a": ""}, "5.4.4 no host takes mail for x.example: a has no address"),
    ([(10, "a")], {"a": "127.0.0.1 ::1"},
     "5.4.4 no host takes mail for x.example: a is at 127.0.0.1, where no mail is sent to"),
    ([(0, "x.example")], {"x.example": ""},
     "5.1.2 no host takes mail for x.example: x.example has no address"),
])
def test_hosts_that_cannot_be(names, addresses, expected):
    found = hosts(names, **addresses)
    assert f"{found.status} {found.why}" == expected


def test_what_is_left_is_used():
    names = [(5, "192.0.2.1"), (10, "a"), (20, "b"), (30, "c")]
    assert hosts(names, a="", b="127.0.0.1 192.0.2.2", c=None) == [
        Choice(20, "b", 25, ("192.0.2.2",)),
        Choice(30, "c", 25, (), "no address of c known: SERVFAIL")]


def test_one_family_is_enough():
    six = Answer(FOUND, ("2001:db8::1",))
    found = choices("x.example", [(1, "a")], {"a": [BROKEN, six]}, 25, LIMITS)
    assert found == [Choice(1, "a", 25, ("2001:db8::1",))]


@pytest.mark.parametrize(("domain", "expected"), [
    ("[192.0.2.1]", [Choice(0, "[192.0.2.1]", 25, ("192.0.2.1",))]),
    ("[IPv6:2001:db8::1]", [Choice(0, "[IPv6:2001:db8::1]", 25, ("2001:db8::1",))]),
    ("[192.0.2.99]", "5.4.6"),
    ("[127.0.0.1]", "5.1.2"),
])
def test_address_literals(domain, expected):
    found = literal(domain, 25, LIMITS)
    assert (found.status if isinstance(found, NoHosts) else found) == expected


@pytest.mark.parametrize(("family", "expected"), [
    ("", "1.1.1.1 ::1 2.2.2.2 ::2"), ("ipv4", "1.1.1.1 2.2.2.2 ::1 ::2"),
    ("ipv6", "::1 ::2 1.1.1.1 2.2.2.2")])
def test_addresses_of_the_preferred_family_come_first(family, expected):
    choices = [Choice(5, "a", 26, ("1.1.1.1", "::1", "2.2.2.2", "::2")), Choice(6, "b", 25, (), "why")]
    way = Way(tls="encrypt", prefer=family)
    assert with_way(choices, way) == [Choice(5, "a", 26, tuple(expected.split()), "", way),
                                      Choice(6, "b", 25, (), "why", way)]


def test_the_facts_of_a_way():
    assert xtext.facts(DIRECT.facts()) == "kind=smtp tls=may"
    way = Way("smtps", "verify", ("a", ".b"), "1.3", "s", "isp", ("192.0.2.9", "::9"), "ipv4")
    assert xtext.facts(way.facts()) == (
        "kind=smtps tls=verify names=a,.b min=1.3 sni=s auth=isp source=192.0.2.9,::9")
