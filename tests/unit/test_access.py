"""control/access: what its lines mean, which entry decides, and what comes of it for a recipient."""

import os
from types import SimpleNamespace

import pytest

from mqmail.base.failure import BadFile
from mqmail.base.waiter import run
from mqmail.control import lines
from mqmail.control.access import parse_access, parse_key, unknown_sets
from mqmail.control.actions import parse_action
from mqmail.control.optionsets import parse_optionsets
from mqmail.policy import access, cdb, known
from mqmail.policy.facts import Facts
from mqmail.policy.maps import Files, Maps
from mqmail.policy.stages import Stages, for_recipient, may_relay
from mqmail.policy.verdict import DEFER, DISCARD, NEXT, OK, REJECT, RELAY


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.chmod(tmp_path, 0o755)
    os.mkdir("control", 0o755)


def parse(text):
    return lines.parse("control/access", text.encode(), parse_access, "")


def table(text):
    found = parse(text)
    return Maps("access", found.entries, found.words, Files("access"))


def facts(ip="192.0.2.9", host="", helo="h.example", sender="eve@example.com",
          recipient="bob@example.org"):
    found = Facts("s", ip=ip)
    found.host, found.helo, found.sender, found.recipient = host, helo, sender, recipient
    return found


def entry(text, stage, **given):
    found = access.find(table(text), stage, facts(**given), "+")
    return None if found is None else found.action


def session(text, given):
    """The checks of all stages, as xmtpd runs them; what holds for the recipient, and whether it may be
    anywhere."""
    sets = sets_of("strangers tls=may", "bobs tls=may")
    checks = [access.Access(stage, table(text), "+", sets) for stage in access.TAGS]

    def failed(check, error):
        raise error

    stages = Stages(checks, lambda _options: None, failed)
    for stage in ("connect", "helo", "mail"):
        run(stages.run(stage, given))
    said = run(stages.run("rcpt", given))
    return for_recipient(given, said), may_relay(given, said)


# --- the grammar ---


@pytest.mark.parametrize(("written", "key"), [
    ("Connect:192.0.2.1", "connect:192.0.2.1"),
    ("192.0.2.0/24", "192.0.2.0/24"),
    ("192.0.2.1/32", "192.0.2.1"),
    ("Connect:::ffff:192.0.2.1", "connect:192.0.2.1"),
    ("2001:DB8:0:0::1", "2001:db8::1"),
    ("cafe::/16", "cafe::/16"),
    ("CONNECT:2001:db8::/32", "connect:2001:db8::/32"),
    ("Helo:.Example.ORG", "helo:.example.org"),
    ("From:<>", "from:<>"),
    ("From:@Example.org", "from:example.org"),
    ("To:Bob+X@Example.org", "to:bob+x@example.org"),
    ('To:"Bob"@example.org', "to:bob@example.org"),
    ('To:"a b"@example.org', 'to:"a b"@example.org'),
    ("To:postmaster@", "to:postmaster@"),
    ("To:*", "to:*"),
    ("To:b\u00fccher@B\u00fccher.example", "to:b\u00fccher@xn--bcher-kva.example"),
    ("Helo:.b\u00fccher.example", "helo:.xn--bcher-kva.example"),
])
def test_a_key_has_one_form(written, key):
    assert parse_key(written) == key
    assert parse_key(key) == key


@pytest.mark.parametrize("key", [
    "", "Connect:", "Conect:192.0.2.1", "192.0.2", "Connect:192.0.2", "Connect:192.0.2.1/24",
    "Connect:192.0.2.1/33", "Connect:192.0.2.0/0", "Connect:[192.0.2.1]", "Connect:bob@example.org",
    "Connect:<>", "To:<>", "@example.org", "To:@", "To:a@b@c", "To:-x.example", ".", "To:.", "To:..org",
    "Connect:fe80::1%eth0", "Connect:192.0.2.0/2_4", "Connect:1.2.3.\u0664",
])
def test_what_is_no_key(key):
    with pytest.raises(ValueError, match="."):
        parse_key(key)


