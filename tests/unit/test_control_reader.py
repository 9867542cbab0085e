"""Reading control/: defaults, values, who may write, and what is reported."""

from __future__ import annotations

import os

import pytest

from mqmail.base.failure import BadFile
from mqmail.control import reader
from mqmail.control.listeners import Listener
from mqmail.control.survey import Survey
from mqmail.control.table import BY_NAME


@pytest.fixture
def home(tmp_path):
    directory = tmp_path / "home"
    (directory / "control").mkdir(parents=True)
    directory.chmod(0o755)
    (directory / "control").chmod(0o755)
    return Home(directory)


class Home:
    def __init__(self, path):
        self.path = path
        self.write("me", "mail.example.org\n")

    def write(self, name, text):
        path = self.path / "control" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        return path

    def load(self, *names):
        return reader.load(str(self.path), names)

    def problem(self, name):
        with pytest.raises(BadFile) as caught:
            self.load(name)
        return caught.value.text.removeprefix(f"{self.path}/")


def mistakes(home):
    return [text for _, text in Survey(home).mistakes]


def test_missing_files_mean_the_defaults(home):
    found = home.load(*BY_NAME)
    assert found.me == found["helohost"] == found.smtpgreeting == "mail.example.org"
    assert found.locals == {"mail.example.org"}
    assert (found.databytes, found.queuelifetime, found.minfree) == (0, 604800, 100 << 20)
    assert found.detaildelimiter == "+"
    assert found.listeners == (Listener("127.0.0.1", 2525),)
    assert found.injectors.level(4242) == "local"
    assert found.aliases.lookup("x@mail.example.org", found.locals) is None


def test_what_was_not_loaded_is_not_there(home):
    found = home.load("databytes")
    with pytest.raises(AttributeError, match="control file helohost has not been loaded"):
        found.helohost  # noqa: B018
    with pytest.raises(KeyError):
        found["helohost"]


def test_values_and_white_space(home):
    home.write("databytes", "10M \t\n\n")
    home.write("minfree", "2k")
    home.write("bouncefrom", "Mailer\n")
    home.write("smtpgreeting", "a.example ESMTP hello")
    home.write("detaildelimiter", "none\n")
    home.write("aliases", "root: alice\n")
    found = home.load(
        "databytes", "minfree", "bouncefrom", "smtpgreeting", "detaildelimiter", "aliases"
    )
    assert (found.databytes, found.minfree, found.bouncefrom) == (10 << 20, 2048, "Mailer")
    assert (found.smtpgreeting, found.detaildelimiter) == ("a.example ESMTP hello", "")
    assert found.aliases.lookup("root@x.example", {"x.example"}) == ["alice@mail.example.org"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("databytes", "1_000", "line 1: '1_000' is not a number of bytes"),
        ("databytes", "+5", "is not a number"),
        ("databytes", "-1", "is not a number"),
        ("databytes", "٥", "is not a number"),
        ("databytes", " 5", "is not a number"),
        ("databytes", "M", "is not a number"),
        ("databytes", "9" * 30, "is not a number"),
        (
            "queuelifetime",
            "7M",
            "'7M' is not a number of seconds from 0 to 315360000 (digits only)",
        ),
        ("concurrencyqueue", "0", "from 1 to 256"),
        ("databytes", "5\n6\n", "line 2: only the first line counts"),
        ("databytes", "", "line 1: is empty"),
        ("databytes", "\n5", "only the first line"),
        ("me", "localhost", "not a full host name"),
        ("me", "a b.c", "not a host name"),
        ("me", "192.0.2.1", "not a host name"),
        ("me", "[192.0.2.1]", "not a host name"),
        ("me", "a..b", "not a domain"),
        ("helohost", "a\r\n", "ends in CR LF"),
        ("localusers", "yes", "write none or passwd"),
        ("detaildelimiter", "++", "each once"),
        ("detaildelimiter", "a", "each once"),
        ("bouncefrom", "a b", "cannot stand before the @"),
        ("smtpgreeting", "mail.example.org " + "x" * 400, "at most 400"),
        ("smtpgreeting", "hello", "not a full host name"),
    ],
)
def test_a_bad_line_is_named(home, name, text, expected):
    home.write(name, text)
    problem = home.problem(name)
    assert problem.startswith(f"control/{name} line ")
    assert expected in problem


