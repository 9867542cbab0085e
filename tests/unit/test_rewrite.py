"""control/rewrite and control/rewriteheaders: what their lines mean, and what becomes of an address."""

import os

import pytest

from mqmail.base.failure import BadFile
from mqmail.control import lines
from mqmail.control.optionsets import REWRITES, parse_optionsets
from mqmail.control.rewrite import parse_rewrite, parse_rewriteheaders, unused
from mqmail.policy import access, rewrite
from mqmail.policy.maps import Files, Maps
from mqmail.policy.rewrite import FROM, TO, Rewriter


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.chmod(tmp_path, 0o755)
    os.mkdir("control", 0o755)


def parse(text, parser=parse_rewrite):
    return lines.parse("control/rewrite", text.encode(), parser, "")


def rewriter(text, headers="", delimiters="+"):
    found = parse(text)
    return Rewriter(Maps("rewrite", found.entries, found.words, Files("rewrite")),
                    parse(headers, parse_rewriteheaders), delimiters)


TABLE = """\
From:joe@in.example         Joe.Doe@out.example
To:joe.doe@out.example      joe@in.example
From:"o d"@in.example       od@out.example
ann@in.example              @ann.example
root@                       =
boss@                       chief
in.example                  near.example
.in.example                 out.example
"""


@pytest.mark.parametrize(("old", "sender", "recipient"), [
    ("joe@in.example", "Joe.Doe@out.example", "joe@near.example"),
    ("JOE+a+b@IN.example", "Joe.Doe+a+b@out.example", "JOE+a+b@near.example"),
    ("joe.doe@out.example", "joe.doe@out.example", "joe@in.example"),
    ("joe.doe+A@out.example", "joe.doe+A@out.example", "joe+A@in.example"),
    ('"o d"@in.example', "od@out.example", '"o d"@near.example'),
    ("ann+x@in.example", "ann+x@ann.example", "ann+x@ann.example"),
    ("root@pc.in.example", "root@pc.in.example", "root@pc.in.example"),
    ("root+x@in.example", "root+x@in.example", "root+x@in.example"),
    ("boss@far.example", "boss@chief", "boss@chief"),
    ("bob@in.example", "bob@near.example", "bob@near.example"),
    ("bob@a.b.in.example", "bob@out.example", "bob@out.example"),
    ("bob@notin.example", "bob@notin.example", "bob@notin.example"),
    ("b\u00f6b@a.in.example", "b\u00f6b@out.example", "b\u00f6b@out.example"),
    ("postmaster", "postmaster", "postmaster"),
    ("", "", "")])
def test_what_becomes_of_an_address(old, sender, recipient):
    table = rewriter(TABLE)
    assert (table.rewrite(old, FROM), table.rewrite(old, TO)) == (sender, recipient)


def test_the_keys_are_those_of_the_access_table():
    for address in ("a@b.example", "A+x+y@c.d.example", '"a b"@x.example', "u-v@[192.0.2.1]",
                    "\u00fc@\u00fc.example"):
        for delimiters in ("", "+", "+-"):
            assert [key for key, _ in rewrite.keys_of(address, delimiters)] == list(
                access.address_keys(address, delimiters))


def test_all_and_one_exception():
    table = rewriter("* catch@all.example\nTo:postmaster@ =\n")
    assert table.rewrite("x@y.example", TO) == "catch@all.example"
    assert table.rewrite("postmaster@y.example", TO) == "postmaster@y.example"
    assert table.rewrite("postmaster@y.example", FROM) == "catch@all.example"
    assert table.rewrite("postmaster", TO) == "postmaster"


def test_what_comes_out_is_not_looked_up_again():
    table = rewriter("a@x.example b@x.example\nb@x.example a@x.example\n")
    assert table.rewrite("a@x.example", TO) == "b@x.example"
    assert table.rewrite("b@x.example", TO) == "a@x.example"


def test_what_would_be_too_long_stays():
    table = rewriter(f"a@x.example {'l' * 60}@x.example\n"
                     f".x.example {'d' * 63}.{'e' * 63}.{'f' * 63}.example\n")
    assert table.rewrite("a+123@x.example", TO) == f"{'l' * 60}+123@x.example"
    assert table.rewrite("a+1234@x.example", TO) == "a+1234@x.example"
    assert table.rewrite(f"{'u' * 64}@a.x.example", TO) == f"{'u' * 64}@a.x.example"


def test_tables_of_other_forms_are_checked_when_they_are_used():
    table = Maps("rewrite", {"a@x.example": "b c", "b@x.example": "x.example"}, frozenset(["untagged"]),
                 Files("rewrite"))
    found = Rewriter(table, {}, "+")
    with pytest.raises(BadFile, match="control/rewrite: a@x.example: 'b c'"):
        found.rewrite("a@x.example", FROM)
    assert found.rewrite("b@x.example", FROM) == "b@x.example"


