"""The parsers and look-ups of the control files that are lists and tables."""

from __future__ import annotations

import os
import pwd

import pytest

from mqmail.base.failure import BadFile
from mqmail.control import (
    aliases,
    certificates,
    destinations,
    domains,
    hosts,
    injectors,
    lines,
    listeners,
    networks,
    optionsets,
    remote,
    routes,
    tlspolicy,
    users,
)
from mqmail.control.table import BY_NAME

PARSERS = {
    "locals": domains.parse_locals,
    "virtualdomains": domains.parse_virtualdomains,
    "users": users.parse_users,
    "aliases": aliases.parse_aliases,
    "relayclients": networks.parse_networks,
    "smtproutes": routes.parse_smtproutes,
    "senderroutes": routes.parse_senderroutes,
    "fallbackroute": routes.parse_fallback,
    "tlspolicy": tlspolicy.parse_tlspolicy,
    "remotetimeouts": remote.parse_timeouts,
    "remotesessions": remote.parse_sessions,
    "resolvers": hosts.parse_resolvers,
    "destinations": destinations.parse_destinations,
    "listeners": listeners.parse_listeners,
    "optionsets": optionsets.parse_optionsets,
    "tlscertificates": certificates.parse_certificates,
    "injectors": injectors.parse_injectors,
}


def parse(name, text):
    return lines.parse(f"control/{name}", text.encode(), PARSERS[name], "me.example")


def test_lines_drop_blanks_and_comments_and_keep_their_numbers():
    found = lines.Lines(b"# c\n\n a \t\n  # indented\nb\n \t\nlast")
    assert [(found.number, line) for line in found] == [(3, " a"), (5, "b"), (7, "last")]


def test_only_a_line_feed_ends_a_line():
    with pytest.raises(
        BadFile, match=r"control/locals line 1: holds the unprintable character U\+000B"
    ):
        parse("locals", "a.example\vb.example\n")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"ok.example\nbad.example\r\n", "line 2: ends in CR LF"),
        (b"\xff.example\n", "line 1: not UTF-8"),
        (b"\n" + b"a" * 8193 + b"\n", "line 2: longer than 8192 bytes"),
        (b"a\x00.example\n", r"line 1: holds the unprintable character U\+0000"),
    ],
)
def test_bad_bytes_are_named(data, text):
    with pytest.raises(BadFile, match=f"control/locals {text}"):
        lines.parse("control/locals", data, domains.parse_locals, "")


def test_locals_are_lower_case():
    assert parse("locals", "Example.ORG\n[192.0.2.1]\n") == {"example.org", "[192.0.2.1]"}


def test_virtualdomains_look_up_as_qmail_does():
    found = parse(
        "virtualdomains",
        "joe@Dom.example:j\ndom.example:d\n.dom.example:sub\nwww.dom.example:\n.example:e\n:all\n",
    )
    assert found.lookup("JOE@dom.EXAMPLE") == "j"
    assert found.lookup("x@dom.example") == "d"
    assert found.lookup("x@a.b.dom.example") == "sub"
    assert found.lookup("x@www.dom.example") == ""
    assert found.lookup("x@other.example") == "e"
    assert found.lookup("x@elsewhere.test") == "all"
    assert parse("virtualdomains", "dom.example:d\n").lookup("x@sub.dom.example") is None


def test_users():
    found = parse(
        "users",
        'Alice@Example.ORG\nbob@example.com:bob-com\n@example.com:all\n"a b"@example.com:ab\n',
    )
    assert found.lookup("aLICE@example.org") == "Alice"
    assert found.lookup("bob@EXAMPLE.com") == "bob-com"
    assert found.lookup('"A B"@example.com') == "ab"
    assert found.lookup("carol@example.com") is None
    assert found.domains["example.com"][""] == "all"
    assert sorted(found.domains) == ["example.com", "example.org"]
    assert "" not in found.domains["example.org"]
    assert found.lookup("postmaster") is None


