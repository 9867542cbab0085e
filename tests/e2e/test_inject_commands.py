"""mq-inject and sendmail as processes of their own."""

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mqmail import __version__

LIB = str(Path(__file__).resolve().parents[2] / "lib")
RUN = ("import sys; sys.path.insert(0, {lib!r}); sys.argv[0] = {path!r}\n"
       "from mqmail.base.program import start\n"
       "from mqmail.prog.{module} import main\n"
       "start(main)\n")
BIN = Path(LIB).parent / "bin"
ME = "mail.example.org"


@pytest.fixture
def home(tmp_path):
    (tmp_path / "control").mkdir(mode=0o755)
    (tmp_path / "run").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "control" / "me").write_text(f"{ME}\n")
    return tmp_path


def run(home, name, *arguments, text=b"", module="", **environ):
    module = module or name.replace("-", "_")
    code = RUN.format(lib=LIB, path=str(home / "bin" / name), module=module)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, "--home", str(home), *arguments],
                          input=text, capture_output=True, env=environ, timeout=60, check=False)
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode()


def inject(home, *arguments, text=b"", **environ):
    environ.setdefault("USER", "alice")
    return run(home, "mq-inject", *arguments, text=text, **environ)


def sendmail(home, *arguments, text=b"", name="sendmail", **environ):
    return run(home, name, *arguments, text=text, module="sendmail", **environ)


def test_n_prints_the_completed_message(home):
    code, out, err = inject(home, "-n", text=b"To: bob\nSubject: x\n\nhello\rworld", NAME="Alice A")
    assert (code, err) == (0, "")
    lines = out.split("\n")
    assert lines[0] == f"Return-Path: <alice@{ME}>"
    assert lines[1].startswith("Date: ")
    assert lines[2].startswith("Message-ID: <")
    assert lines[2].endswith(f".mqmail@{ME}>")
    assert lines[3:] == [f'From: "Alice A" <alice@{ME}>', f"To: bob@{ME}", "Subject: x", "", "hello",
                         "world", ""]


def test_without_user_the_account_is_asked(home):
    code, out, _ = run(home, "mq-inject", "-n", "bob", text=b"x")
    account = pwd.getpwuid(os.getuid())
    assert code == 0
    assert out.startswith(f"Return-Path: <{account.pw_name}@{ME}>\n")


def test_control_files_and_environment_complete_hosts(home):
    (home / "control" / "defaulthost").write_text("dh\n")
    (home / "control" / "plusdomain").write_text("plus.example\n")
    (home / "control" / "idhost").write_text("id.example\n")
    out = inject(home, "-n", text=b"To: a, b@c+\n", QMAILDEFAULTDOMAIN="dd.example",
                 QMAILHOST="from.example")[1]
    assert "To: a@dh.dd.example, b@c.plus.example\n" in out
    assert ".mqmail@id.example>\n" in out
    assert "From: alice@from.example\n" in out


@pytest.mark.parametrize(("arguments", "problem"), [
    (("-a",), "no recipients"), (("-h", "bob"), "no recipients"), (("-A",), "no recipients"),
    (("-H",), "no recipients"), (("-x",), "unknown option -x"), (("-f",), "option -f needs a value"),
    (("-f", "a\nb@c.d", "bob"), "-f 'a\\nb@c.d'"),
    (("bob\nX: y",), "recipient 'bob\\nX: y'"), (("",), "is empty"),
    (("a@b..c",), "recipient 'a@b..c': bad domain")])
def test_what_is_wrong_is_said_with_exit_code_100(home, arguments, problem):
    code, out, err = inject(home, "-n", *arguments, text=b"Subject: x\n")
    assert (code, out) == (100, "")
    assert err.startswith("mq-inject: ")
    assert problem in err


