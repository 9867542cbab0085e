"""The access map and recipients' verification in front of a running home."""

import os
import socket
import subprocess

import pytest

from support.home import ME, SECONDS, free_port, reply, wait_until
from support.lmtpservice import LmtpService
from support.programs import need

pytestmark = pytest.mark.e2e
TABLE = f"""\
To:postmaster@            OK
Connect:127.0.0.5         REJECT 554 5.7.1 it has a virus
Connect:127.0.0.6         RELAY
Helo:liar.example         REJECT
From:.spam.example        REJECT no spam
To:bob@{ME} REQUIRE tls
To:alice@relay.example    RELAY
To:@relay.example         DEFER 451 Please try main MX
To:trap@                  DISCARD
"""


@pytest.fixture
def site(new_home):
    """A home with the table; mail to other hosts waits."""
    home = new_home("alice", "bob")
    home.control(access=TABLE, concurrencyremote="0\n", aliases="postmaster: alice\n")
    return home


def say(home, *commands, ip="127.0.0.1"):
    """What is answered to each of *commands* by a client with address *ip*."""
    with socket.create_connection(home.address, SECONDS, (ip, 0)) as sock, sock.makefile("rwb") as file:
        said = [reply(file)]
        for command in commands:
            file.write(f"{command}\r\n".encode())
            file.flush()
            lines = [file.readline()]
            while lines[-1][3:4] == b"-":
                lines.append(file.readline())
            said.append(lines[-1].decode().strip())
    return said[1:]


def rcpts(home, *recipients, ip="127.0.0.1", sender="eve@example.com", helo="client.example"):
    """What RCPT is answered."""
    commands = [f"RCPT TO:<{one if '@' in one else f'{one}@{ME}'}>" for one in recipients]
    return say(home, f"EHLO {helo}", f"MAIL FROM:<{sender}>", *commands, ip=ip)[2:]


