"""mq-showctl: every setting, in a form that can be fed back, and every mistake."""

import os
import subprocess

import pytest

from mqmail.control import reader
from mqmail.control.table import BY_NAME, TABLE_OF_FILES
from support.certificates import make_authority
from support.home import ME, ROOT, run

FACTS = ("type", "default", "read by", "source")


@pytest.fixture
def home(tmp_path):
    """A home of our own with some files; root's, so that nobody has to be somebody else."""
    (tmp_path / "control").mkdir(mode=0o755)
    (tmp_path / "mail").mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    write(tmp_path, me=f"{ME}\n", databytes="10M\n", detaildelimiter="#\n",
          locals="# ours\nexample.org  \n\nexample.net\n",
          aliases="team: alice,\n  bob\n@lists.example: @lists:\n",
          destinations="lists:lmtp:unix:run/lists.sock\n")
    return tmp_path


def write(home, **texts):
    for name, text in texts.items():
        path = home / "control" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600 if name == "credentials" else 0o644)


def show(home, *words, code=0):
    """What was printed, and complaints behind it."""
    done = run("mq-showctl", "--home", str(home), *words, check=False)
    text = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == code, text
    return text


def blocks(text):
    """Name to the lines of its block."""
    return {lines[0]: lines[1:] for lines in [one.splitlines() for one in text[3:].split("\n\n== ")]}


def test_each_row_of_the_table_is_told_in_full(home):
    found = blocks(show(home))
    assert list(found) == [row.name for row in TABLE_OF_FILES]
    for row in TABLE_OF_FILES:
        first, *facts = [line.removeprefix("#: ") for line in found[row.name] if line[:3] == "#: "]
        told = dict([fact.split(": ", 1) for fact in facts])
        assert first == row.help
        assert set(FACTS) <= set(told)
        is_there = (home / "control" / row.name).exists()
        assert told["source"] == (f"control/{row.name}" if is_there else "default")
        assert told["read by"] == row.readers
    assert found["databytes"][1:] == [
        "#: type: number of bytes, 0 to 1125899906842624", "#: default: 0", "#: read by: xmtpd mq-queue",
        "#: source: control/databytes", "10M"]
    assert found["locals"][-2:] == ["example.org", "example.net"]
    assert found["helohost"][-1] == ME
    assert "#: default: 0.0.0.0/8, 127.0.0.0/8, " in "\n".join(found["refusednetworks"])


def test_names_choose(home):
    assert list(blocks(show(home, "locals", "me"))) == ["locals", "me"]
    assert "'rcpthosts' is no control file" in show(home, "rcpthosts", code=100)


def fed_back(home, tmp_path_factory):
    """Another home, with what the manual's command writes."""
    page = (ROOT / "man/mq-showctl.8").read_text(encoding="utf-8")
    [command] = [line[2:] for line in page.splitlines() if "| awk" in line]
    other = tmp_path_factory.mktemp("other")
    (other / "copy").mkdir(mode=0o755)
    subprocess.run(["/bin/sh", "-ec", command], cwd=other, check=True,
                   env={"PATH": f"{ROOT}/bin:{os.environ['PATH']}", "MQMAIL_HOME": str(home)})
    other.chmod(0o755)
    (other / "copy").rename(other / "control")
    return other


def test_what_was_printed_can_be_fed_back(home, tmp_path_factory):
    write(home, credentials="isp alice correct-horse\n", smtproutes=":mx.example auth=isp\n")
    other = fed_back(home, tmp_path_factory)
    assert not (other / "control/credentials").exists()
    names = set(BY_NAME) - {"credentials"}
    before, after = reader.load(str(home), names), reader.load(str(other), names)
    for name in names:
        assert before[name] == after[name], name


@pytest.mark.parametrize("name", [row.name for row in TABLE_OF_FILES if not row.secret])
def test_a_value_alone_is_what_the_file_may_hold(home, name):
    value = show(home, "--value", name)
    before = reader.load(str(home), [name])[name]
    write(home, **{name: value})
    assert reader.load(str(home), [name])[name] == before


def test_secrets_are_never_printed(home):
    write(home, credentials='isp alice correct-horse\nbig bob !"/bin/token correct-horse"\n')
    text = show(home)
    assert "#: entries, their secrets not shown: isp, big\n" in text
    assert "copy the file" in show(home, "--value", "credentials", code=100)
    for wrong in ("isp alice correct-horse\nisp alice correct-horse\n",
                  "isp alice correct-horse PLAIN x\n", "isp alice correct-horse staple\n"):
        write(home, credentials=wrong)
        for words in ((), ("--check",), ("credentials",)):
            told = show(home, *words, code=1)
            assert "control/credentials line " in told
            assert "correct-horse" not in told + text
            assert "staple" not in told


