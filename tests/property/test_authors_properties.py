"""However From is written: what is taken names nobody else, and nothing makes the check fail."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.control import lines, logins, optionsets
from mqmail.policy.facts import Facts
from mqmail.policy.senders import Authors
from mqmail.policy.verdict import NO_OPINION, REJECT

OWN = ("alice@example.org", "x@alice.example", "y@xn--bcher-kva.example", "y@b\u00fccher.example")
OTHERS = ("ceo@example.org", "alice@example.com", "y@b\u00fcccher.example")
LINE = f"alice: {OWN[0]}, @alice.example, {OWN[3]}\n".encode()
LOGINS = lines.parse("x", LINE, logins.parse_logins, "h")
CHECK = Authors(LOGINS, optionsets.OptionSets({}))
WAYS = st.sampled_from(["{}", " {} ", "<{}>", "N. N. <{}>", '"a, b" <{}>', "(x, (y) <z>) {}",
                        "{} (<a@b>)", "=?utf-8?q?=3C?= <{}>", "<@r.example:{}>", "\r\n <{}>",
                        "G: {};"])
PIECES = st.sampled_from([b"From:", b"Sender:", b"\r\n", b"\r\n ", b"<", b">", b"(", b")", b",",
                          b'"', b"\\", b":", b";", b"@", b"ceo@example.org", b"alice@example.org"])
AUTHORS = st.lists(st.tuples(WAYS, st.sampled_from(OWN + OTHERS)), min_size=1, max_size=4)


def taken(header):
    facts = Facts("s", "submission")
    facts.login, facts.header = "alice", header
    said = CHECK.look(facts)
    assert said is NO_OPINION or said.action == REJECT
    return said is NO_OPINION


@settings(deadline=None)
@given(AUTHORS, st.integers(0, 3))
def test_one_other_author_is_enough(authors, cut):
    """In one field, or in two."""
    written = [way.format(address) for way, address in authors]
    fields = [part for part in (written[:cut], written[cut:]) if part]
    header = "".join([f"From: {','.join(part)}\r\n" for part in fields])
    assert taken(header.encode()) == all([address in OWN for _, address in authors])


@settings(deadline=None)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=4)), max_size=30))
def test_any_octets_get_a_verdict(pieces):
    header = b"From: ceo@example.org\r\n" + b"".join(pieces)
    assert not taken(header) or b"ender:" in header or b"alice@" in header
