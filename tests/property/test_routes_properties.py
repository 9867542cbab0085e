"""Routes and policies against a model that says the order of look-ups as plainly as it can be said."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.base.failure import BadFile
from mqmail.control import lines
from mqmail.control.routes import Routing, parse_hop, parse_senderroutes, parse_smtproutes
from mqmail.control.tlspolicy import LEVELS, parse_tlspolicy

NAMES = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3).map(".".join)
KEYS = st.one_of(NAMES, NAMES.map(lambda name: f".{name}"))
HOSTS = st.one_of(st.just(""), NAMES.map(lambda name: f"{name}.host"))
SENDERS = st.one_of(st.just(""), st.builds("{}@{}".format, st.sampled_from(["u", "v"]), NAMES))
SENDER_KEYS = st.one_of(KEYS, SENDERS.map(lambda sender: sender or "<>"))


def parse(parser, entries, between):
    text = "".join([f"{key}{between}{what}\n" for key, what in entries.items()])
    return lines.parse("x", text.encode(), parser, "")


def model(entries, name):
    """The longest key that *name* is, or is below; None without one."""
    fits = [key for key in entries
            if key == name or key[:1] == "." and name.endswith(key) and name != key]
    return entries[max(fits, key=lambda key: (key == name, len(key)))] if fits else None


@settings(deadline=None)
@given(st.dictionaries(st.one_of(KEYS, st.just("")), HOSTS, max_size=8),
       st.dictionaries(SENDER_KEYS, HOSTS, max_size=8), NAMES, SENDERS)
def test_a_route_is_what_the_model_says(domains, senders, domain, sender):
    found = Routing(parse(parse_smtproutes, domains, ":"), parse(parse_senderroutes, senders, ":"))
    of_domain = model({key: host for key, host in domains.items() if key}, domain)
    of_sender = senders.get(sender or "<>")
    if of_sender is None and sender:
        of_sender = model(senders, sender.partition("@")[2])
    expected = [host for host in (of_domain, of_sender, domains.get(""), "") if host is not None][0]
    assert found.route(domain.upper(), sender.upper()).host == expected


@settings(deadline=None)
@given(st.dictionaries(st.one_of(KEYS, HOSTS, st.just("")), st.sampled_from(LEVELS), max_size=8),
       NAMES, HOSTS)
def test_a_policy_is_what_the_model_says(policies, domain, host):
    named = {key: level for key, level in policies.items() if key}
    expected = [level for level in (model(named, domain), model(named, host) if host else None,
                                    policies.get(""), "may") if level is not None][0]
    assert parse(parse_tlspolicy, policies, ": ").lookup(domain.upper(), host.upper()).level == expected


PIECES = st.sampled_from([
    "smtp:", "smtps:", "lmtp:", "h.example", ":", "25", "/", "[::1]", "[", "]", " ", "=", "auth=",
    "source=", "prefer=", "ipv4", "192.0.2.1", ",", "2001:db8::1", "a", "é", "+2", "@", '"', "\\"])
MORE = st.sampled_from(["<>", "\n", "a.example", "verify", "names=", "min=1.2"])


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_hop_is_whole_or_refused(text):
    """What is taken can be connected to, and is safe to be said as facts."""
    try:
        hop = parse_hop(text, "smtproutes")
    except ValueError as error:
        assert str(error)       # noqa: PT017  the caller names file and line
        return
    assert hop.way.kind in ("smtp", "smtps", "lmtp")
    assert (hop.port == 0) == (hop.host[:1] == "/")
    assert hop.is_socket <= (hop.way.kind == "lmtp")
    assert hop.host == hop.host.strip("[]")
    assert " " not in "".join([hop.host, *hop.way.facts().values()])
    assert not hop.way.auth or hop.host


@settings(deadline=None)
@given(st.lists(st.one_of(PIECES, MORE), max_size=30).map("".join))
def test_any_table_is_taken_or_refused_with_its_line(text):
    for parser in (parse_smtproutes, parse_senderroutes, parse_tlspolicy):
        try:
            lines.parse("control/x", text.encode(), parser, "")
        except BadFile as error:
            assert error.text.startswith("control/x line ")     # noqa: PT017
