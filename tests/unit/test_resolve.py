"""Where mail for an address goes: worked examples, and the attacks that must lead nowhere."""

from types import SimpleNamespace

import pytest

from mqmail.base.failure import Temporary
from mqmail.control import resolve as module
from mqmail.control.aliases import parse_aliases
from mqmail.control.domains import parse_locals, parse_virtualdomains
from mqmail.control.lines import parse
from mqmail.control.resolve import NO_RELAY, UNKNOWN, Tables, resolve
from mqmail.control.users import parse_users
from mqmail.mail.address import parse_path
from mqmail.prog import mq_resolve
from mqmail.xmtp.server import Server

ME = "mail.example.org"
LOCALS = f"{ME}\nlocal.example\n"
USERS = f"alice@{ME}\nbob@{ME}\ntill@shop.example:shop\n@catch.example:rest\n"
ALIASES = """
postmaster: alice
abuse: postmaster
bob: bob, bob@home.example
team: alice, carol@far.example
owner-team: alice
info@shop.example: till@shop.example
joe: joe@far.example
odd: odd
dead: nobody, noone
half: nobody, alice
ping: pong
pong: ping
sales@elsewhere.example: alice
"""
VIRTUAL = """
v.example:carl
.sub.example:carl-sub
except.sub.example:
boss@one.example:alice
"""
HOMES = {"carl": "/home/carl", "dave": "/home/dave"}
FILES = {("/home/carl", "info"), ("/home/carl", "Info"), ("/home/carl", "sub-x"), ("mail/alice", "list"),
         ("mail/alice", "boss")}


def tables(me=ME, aliases=ALIASES, **changes):
    def table(name, text, parser):
        return parse(name, text.encode(), parser, me)

    users = table("users", changes.get("users", USERS), parse_users)
    local = table("locals", changes.get("locals", LOCALS), parse_locals)
    alias = table("aliases", aliases, parse_aliases)
    return Tables(me, local, local.union(users.domains, alias.domains),
                  table("virtualdomains", changes.get("virtual", VIRTUAL), parse_virtualdomains), users,
                  alias, changes.get("delimiters", "+"),
                  changes.get("home_of", HOMES.get), lambda home, ext: (home, ext) in FILES)


def ask(address, may_relay=False, null_sender=False, **changes):
    """What is said of *address*: paths with facts, or code, status and text."""
    answer = resolve(address, tables(**changes), may_relay, null_sender)
    if answer.targets:
        assert (answer.code, answer.status) == (551, "5.1.6")
        return [(f"@{where}:{to}" if where else to) + (f" sender={sender}" if sender else "")
                for where, to, sender in answer.targets]
    return f"{answer.code} {answer.status} {answer.text}"


def said(answer):
    return f"{answer.code} {answer.status} {answer.text}"


NOBODY = said(UNKNOWN)
DENIED = said(NO_RELAY)


@pytest.mark.parametrize(("address", "answer"), [
    (f"alice@{ME}", [f"@mailbox:alice@{ME}"]),
    ("ALICE@Mail.Example.ORG", ["@mailbox:ALICE@Mail.Example.ORG"]),
    (f"alice+news@{ME}", [f"@mailbox:alice+news@{ME}"]),
    (f"alice-list@{ME}", [f"@mailbox:alice-list@{ME}"]),
    (f"alice-nolist@{ME}", NOBODY),
    ("till@shop.example", ["@mailbox:till@shop.example"]),
    ("nobody@shop.example", NOBODY),
    ("who.ever@catch.example", ["@mailbox:who.ever@catch.example"]),
    (f"nobody@{ME}", NOBODY),
    ("alice@local.example", NOBODY),
])
def test_virtual_mailboxes(address, answer):
    assert ask(address) == answer


@pytest.mark.parametrize(("address", "answer"), [
    (f"carl@{ME}", [f"@local:carl@{ME}"]),
    ("Carl@local.example", ["@local:Carl@local.example"]),
    ("carl+x@local.example", ["@local:carl+x@local.example"]),
    ("carl-info@local.example", ["@local:carl-info@local.example"]),
    ("carl-other@local.example", NOBODY),
    ("carl@shop.example", NOBODY),
    ("carl@catch.example", ["@mailbox:carl@catch.example"]),
])
def test_accounts_have_mail_in_local_domains_only(address, answer):
    assert ask(address) == answer