def test_a_mistake_is_in_the_block_instead_of_the_value(home):
    write(home, databytes="1_000\n")
    found = blocks(show(home, "databytes", "me", code=1))
    assert found["databytes"][-1].startswith("#! control/databytes line 1: '1_000' is not a number")
    assert found["me"][-1] == ME
    told = show(home, "--value", "databytes", code=1)
    assert told.startswith("mq-showctl: control/databytes line 1: ")


def check(home, *names):
    """Each mistake up to what is to be done."""
    return show(home, "--check", *names, code=1).splitlines()


def test_check_is_silent_when_all_is_well(home):
    assert show(home, "--check") == ""


def test_check_names_all_mistakes_of_all_files(home):
    write(home, databytes="x\n", locals="ok.example\n..\nfine.example\na b\n", rcpthosts="",
          users="alice@example.org\nalice@example.org\nnobody\n", localusers="maybe\n")
    (home / "mail/alice").mkdir()
    assert [text.split(": ")[0] for text in check(home)] == [
        "control/locals line 2", "control/locals line 4", "control/users line 2", "control/users line 3",
        "control/localusers line 1", "control/databytes line 1", "control/rcpthosts"]
    assert [text.split(": ")[0] for text in check(home, "databytes")] == ["control/databytes line 1"]
    assert show(home, "--check", "aliases") == ""


def test_check_ends_in_a_file_that_is_wrong_throughout(home):
    write(home, locals="..\n" * 1000)
    assert len(check(home)) == 20


def test_check_goes_on_without_me(home):
    (home / "control/me").unlink()
    write(home, aliases="a: b\nc\n")
    assert [text.split(":")[0] for text in check(home)] == [
        "control/me line 1", "control/aliases line 2"]


def test_check_names_modes_and_mistakes_of_one_file(home):
    write(home, databytes="x\n")
    (home / "control/databytes").chmod(0o666)
    (home / "control").chmod(0o777)
    assert [text.split(":")[0] for text in check(home)] == [
        "control", "control/databytes", "control/databytes line 1"]
    assert "control: group or others may write it" in show(home, "databytes", code=1)


def test_check_names_secrets_that_all_may_read(home):
    write(home, credentials="isp alice correct-horse\n")
    (home / "control/credentials").chmod(0o644)
    [text] = check(home)
    assert text.startswith("control/credentials: holds secrets, and others may read it: chmod 600")


def test_check_names_what_one_file_expects_of_another(home):
    write(home, credentials="isp alice correct-horse\n", fallbackroute="mx.example auth=last\n",
          smtproutes="a.example:mx.example auth=isp\n:mx.example auth=gone\n",
          senderroutes="b.example:mx.example auth=isp\nc@b.example:mx.example auth=other\n",
          aliases="x: @lists:, @one:\ny: @two:a@b.example\n", verify=".c.example lists\n* four\n",
          listeners="127.0.0.1:25 set=five\n127.0.0.1:465 role=submissions\n[::1]:25 set=six\n"
          "unix:/run/x destination=seven\n",
          optionsets="six clientcert=ask\n")
    assert [text.split(": write")[0] for text in check(home)] == [
        "control/aliases line 1: there is no destination one",
        "control/aliases line 2: there is no destination two",
        "control/smtproutes: the line for all: there is no entry gone",
        "control/senderroutes: c@b.example: there is no entry other",
        "control/fallbackroute: mx.example: there is no entry last",
        "control/verify: *: there is no destination four",
        "control/listeners line 1: 127.0.0.1:25: there is no option set five",
        "control/listeners line 2: 127.0.0.1:465 is for clients with TLS, and there is no certificate",
        "control/listeners line 3: [::1]:25: clientcert=ask is not for mx: many hosts have a"
        " certificate that nobody vouches for, and would be refused",
        "control/listeners line 4: unix:/run/x: there is no destination seven"]


def test_check_names_an_alias_that_has_too_many_targets(home):
    targets = ",\n ".join([f"a{number}" for number in range(10001)])
    write(home, aliases=f"all: {targets}\nfew: a, b\n")
    [text] = check(home)
    assert text.startswith("control/aliases: all has 10001 targets: write at most 10000")


