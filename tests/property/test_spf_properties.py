"""SPF: no record, sender or answer breaks the evaluation, and what it asks is bounded."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.base.waiter import run
from mqmail.mail.mxlist import FAILED, FOUND, NOTHING, UNKNOWN, Answer
from mqmail.policy import spfmacro, spfrecord
from mqmail.policy.spf import Question, check_host, is_name

RESULTS = {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}
MACROS = ["%{d}", "%{s}", "%{l1r+-}", "%{O2}", "%{ir}", "%{p}", "%{h}", "%{v}", "%{L}", "%%", "%_", "%-"]
NAMES = st.lists(st.sampled_from([*MACROS, "a.example", "b", ".", "example", "%{", "%{x}", "..", "%"]),
                 max_size=6).map("".join)
TERMS = st.one_of(
    st.builds("{}{}:{}{}".format, st.sampled_from(["", "+", "-", "~", "?", "!"]),
              st.sampled_from(["a", "mx", "ptr", "exists", "include", "ip4", "ip6", "A", "foo"]),
              st.one_of(NAMES, st.sampled_from(["192.0.2.0", "::", "1.2.3", "::ffff:1.2.3.4"])),
              st.sampled_from(["", "/24", "//64", "/24//64", "/", "//", "/99"])),
    st.builds("{}={}".format, st.sampled_from(["redirect", "exp", "x", ""]), NAMES),
    st.sampled_from(["a", "mx", "ptr", "-all", "all", "", "?all", "include", "a/0", "mx//0"]))
TEXTS = st.lists(TERMS, max_size=14).map(" ".join)
RECORDS = st.one_of(TEXTS.map(lambda text: f"v=spf1 {text}".encode()),
                    st.binary(max_size=60).map(lambda data: b"v=spf1 " + data))
ADDRESSES = st.sampled_from(["192.0.2.1", "10.0.0.1", "2001:db8::1", "::"])
SENDERS = st.one_of(st.text(max_size=80), st.builds(
    "{}@{}".format, st.text(max_size=70), st.sampled_from(["a.example", "x" * 63 + ".example"])))
IPS = {"A": ["192.0.2.1", "10.9.9.9"], "AAAA": ["2001:db8::1", "::1"]}


def answer(draw, kind, records):
    what = draw(st.sampled_from([FOUND, FOUND, FOUND, NOTHING, UNKNOWN, FAILED]))
    if what != FOUND:
        return Answer(what, why="x")
    if kind == "TXT":
        return Answer(FOUND, (draw(st.sampled_from(records)),))
    if kind in ("A", "AAAA"):
        return Answer(FOUND, (draw(st.sampled_from(IPS[kind])),))
    many = range(draw(st.sampled_from([1, 3, 10, 11, 40])))
    names = [f"h{n}.example" for n in many]
    return Answer(FOUND, tuple(enumerate(names) if kind == "MX" else names))


@settings(deadline=None, max_examples=400)
@given(st.data(), st.lists(RECORDS, min_size=1, max_size=4), ADDRESSES, SENDERS, st.text(max_size=40))
def test_every_evaluation_ends_with_a_result(data, records, ip, sender, helo):
    asked = []

    async def lookup(name, kind):
        asked.append((name, kind))
        assert is_name(name.replace("\\\\", "\\"))
        return answer(data.draw, kind, records)

    found = run(check_host(Question(ip, sender, helo), lookup))
    assert found.result in RESULTS
    assert len(asked) <= 1 + 10 * 11 + 11 + 1
    assert found.explanation.isascii()
    assert found.explanation == "" or found.explanation.isprintable()
    assert (found.result in ("temperror", "permerror")) == bool(found.why)


@settings(deadline=None, max_examples=400)
@given(RECORDS)
def test_a_record_is_read_or_refused(data):
    try:
        record = spfrecord.parse(data)
    except ValueError as error:
        assert str(error)
        return
    assert data.isascii()
    for directive in record.directives:
        assert 0 <= directive.four <= 32 or directive.mechanism == "ip6"
        assert 0 <= directive.six <= 128


@settings(deadline=None)
@given(st.lists(st.sampled_from(MACROS), max_size=2000).map("".join), st.text(max_size=320))
def test_names_are_bounded_whatever_macros_make_of_them(text, value):
    try:
        pieces = spfmacro.parse_name(text + ".example")
    except ValueError:
        return
    name = spfmacro.expand_name(pieces, dict.fromkeys("slodipvh", value))
    assert len(name) <= spfmacro.LONGEST_NAME


@settings(deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=8),
       st.integers(1, 200), st.booleans())
def test_parts_from_the_right(parts, number, reverse):
    pieces = spfmacro.parse_text(f"%{{l{number}{'r' if reverse else ''}-}}")
    order = parts[::-1] if reverse else parts
    assert spfmacro.expand(pieces, {"l": "-".join(parts)}) == ".".join(order[-number:])