def test_accounts_are_asked_about_only_if_they_get_mail():
    assert ask(f"carl@{ME}", home_of=None) == NOBODY


@pytest.mark.parametrize(("address", "answer"), [
    ("postmaster", [f"alice@{ME}"]),
    ("PostMaster@local.example", [f"alice@{ME}"]),
    (f"abuse@{ME}", [f"postmaster@{ME}"]),
    (f"joe@{ME}", ["joe@far.example"]),
    ("joe@shop.example", ["joe@far.example"]),
    (f"joe+news@{ME}", ["joe@far.example"]),
    ("info@shop.example", ["till@shop.example"]),
    (f"info@{ME}", NOBODY),
    ("sales@elsewhere.example", [f"alice@{ME}"]),
    ("joe@elsewhere.example", DENIED),
])
def test_aliases(address, answer):
    assert ask(address) == answer


def test_an_alias_goes_before_a_mailbox_and_can_keep_a_copy():
    assert ask(f"bob@{ME}") == [f"@mailbox:bob@{ME}", "bob@home.example"]
    assert ask(f"BOB@{ME}") == [f"@mailbox:bob@{ME}", "bob@home.example"]
    assert ask(f"bob+x@{ME}") == [f"bob@{ME}", "bob@home.example"]
    assert ask(f"carl@{ME}", aliases="carl: carl, c@far.example\n") == [
        f"@local:carl@{ME}", "c@far.example"]


def test_an_alias_that_names_only_itself_is_a_mistake_of_ours():
    assert ask(f"odd@{ME}").startswith("451 4.3.5 ")


def test_a_mailbox_with_a_plus_in_its_name_is_no_alias_with_a_detail():
    assert ask(f"joe+x@{ME}", users=f"joe+x@{ME}:joex\n") == [f"@mailbox:joe+x@{ME}"]


def test_a_list_has_its_owner_as_sender():
    sender = f" sender=owner-team@{ME}"
    assert ask(f"team@{ME}") == [f"alice@{ME}{sender}", f"carol@far.example{sender}"]
    assert ask(f"team+x@{ME}") == ask(f"team@{ME}")
    assert ask("team@local.example")[0] == f"alice@{ME} sender=owner-team@local.example"
    assert ask(f"owner-team@{ME}") == [f"alice@{ME}"]


def test_a_list_leaves_the_null_sender_alone():
    assert ask(f"team@{ME}", null_sender=True) == [f"alice@{ME}", "carol@far.example"]


def test_a_dash_as_delimiter_does_not_break_owners():
    text = "owner: alice\nlist: alice\nowner-list: joe@far.example\n"
    assert ask(f"owner-list@{ME}", delimiters="-", aliases=text) == ["joe@far.example"]
    assert ask(f"owner-other@{ME}", delimiters="-", aliases=text) == NOBODY
    assert ask(f"list-x@{ME}", delimiters="-", aliases=text)[0].startswith(f"alice@{ME}")


def test_an_alias_that_leads_nowhere_is_refused_at_once():
    assert ask(f"dead@{ME}") == NOBODY
    assert ask(f"half@{ME}") == [f"nobody@{ME}", f"alice@{ME}"]
    deep = "".join([f"a{n}: a{n + 1}\n" for n in range(200)])
    assert ask(f"a0@{ME}", aliases=deep) == [f"a1@{ME}"]      # no deeper than is worth it
    assert ask(f"a190@{ME}", aliases=deep) == NOBODY


def test_a_temporary_refusal_of_a_target_wins():
    assert ask(f"a@{ME}", aliases="a: nobody, odd\nodd: odd\n").startswith("451 ")


def test_aliases_in_a_circle_end():
    assert ask(f"ping@{ME}") == [f"pong@{ME}"]


def test_an_alias_is_not_larger_than_an_answer(monkeypatch):
    monkeypatch.setattr(module, "MOST_TARGETS", 2)
    assert len(ask(f"a@{ME}", aliases="a: x@f.example, y@f.example\n")) == 2
    assert ask(f"a@{ME}", aliases="a: x@f.example, y@f.example, z@f.example\n").startswith("451 4.3.5 ")


DESTINATIONS = f"""
ticket: @desk:queue@desk.example, alice
both: @desk:, both
owner-both: alice
named: @desk:queue
@lists.example: @lists:
head@lists.example: alice
@{ME}: @lists:
@v.example: bob
@catch.example: @lists:
@round.example: x@round.example
postmaster: alice
"""


