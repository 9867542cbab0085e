"""demo DIR: make a home there, start everything, send three messages, show what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from mqmail.base.failure import Failure, Temporary
from mqmail.control import reader
from mqmail.demo.client import free_port, send
from mqmail.demo.system import System
from mqmail.net.owner import as_owner, owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BIN = f"{os.path.abspath(__file__).rpartition('/lib/')[0]}/bin"
ME = "mail.example.org"
ALIASES = {"team": "alice, bob", "oldteam": "bob, gone"}
CERTIFICATE, KEY = "tls/cert.pem", "tls/key.pem"
SUBMISSION, PASSWORD = 2587, "wonderland"
SECONDS = 30        # the longest that a message may take
MOST_LINES = 32     # of a message that are shown
HELLO = "Subject: hello\r\n\r\nThis came by SMTP.\r\n"
TEAM = f"To: team@{ME}\nSubject: news\n\nThis came from a pipe.\n"
LOST = "Subject: is anybody there?\r\n\r\nThis will come back.\r\n"
HOW_TO = """\
mail for alice@{me} and bob@{me}, SMTP on 127.0.0.1 port {port}. Try, in another window:

swaks --server 127.0.0.1:{port}{tls} --from you@example.net --to bob@{me}
{submit}nc 127.0.0.1 {port}
printf 'To: bob\\nSubject: hi\\n\\nhello\\n' | bin/mq-inject --home {home}
bin/mq-qread --home {home}          what is in the queue
cat {home}/mail/bob/Maildir/new/*     (or mutt -f {home}/mail/bob/Maildir)
grep ID {home}/run/log                a message's whole story
$EDITOR {home}/control/aliases; kill -HUP {pid}

The journey of each message is shown here. Ctrl-C stops everything; {home}/ stays."""


SUBMIT = """\
swaks --server 127.0.0.1:{port} --tls --auth-user alice@{me} --auth-password {password} \\
      --from alice@{me} --to bob@{me}    # as her mail program would
"""


class Stop(Exception):
    """Ctrl-C, or TERM."""


def main(home: str) -> int:
    """0 when the user ended it, 111 when something did not work."""
    handle_signals(_stop)
    system = None
    try:
        headline("1. A home for mqmail: its control files, queue and mailboxes")
        port, submission = make_home(home)
        headline("2. One command starts everything on it")
        show(f"$ bin/mq-start --home {home}")
        system = System(f"{BIN}/mq-start")
        show("all programs are ready")
        send_messages(system, home, port)
        headline("6. It is yours")
        show(HOW_TO.format(home=home, port=port, me=ME, pid=system.pid,
                           tls=" --tls" if submission else "",
                           submit=SUBMIT.format(port=submission, me=ME, password=PASSWORD)
                           if submission else ""))
        while True:
            show("\n" + system.journey(None))
    except Stop:
        return 0
    except (Failure, OSError) as error:
        print(f"\nmake run: {error}", file=sys.stderr)
        return 111
    finally:
        handle_signals(signal.SIG_IGN)
        if system is not None:
            headline("Stopping")
            show("all programs have ended" if system.stop() == 0 else f"see {home}/run/log")


def handle_signals(action: Callable[[int, object], None] | signal.Handlers) -> None:
    """What to do on Ctrl-C and its like."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, action)


def _stop(_number: int, _frame: object) -> None:
    raise Stop


def headline(text: str) -> None:
    """The start of a part."""
    print(f"\n== {text}\n", flush=True)


def show(text: str) -> None:
    """What was typed, or what a program said."""
    print("\n".join([f"   {line}".rstrip() for line in text.split("\n")]), flush=True)


def make_home(home: str) -> tuple[int, int]:
    """Make, or complete, a home that listens on a free port, and on one for people who log in if there
    is a certificate (else 0); the ports. Work there from then on: its owner may not get there."""
    if os.path.exists(f"{home}/control/me") and reader.load(home, ["me"]).me != ME:
        raise Temporary(f"{home} is a home for something else: name another directory, with RUN=DIR")
    port = free_port()
    options = ["--home", home, "--me", ME, "--listen", f"127.0.0.1:{port}",
               "--user", "alice", "--user", "bob"]
    show(f"$ bin/mq-setup {' '.join(options)}")
    done = subprocess.run([f"{BIN}/mq-setup", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Temporary(done.stderr.strip())
    show(done.stdout.strip())
    os.chdir(home)
    known = reader.load(".", ["aliases"]).aliases.targets
    with as_owner(owner_of(".")):
        for name, targets in ALIASES.items():
            if name not in known:
                with open("control/aliases", "a") as file:
                    file.write(f"\n{name}: {targets}\n")
                show(f"and in control/aliases: {name}: {targets}")
        if not os.path.exists(CERTIFICATE) and make_certificate():
            with open("control/tlscertificates", "w") as file:
                file.write(f"* {CERTIFICATE} {KEY}\n")
            show(f"and in control/tlscertificates: * {CERTIFICATE} {KEY}")
        submission = free_port(SUBMISSION) if os.path.exists(CERTIFICATE) else 0
        lines = [f"127.0.0.1:{port}", *[f"127.0.0.1:{submission} role=submission"] * bool(submission)]
        with open("control/listeners", "w") as file:
            file.write("".join([f"{line}\n" for line in lines]))
    if submission:
        show(f"and in control/listeners: {lines[1]}")
        show(f"$ echo {PASSWORD} | bin/mq-passwd --home {home} alice@{ME}")
        words = [f"{BIN}/mq-passwd", "--home", ".", f"alice@{ME}"]
        subprocess.run(words, input=f"{PASSWORD}\n", text=True, check=True)
    return port, submission


def make_certificate() -> bool:
    """One that nobody vouches for, so that STARTTLS is offered; False without the openssl command."""
    os.makedirs("tls", 0o750, exist_ok=True)
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
               "-subj", f"/CN={ME}", "-addext", f"subjectAltName=DNS:{ME}"]
    try:
        done = subprocess.run(["openssl", "req", "-x509", *options, "-keyout", KEY, "-out", CERTIFICATE],
                              capture_output=True, check=False)
    except FileNotFoundError:
        return False
    show(f"$ openssl req -x509 {' '.join(options)} -keyout {KEY} -out {CERTIFICATE}")
    if done.returncode == 0:
        os.chmod(CERTIFICATE, 0o640)
    return done.returncode == 0


def send_messages(system: System, home: str, port: int) -> None:
    """One by SMTP, one through mq-inject, one that comes back."""
    headline("3. A message by SMTP, to a mailbox")
    send(port, "you@example.net", f"alice@{ME}", HELLO, show)
    show_journeys(system, 1)
    show_newest(home, "alice")
    headline("4. A message from a pipe, to an alias of two people")
    words = [f"{BIN}/mq-inject", "--home", "."]
    show(f"$ printf {ascii(TEAM)} | bin/mq-inject --home {home}")
    subprocess.run(words, input=TEAM, text=True, check=True)
    show_journeys(system, 1)
    show_newest(home, "bob")
    headline("5. A message from alice to an alias that includes somebody who is gone: she gets a report")
    send(port, f"alice@{ME}", f"oldteam@{ME}", LOST, show)
    show_journeys(system, 2)
    show_newest(home, "alice")


def show_journeys(system: System, count: int) -> None:
    """What became of the last messages."""
    for _ in range(count):
        show("\n" + system.journey(SECONDS))


def show_newest(home: str, mailbox: str) -> None:
    """The message that came last."""
    new = f"mail/{mailbox}/Maildir/new"
    name = max(os.listdir(new), key=lambda name: os.stat(f"{new}/{name}").st_mtime_ns)
    with open(f"{new}/{name}", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    show(f"\n$ cat {home}/{new}/{name}")
    show("\n".join([f"| {line}" for line in lines[:MOST_LINES]] + ["| ..."] * (len(lines) > MOST_LINES)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
