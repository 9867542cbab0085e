"""mq-setup: what it makes, what it leaves alone, what it refuses."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from mqmail.base import program
from mqmail.control.survey import Survey
from mqmail.prog import mq_setup

AS_ROOT = os.geteuid() == 0
STRANGER = 4242


@pytest.fixture
def place():
    """A directory that every user can search."""
    path = Path(tempfile.mkdtemp(prefix="mq-setup-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


class Ended:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


def setup(*arguments, uid=None, environment=()):
    """Run mq-setup in a process of its own, as *uid* if that is given."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            code = 250
            try:
                code = _child(arguments, uid, dict(environment), out.fileno(), err.fileno())
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return Ended(code, out.read().decode().splitlines(), err.read().decode())


def _child(arguments, uid, environment, out, err):
    os.dup2(err, 2)
    os.environ.pop("MQMAIL_HOME", None)
    os.environ.update(environment)
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    with os.fdopen(os.dup(out), "w") as stdout:
        sys.stdout = stdout
        return program.run("mq-setup", mq_setup.main, list(arguments))


def tree(home):
    """Every path below *home* with its mode, owner and content."""
    found = {}
    for path in sorted(home.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(home))] = (
            status.st_mode,
            status.st_uid,
            status.st_ino,
            path.read_bytes() if path.is_file() else b"",
        )
    return found


def control(home, name):
    return (home / "control" / name).read_text(encoding="utf-8")


def mode(path):
    return path.stat().st_mode & 0o7777


def test_a_home(place):
    home = place / "a" / "home"
    ended = setup(
        "--home",
        str(home),
        "--me",
        "mail.example.org",
        "--listen",
        "127.0.0.1:2600",
        "--listen",
        "[::1]:2600",
        "--user",
        "alice",
        "--user",
        "bob@example.com",
    )
    assert (ended.code, ended.err) == (0, "")
    assert control(home, "me") == control(home, "locals") == "mail.example.org\n"
    assert control(home, "listeners") == "127.0.0.1:2600\n[::1]:2600\n"
    assert control(home, "users") == "alice@mail.example.org\nbob@example.com\n"
    assert (
        control(home, "aliases")
        == "postmaster: alice\nmailer-daemon: postmaster\nabuse: postmaster\n"
    )
    for name in ("cur", "new", "tmp"):
        assert mode(home / "mail/alice/Maildir" / name) == 0o700
        assert (home / "mail/bob/Maildir" / name).is_dir()
    modes = {
        "": 0o755,
        "control": 0o755,
        "control/me": 0o644,
        "queue": 0o750,
        "run": 0o755,
        "mail": 0o751,
        "mail/alice": 0o700,
    }
    assert {name: mode(home / name) for name in modes} == modes
    assert (home / "queue/mess/00").is_dir()
    assert Survey(str(home)).mistakes == []


def test_each_thing_made_is_printed(place):
    home = place / "home"
    ended = setup("--home", str(home), "--me", "mail.example.org", "--user", "alice")
    for thing in (
        f"made {home}/ ",
        "made control/",
        "made queue/",
        "made run/",
        "made mail/",
        "made mail/alice/Maildir/",
        "made control/me: mail.example.org",
        "made control/locals: mail.example.org",
        "made control/listeners: ",
        "added alice@mail.example.org to control/users",
        "made control/aliases: postmaster: alice, ",
    ):
        assert [line for line in ended.out if line.startswith(thing)], thing


def test_run_again_it_changes_nothing(place):
    home = place / "home"
    arguments = ("--home", str(home), "--me", "mail.example.org", "--user", "alice")
    setup(*arguments)
    (home / "control/aliases").write_text("postmaster: alice\n# mine\n", encoding="utf-8")
    (home / "control/queuelifetime").write_text("60\n", encoding="utf-8")
    before = tree(home)
    ended = setup(*arguments)
    assert (ended.code, ended.out, ended.err) == (0, ["nothing to do"], "")
    assert tree(home) == before


