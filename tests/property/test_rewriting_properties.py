"""Rewriting a header: in any pieces, by a model of its own; nothing else changes; hostile headers cost
linear time."""

import email.utils
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.mail import mailboxes
from mqmail.mail.headerfilter import LONGEST_FIELD, HeaderFilter


def outside(address):
    local, _, domain = address.rpartition("@")
    return f"{local}@out.example" if domain == "in.example" else address


def through(message, cuts=()):
    found = HeaderFilter({b"to": outside, b"from": outside})
    places = [0, *sorted(cuts), len(message)]
    pieces = [message[a:b] for a, b in zip(places, places[1:], strict=False)]
    return b"".join([found.feed(piece) for piece in pieces]) + found.end()


TORN = st.lists(st.sampled_from([
    b"To:", b"to :", b"From: ", b"Subject: ", b"\r\n", b"\r\n ", b"\r\n\t", b"\r", b"\n", b" ",
    b"a@in.example", b"<b@in.example>", b"<", b">", b",", b";", b":", b"(", b")", b'"', b"\\", b"@",
    b"[", b"]", b"x", b"\xff",
    b"\xc3\xbc", b"=?utf-8?q?=40?=", b"a@other.example", b"\0"]), max_size=40).map(b"".join)


@settings(deadline=None)
@given(TORN, st.lists(st.integers(0, 300), max_size=6))
def test_pieces_do_not_matter(message, cuts):
    whole = through(message)
    assert through(message, [min(cut, len(message)) for cut in cuts]) == whole
    assert through(message, range(len(message))) == whole


@settings(deadline=None)
@given(TORN)
def test_a_second_time_changes_nothing(message):
    once = through(message)
    assert through(once) == once


@settings(deadline=None)
@given(TORN)
def test_nothing_but_domains_changes(message):
    """Without addresses to rewrite all passes; with them, undoing it gives what there was."""
    if b"in.example" not in message:
        assert through(message) == message
    assert through(message).replace(b"out.example", b"in.example") == message


@settings(deadline=None)
@given(st.text(max_size=60))
def test_whatever_stands_there(text):
    field = b"To: " + text.encode("utf-8", "surrogateescape") + b"\r\n\r\n"
    assert through(field) == field or "in.example" in text


WORDS = st.text("abcXYZ09_-", min_size=1, max_size=6)
LOCALS = st.one_of(WORDS, st.builds("{}.{}".format, WORDS, WORDS), WORDS.map('"{} ,"'.format))
DOMAINS = st.sampled_from(["in.example", "other.example", "IN.example"])
BOXES = st.tuples(LOCALS, DOMAINS, st.sampled_from([
    "{}", "<{}>", "Name <{}>", '"a <x@in.example>, b" <{}>', "{} (x@in.example)", "(in.example) {}",
    "\r\n {}", "=?utf-8?q?x=40in=2Eexample?= <{}>", "<@r.example:{}>"]))


@settings(deadline=None)
@given(st.lists(BOXES, min_size=1, max_size=6), st.booleans())
def test_good_lists(boxes, in_a_group):
    """What was written, with the domains of addresses changed."""
    def text(change):
        whole = ", ".join([form.format(f"{local}@{change(domain)}") for local, domain, form in boxes])
        return f"group: {whole};, last@{change('in.example')}" if in_a_group else whole

    def new(domain):
        return "out.example" if domain == "in.example" else domain

    message = f"To: {text(str)}\r\nSubject: x@in.example\r\n\r\n".encode()
    assert through(message) == f"To: {text(new)}\r\nSubject: x@in.example\r\n\r\n".encode()


@settings(deadline=None)
@given(st.lists(st.builds("{}@{}".format, WORDS, st.sampled_from(["in.example", "other.example"])),
                min_size=1, max_size=5))
def test_another_parser_sees_the_new_addresses(addresses):
    changed = mailboxes.change(", ".join([f"N <{one}>" for one in addresses]), outside)
    seen = [address for _, address in email.utils.getaddresses([changed])]
    assert seen == [outside(one) for one in addresses]


HOSTILE = [b"(" * 20000, b"\\" * 20000, b'"' * 20001, b"<" * 20000, b"a@b," * 2000, b"a " * 15000,
           b"a." * 15000,
           b"@a," * 10000 + b":", b":" * 20000, b";" * 20000, b"<a@in.example>" * 2000, b"[" * 20000,
           b"\r\n " * 15000, b"x@in.example(" * 2000, b"g:" * 15000 + b"x@in.example", b"<>" * 15000]


def test_hostile_fields_cost_linear_time():
    """Steps are counted, not seconds, at two sizes."""
    def steps(content):
        count = 0

        def trace(frame, event, arg):
            nonlocal count
            count += 1
            return trace

        sys.settrace(trace)
        try:
            through(b"To: " + content + b"\r\n\r\n")
        finally:
            sys.settrace(None)
        return count

    for content in HOSTILE:
        assert len(content) < LONGEST_FIELD
        small, large = content[:len(content) // 8], content[:len(content) // 2]
        assert steps(large) < 6 * steps(small) + 1000, content[:20]
