"""Exim as a receiving host: TLS by GnuTLS, AUTH, DSN. Started by root, it gives root up.

It takes mail for every address and puts it into one Maildir, whose files begin with the fields
Return-path and Envelope-to. The Received field says what TLS and AUTH were used.
"""

import shutil
from email import message_from_bytes, policy
from pathlib import Path

from support.home import wait_until
from support.programs import need

USER = "Debian-exim"        # built into Debian's Exim
CONF = """
primary_hostname = exim.test
spool_directory = {top}/spool
log_file_path = {top}/log/%s
log_selector = +all
pid_file_path = {top}/log/pid
keep_environment =
exim_path = {exim}
daemon_smtp_ports = {port}
local_interfaces = {ip}
deliver_drop_privilege = true
acl_smtp_rcpt = rcpt
smtputf8_advertise_hosts = *
chunking_advertise_hosts = *
dsn_advertise_hosts = *
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}

begin acl
rcpt:
  deny domains = {closed}
       !authenticated = *
  accept

begin routers
all:
  driver = accept
  transport = maildir

begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = {top}/mail
  user = {user}
  envelope_to_add
  return_path_add

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{name}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{name}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{name}}}{{{password}}}fail}}
  server_set_id = $auth1
"""


class EximServer:
    """At *port* of *ip*; its files are in *top*, which others may search. *closed*: a domain that only
    user *name* with *password* may send to. *launch* starts a Program."""

    def __init__(self, top, launch, ip, port, certificate, closed, name, password):
        self._top, self._launch, self._ip, self._port = Path(top), launch, ip, port
        self._exim = shutil.copy(need("exim4"), self._top / "exim4")     # its user may run it there
        for path in (self._top / "spool", self._top / "mail", self._top / "log"):
            path.mkdir()
            shutil.chown(path, USER, USER)
        key = shutil.copy(certificate[1], self._top / "key")
        shutil.chown(key, USER, USER)
        (self._top / "conf").write_text(CONF.format(
            exim=self._exim, top=top, port=port, ip=ip, certificate=certificate[0], key=key,
            closed=closed, user=USER, name=name, password=password))

    def start(self):
        """Returns when it accepts connections."""
        self._program = self._launch(self._exim, "-C", self._top / "conf", "-bdf")
        self._program.wait_for_port(self._port, self._ip)
        return self

    def log(self, *parts):
        """The lines of its main log that contain each of *parts*."""
        path = self._top / "log/main"
        text = path.read_text("utf-8", "surrogateescape") if path.exists() else ""
        return [line for line in text.splitlines() if all(part in line for part in parts)]

    def wait_for(self, address):
        """Wait until a message has come for *address*; it, parsed."""
        field = f"\nEnvelope-to: {address}\n".encode()

        def found():
            texts = [path.read_bytes() for path in (self._top / "mail/new").glob("*")]
            return [text for text in texts if field in text]
        [text] = wait_until(found, f"a message for {address}")
        return message_from_bytes(text, policy=policy.default)