def test_a_user_is_added_behind_what_is_there(place):
    home = place / "home"
    setup("--home", str(home), "--me", "mail.example.org", "--user", "alice")
    before = tree(home)
    (home / "control/users").write_text("# people\nalice@mail.example.org:alice ", encoding="utf-8")
    ended = setup("--home", str(home), "--user", "ALICE", "--user", "carol")
    assert ended.out == [
        "added carol@mail.example.org to control/users",
        "made mail/carol/Maildir/",
    ]
    assert (
        control(home, "users")
        == "# people\nalice@mail.example.org:alice \ncarol@mail.example.org\n"
    )
    after = tree(home)
    assert {name for name in after if after[name] != before.get(name)} - {"control/users"} == {
        name for name in after if name.startswith("mail/carol")
    }


def test_a_mailbox_lost_is_made_again(place):
    home = place / "home"
    setup("--home", str(home), "--me", "mail.example.org", "--user", "alice")
    shutil.rmtree(home / "mail/alice/Maildir/tmp")
    assert setup("--home", str(home), "--user", "alice").out == ["made mail/alice/Maildir/"]
    assert (home / "mail/alice/Maildir/tmp").is_dir()


def test_without_users_there_is_a_postmaster(place):
    home = place / "home"
    assert setup("--home", str(home), "--me", "mail.example.org").code == 0
    assert control(home, "users") == "postmaster@mail.example.org\n"
    assert control(home, "aliases") == "mailer-daemon: postmaster\nabuse: postmaster\n"
    assert (home / "mail/postmaster/Maildir/new").is_dir()
    assert setup("--home", str(home)).out == ["nothing to do"]


def test_what_is_given_and_already_different_stays_and_is_told(place):
    home = place / "home"
    setup("--home", str(home), "--me", "mail.example.org", "--listen", "127.0.0.1:2600")
    ended = setup("--home", str(home), "--me", "x.example", "--listen", "127.0.0.1:2601")
    assert (ended.code, ended.out) == (0, ["nothing to do"])
    assert "control/me stays as it is: mail.example.org, not x.example" in ended.err
    assert "control/listeners stays as it is, not 127.0.0.1:2601" in ended.err
    assert control(home, "me") + control(home, "listeners") == "mail.example.org\n127.0.0.1:2600\n"


def test_the_home_can_come_from_the_environment(place):
    assert setup(environment={"MQMAIL_HOME": str(place / "home")}).code == 0
    name = control(place / "home", "me").strip()
    assert "." in name


def test_another_persons_mailbox_is_not_shared(place):
    home = place / "home"
    setup("--home", str(home), "--me", "mail.example.org", "--user", "alice")
    before = tree(home)
    ended = setup("--home", str(home), "--user", "alice@example.com")
    assert ended.code == 100
    assert "mail/alice is another address's mailbox: write alice@example.com:DIRECTORY" in ended.err
    assert tree(home) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--me", "localhost"], "--me: 'localhost' is not a full host name"),
        (["--me", ""], "--me: '' is not"),
        (["--listen", "25"], "--listen: '25' is not ADDRESS:PORT"),
        (["--listen", "127.0.0.1:70000"], "'70000' is not a port"),
        (["--user", "../x"], "--user: '../x' cannot"),
        (["--user", ".x"], "--user: '.x' cannot stand before the @"),
        (["--user", "a@"], "--user: an address has a local part"),
        (["--user", "a/b@example.org"], "--user: 'a/b' cannot be a directory"),
        (["--owner", "no-such-account"], "--owner: this host has no account 'no-such-account'"),
        (["--owner", "root"], "--owner: not root"),
        (["--nonsense"], "Usage:"),
        (["stray"], "Usage:"),
    ],
)
def test_a_wrong_command_line_makes_nothing(place, arguments, expected):
    ended = setup("--home", str(place / "home"), *arguments)
    assert ended.code == 100
    assert expected in ended.err
    assert not (place / "home").exists()


def test_no_home_named():
    ended = setup("--user", "alice")
    assert ended.code == 100
    assert "--home DIR" in ended.err


def test_help_and_version():
    assert "mq-setup [--home DIR]" in "\n".join(setup("--help").out)
    assert setup("--version").out[0].startswith("mqmail ")


def test_a_mistake_in_a_control_file_is_told(place):
    home = place / "home"
    setup("--home", str(home), "--me", "mail.example.org")
    (home / "control/databytes").write_text("many\n", encoding="utf-8")
    ended = setup("--home", str(home))
    assert ended.code == 111
    assert "control/databytes line 1: 'many' is not a number" in ended.err