def is_open(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def swaks(home, *arguments):
    """(exit code, what was said)."""
    command = [need("swaks"), "--server", "127.0.0.1", "--port", str(home.port),
               "--ehlo", "client.example", "--from", "sender@example.net", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
                          check=False)
    return done.returncode, done.stdout.decode() + done.stderr.decode()


def test_each_recipient_has_its_answer(site):
    site.start()
    assert [said[:3] for said in rcpts(site, "alice", "postmaster", "zoe")] == ["250", "250", "550"]
    assert rcpts(site, "alice@relay.example", "zoe@relay.example", "x@far.example")[:2] == [
        rcpts(site, "alice")[0], "451 4.7.1 Please try main MX"]
    assert rcpts(site, "x@far.example")[0].startswith("550 5.7.1 relaying denied")
    assert rcpts(site, "bob") == ["530 5.7.10 this mail needs TLS: say STARTTLS first"]


def test_who_is_not_wanted_reaches_the_postmaster_alone(site):
    site.start()
    for given, refused in (({"ip": "127.0.0.5"}, "554 5.7.1 it has a virus"),
                           ({"helo": "liar.example"}, "550 5.7.1 not allowed here"),
                           ({"sender": "a@b.spam.example"}, "550 5.7.1 no spam")):
        said = rcpts(site, "alice", "postmaster", "alice@relay.example", "nobody", **given)
        assert [said[0], said[1][:3], said[2], said[3]] == [refused, "250", refused, refused]
    line = site.wait_for_log("event=recipient_refused", f"recipient=alice@{ME}")
    assert "check=access" in line
    assert "ip=127.0.0.5" in line


def test_mail_of_a_client_that_may_relay(site):
    site.start()
    code, said = swaks(site, "--local-interface", "127.0.0.6", "--to", "x@far.example")
    assert code == 0, said
    code, said = swaks(site, "--local-interface", "127.0.0.7", "--to", "x@far.example")
    assert code != 0
    assert "relaying denied" in said
    code, said = swaks(site, "--to", "alice@relay.example")
    assert code == 0, said
    wait_until(lambda: len([path for path in site.queued() if path.parent.parent.name == "mess"]) == 2,
               "two messages wait")


def test_what_is_thrown_away(site):
    site.start()
    code, said = swaks(site, "--to", f"trap@{ME},alice@{ME}")
    assert code == 0, said
    [text] = site.wait_for("alice")
    site.wait_until_empty()
    assert text.count(b"Delivered-To:") == 1
    assert f"Delivered-To: alice@{ME}".encode() in text


def test_hup_reads_the_text_and_keeps_it_when_it_is_wrong(site):
    site.control(processesincoming="1\n")
    site.start()
    site.control(access=TABLE + f"To:alice@{ME} REJECT\n")
    assert rcpts(site, "alice")[0][:3] == "250"
    site.process.send_signal(1)
    wait_until(lambda: rcpts(site, "alice")[0][:3] == "550", "the new table")
    site.control(access="To:x@ RELYA\n")
    site.process.send_signal(1)
    site.wait_for_log("event=reload_failed", "control/access", "RELYA")
    assert rcpts(site, "alice")[0][:3] == "550"


@pytest.mark.parametrize("option", [[], ["--sqlite"]])
def test_a_table_that_is_replaced_is_in_force_at_once(site, option):
    site.run("mq-makemap", *option, "access", "-", text=b"To:new@relay.example RELAY\n")
    site.start()
    said = rcpts(site, "new@relay.example", "next@relay.example")
    assert [one[:3] for one in said] == ["250", "451"]
    site.run("mq-makemap", *option, "access", "-", text=b"To:next@relay.example RELAY\n")
    said = rcpts(site, "new@relay.example", "next@relay.example")
    assert [one[:3] for one in said] == ["451", "250"]


def test_a_table_that_is_damaged_puts_mail_off(site):
    site.run("mq-makemap", "access", "-", text=b"To:new@relay.example RELAY\n")
    site.start()
    path = site.path / "control/access.cdb"
    os.truncate(path, 100)
    assert rcpts(site, "alice", "x@far.example") == [
        "451 4.3.5 the access table cannot be used now, try again later"] * 2
    site.wait_for_log("event=bad_table", "control/access.cdb")
    site.run("mq-makemap", "access", "-", text=b"To:new@relay.example RELAY\n")
    assert [said[:3] for said in rcpts(site, "alice", "new@relay.example")] == ["250", "250"]


def test_recipients_are_verified(site):
    port = free_port()
    answers = {"TO:<yes@lists.example>": "250 2.1.5 ok", "TO:<later@lists.example>": "451 4.2.1 later"}
    asked = []

    def answer(argument):
        asked.append(argument)
        return answers.get(argument, "550 5.1.1 no such list")

    with LmtpService("", None, False, on_rcpt=answer, port=port) as service:
        site.control(destinations=f"lists:lmtp:tcp:127.0.0.1:{port}\n", processesincoming="1\n",
                     verify="lists.example lists relay=yes\n")
        site.start()
        for _ in range(2):
            said = rcpts(site, "yes@lists.example", "no@lists.example", "later@lists.example")
            assert [said[0][:3], said[1]] == ["250", "550 5.1.1 no such list"]
            assert said[2].startswith("451 4.4.3 ")
        assert asked == ["TO:<yes@lists.example>", "TO:<no@lists.example>", "TO:<later@lists.example>",
                         "TO:<later@lists.example>"]
        assert service.sessions == 1


def test_one_session_under_tcpserver(site, tmp_path):
    """Without an event loop."""
    site.run("mq-makemap", "access", "-", text=b"To:new@relay.example RELAY\n")
    site.start()
    port = free_port()
    with subprocess.Popen([need("tcpserver"), "-HRDl0", "127.0.0.1", str(port), site.root / "bin/xmtpd",
                           "--home", site.path], stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: is_open(port), "tcpserver")
            there = type("There", (), {"address": ("127.0.0.1", port)})
            said = rcpts(there, "new@relay.example", "zoe@relay.example", "alice")
            assert [one[:3] for one in said] == ["250", "451", "250"]
        finally:
            server.terminate()


def test_an_unknown_option_set_is_a_mistake(site):
    site.control(access="Connect:127.0.0.5 set:nowhere\n")
    done = site.run("mq-showctl", "--check", check=False)
    assert b"control/access line 1: there is no option set nowhere" in done.stdout
