from __future__ import annotations

import os
import resource

import pytest
from nonroot import home, mail, make_maildir, messages, nonroot, write  # noqa: F401

from mqmail.local.deliver import Deferred, Delivered, Failed, Replaced, User, deliver
from mqmail.mail.date import format_date

# ruff: noqa: F811  the fixture is imported

HEAD = b"Return-Path: <ann@example.org>\nDelivered-To: bob@example.com\n"
TEXT = b"Subject: x\n\nhello\n"
RECIPIENT = "bob@example.com"


def user(home, dash="", ext="", virtual=False):
    return User("bob", home, dash, ext, virtual)


def read(path):
    with open(path, "rb") as file:
        return file.read()


@nonroot
def test_no_instructions(home):
    verdict = deliver(user(home), mail())
    assert messages(f"{home}/Maildir") == [HEAD + TEXT]
    (name,) = os.listdir(f"{home}/Maildir/new")
    assert verdict == Delivered((f"maildir: {name}",))


@nonroot
def test_a_virtual_mailbox_by_relative_path(home):
    os.chdir(os.path.dirname(home))
    assert isinstance(deliver(user(os.path.basename(home), virtual=True), mail()), Delivered)
    assert messages(f"{home}/Maildir") == [HEAD + TEXT]


@nonroot
def test_an_empty_file_is_the_default(home):
    write(home, ".qmail", "")
    assert isinstance(deliver(user(home), mail()), Delivered)
    assert messages(f"{home}/Maildir") == [HEAD + TEXT]


@nonroot
def test_a_maildir_that_is_named_is_not_made(home):
    write(home, ".qmail", "./Maildir/\n")
    assert deliver(user(home, virtual=True), mail()) == Deferred(
        "4.2.1", "./Maildir/: No such file or directory")
    assert os.listdir(home) == [".qmail"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs somebody else's home")
def test_nothing_is_made_in_somebody_elses_home(home):
    os.chown(home, 0, 0)
    os.chmod(home, 0o755)

    @nonroot
    def check():
        assert deliver(user(home), mail()) == Deferred("4.2.1", "./Maildir/: No such file or directory")
    check()


@nonroot
def test_all_kinds_in_order_and_forwards_last(home):
    make_maildir(f"{home}/In")
    write(home, ".qmail", "&carl@example.org\n./mbox\n|cat >copy; cat mbox >seen\n"
          f"{home}/In/\n&carl@example.org\ndora\n")
    assert deliver(user(home), mail()) == Replaced(
        (("carl@example.org", None), ("dora@example.com", None)))
    mbox = read(f"{home}/mbox")
    assert mbox.startswith(b"From ann@example.org ")
    assert mbox.partition(b"\n")[2] == HEAD + TEXT + b"\n"
    assert read(f"{home}/seen") == mbox
    assert read(f"{home}/copy") == TEXT
    assert messages(f"{home}/In") == [HEAD + TEXT]


@nonroot
def test_what_delivered_says(home):
    write(home, ".qmail", "./mbox\n|echo all is well\n|true\n")
    assert deliver(user(home), mail()) == Delivered(
        ("mbox: ./mbox", "program: all is well", "program: done"))
    write(home, ".qmail", "# nothing\n")
    assert deliver(user(home), mail()) == Delivered(())


@nonroot
def test_exit_codes(home):
    for code in (64, 65, 70, 76, 77, 78, 100, 112):
        write(home, ".qmail", f"|echo go away; exit {code}\n./mbox\n")
        assert deliver(user(home), mail()) == Failed("5.3.0", "go away")
    for code in (1, 2, 67, 69, 71, 74, 75, 98, 111, 127, 255):
        write(home, ".qmail", f"|exit {code}\n./mbox\n")
        assert deliver(user(home), mail()) == Deferred("4.3.0", f"program failed for now (exit {code})")
    write(home, ".qmail", "|exit 100\n")
    assert deliver(user(home), mail()) == Failed("5.3.0", "program refused the message (exit 100)")
    write(home, ".qmail", "|kill -9 $$\n./mbox\n")
    assert deliver(user(home), mail()) == Deferred("4.3.0", "program was killed by signal 9")
    write(home, ".qmail", "|sleep 60\n./mbox\n")
    assert deliver(user(home), mail(), timeout=0.2) == Deferred(
        "4.3.0", "program took too long and was stopped")
    assert os.listdir(home) == [".qmail"]


@nonroot
def test_exit_99_skips_the_rest_and_keeps_what_came_before(home):
    write(home, ".qmail", "&a@example.org\n|exit 99\n&b@example.org\n./mbox\n")
    assert deliver(user(home), mail()) == Replaced((("a@example.org", None),))
    write(home, ".qmail", "|exit 99\n&b@example.org\n./mbox\n")
    assert deliver(user(home), mail()) == Delivered(("program: done",))
    assert os.listdir(home) == [".qmail"]


@nonroot
def test_a_program_that_fails_stops_the_forwards(home):
    write(home, ".qmail", "./mbox\n&a@example.org\n|exit 111\n")
    assert isinstance(deliver(user(home), mail()), Deferred)
    assert isinstance(deliver(user(home), mail()), Deferred)
    assert read(f"{home}/mbox").count(HEAD) == 2


@nonroot
def test_environment_of_a_program(home):
    write(home, ".qmail-foo-default", "|/usr/bin/env -0 >env\n")
    before = dict(os.environ)
    verdict = deliver(user(home, "-", "Foo-Bar.x"), mail(recipient="bob-Foo-Bar.x@mx.example.com"))
    assert verdict == Delivered(("program: done",))
    found = dict(item.split("=", 1) for item in read(f"{home}/env").decode().split("\0")[:-1])
    who, stamp = found.pop("UFLINE")[:22], found.pop("PWD")
    assert who == "From ann@example.org " + who[-1]
    assert stamp == home
    assert found == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SENDER": "ann@example.org", "NEWSENDER": "ann@example.org",
        "RECIPIENT": "bob-Foo-Bar.x@mx.example.com", "USER": "bob", "HOME": home, "DEFAULT": "Bar.x",
        "LOCAL": "bob-Foo-Bar.x", "EXT": "Foo-Bar.x", "EXT2": "Bar.x", "EXT3": "", "EXT4": "",
        "HOST": "mx.example.com", "HOST2": "mx.example", "HOST3": "mx", "HOST4": "mx",
        "DTLINE": "Delivered-To: bob-Foo-Bar.x@mx.example.com\n",
        "RPLINE": "Return-Path: <ann@example.org>\n"}
    assert os.environ == before