@pytest.mark.parametrize(("address", "answer"), [
    (f"ticket@{ME}", ["@desk:queue@desk.example", f"alice@{ME}"]),
    (f"ticket+7@{ME}", ["@desk:queue@desk.example", f"alice@{ME}"]),
    (f"named@{ME}", [f"@desk:queue@{ME}"]),
    ("both+x@lists.example", ["@desk:both+x@lists.example sender=owner-both@lists.example",
                              f"both@{ME} sender=owner-both@lists.example"]),
    ("Any.Body@Lists.Example", ["@lists:Any.Body@Lists.Example"]),
    ('"x@far.example"@lists.example', ['@lists:"x@far.example"@lists.example']),
    ("head@lists.example", [f"alice@{ME}"]),
    ("head+x@lists.example", [f"alice@{ME}"]),
    ("owner-head@lists.example", ["@lists:owner-head@lists.example"]),
    ("postmaster@lists.example", [f"alice@{ME}"]),
    ("x@sub.lists.example", DENIED),
    (f"alice+x@{ME}", [f"@mailbox:alice+x@{ME}"]),
    (f"carl@{ME}", [f"@local:carl@{ME}"]),
    (f"nobody@{ME}", [f"@lists:nobody@{ME}"]),
    ("nobody@catch.example", ["@mailbox:nobody@catch.example"]),
    ("boss@v.example", [f"bob@{ME}"]),
])
def test_aliases_send_to_destinations(address, answer):
    assert ask(address, aliases=DESTINATIONS) == answer


def test_a_catch_all_that_names_an_address_of_its_own_is_a_mistake_of_ours():
    assert ask("x@round.example", aliases=DESTINATIONS).startswith("451 4.3.5 ")
    assert ask("y@round.example", aliases=DESTINATIONS).startswith("451 4.3.5 ")


def test_a_catch_all_with_no_good_target_is_refused():
    assert ask("x@lists.example", aliases="@lists.example: nobody\n") == NOBODY


def test_an_alias_to_an_address_of_a_catch_all_is_accepted():
    assert ask(f"a@{ME}", aliases="a: x@lists.example\n@lists.example: @lists:\n") == ["x@lists.example"]


def test_the_tables_of_files_count_a_catch_alls_domain_as_ours():
    given = tables(aliases=DESTINATIONS, locals="local.example\n", users="")
    control = SimpleNamespace(
        me=ME, locals=given.locals, virtualdomains=given.virtual, users=given.users,
        aliases=given.aliases, detaildelimiter="+", localusers="none")
    made = module.tables_of(control, HOMES.get)
    assert made.ours == {"local.example", "lists.example", ME, "v.example", "catch.example",
                         "round.example"}
    assert made.locals == {"local.example"}
    assert resolve("x@lists.example", made, False).targets == (("lists", "x@lists.example", ""),)


@pytest.mark.parametrize(("address", "answer"), [
    ("info@v.example", [f"carl-info@{ME}"]),
    ("Info@V.example", [f"carl-Info@{ME}"]),
    ("x@host.sub.example", [f"carl-sub-x@{ME}"]),
    ("boss@one.example", [f"alice-boss@{ME}"]),
    ("nobody@v.example", NOBODY),
    ("x@except.sub.example", DENIED),
    ("other@one.example", DENIED),
])
def test_virtual_domains(address, answer):
    assert ask(address) == answer


def test_a_virtual_domain_that_is_an_exception_is_remote():
    assert ask("x@except.sub.example", may_relay=True) == ["@remote:x@except.sub.example"]


def test_locals_go_before_virtual_domains():
    assert ask("x@local.example", virtual="local.example:carl\nx@local.example:carl\n") == NOBODY


def test_virtual_domains_use_the_first_local_domain_when_me_is_none():
    assert ask("info@v.example", locals="zz.example\nlocal.example\n", users="") == [
        "carl-info@local.example"]
    assert ask("info@v.example", locals="", users="").startswith("451 4.3.5 ")


def test_a_name_that_becomes_too_long_is_nobody():
    assert ask("x" * 60 + "@v.example").startswith("550 5.1.1 ")


