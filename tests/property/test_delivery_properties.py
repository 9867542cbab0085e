from __future__ import annotations

import io
import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.local import maildir, mbox
from mqmail.local.body import BLOCK, Body
from mqmail.mail import dotqmail

small = st.lists(st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"a", b"From ", b">", b"\0", b".", b"\xff"])).map(b"".join)


def body(data):
    fd = os.memfd_create("body")
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd, Body(fd, len(data))


@settings(deadline=None)
@given(st.sampled_from([0, BLOCK - 6, 2 * BLOCK - 6]), small)
def test_a_maildir_gets_what_the_queue_has(padding, text):
    data = b"x" * padding + text
    with tempfile.TemporaryDirectory() as home:
        fd, message = body(data)
        try:
            name = maildir.deliver(f"{home}/Maildir", b"A: b\n", message, create=True)
        finally:
            os.close(fd)
        with open(f"{home}/Maildir/new/{name}", "rb") as file:
            assert file.read() == b"A: b\n" + data.replace(b"\r\n", b"\n")


def unquoted(mailbox):
    """The messages of an mboxrd file, without their From lines: a reader of its own."""
    found = []
    for line in io.BytesIO(mailbox):
        if line.startswith(b"From "):
            found.append(b"")
        elif line.lstrip(b">").startswith(b"From "):
            found[-1] += line[1:]
        else:
            found[-1] += line
    return [text.removesuffix(b"\n") for text in found]


@settings(deadline=None)
@given(st.lists(small, min_size=1, max_size=3))
def test_an_mbox_gives_back_its_messages(texts):
    with tempfile.TemporaryDirectory() as home:
        for text in texts:
            fd, message = body(text)
            try:
                mbox.deliver(f"{home}/mbox", b"From x\n", message)
            finally:
                os.close(fd)
        with open(f"{home}/mbox", "rb") as file:
            found = unquoted(file.read())
    plain = [text.replace(b"\r\n", b"\n") for text in texts]
    assert found == [text if text[-1:] in (b"", b"\n") else text + b"\n" for text in plain]


@settings(deadline=None)
@given(st.lists(small))
def test_quoting_does_not_depend_on_the_cuts(pieces):
    assert b"".join(mbox.quoted(iter(pieces))) == b"".join(mbox.quoted(iter([b"".join(pieces)])))


@settings(deadline=None)
@given(st.binary() | st.lists(st.sampled_from(
    [b"|", b"&", b"a@b.example", b"./", b"/", b"\n", b"#", b" ", b"\r", b"\0", b"x", b"\xff"],
)).map(b"".join))
def test_any_file_is_followed_or_refused(data):
    try:
        found = dotqmail.parse(data, "example.com")
    except dotqmail.BadInstructions:
        return
    for instruction in found:
        assert "\0" not in instruction.text
        assert "\n" not in instruction.text
        if instruction.kind == "forward":
            assert dotqmail.address.parse_address(instruction.text) == instruction.text
        elif instruction.kind != "command":
            assert instruction.text[0] in "./"
            assert (instruction.kind == "maildir") == (instruction.text[-1] == "/")


@settings(deadline=None)
@given(st.sampled_from("-+"), st.text())
def test_no_extension_names_a_file_elsewhere(dash, ext):
    try:
        names = dotqmail.candidates(dash, ext)
    except ValueError:
        return
    for name, default in names:
        assert name.startswith(".qmail-")
        assert not set(name[1:]) & set("./\0")
        assert default is None or ext.endswith(default)
