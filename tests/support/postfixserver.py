"""Postfix as a receiving host: one instance that listens at several loopback addresses, each with
settings of its own. Only root can run it.

    server = PostfixServer(top, port)
    strict = server.listen("127.0.0.2", smtpd_tls_security_level="encrypt")
    server.start() … server.wait_for("u@x.test") … server.log(strict) … server.stop()

It takes mail for every address and puts it into one Maildir, whose files begin with the fields
Return-Path, X-Original-To and Delivered-To. The Received field says what TLS and AUTH were used. With
``relay_to(port, …)`` it sends all mail on instead.
"""

import os
import pwd
import shutil
import subprocess
from email import message_from_bytes, policy
from pathlib import Path

from mqmail.net.lifeline import die_with_parent
from support.home import wait_until
from support.programs import Program, need

MAIN = """\
compatibility_level = 3.6
queue_directory = {top}/queue
data_directory = {top}/data
maillog_file = {top}/log
maillog_file_prefixes = {top}
syslog_name = postfix
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.test
mydestination =
local_recipient_maps =
alias_maps =
relayhost =
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_error_sleep_time = 0
local_header_rewrite_clients =
smtpd_tls_loglevel = 1
smtpd_tls_received_header = yes
smtpd_sasl_type = dovecot
smtpd_sasl_authenticated_header = yes
virtual_mailbox_domains = static:all
virtual_mailbox_base = {top}/mail
virtual_mailbox_maps = static:all/
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""
MASTER = """\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class PostfixServer:
    """Its files are in *top*, which others may search. *settings* are added to main.cf."""

    def __init__(self, top, port, **settings):
        self._master, self._postconf = need("postfix", "postconf")
        self._top = Path(top)
        self.port = port
        self._settings = settings
        self._listeners = []
        self._program = None

    def listen(self, ip, wrapper=False, **settings):
        """Listen at *ip* with these settings of smtpd(8); *wrapper*: TLS from the first octet. The
        address, which is what its log lines have: ``postfix/127.0.0.2/smtpd``."""
        settings = {"syslog_name": f"postfix/{ip}", "smtpd_tls_wrappermode": "yes" if wrapper else "no",
                    **settings}
        options = "".join([f"  -o {{ {name} = {value} }}\n" for name, value in settings.items()])
        self._listeners.append((ip, f"{ip}:{self.port} inet n - n - - smtpd\n{options}"))
        return ip

    def relay_to(self, port, **settings):
        """Send all mail to 127.0.0.1, with these settings of smtp(8) besides."""
        self._settings |= {"virtual_mailbox_domains": "", "mynetworks": "127.0.0.0/8",
                           "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
                           "relayhost": f"[127.0.0.1]:{port}", **settings}

    def start(self):
        """Returns when all listeners accept connections and postlogd(8) has begun the log."""
        self._configure()
        config = self._top / "etc"
        subprocess.run([self._master, "-c", config, "check"], check=True, capture_output=True)
        directory = subprocess.run([self._postconf, "-h", "daemon_directory"], check=True,
                                   capture_output=True, text=True).stdout.strip()
        parent = os.getpid()
        self._program = Program(
            f"{directory}/master", "-c", config, "-s", log=self._top / "errors", start_new_session=True,
            env={"PATH": os.environ["PATH"], "MAIL_CONFIG": str(config)},
            preexec_fn=lambda: die_with_parent(parent))
        for ip, _ in self._listeners:
            self._program.wait_for_port(self.port, ip)
        wait_until(lambda: self.log("daemon started"), "Postfix's log")
        return self

    def _configure(self):
        user = pwd.getpwnam("mail")
        for name, owner in (("etc", None), ("queue", None), ("data", "postfix"), ("mail", "mail")):
            (self._top / name).mkdir()
            if owner:
                shutil.chown(self._top / name, owner)
        added = "".join([f"{name} = {value}\n" for name, value in self._settings.items()])
        (self._top / "etc/main.cf").write_text(
            MAIN.format(top=self._top, uid=user.pw_uid, gid=user.pw_gid) + added)
        (self._top / "etc/master.cf").write_text("".join([text for _, text in self._listeners]) + MASTER)

    def stop(self):
        """Its master ends its children."""
        if self._program:
            self._program.stop()

    def log(self, *parts):
        """The lines of the log that contain each of *parts*."""
        path = self._top / "log"
        text = path.read_text("utf-8", "surrogateescape") if path.exists() else ""
        return [line for line in text.splitlines() if all(part in line for part in parts)]

    def wait_for_log(self, *parts):
        """The first line of the log that contains each of *parts*."""
        return wait_until(lambda: self.log(*parts), f"a line with {parts} in Postfix's log")[0]

    def messages(self, address):
        """The messages that came for *address*, as octets with LF line ends."""
        found = []
        for path in sorted((self._top / "mail/all/new").glob("*")):
            text = path.read_bytes()
            if f"\nX-Original-To: {address}\n".encode() in text:
                found.append(text)
        return found

    def wait_for(self, address, count=1):
        """Wait until *count* messages have come for *address*; the last one, as octets and parsed."""
        found = wait_until(lambda: self.messages(address)[count - 1:], f"{count} messages for {address}")
        return found[-1], message_from_bytes(found[-1], policy=policy.default)
