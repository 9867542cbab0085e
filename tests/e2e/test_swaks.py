"""Mail from other people's SMTP clients: swaks, Python's smtplib, Postfix's smtp-source."""

import re
import smtplib
import subprocess
from pathlib import Path

import pytest

from support.home import ME, ROOT, SECONDS, free_port
from support.programs import need

pytestmark = pytest.mark.e2e
MEGABYTES = 30
RCPT_REFUSED = 24       # exit codes of swaks


def swaks(port, *arguments):
    """Send a message from sender@example.net; (exit code, what was said)."""
    command = [need("swaks"), "--server", "127.0.0.1", "--port", str(port), "--ehlo", "client.example",
               "--from", "sender@example.net", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
                          check=False)
    return done.returncode, done.stdout.decode() + done.stderr.decode()


def test_a_message_to_a_user(home):
    code, said = swaks(home.port, "--to", f"alice@{ME}", "--h-Subject", "by swaks",
                       "--body", "..\n.dot\n")
    assert code == 0, said
    [text] = home.wait_for("alice")
    assert text.startswith(f"Return-Path: <sender@example.net>\nDelivered-To: alice@{ME}\n".encode())
    assert b"\nSubject: by swaks\n" in text
    assert b"\n\n..\n.dot\n" in text


def test_an_alias_with_two_targets(new_home):
    home = new_home("alice", "bob")
    home.control(aliases="both: alice, bob\n")
    home.start()
    code, said = swaks(home.port, "--to", f"both@{ME}", "--body", "for two")
    assert code == 0, said
    assert b"\n\nfor two\n" in home.wait_for("alice")[0]
    assert b"\n\nfor two\n" in home.wait_for("bob")[0]


def test_an_unknown_user_is_refused_at_rcpt(home):
    code, said = swaks(home.port, "--to", f"nobody@{ME}")
    assert code == RCPT_REFUSED
    assert "<** 550 5.1.1" in said
    assert not home.queued()


def test_pipelining(home):
    code, said = swaks(home.port, "--pipeline", "--to", f"alice@{ME},nobody@{ME},bob@{ME}")
    assert code == 0, said
    assert re.findall(r"^<.. +(\d+) ", said.partition("RCPT TO")[2], re.M) == [
        "250", "250", "550", "250", "354", "250", "221"]
    home.wait_for("alice")
    home.wait_for("bob")


def test_a_message_of_30_mib(home, tmp_path):
    line = b"0123456789abcdef" * 4 + b"\n"
    message = b"Subject: large\n\n" + line * (MEGABYTES * 1024 * 1024 // len(line))
    Path(tmp_path, "message").write_bytes(message[:-1])         # swaks ends the last line
    code, said = swaks(home.port, "--to", f"alice@{ME}", "--hide-all", "--data", f"@{tmp_path}/message")
    assert code == 0, said
    [text] = home.wait_for("alice")
    assert text[text.index(b"Subject: large\n"):] == message


def test_lmtp(home, launch):
    port = free_port()
    launch(need("tcpserver"), "-R", "-H", "-l", "0", "127.0.0.1", port, ROOT / "bin/xmtpd", "--home",
           home.path, "--lmtp").wait_for_port(port)
    code, said = swaks(port, "--protocol", "LMTP", "--to", f"alice@{ME},nobody@{ME},bob@{ME}")
    assert code == 0, said
    assert "<** 550 5.1.1" in said
    home.wait_for("alice")
    home.wait_for("bob")


def test_an_address_in_utf8(new_home):
    """By smtplib: swaks does not know SMTPUTF8."""
    home = new_home("joerg")
    home.control(users=f"j\u00f6rg@{ME}:joerg\n")
    home.start()
    sender, recipient = "ren\u00e9@example.net", f"j\u00f6rg@{ME}"
    text = f"From: Ren\u00e9 <{sender}>\r\nSubject: gr\u00fc\u00dfe\r\n\r\n\u00fc\r\n".encode()
    with smtplib.SMTP(*home.address, timeout=SECONDS) as client:
        client.sendmail(sender, [recipient], text, ["SMTPUTF8", "BODY=8BITMIME"])
    [message] = home.wait_for("joerg")
    assert message.startswith(f"Return-Path: <{sender}>\nDelivered-To: {recipient}\n".encode())
    assert "\nSubject: gr\u00fc\u00dfe\n\n\u00fc\n".encode() in message


@pytest.mark.parametrize("options", [[], ["-d"]], ids=["a session each", "sessions used again"])
def test_many_at_once(home, options):
    subprocess.run([need("smtp-source"), *options, "-s", "20", "-m", "500", "-l", "4096", "-f",
                    "sender@example.net", "-t", f"alice@{ME}", f"127.0.0.1:{home.port}"],
                   check=True, timeout=SECONDS)
    home.wait_for("alice", 500)
    home.wait_until_empty()
    assert len(home.maildir("alice")) == 500
    assert not home.log("event=bug")
