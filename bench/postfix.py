"""Postfix under the same loads, for comparison: from a configuration of its own, as root, on loopback,
with its defaults and a virtual mailbox. Its processes are those below its master(8), which waits for
its children, so their CPU is counted like ours. Its log goes to a file, as ours does."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess

from forks import Trouble
from system import ME, SECONDS, delivered, empty, free_port, greeted

from mqmail.net.lifeline import die_with_parent

START = 10.0            # seconds until it must answer
MAIN = """\
compatibility_level = 3.6
queue_directory = {top}/queue
data_directory = {top}/data
maillog_file = {top}/log
maillog_file_prefixes = {top}
syslog_name = bench-postfix
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = {me}
mydestination =
local_recipient_maps =
alias_maps =
relayhost = {relayhost}
smtp_destination_concurrency_limit = 50
smtp_connection_cache_on_demand = {reuse}
smtpd_relay_restrictions = {relay}
smtpd_client_connection_count_limit = 0
default_process_limit = 250
virtual_mailbox_domains = {me}
virtual_mailbox_base = {top}/mail
virtual_mailbox_maps = inline:{{ alice@{me}=alice/ }}
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
smtp unix - - n - - smtp
scache unix - - n - 1 scache
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A running Postfix; ``stop`` it. Trouble when it does not work here. With a *relayhost*
    (``[ip]:port``) all mail but that for its mailbox goes there; *reuse*: over few connections."""

    name = "Postfix"

    def __init__(self, directory: str, relayhost: str = "", reuse: bool = True) -> None:
        self._top = f"{directory}/postfix"
        self.port = free_port()
        self.recipient = f"alice@{ME}"
        self.maildir = f"{self._top}/mail/alice"
        self.version = _ask("postconf", "-h", "mail_version")
        relay = "permit_mynetworks, reject" if relayhost else "reject_unauth_destination"
        self._configure(relay=relay, relayhost=relayhost, reuse="yes" if reuse else "no")
        _ask("postfix", "-c", f"{self._top}/etc", "check")
        parent = os.getpid()
        self._process = subprocess.Popen(
            [f"{_ask('postconf', '-h', 'daemon_directory')}/master", "-c", f"{self._top}/etc", "-s"],
            env={"PATH": os.environ["PATH"], "MAIL_CONFIG": f"{self._top}/etc"}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: die_with_parent(parent))
        self.pid = self._process.pid

    def _configure(self, **values: str) -> None:
        user = pwd.getpwnam("mail")
        for name in ("", "etc", "queue", "data", "mail"):
            os.mkdir(f"{self._top}/{name}")
        for name, owner in (("data", pwd.getpwnam("postfix")), ("mail", user)):
            os.chown(f"{self._top}/{name}", owner.pw_uid, owner.pw_gid)
        for name, text in (("main.cf", MAIN), ("master.cf", MASTER)):
            with open(f"{self._top}/etc/{name}", "w", encoding="ascii") as file:
                file.write(text.format(top=self._top, me=ME, port=self.port,
                                       uid=user.pw_uid, gid=user.pw_gid, **values))

    def start(self) -> Postfix:
        """Until it answers."""
        try:
            greeted(self.port, START).quit()
        except Trouble as error:
            raise Trouble(f"it did not start: {error}") from None
        return self

    def clear(self) -> None:
        """Empty the Maildir."""
        empty(self.maildir)

    def arrived(self) -> int:
        """How many messages are in the Maildir."""
        return delivered(self.maildir)

    def stop(self) -> None:
        """Its master ends its children."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Postfix:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _ask(*command: str) -> str:
    path = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        raise Trouble("Postfix is not installed")
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()