@pytest.mark.parametrize(("text", "tag", "verb", "said"), [
    ("OK", "", OK, None),
    ("ok", "to", OK, None),
    ("RELAY", "connect", RELAY, None),
    ("RELAY", "to", RELAY, None),
    ("DISCARD", "from", DISCARD, None),
    ("REJECT", "", REJECT, "550 5.7.1 not allowed here"),
    ("REJECT go away", "", REJECT, "550 5.7.1 go away"),
    ("REJECT 554 5.7.25 no name", "", REJECT, "554 5.7.25 no name"),
    ("DEFER", "", DEFER, "451 4.7.1 try again later"),
    ("DEFER 451 Please try main MX", "to", DEFER, "451 4.7.1 Please try main MX"),
    ("DEFER 421 4.7.0 too many", "connect", DEFER, "421 4.7.0 too many"),
    ("set:a-b", "helo", "", None),
    ("set:a\tREQUIRE  tls,auth  REJECT 550  x  y", "from", REJECT, "550 5.7.1 x  y"),
])
def test_actions(text, tag, verb, said):
    found = parse_action(text, tag)
    assert found.verb == verb
    assert (found.reply.said() if found.reply else None) == said
    assert found.options == (text.split()[0][4:] if text.startswith("set:") else "")
    assert found.needs == (("tls", "auth") if "REQUIRE" in text else ())


@pytest.mark.parametrize(("text", "tag", "word"), [
    ("", "", "no action"), ("RELYA", "to", 'unknown action "RELYA"'), ("OK REJECT", "", "stands alone"),
    ("RELAY", "from", "RELAY goes with Connect: and To:"), ("RELAY", "", "RELAY goes with"),
    ("RELAY", "helo", "RELAY goes with"), ("REQUIRE tls", "connect", "REQUIRE goes with From: and To:"),
    ("REQUIRE", "to", "REQUIRE tls"), ("REQUIRE ssl", "to", "REQUIRE tls"), ("set:", "", "letters"),
    ("set:a/b OK", "", "letters"), ("REJECT 450 x", "", "is no code"), ("DEFER 550 x", "", "is no code"),
    ("REJECT 5500 x", "", "is no code"), ("REJECT 599 x", "", "is no code"),
    ("DEFER 421 x", "to", "421 ends the session"), ("REJECT 550 4.7.1 x", "", "begins with 5"),
    ("REJECT \u00fc", "", "ASCII"), ("REJECT " + 401 * "x", "", "at most 400"),
    ("REJECT \u0665\u0665\u0660", "", "is no code"),
])
def test_what_is_no_action(text, tag, word):
    with pytest.raises(ValueError, match=word):
        parse_action(text, tag)


@pytest.mark.parametrize(("text", "said"), [
    ("# x\n\nTo:bob@example.org RELYA\n", 'control/access line 3: unknown action "RELYA": write OK'),
    ("To:a@ OK\nTo:A@ OK\n", "control/access line 2: 'to:a@' is given twice"),
    ("Conect:192.0.2.1 OK\n", 'control/access line 1: unknown tag "Conect"'),
    ("To:bob@example.org\n", "control/access line 1: no action"),
])
def test_a_mistake_is_named_with_its_line(text, said):
    with pytest.raises(BadFile) as caught:
        parse(text)
    assert caught.value.text.startswith(said)


def sets_of(*text):
    return parse_optionsets([*text], "")


@pytest.mark.parametrize("option", [
    "relay=yes", "authplain=yes", "checks=none", "checks=spf,verify,header"])
