"""control/passwd, authbackends, logins, accountlimits; hashes."""

from __future__ import annotations

import os

import pytest

from mqmail.auth import hashes, saltkey
from mqmail.base.failure import BadFile
from mqmail.control import accountlimits, authbackends, credentials, lines, logins, passwd
from mqmail.control.accountlimits import Limit
from mqmail.control.authbackends import Backend
from mqmail.control.passwd import Entry, Scrypt
from mqmail.policy.facts import Facts
from mqmail.policy.senders import Senders
from mqmail.policy.verdict import NO_OPINION, REJECT
from mqmail.prog import mq_auth
from mqmail.xmtp.scram import stored_keys

ME = "mail.example.org"
NOW = 1_700_000_000.0
SMALL = "$scrypt$ln=4,r=8,p=1$c2FsdA==$MDEyMzQ1Njc4OWFiY2RlZg=="
KEYS = "SCRAM-SHA-256$4096:c2FsdA==$" + "A" * 43 + "=:" + "B" * 42 + "A="


def read(module, text, name="x"):
    parser = getattr(module, f"parse_{module.__name__.rpartition('.')[2]}")
    return lines.parse(f"control/{name}", text.encode(), parser, ME)


# --- passwd ---

@pytest.mark.parametrize(("scram", "readable"), [(True, False), (False, False), (True, True)])
def test_what_is_made_is_read_again(scram, readable):
    entry = hashes.make("p\u00e4ss w\u00f6rd\u2168", scram=scram, readable=readable)
    assert [entry.scrypt is None, entry.scram is None, entry.plain is None] == [
        False, not scram, not readable]
    found = read(passwd, passwd.encode("alice@example.org", entry) + "\n")
    assert found.entry("ALICE@Example.ORG") == entry
    assert found.entry("alice") is None
    assert found.readable is readable
    assert hashes.fits(entry, "p\u00e4ss w\u00f6rd\u2168")
    assert hashes.fits(entry, "p\u00e4ss w\u00f6rdIX")        # SASLprep
    assert not hashes.fits(entry, "p\u00e4ss w\u00f6rd")


def test_any_hash_will_do_for_a_password_and_none_for_nobody():
    keys = stored_keys("pencil", b"salt", 4096)
    for entry in (Entry(scram=keys), Entry(plain=b"pencil")):
        assert hashes.fits(entry, "pencil")
        assert not hashes.fits(entry, "pencils")
    for entry in (None, Entry()):
        assert not hashes.fits(entry, "pencil")
        assert not hashes.fits(entry, "")
        assert not hashes.fits(entry, "a\0b")


def test_who_is_not_there_is_hashed_all_the_same(monkeypatch):
    asked = []
    derive = hashes._derive
    monkeypatch.setattr(hashes, "_derive", lambda *a: asked.append(a[1:4]) or derive(*a))
    for entry in (None, Entry(), hashes.make("x")):
        hashes.fits(entry, "guess")
    assert asked == [(hashes.LN, hashes.R, hashes.P)] * 4       # once to make


@pytest.mark.parametrize("password", ["", "a\0b", "\udcff"])
def test_no_password(password):
    with pytest.raises(ValueError, match="the password is"):
        hashes.make(password)


def test_keys_of_nobody_are_the_same_each_time_and_fit_nothing():
    one, two = hashes.no_keys(b"k", "alice"), hashes.no_keys(b"k", "alice")
    assert (one.salt, one.iterations) == (two.salt, two.iterations)
    assert hashes.no_keys(b"k", "bob").salt != one.salt
    assert hashes.no_keys(b"other", "alice").salt != one.salt
    assert len(one.salt) == len(hashes.make("x").scram.salt)