@nonroot
def test_home_is_absolute_for_programs(home):
    os.chdir(os.path.dirname(home))
    write(home, ".qmail", '|printf %s "$HOME" >home; printf %s "$UFLINE" >line\n')
    assert isinstance(deliver(user(os.path.basename(home)), mail()), Delivered)
    assert read(f"{home}/home").decode() == home
    line = read(f"{home}/line").decode()
    assert line.endswith(f"{format_date(os.stat(home + '/line').st_mtime).split()[3]}\n")


@nonroot
def test_a_hostile_extension_is_data_to_the_shell(home):
    ext = "() { :;}; touch owned; $(touch owned2) `touch owned3`"
    write(home, ".qmail-default", '|printf %s "$EXT" >ext; bash -c "exit 0"\n')
    verdict = deliver(user(home, "-", ext), mail(recipient=f'"bob-{ext}"@example.com'))
    assert isinstance(verdict, Delivered)
    assert read(f"{home}/ext").decode() == " " + ext
    assert sorted(os.listdir(home)) == [".qmail-default", "ext"]


@nonroot
def test_extensions(home):
    write(home, ".qmail-foo", "&foo@example.org\n")
    write(home, ".qmail-foo-default", "&foodefault@example.org\n")
    for dash, ext, expected in (("-", "FOO", "foo"), ("+", "foo", "foo"), ("-", "foo-x", "foodefault")):
        assert deliver(user(home, dash, ext), mail()) == Replaced(((f"{expected}@example.org", None),))
    unknown = Failed("5.1.1", "no mailbox here by that name")
    for ext in ("bar", "foo/../foo", "x" * 300, "", "../.qmail-foo"):
        assert deliver(user(home, "-", ext), mail()) == unknown
    assert not os.path.exists(f"{home}/Maildir")
    write(home, ".qmail-default", "")
    assert isinstance(deliver(user(home, "-", "bar"), mail()), Delivered)


