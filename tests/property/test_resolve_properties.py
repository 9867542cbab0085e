"""Every address has one answer of the kinds there are, and nobody relays who may not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.control.aliases import parse_aliases
from mqmail.control.domains import parse_locals, parse_virtualdomains
from mqmail.control.lines import parse
from mqmail.control.resolve import Tables, resolve
from mqmail.control.users import parse_users
from mqmail.mail.address import BadAddress, domain_of, parse_address, parse_path, quote_local
from mqmail.xmtp.reply import ReplyReader, elsewhere, targets_of

ME = "me.example"
DOMAINS = st.sampled_from([ME, "Me.Example", "l.example", "u.example", "v.example", "s.v.example",
                           "far.example", "[192.0.2.1]", "\uff4d\uff45.example"])
NAMES = st.sampled_from(["a", "b", "c", "d", "a-b", "owner-a", "a+b", "a.b", "postmaster", "x y", 'q"',
                         "\u00e9"])
LOCALS = st.one_of(NAMES, st.builds("".join, st.lists(st.sampled_from([*"abc+-.%!@/\"\\ ", "owner-"]),
                                                      min_size=1, max_size=12)),
                   st.text(min_size=1, max_size=10))


@st.composite
def addresses(draw, locals_=LOCALS):
    """A canonical address, or the bare postmaster."""
    try:
        return parse_address(f"{quote_local(draw(locals_))}@{draw(DOMAINS)}")
    except BadAddress:
        return "postmaster"


@st.composite
def tables(draw):
    """Any tables that the control files' parsers take."""
    names = st.sampled_from(["a", "b", "c", "a-b", "owner-a", "a+b", "postmaster"])
    full = st.builds(lambda name, domain: f"{name}@{domain}", names, DOMAINS.filter(str.isascii))
    anybody = st.one_of(names, full)
    keys = st.one_of(anybody.map(str.lower), DOMAINS.filter(str.isascii).map(lambda d: f"@{d}".lower()))
    target = st.one_of(anybody, anybody.map(lambda name: f"@lists:{name}"), st.just("@lists:"))
    aliases = draw(st.dictionaries(keys, st.lists(target, min_size=1, max_size=4), max_size=6))
    users = draw(st.dictionaries(full.map(str.lower), st.sampled_from(["d", "e"]), max_size=5))
    catch = draw(st.sampled_from(["", "@u.example:all\n"]))
    virtual = draw(st.sets(st.sampled_from(["v.example:c", ".v.example:a-b", ":b", "a@far.example:c"])))
    ours = draw(st.sets(st.sampled_from([ME, "l.example"])))
    homes = dict.fromkeys(draw(st.sets(names)), "/home/x")
    seen = draw(st.booleans())

    def table(name, text, parser):
        return parse(name, text.encode(), parser, ME)

    box = "".join([f"{who}:{where}\n" for who, where in users.items()])
    box = table("users", box + catch, parse_users)
    local = table("locals", "".join([f"{one}\n" for one in ours]), parse_locals)
    alias = table("aliases", "".join([f"{name}: {', '.join(to)}\n" for name, to in aliases.items()]),
                  parse_aliases)
    return Tables(
        ME, local, local.union(box.domains, alias.domains),
        table("v", "\n".join(virtual), parse_virtualdomains), box, alias,
        draw(st.sampled_from(["", "+", "-", "+-", "%"])), draw(st.sampled_from([None, homes.get])),
        lambda _home, _ext: seen)


@settings(deadline=None)
@given(addresses(), tables(), st.booleans(), st.booleans())
def test_every_address_has_one_answer_of_the_kinds_there_are(address, known, may_relay, null_sender):
    answer = resolve(address, known, may_relay, null_sender)
    if answer.code != 551:
        assert (answer.code, answer.status[0]) in ((550, "5"), (451, "4"))
        assert answer.text.isascii()
        assert answer.targets == ()
        return
    destinations = [destination for destination, _, _ in answer.targets]
    assert destinations
    assert {"", "mailbox", "local", "remote", "lists"}.issuperset(destinations)
    assert len(destinations) == 1 or "remote" not in destinations
    for destination, target, sender in answer.targets:
        assert parse_path(f"<{target}>").address == target
        assert not (sender and null_sender)
        if destination in ("mailbox", "local"):
            assert domain_of(target) in known.ours
        if destination == "remote":
            assert target == (address if "@" in address else f"postmaster@{ME}")
            assert domain_of(target) not in known.ours
        if destination == "lists":
            kept = target == address or ("@" not in address and target.startswith("postmaster@"))
            written = some_targets(known)
            assert f"@lists:{target}" in written or (kept and "@lists:" in written)


def some_targets(known):
    """All targets of all aliases."""
    return {target for targets in known.aliases.targets.values() for target in targets}


@settings(deadline=None)
@given(addresses(), tables())
def test_nobody_in_a_domain_with_a_catch_all_is_unknown_or_denied_for_the_domain(address, known):
    """The relay right makes no difference, and only an alias's own targets can be refused."""
    if domain_of(address) in known.aliases.domains:
        answer = resolve(address, known, False)
        assert answer == resolve(address, known, True)
        if known.aliases.lookup(address, known.ours) is None and not known.delimiters and (
                "@lists:" in known.aliases.catch_all(domain_of(address))):
            assert answer.code == 551 or answer.status == "4.3.5"


@settings(deadline=None)
@given(addresses(), tables())
def test_who_may_not_relay_never_does(address, known):
    denied, allowed = resolve(address, known, False), resolve(address, known, True)
    assert "remote" not in [destination for destination, _, _ in denied.targets]
    if denied != allowed:
        assert denied.status == "5.7.1"
        assert [destination for destination, _, _ in allowed.targets] == ["remote"]


@settings(deadline=None)
@given(addresses(), tables())
def test_an_answer_is_understood_by_who_asked(address, known):
    answer = resolve(address, known, True)
    if answer.targets:
        [read] = ReplyReader().feed(elsewhere(list(answer.targets)).encode(4096))
        assert [(one.destination, one.address, one.sender) for one in targets_of(read)] == [
            (destination or "new", target, sender) for destination, target, sender in answer.targets]


@settings(deadline=None)
@given(addresses(), tables())
def test_following_answers_ends(address, known):
    """With what mq-send does: an address that has been visited is not visited again."""
    waiting, visited, steps = [address], set(), 0
    while waiting:
        one = waiting.pop()
        if one in visited:
            continue
        visited.add(one)
        steps += 1
        assert steps < 100
        waiting += [target for destination, target, _ in resolve(one, known, True).targets
                    if not destination]