def test_two_people_get_one_mailbox_only_on_purpose():
    with pytest.raises(
        BadFile, match="line 2: 'bob@b.example': mail/bob is another address's mailbox"
    ):
        parse("users", "bob@a.example\nbob@b.example\n")
    assert parse("users", "bob@a.example\nbob@b.example:bob\n").lookup("bob@b.example") == "bob"


def test_aliases():
    found = parse(
        "aliases",
        "Team: alice, bob@Example.com,\n\t carol@example.net\n# comment\n\n"
        'team@other.example: dave\nowner-team: alice\nodd:\n  "a,b"@example.org\n',
    )
    local = {"me.example", "other.example"}
    assert found.lookup("tEAM@me.example", local) == [
        "alice@me.example",
        "bob@Example.com",
        "carol@example.net",
    ]
    assert found.lookup("team@other.example", local) == ["dave@me.example"]
    assert found.lookup("team@far.example", local) is None
    assert found.lookup("odd@me.example", local) == ['"a,b"@example.org']
    assert found.owner("Team@me.example", local) == "owner-Team@me.example"
    assert found.owner("odd@me.example", local) is None
    assert found.owner("owner-team@me.example", local) is None


def test_networks():
    found = parse("relayclients", "127.0.0.1\n10.0.0.0/8\n::1\n2001:db8::/32\n")
    for ip in (
        "127.0.0.1",
        "10.255.1.2",
        "::1",
        "0:0::1",
        "2001:DB8:ff::9",
        "::ffff:10.1.2.3",
        "2001:db8::1%eth0",
    ):
        assert found.contains(ip), ip
    for ip in (
        "127.0.0.2",
        "11.0.0.0",
        "::2",
        "2001:db9::",
        "::ffff:11.1.2.3",
        "",
        "x",
        "10",
        "1.2.3.4/8",
        "::10.0.0.1",
    ):
        assert not found.contains(ip), ip
    assert not parse("relayclients", "").contains("127.0.0.1")


def test_resolvers():
    assert parse("resolvers", "192.0.2.1\n192.0.2.1:5353\n2001:db8::53\n[2001:db8::53]:54\n") == (
        ("192.0.2.1", 53), ("192.0.2.1", 5353), ("2001:db8::53", 53), ("2001:db8::53", 54))


def test_refused_networks():
    default = BY_NAME["refusednetworks"].default
    found = parse("relayclients", default)
    refused = ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "169.254.1.1", "224.0.0.1",
               "255.255.255.255", "fe80::1"]
    assert [ip for ip in refused if not found.contains(ip)] == []
    others = ["192.0.2.1", "10.1.2.3", "2001:db8::1", "::2", "fd00::1"]
    assert [ip for ip in others if found.contains(ip)] == []


def test_remote_timeouts_and_sessions():
    assert parse("remotetimeouts", "") == remote.RemoteTimeouts()
    assert parse("remotetimeouts", "end\t 900\ngreeting 5\n") == remote.RemoteTimeouts(
        greeting=5, end=900)
    assert parse("remotesessions", "idle 0\nprobe yes\nmost 30\nstart 30\n") == remote.Sessions(
        idle=0, probe=True, start=30, most=30)
    assert parse("remotesessions", "most 2\n") == remote.Sessions(start=2, most=2)
    assert parse("remotesessions", "uses 1\nage 7\n") == remote.Sessions(uses=1, age=7)


def test_listeners():
    found = parse("listeners", "127.0.0.1:2525\n[::1]:25 role=lmtp set=x\n"
                  "unix:/run/a role=submission\n")
    assert found == (listeners.Listener("127.0.0.1", 2525),
                     listeners.Listener("::1", 25, "", "lmtp", "x"),
                     listeners.Listener(path="/run/a", role="submission"))
    assert [one.place for one in found] == ["127.0.0.1:2525", "[::1]:25", "unix:/run/a"]
    found = parse("listeners", "[::1]:25 destination=filter\n127.0.0.1:25 destination=new\n")
    assert [one.destination for one in found] == ["filter", ""]
    assert listeners.given_destinations(found) == {"filter"}
    [one] = parse("listeners", "0.0.0.0:25 proxy=10.0.0.0/8,::1 xclient=192.0.2.1\n")
    assert one.proxy.contains("10.1.2.3")
    assert one.proxy.contains("::1")
    assert not one.proxy.contains("192.0.2.1")
    assert one.xclient.contains("192.0.2.1")


