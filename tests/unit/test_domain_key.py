"""A domain is the same in its own letters and with xn--, in all tables; what looks like it is not."""

import os

import pytest

from mqmail.control import (
    access,
    aliases,
    badmailfrom,
    domains,
    lines,
    loginnames,
    logins,
    users,
    verify,
)
from mqmail.control.whose import find_mailbox
from mqmail.mail.address import address_key, domain_key, domain_of, written_domain_of
from mqmail.policy import access as policy
from mqmail.policy import cdb, sqlitemap
from mqmail.policy.badmailfrom import BadMailFrom
from mqmail.policy.facts import Facts
from mqmail.policy.maps import Files, Maps
from mqmail.policy.verdict import NO_OPINION

U, A = "b\u00fccher.example", "xn--bcher-kva.example"
SAME = (U, A, "B\u00fcCHER.Example", A.upper())
OTHER = ("bu\u0308cher.example", "bucher.example", "b\u00fccher\uff0eexample",
         "\uff42\u00fccher.example", "B\u00dcCHER.example", "xn--bucher.example",
         "x.b\u00fccher.example", "xn--xn--bcher-kva-.example")
PAIRS = [(written, asked) for written in (U, A) for asked in SAME]


def read(parser, text):
    return lines.parse("x", text.encode(), parser, "mail.example.org")


@pytest.mark.parametrize(("domain", "key"), [
    *[(domain, A) for domain in SAME], (f".{U}", f".{A}"), ("fa\u00df.example", "xn--fa-hia.example"),
    ("\u00fc", "xn--tda"), ("Example.ORG", "example.org"), ("", ""),
    ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
    ("\u00fc" * 256, "\u00fc" * 256)])      # no domain is as long: not worth the time
def test_the_key_of_a_domain(domain, key):
    assert domain_key(domain) == key


@pytest.mark.parametrize("domain", OTHER)
def test_what_looks_like_it_has_another_key(domain):
    assert domain_key(domain) != A


def test_addresses():
    assert address_key(f'"J. D\u00d6"@{U}') == f'"j. d\u00d6"@{A}'
    assert address_key("Postmaster") == "postmaster"
    assert domain_of(f"x@{U}") == A
    assert written_domain_of("x@B\u00fccher.EXAMPLE") == U


@pytest.mark.parametrize(("written", "asked"), PAIRS)
def test_whose_mail_it_is(written, asked):
    found = read(users.parse_users, f"al@{written}:al\n@{written}:rest\n")
    assert found.lookup(f"Al@{asked}") == "al"
    assert find_mailbox(f"nobody@{asked}", found, "+") == ("rest", "")
    assert domain_of(f"x@{asked}") in read(domains.parse_locals, f"{written}\n")
    found = read(aliases.parse_aliases, f"al@{written}: x@far.example\n@{written}: y@far.example\n")
    assert found.lookup(f"AL@{asked}", ()) == ["x@far.example"]
    assert found.catch_all(domain_of(f"z@{asked}")) == ["y@far.example"]
    found = read(domains.parse_virtualdomains, f"al@{written}:one\n{written}:two\n.{written}:x\n")
    assert [found.lookup(f"{name}{asked}") for name in ("al@", "x@", "x@sub.")] == ["one", "two", "x"]
    assert read(verify.parse_verify, f"{written} remote\n").lookup(domain_of(f"x@{asked}")) is not None


def test_one_domain_in_two_spellings_is_a_mistake():
    for parser, text in ((users.parse_users, "al@{}:al\nal@{}:bo\n"),
                         (access.parse_access, "{} OK\n{} OK\n"),
                         (aliases.parse_aliases, "al@{}: x\nal@{}: y\n")):
        with pytest.raises(Exception, match="given twice"):
            read(parser, text.replace("{}", U, 1).replace("{}", A, 1))


@pytest.mark.parametrize(("written", "asked"), PAIRS)
def test_who_may_send(written, asked):
    table = read(logins.parse_logins, f"al: x@{written}\nbo: @{written}\n")
    assert [table.may_send(login, f"x@{asked}") for login in ("al", "bo", f"x@{written}")] == [True] * 3
    assert loginnames.fold(f"J\u00f6rg@{asked}") == loginnames.fold(f"J\u00f6rg@{written}") \
        == f"j\u00f6rg@{A}"
    assert loginnames.fold("J\u00f6rg") == "j\u00f6rg"
    bad = BadMailFrom(read(badmailfrom.parse_badmailfrom, f"X@{written}\n@sub.{written}\n"))
    for sender in (f"x@{asked}", f"y@sub.{asked}"):
        facts = Facts("s")
        facts.sender = sender
        assert bad.look(facts) is not NO_OPINION


@pytest.mark.parametrize("form", ["", "cdb", "sqlite"])
@pytest.mark.parametrize("written", [U, A])
def test_access_in_all_forms(written, form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.chmod(tmp_path, 0o755)
    os.mkdir("control", 0o755)
    text = f"From:x@{written} REJECT one\nTo:{written} REJECT two\nHelo:.{written} REJECT three\n"
    found = read(access.parse_access, text)
    entries = found.entries
    if form == "cdb":
        with open("control/access.cdb", "wb") as file:
            cdb.write(file.fileno(), [(key.encode(), value.encode()) for key, value in entries.items()])
    elif form:
        sqlitemap.write("control/access.sqlite", entries.items())
    for path in os.listdir("control"):
        os.chmod(f"control/{path}", 0o644)
    table = Maps("access", {} if form else entries, found.words, Files("access"))
    for asked in SAME:
        facts = Facts("s")
        facts.sender, facts.recipient, facts.helo = f"x@{asked}", f"y@{asked}", f"a.{asked}"
        actions = [policy.find(table, stage, facts, "+").action for stage in ("mail", "rcpt", "helo")]
        assert actions == ["REJECT one", "REJECT two", "REJECT three"]
    for asked in OTHER:
        facts.recipient = f"y@{asked}"
        assert policy.find(table, "rcpt", facts, "+") is None