def test_me_is_required_by_what_depends_on_it(home):
    (home.path / "control/me").unlink()
    assert home.problem("locals").startswith(
        "control/me line 1: is missing: write this host's full name"
    )
    assert home.load("databytes").databytes == 0


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_write_is_refused(home, mode):
    home.write("databytes", "5\n").chmod(mode)
    assert home.problem("databytes").startswith(
        "control/databytes: group or others may write it: chmod go-w"
    )


@pytest.mark.parametrize("name", ["", "control"])
def test_a_directory_that_others_can_write_is_refused(home, name):
    (home.path / name).chmod(0o777)
    assert "group or others may write it" in home.problem("databytes")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_strangers_file_is_refused_and_the_home_owners_taken(home):
    path = home.write("databytes", "5\n")
    os.chown(path, 4242, -1)
    assert "belongs to uid 4242" in home.problem("databytes")
    os.chown(home.path, 4242, -1)
    assert home.load("databytes").databytes == 5


def test_only_regular_files_are_read(home):
    os.mkfifo(home.path / "control/databytes", 0o644)
    assert home.problem("databytes") == "control/databytes: not a regular file"
    (home.path / "control/minfree").mkdir(0o755)
    assert home.problem("minfree") == "control/minfree: not a regular file"


def test_a_link_to_nothing_is_not_a_missing_file(home):
    (home.path / "control/users").symlink_to("nowhere")
    assert "symbolic link to nothing" in home.problem("users")


def test_a_huge_file_is_refused(home):
    with home.write("users", "").open("r+b") as file:
        file.truncate((64 << 20) + 1)
    assert "larger than 67108864 bytes" in home.problem("users")


def test_no_home(tmp_path):
    with pytest.raises(BadFile, match="mq-setup makes a home"):
        reader.load(str(tmp_path / "none"), ["me"])
    assert mistakes(str(tmp_path / "none")) == [
        f"{tmp_path}/none: No such file or directory: mq-setup makes a home"
    ]


def test_the_home_can_be_the_working_directory(home, monkeypatch):
    monkeypatch.chdir(home.path)
    home.write("databytes", "x")
    with pytest.raises(BadFile, match="^control/databytes line 1: "):
        reader.load(".", ["databytes"])


def test_check_reports_all_problems_at_once(home):
    assert mistakes(str(home.path)) == []
    home.write("databytes", "x")
    home.write("locals", "ok.example\n..\n")
    home.write("rcpthosts", "")
    for ignored in ("README", ".users.123", "users~"):
        home.write(ignored, "")
    problems = [text.removeprefix(f"{home.path}/") for text in mistakes(str(home.path))]
    assert [text.split(":")[0] for text in problems] == [
        "control/locals line 2",
        "control/databytes line 1",
        "control/rcpthosts",
    ]


def test_an_alias_sends_to_no_destination_that_is_not_there(home):
    home.write("aliases", "x: alice\n@lists.example: @lists:, @mailbox:\ny: @other:a@b.example\n")
    wanted = (
        "control/aliases line 2: there is no destination lists: write lists:lmtp:unix:PATH or"
        " lists:lmtp:tcp:HOST:PORT into "
    )
    assert home.problem("aliases") == f"{wanted}{home.path}/control/destinations"
    problem, another = mistakes(str(home.path))
    assert wanted in problem
    assert "aliases line 3: there is no destination other:" in another
    home.write("destinations", "other:lmtp:unix:run/other.sock\nlists:lmtp:unix:run/lists.sock\n")
    assert mistakes(str(home.path)) == []
    found = home.load("aliases", "destinations")
    assert found.aliases.catch_all("lists.example") == ["@lists:", "@mailbox:"]
    home.write("destinations", "lists:lmtp:unix:run/lists.sock\n")
    assert "aliases line 3: there is no destination other:" in home.problem("aliases")


def test_a_bad_line_of_destinations_is_reported_once_though_aliases_need_it(home):
    home.write("aliases", "x: @lists:\n")
    home.write("destinations", "lists\n")
    assert len(mistakes(str(home.path))) == 1


def test_check_names_a_missing_me_once(home):
    (home.path / "control/me").unlink()
    assert len(mistakes(str(home.path))) == 1


def test_secrets_that_others_can_read_are_not_used(home):
    path = home.write("credentials", "isp alice correct-horse\n")
    text = home.problem("credentials")
    assert text.startswith("control/credentials: ")
    assert "others may read it" in text
    assert "correct-horse" not in text
    for mode in (0o640, 0o600):
        path.chmod(mode)
        assert home.load("credentials").credentials.entry("isp").user == "alice"
