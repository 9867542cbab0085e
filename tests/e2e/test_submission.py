"""Mail from programs that call sendmail, and those that people call themselves."""

import email
import email.policy
import os
import pwd
import subprocess

import pytest

from support.home import ME, ROOT, SECONDS, run, wait_until
from support.programs import need

pytestmark = pytest.mark.e2e
CRON = b"""From: root (Cron Daemon)
To: alice
Subject: Cron <root@host> backup
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit
Auto-Submitted: auto-generated

gr\xc3\xbc\xc3\x9fe
.
the end
"""


@pytest.fixture
def call(home, tmp_path):
    """A function that runs a program which finds our sendmail by itself, with a home of its own."""
    environ = {**os.environ, "MQMAIL_HOME": str(home.path), "HOME": str(tmp_path), "USER": "carol",
               "LC_ALL": "C.UTF-8", "EMAIL": f"carol@{ME}", "NAME": ""}

    def function(*command, text=b""):
        done = subprocess.run([str(word) for word in command], input=text, env=environ, cwd=tmp_path,
                              capture_output=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()
    return function


def parsed(text):
    return email.message_from_bytes(text, policy=email.policy.default)


def test_git_send_email(home, call, tmp_path):
    need("git-send-email")
    git = [need("git"), "-c", "user.name=Carol", "-c", f"user.email=carol@{ME}"]
    call(*git, "init", "-q")
    call(*git, "commit", "-q", "--allow-empty", "-m", "Say hello")
    (tmp_path / "hello").write_text("hello\n")
    call(*git, "add", "hello")
    call(*git, "commit", "-q", "-m", "Say it again")
    call(*git, "send-email", "--confirm=never", "--suppress-cc=all",
         f"--sendmail-cmd={ROOT}/bin/sendmail", "--envelope-sender", f"carol+patches@{ME}",
         "--to", f"alice@{ME}", "--cc", f"bob@{ME}", "-1")
    [text] = home.wait_for("alice")
    message = parsed(text)
    assert message["Return-Path"] == f"<carol+patches@{ME}>"
    assert message["Subject"] == "[PATCH] Say it again"
    assert message["From"] == f"Carol <carol@{ME}>"
    assert message["Cc"] == f"bob@{ME}"
    assert b"\n+hello\n" in text
    assert b"\n+hello\n" in home.wait_for("bob")[0]


def test_s_nail(home, call):
    call(need("s-nail"), "-:/", "-S", "v15-compat", "-S", f"mta={ROOT}/bin/sendmail",
         "-s", "gr\u00fc\u00dfe", "-b", f"bob@{ME}", f"alice@{ME}", text="h\u00e4llo\n.\nbye\n".encode())
    message = parsed(home.wait_for("alice")[0])
    assert message["Subject"] == "gr\u00fc\u00dfe"
    assert message.get_content().startswith("h\u00e4llo\n.\nbye\n")
    assert parsed(home.wait_for("bob")[0])["Bcc"] is None


def test_mutt(home, call, tmp_path):
    (tmp_path / "picture").write_bytes(bytes(range(256)))
    call(need("mutt"), "-n", "-F", "/dev/null", "-e", f'set sendmail="{ROOT}/bin/sendmail -oem -oi"',
         "-e", "set copy=no dsn_notify=failure dsn_return=hdrs",
         "-e", f"set from=carol@{ME} use_envelope_from", "-s", "a picture",
         "-a", "picture", "--", f"alice@{ME}", text=b"see\n.\nthis\n")
    message = parsed(home.wait_for("alice")[0])
    assert message["Return-Path"] == f"<carol@{ME}>"
    assert message["Subject"] == "a picture"
    text, picture = message.iter_parts()
    assert text.get_content() == "see\n.\nthis\n"
    assert picture.get_content() == bytes(range(256))


def test_cron(home):
    """With nothing in the environment, and a line with a lone dot in the message."""
    run("sendmail", "--home", str(home.path), "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "alice",
        text=CRON, env={})
    [text] = home.wait_for("alice")
    account = pwd.getpwuid(os.geteuid()).pw_name
    assert text.startswith(f"Return-Path: <{account}@{ME}>\n".encode())
    assert b"\nSubject: Cron <root@host> backup\n" in text
    assert f"\nTo: alice@{ME}\n".encode() in text
    assert text.endswith(CRON.partition(b"\n\n")[2])


def test_bcc_reaches_its_recipient_and_nobody_sees_it(home, call):
    call(ROOT / "bin/sendmail", "-t", "-i",
         text=b"To: alice\nBcc: The Secret One\n <bob>\nSubject: x\n\nhello\n")
    for mailbox in ("alice", "bob"):
        [text] = home.wait_for(mailbox)
        assert b"\nSubject: x\n" in text
        assert b"bcc" not in text.lower()
        assert b"Secret" not in text
    assert b"bob" not in home.wait_for("alice")[0]


def test_bs_is_smtp_on_standard_input(home, call):
    said = call(ROOT / "bin/sendmail", "-bs",
                text=f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@{ME}>\r\nDATA\r\n".encode()
                + b"Subject: bs\r\n\r\nx\r\n.\r\nQUIT\r\n")
    codes = [line[:3] for line in said.splitlines() if line[3:4] == " "]
    assert codes == ["220", "250", "250", "250", "354", "250", "221"]
    [text] = home.wait_for("alice")
    assert text.startswith(b"Return-Path: <>\n")
    assert f"uid {os.geteuid()}".encode() in text


def test_who_is_unknown_is_told_to_the_sender(home, call):
    call(ROOT / "bin/sendmail", "-f", f"alice@{ME}", f"gone@{ME}", text=b"Subject: lost\n\nx\n")
    [text] = home.wait_for("alice")
    assert f"\nFinal-Recipient: rfc822; gone@{ME}\nAction: failed\nStatus: 5.1.1\n".encode() in text
    home.wait_until_empty()


def test_mailq_lists_what_waits(new_home):
    home = new_home("alice")
    home.control(concurrencyremote="0\n")
    home.start()
    environ = {**os.environ, "MQMAIL_HOME": str(home.path)}
    assert b"bob@far.example" not in run("mailq", env=environ).stdout
    run("sendmail", "-f", f"alice@{ME}", "bob@far.example", text=b"x\n", env=environ)

    def listed():
        text = run("mailq", env=environ).stdout.decode()
        return text if "bob@far.example" in text else ""
    assert f"<alice@{ME}>" in wait_until(listed, "a message in the list")
    assert run("sendmail", "-bp", env=environ).stdout.decode() == listed()