@pytest.mark.parametrize("key", ["From:a.example", "Helo:a.example", "a.example", "192.0.2.1"])
def test_option_sets_that_are_not_to_be_had_for_a_word(option, key):
    sets = sets_of(f"open {option}", "other relay=no authplain=no checks=hooks,header,verify,access")
    found = parse(f"Connect:192.0.2.9 set:open\nTo:b@ set:open\n{key} set:open\nFrom:c@ set:other\n")
    [text] = unknown_sets("control/access", found, sets)
    assert text.startswith(f"control/access line 3: set:open has {option}, and anybody can write")
    given = facts(ip="192.0.2.1", helo="a.example" if "192" not in key else "[192.0.2.1]",
                  sender="x@a.example")
    stage = "mail" if key[:2] == "Fr" else "helo"
    check = access.Access(stage, table(f"{key} set:open"), "+", sets)
    assert check.look(given).action == DEFER
    assert access.Access(stage, table(f"{key} set:other"), "+", sets).look(given).options == "other"


def test_option_sets_that_are_not_there():
    found = parse("From:a.example set:one\nTo:x@ OK\nTo:y@ set:two OK\nTo:z@ set:one REJECT\n")
    [text] = unknown_sets("control/access", found, sets_of("two tls=may"))
    assert text.startswith("control/access line 1: there is no option set one: write one OPTION=VALUE")


def test_a_local_part_with_spaces():
    assert parse('To:"a b"@example.org DEFER x').entries == {'to:"a b"@example.org': "DEFER x"}


# --- which entry decides ---

CLIENT = ["192.0.2.9", "192.0.2.8/29", "192.0.2.0/24", "192.0.0.0/16", "mx.a.example.org",
          ".a.example.org", ".example.org", ".org", "*"]
PEOPLE = ["bob+x+y@a.example.org", "bob+x@a.example.org", "bob@a.example.org", "bob+x+y@", "bob+x@",
          "bob@", "a.example.org", ".example.org", ".org", "*"]
OTHER_CLIENTS = ["192.0.2.10", "192.0.2.16/29", "2001:db8::/32", "example.org", ".mx.a.example.org"]
OTHER_PEOPLE = ["ob@", "bob@example.org", "x@", "y@a.example.org", "example.org", ".a.example.org"]


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize(("stage", "names", "others", "given"), [
    ("connect", CLIENT, OTHER_CLIENTS, {"host": "MX.a.example.org"}),
    ("rcpt", PEOPLE, OTHER_PEOPLE, {"recipient": "Bob+x+y@A.example.org"}),
    ("mail", PEOPLE, OTHER_PEOPLE, {"sender": "bob+x+y@a.example.org"}),
])
def test_the_narrowest_key_decides(stage, names, others, given, tagged):
    prefix = f"{access.TAGS[stage].capitalize()}:" if tagged else ""
    wrong = [f"{prefix}{name} REJECT" for name in others]
    for first in range(len(names)):
        right = [f"{prefix}{name} REJECT {name}" for name in reversed(names[first:])]
        text = "\n".join([*wrong, *right])
        assert entry(text, stage, **given) == f"REJECT {names[first]}"
    assert entry("\n".join(wrong), stage, **given) is None


def test_of_one_key_the_tagged_form_is_first():
    text = "bob@example.org REJECT\nTo:bob@example.org OK\nTo:bob@ DEFER\nTo:* DISCARD"
    assert entry(text, "rcpt") == "OK"
    assert entry("bob@example.org REJECT\nTo:bob@ DEFER", "rcpt") == "REJECT"


def test_a_domain_does_not_cover_what_is_below_it_nor_a_dot_the_domain():
    assert entry("To:example.org OK", "rcpt", recipient="bob@a.example.org") is None
    assert entry("To:.example.org OK", "rcpt", recipient="bob@example.org") is None
    assert entry("To:.example.org OK", "rcpt", recipient="bob@b.a.example.org") == "OK"
    assert entry("To:.example.org OK", "rcpt", recipient="bob@badexample.org") is None


def test_null_sender_and_bare_postmaster():
    assert entry("From:<> REJECT\nFrom:* OK", "mail", sender="") == "REJECT"
    assert entry("From:example.com REJECT", "mail", sender="") is None
    assert entry("To:postmaster@ OK", "rcpt", recipient="postmaster") == "OK"


