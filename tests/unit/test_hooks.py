"""control/hooks.py: how it is loaded, what its functions see and say, what becomes of mistakes."""

import os
import sys
from types import SimpleNamespace

import pytest

from mqmail.base.failure import BadFile
from mqmail.control.optionsets import OptionSets
from mqmail.policy import hooks
from mqmail.policy.facts import STAGES, Facts
from mqmail.policy.hooks import Hook, Session, load, make, verdict_of
from mqmail.policy.verdict import DEFER, DISCARD, NEXT, NO_OPINION, OK, REJECT, RELAY, Verdict
from mqmail.xmtp.reply import Reply, reply
from support.home import ROOT

ALICE = "alice@here.example"
EXAMPLES = ROOT / "docs/examples"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home, in which we are."""
    tmp_path.chmod(0o755)
    (tmp_path / "control").mkdir(mode=0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(home, text):
    (home / "control/hooks.py").write_text(text, encoding="utf-8")
    (home / "control/hooks.py").chmod(0o644)


def facts(**more):
    made = Facts("s1", ip="192.0.2.7")
    for name, found in more.items():
        setattr(made, name, found)
    return made


def a_control():
    return SimpleNamespace(optionsets=OptionSets({}))


def ask(home, text, stage, **more):
    """What the hook of *stage* in a file says."""
    write(home, text)
    return Hook(stage, load()[stage]).look(facts(**more))


def test_without_a_file_there_are_no_hooks(home):
    assert load() == {}


def test_each_stage_has_its_function(home):
    write(home, "".join([f"def {stage}(s):\n    return '550 5.7.1 {stage}'\n" for stage in STAGES]))
    control = a_control()
    checks = [make(stage)(control, None) for stage in STAGES]
    assert [(check.name, check.stage) for check in checks] == [("hooks", stage) for stage in STAGES]
    assert [check.look(facts()).reply.said() for check in checks] == [
        f"550 5.7.1 {stage}" for stage in STAGES]


def test_stages_share_what_the_file_remembers_until_it_is_read_again(home):
    write(home, "seen = []\ndef connect(s):\n    seen.append(s.ip)\n"
                "def mail(s):\n    return f'450 4.7.1 {len(seen)}'\n")

    def counted(control):
        make("connect")(control, None).look(facts())
        return make("mail")(control, None).look(facts()).reply.text

    control = a_control()
    assert [counted(control), counted(control), counted(a_control())] == ["1", "2", "1"]
    assert make("rcpt")(control, None) is None


@pytest.mark.parametrize(("said", "action", "answer"), [
    ("550 5.7.1 no", REJECT, "550 5.7.1 no"), ("451 later", DEFER, "451 4.7.1 later"),
    ("reject", REJECT, "550 5.7.1 not allowed here"), ("defer", DEFER, "451 4.7.1 try again later"),
    ("REJECT 554 5.7.0 not today", REJECT, "554 5.7.0 not today"), ("ok", OK, ""), ("relay", RELAY, ""),
    ("discard", DISCARD, ""), ("set:strict", NEXT, ""), (Verdict(OK), OK, ""),
    (Verdict(DEFER, reply(450, "4.2.0", "x")), DEFER, "450 4.2.0 x")])
def test_what_a_hook_may_say(said, action, answer):
    found = verdict_of(said, "mail")
    assert (found.action, found.reply.said() if found.reply else "") == (action, answer)
    assert found.options == ("strict" if said == "set:strict" else "")


@pytest.mark.parametrize("said", [
    True, 550, "", "yes", "250 ok", "550 5.7.1 two\r\n250 lines", "550 4.7.1 no", "600 x", "REQUIRE tls",
    "421 4.7.0 go", Verdict(REJECT), Verdict(DEFER, reply(550, "5.7.1", "x")), Verdict("maybe"),
    b"reject", ["reject"], "550 \u00fc", "set:nowhere", Verdict(options=["x"]),
    Verdict(options="nowhere"), Verdict(fields="X-A: 1"),
    Verdict(fields=["X-A: 1"]), Verdict(fields=None), Verdict(fields=(3,)),
    Verdict(fields=("no field",)), Verdict(fields=("X-A: 1\n\nbody",)),
    Verdict(fields=("X-A: 1\r\nY: 2",)),
    Verdict(fields=("X-A: \ud800",)), Verdict(REJECT, Reply(550, (), "")),
    Verdict(REJECT, Reply(550, ("a", 5))), Verdict(REJECT, Reply(550, ("x",), 7)),
    Verdict(REJECT, Reply(550, "x")), Verdict(OK, why=5),
    Verdict(REJECT, Reply(5, ("x",))), Verdict(REJECT, Reply("550", ("x",))),
    Verdict(DEFER, reply(421, "4.3.2", "bye")), Verdict(OK, check=None)])
def test_what_nobody_understands_is_a_trouble_of_ours(said, capfd):
    answer = Hook("mail", lambda _session: said).look(facts())
    assert (answer.action, answer.reply.said()) == (DEFER, "451 4.3.0 internal trouble, try again later")
    assert capfd.readouterr().err.startswith("event=hook_failed prog=mqmail session=s1 hook=mail at=")


@pytest.mark.parametrize("said", [
    [1], ("ab",), {"a": 1}, ((ALICE, "550 no"),), ((ALICE, reply(250, "2.0.0", "yes")),)])
def test_recipients_are_refused_by_replies(said):
    answer = Hook("header", lambda _session: Verdict(recipients=said)).look(facts())
    assert (answer.action, answer.reply.code, answer.recipients) == (DEFER, 451, ())


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, SystemExit, Unspeakable])
def test_whatever_is_raised_is_a_trouble_of_ours(error, capfd):
    def look(_session):
        raise error

    assert Hook("mail", look).look(facts()).reply.code == 451
    assert f"error={error.__name__}" in capfd.readouterr().err


def test_what_a_hook_prints_goes_to_the_log(home, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    ask(home, "def connect(s):\n    print('220 ready', flush=True)\n", "connect")
    assert capfd.readouterr() == ("", "220 ready\n")


@pytest.mark.parametrize("stage", STAGES)
def test_fields_are_added_where_there_is_a_header(stage, capfd):
    said = Verdict(fields=("X-Seen: yes",))
    answer = Hook(stage, lambda _session: said).look(facts())
    if stage not in ("rcpt", "body"):
        assert answer == said
    else:
        assert (answer.action, answer.reply.code, answer.fields) == (DEFER, 451, ())
        assert f"and+20not+20at+20{stage}" in capfd.readouterr().err


@pytest.mark.parametrize("stage", STAGES)
def test_recipients_are_refused_before_the_queue_knows_of_them(stage, capfd):
    said = Verdict(recipients=(("a@b.c", reply(550, "5.7.1", "no")),))
    answer = Hook(stage, lambda _session: said).look(facts())
    if stage == "header":
        assert answer == said
    else:
        assert (answer.action, answer.reply.code, answer.recipients) == (DEFER, 451, ())
        assert "recipients+20are+20refused+20at+20the+20stage+20header" in capfd.readouterr().err


def test_at_connect_a_session_can_be_ended():
    assert verdict_of("421 4.7.0 go away", "connect").reply.code == 421


@pytest.mark.parametrize(("line", "error"), [
    ("return session.nothing", "AttributeError:+20a+20session+20has+20no+20nothing"),
    ("session.relay = True", "AttributeError:+20a+20hook+20cannot+20change+20relay"),
    ("return 1 // 0", "ZeroDivisionError:"), ("raise SystemExit(0)", "SystemExit:"),
    ("return rcpt(session)", "RecursionError:"), ("return 'yes'", "ValueError:")])
def test_a_hook_that_fails_is_named_by_its_line(home, line, error, capfd):
    said = ask(home, f"# a\n\ndef rcpt(session):\n    pass\n    {line}\n", "rcpt")
    assert (said.action, said.reply.code) == (DEFER, 451)
    logged = capfd.readouterr().err
    assert f"hook=rcpt at=control/hooks.py:{3 if 'yes' in line else 5} error={error}" in logged


def test_a_slow_hook_is_logged(monkeypatch, capfd):
    clock = iter([10.0, 10.25, 20.0, 20.05])
    monkeypatch.setattr(hooks.time, "monotonic", lambda: next(clock))
    hook = Hook("mail", lambda _session: None)
    assert [hook.look(facts()) for _ in range(2)] == [NO_OPINION] * 2
    assert capfd.readouterr().err == "event=hook_slow prog=mqmail session=s1 hook=mail ms=250\n"


def test_facts_are_seen_and_not_changed():
    header = b"Subject: a\r\n b\r\nSUBJECT:\tc\r\nTo: x@y.z\r\n"
    session = Session(facts(recipients=["a@b.c"], header=header, marks={"spf": "pass"}))
    session.marks["spf"] = "fail"
    assert session.marks == {"spf": "pass"}
    assert (session.ip, session.recipients, session.size) == ("192.0.2.7", ("a@b.c",), -1)
    assert session.fields("subject") == ["a b", "c"]
    for name in ("ip", "said", "_facts"):
        with pytest.raises(AttributeError):
            setattr(session, name, "x")
    for name in ("said", "binding", "forget_message"):
        with pytest.raises(AttributeError):
            getattr(session, name)


@pytest.mark.parametrize(("text", "problem"), [
    ("def mail(session:\n    pass\n", "line 1: SyntaxError: "),
    ("x = 1\ndef mail(session):\n    pass\ny = z\n", "line 4: NameError: name 'z' is not defined"),
    ("def f():\n    raise SystemExit\ndef mail(s): pass\nf()\n", "line 2: SystemExit: "),
    ("def recipient(session):\n    pass\n", "has none of the functions connect, helo, "),
    ("async def mail(session):\n    pass\n", "mail must be a function, without async"),
    ("def mail(session):\n    yield\n", "mail must be a function, without async"),
    ("mail = 'reject'\n", "mail must be a function"),
    ("def mail(session):\n    '\0'\n", "line 1: "),
    ("#" * (1 << 20) + "\n", "larger than ")])
def test_a_file_that_is_wrong_is_refused_as_a_whole(home, text, problem):
    write(home, text)
    with pytest.raises(BadFile) as error:
        load()
    assert error.value.text.startswith("control/hooks.py")
    assert problem in error.value.text


def test_a_file_that_became_wrong_leaves_the_old_functions(home):
    write(home, "def mail(session):\n    return 'reject'\n")
    check = make("mail")(a_control(), None)
    write(home, "def mail(session):\n    return oops oops\n")
    with pytest.raises(BadFile):
        make("mail")(a_control(), None)
    assert check.look(facts()).action == REJECT


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_is_not_run(home, mode):
    write(home, "raise SystemExit\n")
    (home / "control/hooks.py").chmod(mode)
    with pytest.raises(BadFile, match="group or others may write it"):
        load()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_somebody_elses_file_is_not_run(home):
    write(home, "raise SystemExit\n")
    os.chown(home / "control/hooks.py", 12345, 12345)
    with pytest.raises(BadFile, match="belongs to uid 12345"):
        load()


def test_a_link_to_nothing_is_a_mistake(home):
    (home / "control/hooks.py").symlink_to("/nonexistent")
    with pytest.raises(BadFile, match="symbolic link to nothing"):
        load()


# --- the examples in docs/examples, which mq-hooks(5) shows ---

def example(name):
    return (EXAMPLES / f"hooks_{name}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(("helo", "more", "refused"), [
    ("mail.example.org", {}, True), ("LOCALHOST", {}, True), ("client.example.net", {}, False),
    ("mail.example.org", {"login": "alice"}, False), ("mail.example.org", {"relay": True}, False),
    ("mail.example.org", {"ip": ""}, True), ("mail.example.org", {"local": True}, False)])
def test_the_example_of_helo(home, helo, more, refused):
    said = ask(home, example("helo"), "helo", helo=helo, **more)
    assert (said.reply.said() if said.reply else "") == (
        "550 5.7.1 that is not your name" if refused else "")


@pytest.mark.parametrize(("recipient", "sender", "login", "refused"), [
    ("Team@example.org", "eve@example.com", "", True), ("team@example.org", "", "", True),
    ("team@example.org", "Bob@example.net", "", False), ("team@example.org", "x@y.z", "alice", False),
    ("alice@example.org", "eve@example.com", "", False)])
def test_the_example_of_a_list(home, recipient, sender, login, refused):
    (home / "members").write_text("bob@example.net\n\n")
    text = example("list").replace("/etc/list-members", str(home / "members"))
    said = ask(home, text, "rcpt", recipient=recipient, sender=sender, login=login)
    assert said.action == (REJECT if refused else NEXT)


@pytest.mark.parametrize(("header", "answer"), [
    (b"Subject: You have\r\n WON\r\n", "554 5.7.1 no thank you"),
    (b"Subject: hello\r\nx-test-host: y\r\n", "450 4.7.1 tests are over for today"),
    (b"Subject: hello\r\n", "")])
def test_the_example_of_a_header(home, header, answer):
    said = ask(home, example("header"), "header", header=header)
    assert (said.reply.said() if said.reply else "") == answer


@pytest.mark.parametrize(("stage", "more", "answer"), [
    ("body", {"body": b"--x\r\n\r\nTVqQAAMAAAAEAAAA\r\n"}, "552 5.7.0 no programs, please"),
    ("body", {"body": b"see TVqQAAMAA\r\n"}, ""),
    ("rcpt", {"sender": "", "recipients": ["a@b.c"]}, "550 5.7.1 a report goes to one recipient"),
    ("rcpt", {"sender": ""}, ""), ("rcpt", {"sender": "a@b.c", "recipients": ["a@b.c"]}, "")])
def test_the_example_of_a_body(home, stage, more, answer):
    said = ask(home, example("body"), stage, **more)
    assert (said.reply.said() if said.reply else "") == answer


def test_every_example_is_in_the_manual():
    page = (ROOT / "man/mq-hooks.5").read_text(encoding="utf-8")
    for path in sorted(EXAMPLES.glob("hooks_*.py")):
        assert f"docs/examples/{path.name}" in page
        code = path.read_text(encoding="utf-8").partition('"""\n')[2].strip("\n")
        assert "def " in code
        assert code.replace("\\", "\\e") in page