def test_the_key_of_salts_is_made_once_and_nobody_else_reads_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    key = saltkey.load()
    assert (saltkey.load(), len(key)) == (key, 32)
    assert (tmp_path / "run/auth/key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "run/auth").stat().st_mode & 0o777 == 0o700
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_that_is_none_is_made_anew(tmp_path, monkeypatch, capfd, size):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/auth").mkdir(parents=True)
    (tmp_path / "run/auth/key").write_bytes(b"x" * size)
    key = saltkey.load()
    assert "event=auth_key_trouble" in capfd.readouterr().err
    assert saltkey.load() == key


def test_without_a_place_for_the_key_there_is_one_all_the_same(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert len(saltkey.load()) == 32
    assert "event=auth_key_trouble" in capfd.readouterr().err


@pytest.mark.parametrize(("text", "why"), [
    ("alice", "no colon"), ("alice:$1$x$y", "unknown kind"), (":x", "1 to 255 bytes"),
    ("a b:", "no space"), (f"alice:\nALICE:{SMALL}", "given twice"),
    (f"a:{SMALL} {SMALL}", "two hashes"),
    ("a:$scrypt$ln=4,r=8$c2FsdA==$MDEy", "not \\$scrypt"), ("a:$scrypt$r=8,ln=4,p=1$eA==$eA==", "not"),
    ("a:" + SMALL.replace("ln=4", "ln=25"), "too much memory"),
    ("a:" + SMALL.replace("p=1", "p=65"), "too much"), ("a:" + SMALL.replace("ln=4", "ln=+4"), "not"),
    ("a:" + SMALL.replace("r=8", "r=999999"), "too much"),
    ("a:" + SMALL.replace("r=8", "r=0"), "too much"),
    ("a:" + SMALL.replace("c2FsdA==", "c2Fsd"), "base64"),
    ("a:$scrypt$ln=4,r=8,p=1$eA==$eA==", "16 bytes"),
    ("a:" + KEYS.replace("4096", "4_096"), "not SCRAM"), ("a:" + KEYS.replace("4096", "0"), "not SCRAM"),
    ("a:" + KEYS.replace("A" * 43, "AAA"), "32 bytes"), ("a:$plain$", "empty"), ("a:$plain$AA==", "NUL"),
    ("a" * 256 + ":", "1 to 255 bytes"),
])
def test_bad_lines(text, why):
    with pytest.raises(BadFile, match=why) as caught:
        read(passwd, text + "\n")
    assert "line" in str(caught.value)
    assert "c2FsdA" not in str(caught.value)
    assert "MDEy" not in str(caught.value)


def test_good_lines_and_no_secret_shown():
    found = read(passwd, f"# a comment\nalice:{SMALL} {KEYS}\nbob:\nc:$plain$Z2VoZWlt\n")
    assert found.entry("alice").scrypt == Scrypt(4, 8, 1, b"salt", b"0123456789abcdef")
    assert found.entry("alice").scram.iterations == 4096
    assert found.entry("c").plain == b"geheim"
    assert repr(found.entry("alice")) == "<Entry of scram scrypt>"
    assert "geheim" not in repr(found)
    assert not hashes.fits(found.entry("bob"), "x")


def test_the_mode_is_looked_at(tmp_path):
    assert passwd.check_mode is credentials.check_mode
    path = tmp_path / "passwd"
    path.touch(0o644)
    with pytest.raises(BadFile, match="others may read"):
        passwd.check_mode("control/passwd", os.stat(path))
    path.chmod(0o640)
    passwd.check_mode("control/passwd", os.stat(path))


# --- authbackends ---

def test_backends_in_their_order():
    text = "dovecot /run/auth\npasswd\ncheckpassword /bin/cp -s smtp\noauth /bin/token\n"
    found = read(authbackends, text)
    assert found == (Backend("dovecot", ("/run/auth",)), Backend("passwd"),
                     Backend("checkpassword", ("/bin/cp", "-s", "smtp")),
                     Backend("oauth", ("/bin/token",)))
    assert authbackends.mechanisms_of(found[2:3]) == {"PLAIN", "LOGIN", "EXTERNAL"}
    assert authbackends.mechanisms_of(found[3:]) == {"OAUTHBEARER", "XOAUTH2", "EXTERNAL"}
    assert "SCRAM-SHA-256-PLUS" in authbackends.mechanisms_of(found[1:2])
    assert "SCRAM-SHA-256-PLUS" not in authbackends.mechanisms_of(found[:1])


@pytest.mark.parametrize(("text", "why"), [
    ("pam", "no backend"), ("passwd /etc/passwd", "nothing stands behind"),
    ("checkpassword", "wants a path"),
    ("checkpassword bin", "wants a path"), ("dovecot /a /b", "only the socket"),
    ("passwd\npasswd", "twice"),
    ("oauth /a\noauth /b", "twice"), ("dovecot /a\ndovecot /a", "twice"),
])
def test_no_backends(text, why):
    with pytest.raises(BadFile, match=why):
        read(authbackends, text)


# --- logins ---

TABLE = ("alice@example.org: alice@example.org, @alice.example\nrelay: *\n"
         "news: News@Example.org\n")


@pytest.mark.parametrize(("login", "sender", "may"), [
    ("alice@example.org", "Alice@Example.ORG", True), ("ALICE@example.org", "x@alice.example", True),
    ("alice@example.org", "x@sub.alice.example", False), ("alice@example.org", "bob@example.org", False),
    ("alice@example.org", "", True), ("relay", "anybody@anywhere.example", True),
    ("news", "news@example.org", True), ("news", f"news@{ME}", False),
    ("bob@example.org", "bob@example.org", True), ("bob@example.org", "alice@example.org", False),
    ("bob@example.org", "bob+x@example.org", False), ("bob", f"bob@{ME}", True),
    ("bob", "bob@example.org", False), ("a b", f"x@{ME}", False), ("a b", "", True),
    ('bob@example.org', '"bob"@example.org', True),
])
def test_who_may_send_as_whom(login, sender, may):
    table = read(logins, TABLE)
    assert table.may_send(login, sender) is may
    facts = Facts("s", "submission")
    facts.login, facts.sender = login, sender
    verdict = Senders(table).look(facts)
    if may:
        assert verdict is NO_OPINION
    else:
        assert (verdict.action, verdict.reply.code, verdict.reply.status) == (REJECT, 553, "5.7.1")


def test_others_have_a_line_too():
    table = read(logins, "*: @example.org\nalice: *\n")
    assert table.may_send("bob", "x@example.org")
    assert not table.may_send("bob", f"bob@{ME}")


def test_who_has_not_logged_in_is_none_of_its_business():
    facts = Facts("s", "mx")
    facts.sender = "x@y.example"
    assert Senders(read(logins, "")).look(facts) is NO_OPINION


@pytest.mark.parametrize(("text", "why"), [
    ("alice", "write LOGIN"), ("alice:", "write LOGIN"), ("alice: x", "write an address"),
    ("alice: a@b.c,", "write an address"), ("a b: *", "no space"), ("a: *\nA: *", "twice"),
    ("a: @", "domain|host|empty"),
])
def test_bad_logins(text, why):
    with pytest.raises(BadFile, match=why):
        read(logins, text)


# --- accountlimits ---

def test_limits():
    found = read(accountlimits, "* messages=5 surge=3\nNews recipients=0\n")
    assert found.of("anybody") == Limit(5, 2000, 100, 3)
    assert found.of("news") == Limit(500, 0, 100, 10)
    assert read(accountlimits, "").of("x") == Limit()


@pytest.mark.parametrize(("text", "why"), [
    ("alice", "nothing stands"), ("alice messages", "write LOGIN"), ("alice messages=-1", "write LOGIN"),
    ("alice messages=1 messages=2", "write LOGIN"), ("alice bytes=1", "write LOGIN"),
    ("alice messages=99999999999", "write LOGIN"), ("a messages=1\nA messages=1", "twice"),
    ("* messages=1\n* messages=1", "twice"),
])
def test_bad_limits(text, why):
    with pytest.raises(BadFile, match=why):
        read(accountlimits, text)


@pytest.mark.parametrize(("mark", "half"), [
    ((7, 10, int((NOW - 1) * 1e9)), True), ((7, 10, int((NOW - 3) * 1e9)), False),
    ((7, 10, int((NOW + 9) * 1e9)), False), ((8, 10, int((NOW - 1) * 1e9)), False), ((), False)])
def test_a_file_that_is_being_written_where_it_lies_is_left_alone(mark, half):
    assert mq_auth.may_be_half(mark, (7, 200, int((NOW - 1000) * 1e9)), NOW) == half