def test_networks_of_ipv6():
    text = """Connect:2001:db8:1::/48 REJECT a
Connect:2001:db8::/31 REJECT b
Connect:192.0.2.0/24 REJECT c"""
    assert entry(text, "connect", ip="2001:db8:1::25") == "REJECT a"
    assert entry(text, "connect", ip="2001:db9::25") == "REJECT b"
    assert entry(text, "connect", ip="2001:dba::25") is None
    assert entry(text, "connect", ip="::ffff:192.0.2.3") == "REJECT c"


def test_helo_literals():
    text = "Helo:192.0.2.0/24 REJECT\nHelo:2001:db8::/32 DEFER"
    assert entry(text, "helo", helo="[192.0.2.3]") == "REJECT"
    assert entry(text, "helo", helo="[IPv6:2001:DB8::3]") == "DEFER"
    assert entry(text, "helo", helo="192.0.2.3") is None


@pytest.mark.parametrize("helo", ["to:bob@example.org", "postmaster@", "<>", "*", "192.0.2.0/24",
                                  "#words", ""])
def test_a_client_cannot_name_a_key_of_another_kind(helo):
    text = "To:bob@example.org OK\npostmaster@ OK\n<> OK\nTo:* OK\n192.0.2.0/24 OK"
    assert entry(text, "helo", helo=helo) is None


def test_senders_and_recipients_have_their_own_tags():
    assert entry("From:bob@example.org REJECT", "rcpt") is None
    assert entry("To:example.com REJECT", "mail") is None


# --- what comes of it ---


def test_postmaster_is_always_reachable():
    text = "To:postmaster@ OK\nConnect:192.0.2.9 REJECT\nFrom:example.com REJECT\nHelo:* REJECT"
    said, anywhere = session(text, facts(recipient="postmaster@example.org"))
    assert (said.action, anywhere) == (OK, False)
    said, _ = session(text, facts())
    assert (said.action, said.reply.code) == (REJECT, 550)
    assert said.why == "control/access: connect:192.0.2.9"


def test_recipients_of_a_relay_domain_and_the_others_of_a_backup_mx():
    text = "To:alice@example.net RELAY\nTo:@example.net DEFER 451 Please try main MX"
    said, anywhere = session(text, facts(recipient="alice@example.net"))
    assert (said.action, anywhere) == (RELAY, True)
    said, anywhere = session(text, facts(recipient="zoe@example.net"))
    assert (said.reply.said(), anywhere) == ("451 4.7.1 Please try main MX", False)
    assert session(text, facts())[0].action == NEXT


@pytest.mark.parametrize("key", ["Connect:192.0.2.9", "Helo:h.example", "From:example.com"])
@pytest.mark.parametrize("action", ["REJECT", "DEFER", "DISCARD"])
def test_who_is_not_wanted_does_not_get_through_to_recipients_of_a_relay_domain(key, action):
    given = facts(recipient="alice@example.net")
    said, anywhere = session(f"To:@example.net RELAY\n{key} {action}", given)
    assert (said.action, anywhere) == (action.lower(), False)


def test_a_client_that_may_relay():
    said, anywhere = session("Connect:192.0.2.0/24 RELAY", facts(recipient="x@far.example"))
    assert (said.action, anywhere) == (NEXT, True)
    assert not session("Connect:192.0.2.0/24 RELAY", facts(ip="198.51.100.1"))[1]


@pytest.mark.parametrize(("needs", "has", "code"), [
    ("tls", {}, 530), ("tls", {"tls": "TLSv1.3"}, 0), ("tls", {"login": "bob"}, 530), ("auth", {}, 530),
    ("auth", {"login": "bob"}, 0), ("tls,auth", {"login": "bob"}, 530),
    ("tls,auth", {"login": "bob", "tls": "TLSv1.3"}, 0)])
@pytest.mark.parametrize("key", ["To:bob@example.org", "From:eve@example.com"])
def test_a_recipient_or_sender_requires_tls_or_a_login(key, needs, has, code):
    given = facts()
    for name, text in has.items():
        setattr(given, name, text)
    said, _ = session(f"{key} REQUIRE {needs}", given)
    assert (said.reply.code if said.reply else 0) == code


