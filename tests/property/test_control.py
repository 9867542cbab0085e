"""No file makes a parser fail in any other way than by naming the line; look-ups agree with a model."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.base.failure import BadFile
from mqmail.control import domains, lines, networks, users
from mqmail.control.reader import _parser
from mqmail.control.table import LINE, NUMBER, TABLE_OF_FILES
from mqmail.control.values import number

WORDS = st.sampled_from(
    [
        "a.example",
        "b@c.example",
        ":",
        ",",
        "@",
        "/",
        " ",
        "\t",
        "\n",
        "[::1]",
        "10.0.0.0/8",
        "25",
        "*",
        "local",
        "lmtp:unix:x",
        '"',
        "\\",
        "#",
        "|",
        ".",
        "\r",
        "\0",
        "é",
        "=",
        "timeout=5",
    ]
)
FILES = st.one_of(
    st.binary(max_size=200), st.lists(WORDS, max_size=30).map(lambda words: "".join(words).encode())
)


@settings(deadline=None)
@given(st.sampled_from([row for row in TABLE_OF_FILES if row.parser]), FILES)
def test_any_content_is_taken_or_refused_with_its_line(row, data):
    try:
        lines.parse(f"control/{row.name}", data, _parser(row), "me.example")
    except BadFile as error:
        assert error.text.startswith(f"control/{row.name} line ")  # noqa: PT017
        at = int(error.text.split(" line ")[1].split(":")[0])
        assert 1 <= at <= data.count(b"\n") + 1  # noqa: PT017


@settings(deadline=None)
@given(st.sampled_from([row for row in TABLE_OF_FILES if row.kind in (LINE, NUMBER)]), FILES)
def test_any_line_is_taken_or_refused(row, data):
    check = row.check or (lambda text: number(text, row.unit, row.lowest, row.highest))
    try:
        found = lines.parse_line(f"control/{row.name}", data, check)
    except BadFile as error:
        assert error.text.startswith(f"control/{row.name} line ")  # noqa: PT017
    else:
        assert row.lowest <= found <= row.highest if row.kind == NUMBER else found.isprintable()


NETWORK = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(
        lambda n: ipaddress.ip_network((n[0] >> (32 - n[1]) << (32 - n[1]), n[1]))
    ),
    st.tuples(st.integers(2**48, 2**128 - 1), st.integers(1, 128)).map(
        lambda n: ipaddress.ip_network((n[0] >> (128 - n[1]) << (128 - n[1]), n[1]))
    ),
)


@settings(deadline=None)
@given(st.lists(NETWORK, max_size=6), st.one_of(st.ip_addresses(), NETWORK.map(lambda n: n[-1])))
def test_networks_agree_with_ipaddress(nets, ip):
    nets = [net for net in nets if not str(net).startswith("::ffff:")]
    if ip.version == 6 and ip.ipv4_mapped:
        return
    found = lines.parse("x", "\n".join(map(str, nets)).encode(), networks.parse_networks, "")
    assert found.contains(str(ip)) == any(ip in net for net in nets)


LABELS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


@settings(deadline=None)
@given(LABELS)
def test_suffixes_go_from_the_whole_name_to_nothing(domain):
    found = list(domains.suffixes(domain))
    assert found[0] == domain
    assert found[-1] == ""
    assert all(domain.endswith(name) for name in found)
    assert [len(name) for name in found] == sorted({len(name) for name in found}, reverse=True)
    assert len(found) == len(domain.split(".")) + 1


@settings(deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9+_-]{1,20}", fullmatch=True),
        st.from_regex(r"[a-z][a-z0-9.]{0,9}", fullmatch=True),
        max_size=20,
    )
)
def test_each_user_is_found_in_any_case(wanted):
    text = "\n".join(f"{name}@x.example:{directory}" for name, directory in wanted.items())
    found = lines.parse("x", text.encode(), users.parse_users, "")
    for name, directory in wanted.items():
        assert found.lookup(f"{name.upper()}@X.example") == directory