def test_the_rest_of_the_world():
    assert ask("x@far.example") == DENIED
    assert ask("x@far.example", may_relay=True) == ["@remote:x@far.example"]
    assert ask("x@[192.0.2.1]") == DENIED
    assert ask("x@[192.0.2.1]", may_relay=True) == ["@remote:x@[192.0.2.1]"]
    assert ask("carl@[192.0.2.1]", locals="[192.0.2.1]\n") == ["@local:carl@[192.0.2.1]"]
    assert ask("carl@[ipv6:2001:DB8::1]", locals="[IPv6:2001:db8::1]\n") == [
        "@local:carl@[ipv6:2001:DB8::1]"]


def test_postmaster_without_a_domain_is_ours_when_me_is_not():
    text = "postmaster: p@far.example\n"
    assert ask("postmaster", locals="local.example\n", users="", aliases=text) == ["p@far.example"]
    nothing = {"locals": "", "users": "", "aliases": ""}
    assert ask("postmaster", may_relay=True, **nothing) == [f"@remote:postmaster@{ME}"]


def test_a_question_that_fails_is_put_off_and_the_next_is_answered(capfd):
    def home_of(name):
        if name == "disk":
            raise Temporary("no disk", "4.3.1")
        return {}[name] if name == "bug" else None

    service = SimpleNamespace(tables=tables(home_of=home_of))
    server = Server("lmtp", ME, mq_resolve.EXTENSIONS)
    questions = mq_resolve.Questions(service, server)
    server.feed(b"LHLO x\r\nMAIL FROM:<a@b.example>\r\n" + b"".join(
        [f"RCPT TO:<{name}@{ME}>\r\n".encode() for name in ("disk", "bug", "nobody")]))
    while event := server.next_event():
        questions.handle(event)
    replies = server.take_output().decode().split("\r\n")[-4:-1]
    assert replies == ["451 4.3.1 no disk", "451 4.3.0 internal trouble, try again later", NOBODY]
    assert f"recipient=bug@{ME}" in capfd.readouterr().err


def test_the_refusal_of_relaying_says_what_to_do():
    assert DENIED.startswith("550 5.7.1 relaying denied: ")
    assert "use your provider's mail server" in DENIED


ROUTES = [
    "x%far.example", "x%far.example%mail.example.org", '"x%far.example"', '"x@far.example"',
    '"x\\@far.example"', "far.example!x", '"far.example!x"', "!x", '"far.example:x"', '"@far.example:x"',
    "x/far.example", '"x "', '"<x@far.example>"', '"x@far.example,alice"', '" alice"', "|/bin/sh",
    "/etc/passwd", '":include:/etc/passwd"', "${run}", '"alice-../../x"', "alice-/etc/x", '"../alice"',
    "~alice", "*", "-oQ/tmp", "alice\u017f"]
LOOKALIKES = [
    "evillocal.example", "local.example.far.example", f"x{ME}", "example.org", "sub.local.example",
    "localexample", "locaI.example", "127.0.0.1", "2130706433", "[127.0.0.1]", "localhost",
    "xn--local-n3a.example",
    "\uff4cocal.example",       # a full-width letter
    "local\u3002example",       # an ideographic full stop
    "\u2113ocal.example",       # a script small l
    "loca\u217c.example",       # a Roman numeral
    "catch.\u0435xample",       # a Cyrillic letter
    "\u017fhop.example"]        # a long s


@pytest.mark.parametrize("may_relay", [False, True])
@pytest.mark.parametrize("local", ROUTES)
def test_no_spelling_in_a_local_part_is_a_route(local, may_relay):
    """RFC 5321 sections 3.6.2 and 7.9."""
    address = parse_path(f"<{local}@{ME}>").address
    assert ask(address, may_relay) == NOBODY


@pytest.mark.parametrize("domain", LOOKALIKES)
def test_no_domain_that_looks_like_ours_is_ours(domain):
    address = parse_path(f"<alice@{domain}>").address
    assert ask(address) == DENIED
    assert ask(address, may_relay=True) == [f"@remote:{address}"]


@pytest.mark.parametrize("route", ["@a.example,@b.example:x@far.example",
                                   "@local.example:x@far.example"])
def test_source_routes_lead_to_their_end(route):
    assert ask(parse_path(f"<{route}>").address) == DENIED


def test_a_percent_sign_can_be_a_delimiter_and_is_no_route_then():
    assert ask(f"alice%far.example@{ME}", delimiters="%") == [f"@mailbox:alice%far.example@{ME}"]