def test_require_before_another_action():
    given = facts()
    text = "To:bob@example.org REQUIRE tls RELAY"
    assert session(text, given)[0].action == REJECT
    given.tls = "TLSv1.3"
    assert session(text, given) == (session(text, given)[0], True)
    assert session(text, given)[0].action == RELAY


def test_option_sets():
    given = facts()
    session("Connect:192.0.2.9 set:strangers", given)
    assert given.options == "strangers"
    given = facts()
    said, _ = session("Connect:192.0.2.9 set:strangers\nTo:bob@example.org set:bobs REJECT", given)
    assert (said.action, said.options) == (REJECT, "bobs")


def test_a_local_user_is_no_client():
    found = access.Access("connect", table("Connect:* REJECT\nConnect:a.example OK"), "+")
    given = facts(ip="")
    given.local = True
    assert found.look(given).action == NEXT
    assert found.look(facts()).action == REJECT


def test_a_client_without_an_address_is_one_all_the_same():
    found = access.Access("connect", table("Connect:* REJECT\nConnect:a.example OK"), "+")
    assert found.look(facts(ip="")).action == REJECT
    assert found.look(facts(ip="", host="a.example")).action == OK


def test_a_bad_table_is_temporary_and_names_the_file(capfd):
    with open("control/access.cdb", "wb") as file:
        file.write(b"no cdb")
    said, _ = session("To:* OK", facts())
    assert (said.action, said.reply.code, said.reply.status) == (DEFER, 451, "4.3.5")
    assert said.why.startswith("control/access.cdb: no whole cdb file")
    assert "control/access.cdb" not in said.reply.text
    assert "event=bad_table" in capfd.readouterr().err


@pytest.mark.parametrize(("text", "action"), [
    ("Connect:.example OK", NEXT), ("Connect:.example OK\nConnect:* REJECT", DEFER),
    ("* DISCARD", DEFER),
    ("Connect:192.0.2.9 REJECT", REJECT), (".example OK\n* OK", OK)])
def test_a_client_whose_name_cannot_be_looked_up_is_not_refused_for_good(text, action):
    given = facts()
    given.marks["reversename"] = "unknown"
    said = access.Access("connect", table(text), "+").look(given)
    assert (said.action, said.trouble) == (action, action in (NEXT, DEFER))
    given.marks["reversename"] = "none"
    assert not access.Access("connect", table(text), "+").look(given).trouble
    given.marks["reversename"] = "unknown"
    assert not access.Access("connect", table("To:* OK"), "+").look(given).trouble


def test_a_set_that_is_not_there_is_temporary(capfd):
    with open("control/access.cdb", "wb") as file:
        cdb.write(file.fileno(), [(b"to:bob@example.org", b"set:strict")])
    said, given = session("", facts())[0], facts()
    assert (said.action, said.reply.code, given.options) == (DEFER, 451, "")
    assert said.why == "control/access.cdb: to:bob@example.org: there is no option set strict"


def test_the_factories_make_a_check_for_each_stage_if_there_is_a_table():
    control = SimpleNamespace(access=parse("To:* OK"), detaildelimiter="+",
                              optionsets=sets_of("friends tls=may"))
    services = SimpleNamespace(kept={})

    def stages():
        return [access.make(stage)(control, services) for stage in access.TAGS]

    assert [check.stage for check in stages()] == ["connect", "helo", "mail", "rcpt"]
    assert [name for name, _ in known.FACTORIES].count("access") == 4
    control.access = parse("")
    assert stages() == [None] * 4
    with open("control/access.cdb", "wb") as file:
        file.write(bytes(2048))
    assert None not in stages()
    control.access = parse("From:a.example set:friends")
    assert None not in stages()
    control.access = parse("From:a.example set:frends")
    with pytest.raises(BadFile, match="control/access line 1: there is no option set frends"):
        stages()