@pytest.mark.parametrize(("line", "why"), [
    ("a@x.example", "write KEY REPLACEMENT"),
    ("a@x.example b@c.example d@e.example", "is no key"),
    ("Connect:192.0.2.1 x.example", "the tags are From: and To:"),
    ("192.0.2.1 x.example", "is no key"),
    ("From:<> x.example", "the null sender stays"),
    ("<> x.example", "the null sender stays"),
    ("a@x.example b@\u00fc.example", "not ASCII"),
    ("a@x.example -b.example", "not a domain"),
    ("a@x.example b..c@d.example", "is no replacement"),
    ("a@x.example a@", "is no replacement")])
def test_mistakes_in_a_line(line, why):
    with pytest.raises(BadFile, match="control/rewrite line 2: ") as caught:
        parse(f"# two\n{line}\n")
    assert why in caught.value.text


def test_a_key_is_there_once():
    with pytest.raises(BadFile, match="line 2: 'from:a@x.example' is given twice"):
        parse("From:A@x.example b@x.example\nfrom:a@X.example =\n")
    assert len(parse("From:a@x.example b@x.example\na@x.example =\nTo:a@x.example =").entries) == 3


def test_fields():
    usual = parse("", parse_rewriteheaders)
    assert b"from" in usual["header_sender"]
    assert b"to" in usual["header_recipient"]
    assert usual["header_sender"].isdisjoint(usual["header_recipient"])
    found = parse("header_recipient To X-Sent-To", parse_rewriteheaders)
    assert found == {**usual, "header_recipient": frozenset((b"to", b"x-sent-to"))}


@pytest.mark.parametrize(("line", "why"), [
    ("sender From", "write each of header_sender and header_recipient once"),
    ("header_sender From\nheader_sender From", "once"),
    ("header_sender", "write the names of fields"),
    ("header_sender From:", "no field's name"),
    ("header_sender Fr\u00f6m", "no field's name"),
    ("header_sender References", "References holds no addresses"),
    ("header_sender From To", "to cannot be of both classes")])
def test_mistakes_in_fields(line, why):
    with pytest.raises(BadFile, match=why):
        parse(line, parse_rewriteheaders)


def test_a_filter_does_what_its_classes_say():
    table = rewriter("From:.in.example from.example\nTo:.in.example to.example")
    message = b"From: a@b.in.example\r\nTo: a@b.in.example\r\nX: a@b.in.example\r\n\r\n"
    for classes, sender, recipient in ((("header_sender",), b"from", b"b.in"),
                                       (("envelope_sender", "header_recipient"), b"b.in", b"to"),
                                       (REWRITES, b"from", b"to")):
        assert table.header_filter(classes).feed(message) == (
            b"From: a@%s.example\r\nTo: a@%s.example\r\nX: a@b.in.example\r\n\r\n" % (sender, recipient))
    assert table.header_filter(("envelope_sender", "envelope_recipient")) is None


def test_look_ups_for_a_header_are_bounded(monkeypatch):
    table = rewriter("in.example out.example")
    looked_up = []
    monkeypatch.setattr(table._table, "get", lambda key: looked_up.append(key))
    many = b", ".join([b"a" + b"+" * 60 + b"@" + b"b." * 60 + b"example"] * 300)
    message = b"From: joe@in.example\r\nTo: %s\r\nCc: %s\r\n\r\n" % (many, many)
    assert table.header_filter(REWRITES).feed(message) == message
    assert rewrite.MOST_KEYS <= len(looked_up) < rewrite.MOST_KEYS + 500


def test_the_option():
    def option(text):
        return parse(f"x rewrite={text}", parse_optionsets).options("mx", "x").rewrite

    assert (option("all"), option("none")) == (REWRITES, ())
    assert option("header_sender,envelope_sender") == ("header_sender", "envelope_sender")
    assert parse("", parse_optionsets).options("submission").rewrite == ()
    for wrong in ("", "yes", "header_sender,", "all,none", "header_sender,header_sender"):
        with pytest.raises(BadFile, match="write all, none, or some of"):
            option(wrong)


def test_a_table_that_nobody_asks_for():
    asking, others = parse("x rewrite=all", parse_optionsets), parse("x rewrite=none", parse_optionsets)
    assert unused("control/rewrite", True, "control/optionsets", asking) == []
    assert unused("control/rewrite", False, "control/optionsets", others) == []
    assert "nothing is rewritten" in unused("control/rewrite", True, "control/optionsets", others)[0]
    assert "x has rewrite=" in unused("control/rewrite", False, "control/optionsets", asking)[0]