def test_option_sets_lie_above_each_other():
    found = parse("optionsets", "mx greetdelay=2 prdr=no\n"
                  "friends greetdelay=0 databytes=1K checks=spf,helocheck sessions=20,5%\n"
                  "submission auth=login\nclosed checks=none auth=none\n")
    assert found.options("mx") == optionsets.Options(greetdelay=2, prdr=False)
    friends = found.options("mx", "friends")
    assert friends == optionsets.Options(
        prdr=False, databytes=1024, checks=("spf", "helocheck"), sessions=(20, 5))
    assert found.options("submission").auth == ("LOGIN",)
    assert found.options("submission").tls == "require"
    closed = found.options("submissions", "closed")
    assert closed.checks == closed.auth == ()
    assert found.options("lmtp", "unknown") == optionsets.Options()
    assert found.has("friends")
    assert found.has("mx")
    assert not found.has("unknown")


@pytest.mark.parametrize(("option", "why"), [
    ("checks=spf,throttle", "checks=throttle: is a limit, which is asked always and first: leave it out"
     " here; control/throttles says whom it is not for"),
    ("checks=accounts", "control/accountlimits says"), ("checks=senders", "control/logins says"),
    ("checks=acces,spf", "checks=acces: write all, none, or some of access, badmailfrom,"),
    ("checks=", "checks=: write all"), ("checks=spf,", "checks=: write all"),
    ("checks=none,spf", "checks=none: write all"), ("checks=spf,dnsbl,spf", "checks=spf: is given"),
    ("sessions=0", "sessions=0: write a number of sessions"), ("sessions=101%", "sessions=101%: write"),
    ("etrn=", "etrn=: write domains with commas"), ("etrn=a.example,,b.example", "write domains with"),
    ("etrn=a..b", "etrn="), ("vrfy=maybe", "vrfy='maybe': write yes or no"),
    ("ident=31", "from 0 to 30"), ("loginset=a/b", "is not a name"),
    ("tlsset=gone", "line 1: there is no option set gone: write gone OPTION=VALUE"),
    ("sessions=", "sessions=: write a number"), ("sessions=5,6", "sessions=5,6: write a number")])
def test_option_sets_that_are_wrong_say_why(option, why):
    with pytest.raises(BadFile) as caught:
        parse("optionsets", f"mx {option}\n")
    assert why in caught.value.text


def test_option_sets_of_what_clients_may_ask():
    found = parse("optionsets", "mx etrn=Example.com,.bücher.example vrfy=yes tlsset=inside\n"
                  "inside etrn=none expn=yes ident=5 loginset=submission\n")
    assert found.options("mx").etrn == ("example.com", ".xn--bcher-kva.example")
    assert found.options("mx").tlsset == "inside"
    inside = found.options("mx", "inside")
    assert (inside.etrn, inside.vrfy, inside.expn, inside.ident) == ((), True, True, 5)
    assert found.opens("mx") == "vrfy=yes"
    assert found.opens("inside") == "expn=yes"
    assert parse("optionsets", "x etrn=a.example\n").opens("x") == "etrn=a.example"


def test_certificates_are_found_by_name():
    found = parse("tlscertificates", "* a.pem a.key\nMx.example.org b.pem b.key\n.example.org c d\n")
    for name, certificate in (("", "a.pem"), ("mx.example.org", "b.pem"), ("MX.EXAMPLE.ORG", "b.pem"),
                              ("www.example.org", "c"), ("a.b.example.org", "c"),
                              ("example.org", "a.pem")):
        assert found.find(name)[0] == certificate
    assert parse("tlscertificates", "").files == {}


def test_destinations():
    found = parse(
        "destinations",
        "lists:lmtp:unix:/run/l.sock concurrency=0\n"
        "vacation:lmtp:tcp:[::1]:2525 timeout=120\nmailbox:lmtp:unix:run/dovecot\n",
    )
    assert found.lookup("lists") == destinations.Destination("lists", "/run/l.sock", concurrency=0)
    assert found.lookup("vacation") == destinations.Destination(
        "vacation", "", "::1", 2525, None, 120
    )
    assert found.lookup("mailbox").path == "run/dovecot"
    assert found.lookup("new").path == "run/resolve.sock"
    assert found.lookup("error").path == "run/bounce.sock"
    assert found.lookup("nix") is None


