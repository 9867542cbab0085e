"""Dovecot on loopback, all of it as one account."""

import grp
import imaplib
import os
import pwd
import shutil
from pathlib import Path

from support.home import SECONDS, free_port, wait_until
from support.programs import answers, need

CONF = """
base_dir = {dir}/run
state_dir = {dir}/run
log_path = /dev/stderr
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
default_internal_user = {user}
default_login_user = {user}
default_internal_group = {group}
mail_location = {location}
auth_username_format = %n
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
passdb {{
  {passdb}
}}
userdb {{
  {userdb}
}}
service auth {{
  chroot =
  unix_listener {dir}/auth {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  chroot =
  user = {user}
  inet_listener lmtp {{
    port = {lmtp}
  }}
  unix_listener {dir}/lmtp {{
    mode = 0666
  }}
}}
"""
ANYBODY = ("driver = static\n  args = password=pw",
           "driver = static\n  args = uid={user} gid={group} home={dir}/home/%n allow_all_users=yes")
USERS = "driver = passwd-file\n  args = username_format=%n {dir}/users"
MECHANISMS = "plain login cram-md5 scram-sha-256"


class Dovecot:
    """Its files are below *home*'s directory, its account is the home's owner. *location*: where mail
    is, as mail_location says it. *passwords*: of the only users that there are; without it there is
    everybody, with "pw". ``imap`` and ``lmtp`` are its ports, ``socket`` is where it speaks LMTP too,
    ``auth`` where other servers ask for AUTH (by MECHANISMS if users have passwords of their own)."""

    def __init__(self, home, launch, location, passwords=None):
        self.imap, self.lmtp = free_port(), free_port()
        self._launch = launch
        self._dir = Path(home.top, "dovecot")
        owner = os.stat(home.path)
        for path in (self._dir, self._dir / "run", self._dir / "home"):
            path.mkdir()
            shutil.chown(path, owner.st_uid, owner.st_gid)
        self.socket, self.auth = str(self._dir / "lmtp"), str(self._dir / "auth")
        names = {"user": pwd.getpwuid(owner.st_uid).pw_name, "group": grp.getgrgid(owner.st_gid).gr_name,
                 "dir": self._dir}
        passdb, userdb = ANYBODY if passwords is None else (USERS, USERS)
        (self._dir / "conf").write_text(CONF.format(
            location=location, imap=self.imap, lmtp=self.lmtp, passdb=passdb.format(**names),
            userdb=userdb.format(**names), mechanisms=MECHANISMS if passwords else "plain", **names))
        (self._dir / "users").write_text("".join(
            [f"{name}:{{PLAIN}}{password}:{owner.st_uid}:{owner.st_gid}::{self._dir}/home/{name}::\n"
             for name, password in (passwords or {}).items()]))

    def start(self):
        """Returns when IMAP and LMTP are spoken."""
        self._program = self._launch(need("dovecot"), "-F", "-c", self._dir / "conf")
        for port in (self.imap, self.lmtp):
            wait_until(lambda port=port: answers(port), f"Dovecot at port {port}")
        return self

    def stop(self):
        self._program.stop()

    def messages(self, user, password="pw"):
        """The messages in a user's INBOX, by IMAP."""
        with imaplib.IMAP4("127.0.0.1", self.imap, SECONDS) as client:
            client.login(user, password)
            client.select("INBOX")
            numbers = client.search(None, "ALL")[1][0].split()
            return [client.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in numbers]