def test_environment_cannot_inject_a_field(home):
    out = inject(home, "-n", "bob", QMAILNAME="A\nBcc: x@y.z")[1]
    assert 'From: "A Bcc: x@y.z" <alice@' in out
    for name, value in (("USER", "a\nBcc: x"), ("QMAILHOST", "h\nBcc: x"), ("QMAILIDHOST", "h\nBcc: x"),
                        ("QMAILDEFAULTHOST", "h\nBcc: x")):
        code, out, _ = inject(home, "-n", "bob", **{name: value})
        assert (code, out) == (100, "")


def test_a_home_without_control_files_is_temporary(home):
    (home / "control" / "me").unlink()
    code, _, err = inject(home, "-n", "bob")
    assert code == 111
    assert "control/me" in err


def test_a_queue_that_does_not_answer_is_temporary(home):
    code, _, err = inject(home, "bob", text=b"x")
    assert code == 111
    assert "queue" in err
    assert sendmail(home, "bob", text=b"x")[0] == 75


def test_mqmail_home_is_the_default_home(home):
    code = RUN.format(lib=LIB, path="mq-inject", module="mq_inject")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, "-n", "bob"], input=b"",
                          capture_output=True, check=True,
                          env={"MQMAIL_HOME": str(home), "USER": "alice"})
    assert f"alice@{ME}".encode() in done.stdout


def test_long_options_that_do_not_exist(home):
    assert run(home, "mq-inject", "--nonsense") == (
        100, "", "mq-inject: unknown option --nonsense; --help lists them\n")


def test_help_and_version(home):
    for name in ("mq-inject", "sendmail"):
        code, out, _ = run(home, name, "--help")
        assert code == 0
        assert f"Usage: {name}" in out
        assert run(home, name, "--version") == (0, f"mqmail {__version__}\n", "")


@pytest.mark.parametrize(("arguments", "problem"), [
    ((), "name recipients"), (("-z", "bob"), "unknown option -z"), (("-bd",), "-bd is not supported"),
    (("-q30m",), "-q30m is not supported"), (("-N", "sometimes", "bob"), "-N is followed by"),
    (("-N", "never,delay", "bob"), "-N is followed by"), (("-R", "some", "bob"), "-R is followed by"),
    (("-V", "a b", "bob"), "-V is followed by"), (("-V", "+" * 34, "bob"), "-V is followed by"),
    (("-f", "a\nb", "bob"), "-f 'a\\nb'"), (("<bob",), "recipient '<bob'"), ((",",), "no address")])
def test_usage_errors_of_sendmail_are_64(home, arguments, problem):
    code, out, err = sendmail(home, *arguments, text=b"x")
    assert (code, out) == (64, "")
    assert err.startswith("sendmail: ")
    assert problem in err


def test_messages_that_sendmail_cannot_read_are_65(home):
    assert sendmail(home, "-t", text=b"Subject: x\n")[0] == 65
    assert sendmail(home, "-t", text=b"To: <x\n")[0] == 65


def test_aliases_and_their_modes(home):
    assert sendmail(home, "-bi") == (0, "", "")
    assert sendmail(home, "-I") == (0, "", "")
    assert sendmail(home, name="newaliases") == (0, "", "")


@pytest.mark.parametrize(("name", "arguments", "tool", "given"), [
    ("sendmail", ("-bs",), "xmtpd", "--local"), ("sendmail", ("-bp",), "mq-qread", ""),
    ("mailq", (), "mq-qread", "")])
def test_sendmail_becomes_its_neighbour(home, name, arguments, tool, given):
    neighbour = home / "bin" / tool
    neighbour.write_text('#!/bin/sh\necho "$0" "$@"\n')
    neighbour.chmod(0o755)
    code, out, _ = sendmail(home, *arguments, name=name)
    assert code == 0
    assert out.split() == [str(neighbour), "--home", str(home), *given.split()]


def test_q_asks_mq_send(home):
    code, _, err = sendmail(home, "-q")
    assert code == 75
    assert "mq-send does not run here" in err
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as trigger:
        trigger.bind(str(home / "run" / "trigger"))
        assert sendmail(home, "-q") == (0, "", "")
        assert trigger.recv(100) == b"*run"