def test_check_names_what_this_host_lacks(home):
    write(home, users=f"alice@{ME}\nbob@{ME}\nb@{ME}:bob\n", tlsauthorities="/nonexistent/ca.pem\n",
          credentials="big bob !/nonexistent/token\nsmall bob !/bin/sh\n",
          authbackends="dovecot /nonexistent\ncheckpassword /bin/sh\noauth /nonexistent/token x\n")
    (home / "mail/alice").mkdir()
    assert [text.split(": mq-setup")[0] for text in check(home)] == [
        f"control/users: bob@{ME} has no mailbox: there is no directory mail/bob",
        "control/credentials: big: no program can be run at the path behind the !",
        "control/tlsauthorities: /nonexistent/ca.pem: No such file or directory",
        "control/authbackends: oauth: no program can be run at /nonexistent/token"]


def test_check_names_hooks_and_tables_that_cannot_be_used(home, tmp_path):
    write(home, **{"access.cdb": "x", "rewrite.sqlite": "no database", "optionsets": "mx rewrite=all\n",
                   "hooks.py": f"open('{tmp_path}/it-was-run', 'w')\ndef rcpt(session)\n"})
    assert [text[:40] for text in check(home)] == [
        "control/hooks.py line 2: SyntaxError: ex", "control/access.cdb: no whole cdb file (i",
        "control/rewrite.sqlite: file is not a da"]
    for name in ("access.cdb", "rewrite.sqlite", "optionsets"):
        (home / "control" / name).unlink()
    write(home, **{"hooks.py": f"open('{tmp_path}/it-was-run', 'w')\n"})
    assert show(home, "--check") == ""
    assert not (tmp_path / "it-was-run").exists()


def test_check_names_certificates_that_have_expired(home, tmp_path):
    certificate, key = make_authority(tmp_path).certificate([ME], tmp_path, days=-1)
    write(home, tlscertificates=f"* {certificate} {key}\n")
    [text] = check(home)
    assert text.startswith(f"{certificate}: has expired on 20")
    assert text.endswith(": put a renewed one there: see control/tlscertificates")


def test_check_names_certificates_that_are_no_good(home, tmp_path):
    authority = make_authority(tmp_path)
    one, other = [authority.certificate([ME], tmp_path) for _ in range(2)]
    for pair, said in (((one[0], other[1]), ": key values mismatch"),
                       ((one[0], one[0]), ": not a certificate and its key in PEM, or the key has a"
                                          " password"),
                       ((one[0], "tls/none.pem"), "tls/none.pem: No such file or directory")):
        write(home, tlscertificates=f"* {pair[0]} {pair[1]}\n")
        [text] = check(home)
        assert text.endswith(f"{said}: see control/tlscertificates")
    write(home, tlscertificates=f"* {one[0]} {one[1]}\n", tlsclientauthorities=f"{one[1]}\n")
    assert check(home) == [f"{one[1]}: no certificate or crl found: see control/tlsclientauthorities"]
    write(home, tlsclientauthorities="tls/none.pem\n")
    assert check(home) == ["tls/none.pem: No such file or directory: see control/tlsclientauthorities"]
    write(home, tlsclientauthorities=f"{authority.file}\n")
    assert show(home, "--check") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_root_reads_as_the_owner_of_the_home_does(home):
    os.chown(home, 4242, 4242)
    path = home / "control/databytes"
    path.chmod(0o600)
    assert check(home) == ["control/databytes: Permission denied"]
    os.chown(path, 4242, -1)
    assert show(home, "--check") == ""
    write(home, tlscertificates="* tls/cert.pem tls/key.pem\n")
    (home / "tls").mkdir(mode=0o700)
    assert check(home) == ["tls/cert.pem: Permission denied: uid 4242 must be able to read it"
                           " (mq-setup --repair): see control/tlscertificates"]
    (home / "tls").chmod(0o755)
    for path in (home / "tls/cert.pem", home / "tls/key.pem"):
        path.touch(0o600)
    assert check(home) == ["tls/cert.pem: Permission denied: uid 4242 must be able to read it"
                           " (mq-setup --repair): see control/tlscertificates"]


def test_without_a_home_it_says_how_to_make_one():
    assert "make one with mq-setup --home /nonexistent" in show("/nonexistent", code=111)


def test_rewriting_that_is_switched_on_nowhere_or_without_a_table(home):
    write(home, rewrite=".in.example out.example\nCc:x y\n")
    assert "control/rewrite line 2: 'Cc:x' is no key" in show(home, "--check", code=1)
    write(home, rewrite=".in.example out.example\n")
    assert "nothing is rewritten: write rewrite=all into" in show(home, "--check", code=1)
    write(home, optionsets="inside rewrite=all\n")
    show(home, "--check")
    (home / "control/rewrite").unlink()
    assert "inside has rewrite=, and there is no" in show(home, "--check", code=1)