@nonroot
def test_unsafe_homes(home):
    for mode, verdict in ((0o770, Deferred("4.3.5", "home directory is writable by others")),
                          (0o702, Deferred("4.3.5", "home directory is writable by others")),
                          (0o1700, Deferred("4.2.1", "home directory is sticky: "
                                            "its owner is editing the instructions"))):
        os.chmod(home, mode)
        assert deliver(user(home), mail()) == verdict
    os.chmod(home, 0o700)
    assert os.listdir(home) == []
    assert deliver(user(home + "/none"), mail()) == Deferred(
        "4.2.1", "home directory: No such file or directory")


@nonroot
def test_unsafe_instructions(home):
    for mode in (0o620, 0o602):
        write(home, ".qmail", "./mbox\n", mode)
        assert deliver(user(home), mail()) == Deferred("4.3.5", ".qmail is writable by others")
    write(home, ".qmail", "&a@example.org\n./mbox\n", 0o700)
    assert deliver(user(home), mail()) == Deferred("4.7.0", ".qmail is executable and may only forward")
    write(home, ".qmail", "&a@example.org\n", 0o700)
    assert deliver(user(home), mail()) == Replaced((("a@example.org", None),))
    write(home, ".qmail", "./mbox\n+what\n")
    assert deliver(user(home), mail()) == Deferred("4.3.5", ".qmail line 2: unknown instruction '+what'")
    write(home, ".qmail", "./mbox\n&Bob@Example.com\n")
    assert deliver(user(home), mail()) == Deferred("4.3.5", ".qmail forwards bob@example.com to itself")
    write(home, ".qmail", "#" * 65537)
    assert deliver(user(home), mail()) == Deferred("4.3.0", ".qmail: larger than 65536 bytes")
    os.unlink(f"{home}/.qmail")
    os.mkdir(f"{home}/.qmail")
    assert deliver(user(home), mail()) == Deferred("4.3.0", ".qmail: not a regular file")
    os.rmdir(f"{home}/.qmail")
    os.mkfifo(f"{home}/.qmail", 0o600)
    assert deliver(user(home), mail()) == Deferred("4.3.0", ".qmail: not a regular file")
    os.unlink(f"{home}/.qmail")
    write(home, ".qmail", "./mbox\n", 0o000)
    assert deliver(user(home), mail()) == Deferred("4.3.0", ".qmail: Permission denied")
    assert os.listdir(home) == [".qmail"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_instructions_that_belong_to_another_user(home):
    for owner, verdict in ((12345, Deferred("4.3.5", ".qmail belongs to somebody else")),
                           (0, Replaced((("a@example.org", None),)))):
        os.chown(write(home, ".qmail", "&a@example.org\n", 0o644), owner, owner)

        @nonroot
        def check(verdict=verdict):
            assert deliver(user(home), mail()) == verdict
        check()


@nonroot
def test_a_link_to_instructions_is_followed_and_checked(home):
    write(home, "mine", "&a@example.org\n")
    os.symlink("mine", f"{home}/.qmail")
    assert deliver(user(home), mail()) == Replaced((("a@example.org", None),))
    os.chmod(f"{home}/mine", 0o666)
    assert deliver(user(home), mail()) == Deferred("4.3.5", ".qmail is writable by others")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_never_as_root(home):
    os.chown(home, 0, 0)
    assert deliver(user(home), mail()) == Deferred("4.3.5", "refusing to deliver as root")
    assert os.listdir(home) == []


@nonroot
def test_loops(home):
    loop = Failed("5.4.6", "this message is looping: it has been delivered here before")
    for header in (b"Delivered-To: bob@example.com\r\n",
                   b"A: b\r\nDELIVERED-TO: Bob@Example.COM\r\nC: d\r\n",
                   b"A: " + b"x" * 65536 + b"\r\nDelivered-To: bob@example.com\r\n",
                   b"A: " + b"x" * (65536 - 20) + b"\r\nDelivered-To: bob@example.com\r\n"):
        assert deliver(user(home), mail(header + b"\r\nhi\r\n")) == loop
        assert deliver(user(home), mail(header)) == loop
    for data in (b"Delivered-To: bob@example.com.org\r\n\r\n",
                 b"X-Delivered-To: bob@example.com\r\n\r\n",
                 b"A: b\r\n\r\nDelivered-To: bob@example.com\r\n",
                 b"\r\nDelivered-To: bob@example.com\r\n",
                 b"Delivered-To: ann@example.com\r\n\r\n", b""):
        assert isinstance(deliver(user(home), mail(data)), Delivered), data


@nonroot
def test_the_look_for_loops_is_bounded(home):
    late = b"A: b\r\n" * 200000 + b"Delivered-To: bob@example.com\r\n\r\n"
    assert isinstance(deliver(user(home), mail(late)), Delivered)


@nonroot
def test_what_was_delivered_once_comes_back(home):
    assert isinstance(deliver(user(home), mail()), Delivered)
    (text,) = messages(f"{home}/Maildir")
    assert isinstance(deliver(user(home), mail(text.replace(b"\n", b"\r\n"))), Failed)


@nonroot
def test_owner_and_verp(home):
    write(home, ".qmail-list", "&a@example.org\n&b@example.net\n")
    listed = user(home, "-", "list")
    message = mail(recipient="bob-list@example.com")
    assert deliver(listed, message).addresses == (("a@example.org", None), ("b@example.net", None))
    write(home, ".qmail-list-owner", "./Maildir/\n")
    owner = "bob-list-owner@example.com"
    assert deliver(listed, message).addresses == (("a@example.org", owner), ("b@example.net", owner))
    bounce = mail(sender="", recipient="bob-list@example.com")
    assert deliver(listed, bounce).addresses == (("a@example.org", None), ("b@example.net", None))
    write(home, ".qmail-list-owner-default", "./Maildir/\n")
    assert deliver(listed, message).addresses == (
        ("a@example.org", "bob-list-owner-a=example.org@example.com"),
        ("b@example.net", "bob-list-owner-b=example.net@example.com"))


@nonroot
def test_new_sender_of_a_program(home):
    write(home, ".qmail-list", '|echo "<$NEWSENDER>"\n')
    listed = user(home, "-", "list")

    def said(sender="ann@example.org"):
        return deliver(listed, mail(sender=sender, recipient="bob-list@example.com")).texts
    assert said() == ("program: <ann@example.org>",)
    write(home, ".qmail-list-owner", "")
    assert said() == ("program: <bob-list-owner@example.com>",)
    write(home, ".qmail-list-owner-default", "")
    assert said() == ("program: <bob-list-owner-@example.com-@[]>",)
    assert said(sender="") == ("program: <>",)


@nonroot
def test_no_room(home):
    big = mail(b"x" * 200000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    assert deliver(user(home), big) == Deferred("4.2.3", "./Maildir/: File too large")
    assert messages(f"{home}/Maildir") == []
    write(home, ".qmail", "./mbox\n")
    assert deliver(user(home), big) == Deferred("4.2.3", "./mbox: File too large")
    assert read(f"{home}/mbox") == b""


@nonroot
def test_an_mbox_that_is_not_a_file(home):
    write(home, ".qmail", "./fifo\n")
    os.mkfifo(f"{home}/fifo")
    assert deliver(user(home), mail()) == Deferred("4.2.1", "./fifo: the mailbox is not a regular file")


@nonroot
def test_memory_does_not_grow_with_the_message(home):
    write(home, ".qmail", "./Maildir/\n./mbox\n|wc -c >size\n")
    make_maildir(f"{home}/Maildir")
    block, size = b"x" * 998 + b"\r\n", 50_000_000
    fd = os.open(home, os.O_TMPFILE | os.O_RDWR, 0o600)
    for _ in range(size // 1_000_000):
        os.write(fd, block * 1000)
    message = mail().replace(fd=fd, size=size)
    deliver(user(home), mail())       # imports done
    with open("/proc/self/statm") as file:
        limit = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + (8 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    assert isinstance(deliver(user(home), message), Delivered)
    assert int(read(f"{home}/size")) == size // 1000 * 999