@pytest.fixture
def queue(tmp_path):
    """A home whose mq-queue takes messages."""
    home = tmp_path / "home"
    subprocess.run([sys.executable, "-I", BIN / "mq-setup", "--home", home, "--me", ME,
                    "--listen", "127.0.0.1:2525"], check=True, capture_output=True, timeout=60)
    reader, writer = os.pipe()
    with subprocess.Popen([sys.executable, "-I", BIN / "mq-queue", "--home", home,
                           "--ready-fd", str(writer)], pass_fds=[writer],
                          stderr=subprocess.PIPE) as daemon:
        os.close(writer)
        assert os.read(reader, 1) == b"\n", daemon.stderr.read()
        os.close(reader)
        yield home
        daemon.terminate()


def queued(home):
    """[(the record's lines from ``from`` to ``ok``, the message)]"""
    found = []
    for path in sorted((home / "queue" / "new").glob("*/*")):
        record = path.read_text().splitlines()
        message = (home / "queue" / "mess" / path.parent.name / path.name).read_bytes()
        found.append((record[3:], message))
    return found


def test_mq_inject_queues(queue):
    text = b"To: bob, j\xc3\xb6rg@x.y\nBcc: hidden@x.y\nSubject: x\n\nhello\n.\nbye"
    assert inject(queue, "-H", "-f", "", "carol@x.y", text=text) == (0, "", "")
    [(record, message)] = queued(queue)
    assert record[0] == "from <>"
    assert record[2:] == ["to 1 new carol@x.y", f"to 2 new bob@{ME}", "to 3 new j\u00f6rg@x.y",
                          "to 4 new hidden@x.y", "ok"]
    assert message.startswith(b"Received: ")
    assert b"Subject: x\r\n\r\nhello\r\n.\r\nbye\r\n" in message
    assert b"hidden" not in message


def test_sendmail_hands_on_what_a_report_needs(queue):
    code, out, err = sendmail(queue, "-v", "-N", "failure,DELAY,delay", "-R", "HDRS", "-V", "a=1",
                              "-FCron", "-oem", "-B8BITMIME", "-fenv@x.y", "B <b@x.y>, c@x.y", text=b"x")
    [(record, message)] = queued(queue)
    assert (code, err) == (0, "")
    queue_id = out.removeprefix("queued as ").rstrip("\n")
    assert [path.name for path in (queue / "queue" / "new").glob("*/*")] == [queue_id]
    assert record[0] == "from env@x.y ret=hdrs envid=a+3D1"
    assert record[2:] == ["to 1 new b@x.y notify=failure,delay", "to 2 new c@x.y notify=failure,delay",
                          "ok"]
    assert b'\r\nFrom: "Cron" <' in message


@pytest.mark.parametrize(("arguments", "end"), [
    (("-t",), b"first\r\n"), (("-t", "-i"), b"first\r\n.\r\nsecond\r\n"),
    (("-toi",), b"first\r\n.\r\nsecond\r\n"), (("-t", "-oitrue"), b"first\r\n.\r\nsecond\r\n"),
    (("-t", "-O", "IgnoreDots=true"), b"first\r\n.\r\nsecond\r\n"),
    (("-t", "-oem"), b"first\r\n")])
def test_a_lone_dot(queue, arguments, end):
    text = b"To: a@x.y\n\nfirst\n.\nsecond\n"
    assert sendmail(queue, *arguments, text=text) == (0, "", "")
    [(_, message)] = queued(queue)
    assert message.endswith(b"\r\n\r\n" + end)


def test_eight_bit_text_is_declared_only_where_it_is(queue):
    for text in (b"x", b"\xe9", b"x" * 400_000 + b"\xe9"):
        assert inject(queue, "bob", text=text)[0] == 0
    bodies = [path.read_text().splitlines()[2].split()[2:] for path in
              sorted((queue / "queue" / "new").glob("*/*"), key=lambda path: path.name)]
    assert bodies == [[], ["8bit"], ["8bit"]]