def test_injectors():
    found = parse("injectors", "nobody none\n4242 trusted\n* local\n")
    assert found.level(pwd.getpwnam("nobody").pw_uid) == "none"
    assert found.level(4242) == "trusted"
    assert found.level(4243) == "local"
    assert found.level(0) == found.level(os.geteuid()) == "trusted"
    assert parse("injectors", "0 none\n").level(0) == "trusted"
    assert parse("injectors", "4242 local\n").level(4243) == "none"


MISTAKES = [
    ("locals", "a b", "not a domain"),
    ("locals", "-x.example", "not a domain"),
    ("virtualdomains", "dom.example", "no colon"),
    ("virtualdomains", "a.b:x y", "cannot stand before the @"),
    ("virtualdomains", "a.b:x\nA.B:y", "line 2: 'A.B' is given twice"),
    ("virtualdomains", ".:x", "lone dot"),
    ("virtualdomains", "a@@b:x", "bad local part"),
    ("users", "alice", "not an address"),
    ("users", "a@b.c:../x", "cannot be a directory"),
    ("users", "a@b.c:.x", "cannot be a directory"),
    ("users", "a@b.c:", "cannot be a directory"),
    ("users", "a/b@c.d", "cannot be a directory"),
    ("users", "a@b.c\nA@B.C:y", "line 2: 'A@B.C' is given twice"),
    ("users", "@b.c", "no directory: write @b.c:DIRECTORY"),
    ("users", '""@b.c:x', "before the @"),
    ("users", "a@b..c:x", "not a domain|bad domain"),
    ("users", "a" * 65 + "@b.c:x", "before the @"),
    ("aliases", "x", "no colon"),
    ("aliases", "x: |program", "not an address: a program or file"),
    ("aliases", 'x: "|program a"', "not an address"),
    ("aliases", "x: /var/mail/x", "not an address"),
    ("aliases", "x: :include:/x", "not an address"),
    ("aliases", "a b: c", "cannot stand before"),
    ("aliases", "# c\nx:\n\ny: z", "line 2: the alias x has no targets"),
    ("aliases", "x: ,", "line 1: the alias x has no"),
    ("aliases", " x: y", "continues nothing"),
    ("aliases", "x: y\nX: z", "line 2: the alias x is given twice"),
    ("aliases", "x: y, z@", "line 1: 'z@' is not an address"),
    ("aliases", 'x: "y@z.example', "not closed"),
    ("relayclients", "10.1", "not a network"),
    ("relayclients", "10.0.0.1/8", "bits set outside"),
    ("relayclients", "0.0.0.0/0", "prefix length goes from 1 to 32"),
    ("relayclients", "::/129", "from 1 to 128"),
    ("relayclients", "10.0.0.0/+8", "prefix length"),
    ("relayclients", "10.0.0.0/", "prefix length"),
    ("relayclients", "fe80::%eth0/10", "without a zone"),
    ("relayclients", "localhost", "not a network"),
    ("resolvers", "ns.example", "not an address"),
    ("resolvers", "192.0.2.1:0", "not a port"),
    ("resolvers", "192.0.2.1\n192.0.2.1:53", "line 2: 192.0.2.1:53 is given twice"),
    ("smtproutes", "a.example", "no colon"),
    ("smtproutes", "a.example:h:99999", "not a port"),
    ("smtproutes", "a.example:h:1_0", "not a port"),
    ("smtproutes", "a.example:h:٢٥", "not a port"),
    ("smtproutes", "a.example:[::1:25", "IPv6 address with a port"),
    ("smtproutes", "a.example:h h", "not name=value: 'h': write no other facts than auth=, "),
    ("smtproutes", "a.example:h_:25:", "not a port"),
    ("smtproutes", "a.example:25", "'25' names no host"),
    ("smtproutes", "a.example:smtp:25", "'smtp:25' names no host"),
    ("smtproutes", "a.example:smtps:", "'smtps:' names no host"),
    ("smtproutes", "a.example:lmtp::24", "'lmtp::24' names no host"),
    ("smtproutes", "a.example:lmtp:/" + "p" * 107, "at most 107 bytes"),
    ("smtproutes", "a.example:lmtp:run/x.sock", "not a domain"),
    ("smtproutes", "a.example:smtp:/run/x.sock", "not a domain"),
    ("smtproutes", "a.example:2001:db8::1", r"as \[2001:db8::1\]:25"),
    ("smtproutes", "a.example:h auth=", "auth=: write no other facts"),
    ("smtproutes", "a.example:h tls=may", "tls=may: write no other facts than auth=, source=, prefer="),
    ("smtproutes", "a.example:h auth=a auth=b", "auth given twice"),
    ("smtproutes", "a.example:h auth=a/b", "auth=a/b: write the name"),
    ("smtproutes", "a.example:h auth=" + "a" * 65, "at most 64 letters"),
    ("smtproutes", "a.example: auth=isp", "auth= needs a host"),
    ("smtproutes", "a.example: prefer=ipv5", "prefer=ipv4 or prefer=ipv6"),
    ("smtproutes", "a.example: source=192.0.2.1,192.0.2.2", "at most one address of each family"),
    ("smtproutes", "a.example: source=192.0.2", "one IPv4 address, one IPv6"),
    ("smtproutes", "a.example: source=::ffff:192.0.2.1", "one IPv4 address, one IPv6"),
    ("smtproutes", "a.example: source=192.0.2.1,", "one IPv4 address, one IPv6"),
    ("smtproutes", "a.example:lmtp:/run/x source=192.0.2.1", "Unix socket has neither"),
    ("smtproutes", "b\u00fccher.example:h", "begins with xn--"),
    ("smtproutes", "a.example:b\u00fccher.example", "begins with xn--"),
    ("smtproutes", "a@b.example:h", "not a domain"),
    ("senderroutes", ":h", "written into smtproutes"),
    ("senderroutes", "a@@b:h", "bad local part"),
    ("senderroutes", "a@b.example:h\nA@B.example:i", "line 2: 'A@B.example' is given twice"),
    ("senderroutes", "a@b\u00fccher.example:h", "begins with xn--"),
    ("senderroutes", '"a:b@c.example:h', "no colon"),
    ("fallbackroute", "a.example\n# or\nb.example", "line 3: there is one fallback route already"),
    ("fallbackroute", ":587", "':587' names no host"),
    ("fallbackroute", "prefer=ipv4", "names no host"),
    ("tlspolicy", "a.example", "no colon: write DOMAIN: LEVEL"),
    ("tlspolicy", "a.example:", "says no level"),
    ("tlspolicy", "a.example: Verify", "says no level"),
    ("tlspolicy", "[2001:db8::1] may", "no colon"),
    ("tlspolicy", "[2001:db8::1]x: may", "bad address literal"),
    ("tlspolicy", ".: may", "lone dot"),
    ("tlspolicy", "a.example: none min=1.2", "min= means nothing without TLS"),
    ("tlspolicy", "a.example: encrypt names=b.example", "names= are only looked at by the level verify"),
    ("tlspolicy", "a.example: verify names=", "names=: write no other facts"),
    ("tlspolicy", "a.example: verify names=b.example,,c.example", "not a domain"),
    ("tlspolicy", "a.example: verify names=" + ",".join(["b.test"] * 200), "more than 1000 characters"),
    ("tlspolicy", "a.example: verify min=1.1", "min=1.2 or min=1.3"),
    ("tlspolicy", "a.example: may sni=192.0.2.1", "no address"),
    ("tlspolicy", "a.example: may sni=[192.0.2.1]", "no address"),
    ("tlspolicy", "a.example: may\nA.example: none", "line 2: 'A.example' is given twice"),
    ("tlspolicy", "[2001:db8::1]: may\n[2001:DB8::1]: none", "given twice"),
    ("tlspolicy", "b\u00fccher.example: may", "begins with xn--"),
    ("remotetimeouts", "data", "write a name and a value"),
    ("remotetimeouts", "dot 5", "the name one of greeting hello starttls"),
    ("remotetimeouts", "data 0", "from 1 to 86400"),
    ("remotetimeouts", "data 1 2", "'1 2' is not a number"),
    ("remotetimeouts", "data 1_0", "not a number"),
    ("remotetimeouts", "data 5\ndata 6", "line 2: data is given twice"),
    ("remotesessions", "probe maybe", "yes or no"),
    ("remotesessions", "idle 3601", "from 0 to 3600"),
    ("remotesessions", "uses 0", "from 1 to 1000000"),
    ("remotesessions", "start 6\nmost 5", "start 6 is more than most 5"),
    ("remotesessions", "start 21", "start 21 is more than most 20"),
    ("smtproutes", ":a\n:b", "line 2: '' is given twice"),
    ("destinations", "x:lmtp:unix", "not a destination"),
    ("destinations", "x:smtp:unix:y", "smtp:unix is not known"),
    ("destinations", "x.y:lmtp:unix:z", "cannot name a destination"),
    ("destinations", "x:lmtp:tcp:h", "not a port"),
    ("destinations", "x:lmtp:unix:" + "p" * 108, "socket's path"),
    ("destinations", "x:lmtp:unix:", "socket's path"),
    ("destinations", "x:lmtp:unix:y timeout=0", "from 1 to 86400"),
    ("destinations", "x:lmtp:unix:y z=1", "not an option"),
    ("destinations", "x:lmtp:unix:y\nx:lmtp:unix:z", "line 2: x is given twice"),
    ("listeners", "localhost:25", "not ADDRESS:PORT"),
    ("listeners", "127.0.0.1", "not a port"),
    ("listeners", "::1:25", "not ADDRESS:PORT"),
    ("listeners", "127.0.0.1:0", "not a port"),
    ("listeners", "127.0.0.1:25 role=mta", "role=mta: write one of mx, submission"),
    ("listeners", "127.0.0.1:25 proxy=localhost", "is not a network"),
    ("listeners", "127.0.0.1:25 set=a/b", "is not a name"),
    ("listeners", "\n127.0.0.1:25 destination=a:b", "line 2: destination=a:b: write the name of a"),
    ("listeners", "127.0.0.1:25 destination=error", "and not error, which makes reports"),
    ("listeners", "127.0.0.1:25 listen=1", "write no other facts than role="),
    ("listeners", "unix:run/x", "an absolute path"),
    ("optionsets", "mx tls=maybe", "tls='maybe': write none, may, require or implicit"),
    ("optionsets", "mx auth=plain,kerberos", "auth=plain,kerberos: write none, or some of plain"),
    ("optionsets", "mx greetdelay=61", "from 0 to 60"),
    ("optionsets", "mx tls", "the options are tls=, "),
    ("optionsets", "mx prdr=yes prdr=no", "prdr= is given twice"),
    ("optionsets", "mx prdr=yes\nmx prdr=no", "line 2: mx is given twice"),
    ("tlscertificates", "mx.example.org a b", "no line is for all"),
    ("tlscertificates", "* a", "write NAME CERTIFICATEFILE KEYFILE"),
    ("tlscertificates", "* a b\n* c d", "line 2: \\* is given twice"),
    ("listeners", "127.0.0.1:25\n127.0.0.1:25", "line 2: 127.0.0.1:25 is given twice"),
    ("injectors", "*", "write a user"),
    ("injectors", "* root", "write a user"),
    ("injectors", "no-such-account local", "no account 'no-such-account'"),
    ("injectors", "* local\n* none", r"line 2: \* is given twice"),
    ("injectors", "7 local\n007 none", "given twice"),
]


@pytest.mark.parametrize(("name", "text", "expected"), MISTAKES)
def test_a_mistake_names_file_line_and_remedy(name, text, expected):
    with pytest.raises(BadFile, match=expected) as caught:
        parse(name, text + "\n")
    assert caught.value.text.startswith(f"control/{name} line ")