@pytest.mark.parametrize(
    ("full", "short", "expected"),
    [
        ("host.example.org", "host", "host.example.org"),
        ("localhost", "vm", "vm.localdomain"),
        ("localhost.localdomain", "a.example", "a.example"),
        ("localhost", "localhost", "localhost.localdomain"),
        ("", "", "localhost.localdomain"),
        ("bad name", "x_y", "x_y.localdomain"),
    ],
)
def test_the_name_of_a_host_that_knows_none(full, short, expected):
    assert mq_setup.own_name(full, short) == expected


@pytest.mark.skipif(AS_ROOT, reason="for users without privileges")
def test_without_root_one_owns_the_home_oneself(place):
    ended = setup("--home", str(place / "home"), "--owner", "nobody")
    assert ended.code == 100
    assert "only root can make a home for nobody" in ended.err
    assert (
        setup("--home", str(place / "home"), "--owner", pwd.getpwuid(os.geteuid()).pw_name).code
        == 0
    )


@pytest.mark.skipif(not AS_ROOT, reason="needs root")
class TestAsRoot:
    def test_the_home_belongs_to_its_owner(self, place):
        home = place / "home"
        ended = setup("--home", str(home), "--owner", "nobody", "--user", "alice")
        uid = pwd.getpwnam("nobody").pw_uid
        assert ended.code == 0
        assert {path.lstat().st_uid for path in (home, *home.rglob("*"))} == {uid}
        assert control(home, "localusers") == "passwd\n"
        assert control(home, "listeners") == "0.0.0.0:25\n"
        again = setup("--home", str(home), "--user", "bob")
        assert again.code == 0
        assert (home / "mail/bob").stat().st_uid == uid

    def test_it_need_not_be_able_to_search_the_way_there(self, place):
        (place / "closed").mkdir(mode=0o700)
        assert setup("--home", str(place / "closed/home"), "--owner", "nobody").code == 0

    def test_a_directory_of_roots_with_something_in_it_is_refused(self, place):
        (place / "precious").touch()
        ended = setup("--home", str(place))
        assert ended.code == 100
        assert "belongs to root and is not empty" in ended.err
        assert place.stat().st_uid == 0

    def test_an_empty_directory_is_taken(self, place):
        assert setup("--home", str(place), "--owner", "nobody").code == 0
        assert place.stat().st_uid == pwd.getpwnam("nobody").pw_uid

    def test_a_home_keeps_its_owner(self, place):
        os.chown(place, STRANGER, STRANGER)
        ended = setup("--home", str(place), "--owner", "nobody")
        assert ended.code == 100
        assert f"belongs to uid {STRANGER} already" in ended.err
        assert setup("--home", str(place)).code == 0
        assert (place / "control/me").stat().st_uid == STRANGER

    def test_root_follows_no_link_that_the_owner_left(self, place):
        home, precious = place / "home", place / "precious"
        precious.mkdir()
        setup("--home", str(home), "--owner", "nobody")
        (home / "mail/eve").symlink_to(precious)
        ended = setup("--home", str(home), "--user", "eve")
        assert ended.code == 111
        assert list(precious.iterdir()) == []

    def test_others_can_make_homes_of_their_own(self, place):
        os.chown(place, STRANGER, STRANGER)
        home = place / "home"
        ended = setup(
            "--home", str(home), "--me", "mail.example.org", "--user", "alice", uid=STRANGER
        )
        assert (ended.code, ended.err) == (0, "")
        assert control(home, "listeners") == "127.0.0.1:2525\n"
        assert [line for line in ended.out if "not root, so not port 25" in line]
        assert not (home / "control/localusers").exists()
        assert home.stat().st_uid == STRANGER

    def test_others_cannot_use_a_strangers_home(self, place):
        setup("--home", str(place / "home"), "--owner", "nobody")
        ended = setup("--home", str(place / "home"), uid=STRANGER)
        assert ended.code == 100
        assert "belongs to nobody: run mq-setup as that user" in ended.err

    def test_others_cannot_name_an_owner(self, place):
        ended = setup("--home", str(place / "home"), "--owner", "nobody", uid=STRANGER)
        assert ended.code == 100
        assert "only root can make a home for nobody" in ended.err
