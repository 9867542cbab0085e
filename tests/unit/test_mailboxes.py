import pytest

from mqmail.mail.address import BadAddress
from mqmail.mail.mailboxes import MOST, BadList, Hosts, complete, one

HOSTS = Hosts("host.example.org", "example.org", "plus.example")


@pytest.mark.parametrize(("text", "addresses"), [
    ("bob@example.com", ["bob@example.com"]),
    ("Bob Q. Public <bob@example.com>, (x) a@b.c (y)", ["bob@example.com", "a@b.c"]),
    ('"Public, Bob" <bob@example.com>', ["bob@example.com"]),
    ("team: a@b.c, Dee <d@e.f>;, g@h.i", ["a@b.c", "d@e.f", "g@h.i"]),
    ("undisclosed-recipients:;", []), ("Undisclosed recipients:", []), ("", []), (" , ,\n ,", []),
    ("<@a.b,@c.d:bob@example.com>", ["bob@example.com"]),
    ('"a b"@c.d, a\\ b@c.d', ['"a b"@c.d', '"a b"@c.d']),
    ('"bob"@c.d, "b"."o".b@c.d', ["bob@c.d", "b.o.b@c.d"]),
    ("pete(A nice \\) chap) . (x)x (mid) @ c (y) . d", ["pete.x@c.d"]),
    ("a@[192.0.2.1], b@[IPv6:2001:db8::1]", ["a@[192.0.2.1]", "b@[IPv6:2001:db8::1]"]),
    ("((((a@x.y) b) , c) <z@x.y>) d@e.f", ["d@e.f"]),
    ("bob@example.com <joe@example.com>", ["joe@example.com"]),
    ("a..b@c.d, a.@c.d", ['"a..b"@c.d', '"a."@c.d']),
    ("J\u00f6rg <j\u00f6rg@b\u00fccher.example>", ["j\u00f6rg@b\u00fccher.example"]),
    ("<>", [""]),
    ("|/bin/sh, /etc/passwd", ["|/bin/sh@host.example.org", "/etc/passwd@host.example.org"]),
])
def test_lists(text, addresses):
    assert complete(text, HOSTS)[1] == addresses


@pytest.mark.parametrize(("text", "completed"), [
    ("bob", "bob@host.example.org"),
    ("bob@cs", "bob@cs.example.org"),
    ("bob@cs+, eve@a.b+", "bob@cs.plus.example, eve@a.b.plus.example"),
    ("Bob (the one) <bob>, x@y.z", "Bob (the one) <bob@host.example.org>, x@y.z"),
    ("djb fred", "djb@host.example.org, fred@host.example.org"),
    ("a@b.c d@e.f\n (x) g@h.i", "a@b.c, d@e.f,\n (x) g@h.i"),
    ("<a@b.c> d@e.f", "<a@b.c>, d@e.f"),
    ("<a@b.c> Dee <d@e.f>", "<a@b.c>, Dee <d@e.f>"),
    ("<@r.s:a@b.c>", "<a@b.c>"),
    ("a . b @ c . d", "a . b @ c . d"),
])
def test_incomplete_lists_are_completed_and_the_rest_is_left_as_it_is(text, completed):
    assert complete(text, HOSTS)[0] == completed


def test_a_default_host_may_itself_be_incomplete():
    assert one("bob", Hosts("cs+", "example.org", "plus.example")) == "bob@cs.plus.example"
    assert one("bob", Hosts("cs", "example.org", "plus.example")) == "bob@cs.example.org"


@pytest.mark.parametrize(("text", "problem"), [
    ("<a@b.c", "'<' without '>'"), ("a@b.c>", "'>' without '<'"), ("<<a@b.c>>", "'<' inside '<'"),
    ('"a@b.c', "quoted string is not closed"), ("(a@b.c", "comment is not closed"),
    ("a@[1.2.3.4", "literal is not closed"), ("a)", "without its beginning"),
    ("a@b@c", "one '@'"), ("@b.c", "one '@'"), ("a@", "one '@'"), ("<John Doe@b.c>", "in the midst"),
    ("<@a.b>", "source route"), ("<@a.b,ceo@c.d,:x@y.z>", "source route"),
    ("<@a.b@c.d:x@y.z>", "source route"), ("<@a.b:ceo@c.d:x@y.z>", "source route"),
    ("<a@b.c> Bob", "words after '>'"), ("a\\", "backslash at the end"),
    ("[1.2.3.4]@b.c", "one '@'")])
def test_what_is_no_list_is_refused(text, problem):
    with pytest.raises(BadList, match=problem):
        complete(text, HOSTS)


def test_addresses_are_checked():
    for text in ("a@b..c", "a@[300.1.1.1]", "x" * 65 + "@b.c", "a\x00b@c.d", '"a\x1bb"@c.d'):
        with pytest.raises(BadAddress):
            complete(text, HOSTS)


def test_deep_nesting_and_many_addresses_are_no_danger():
    assert complete("(" * 100_000 + ")" * 100_000 + "a@b.c", HOSTS)[1] == ["a@b.c"]
    assert len(complete("a@b.c," * MOST, HOSTS)[1]) == MOST
    with pytest.raises(BadList, match="more than 10000 addresses"):
        complete("a@b.c," * (MOST + 1), HOSTS)


@pytest.mark.parametrize(("text", "whole"), [
    ("bob", "bob@host.example.org"), ("a b@c.d", '"a b"@c.d'), ("a@b@c.d", '"a@b"@c.d'),
    ('"a b"@c.d', '"a b"@c.d'), ("<bob@c.d>", "bob@c.d"), ("Bob <bob@c.d>", "bob@c.d"),
    ("a,b@c.d", '"a,b"@c.d'), ("", ""), ("<>", "")])
def test_one_address_of_a_command_line(text, whole):
    assert one(text, HOSTS) == whole


def test_one_address_of_a_command_line_cannot_hold_a_line_end():
    for text in ("a\nb@c.d", "a@b\n.c", "a\r@b.c", '"a\nb\x00"@c.d', "@c.d", "a@", "a@b.c,<d@e.f>"):
        with pytest.raises(ValueError):
            print(one(text, HOSTS))
