"""The one table of all control files; mq-control(5) and the samples in control/ follow it."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LINE = "line"        # one line, a text
NUMBER = "number"    # one line, a number
LIST = "list"        # one item a line
TABLE = "table"      # one fact a line: what is looked up, and what is found

_DAY = 86400
_MUCH = 1 << 50      # bytes
_THROTTLES = "127.0.0.0/8 free\n::1 free\n* sessions=50,10% rate=600/60s"
# this host, loopback, link-local, multicast and beyond (RFC 6890)
_NOT_FOR_MAIL = "0.0.0.0/8\n127.0.0.0/8\n169.254.0.0/16\n224.0.0.0/3\n::/127\nfe80::/10\nff00::/8"

_WHAT = values.one_of("off", "mark", "reject")


@value
class Row:
    """A control file. *default* is what a missing file is taken to hold, ``{me}`` standing for the
    content of me; None means the file is required."""

    name: str
    kind: str
    default: str | None
    readers: str
    help: str
    check: Callable[[str], str] | None = None   # of a LINE
    unit: str = ""                              # of a NUMBER, and its limits
    lowest: int = 0
    highest: int = 0
    parser: str = ""                            # of a LIST or TABLE: "module.function" in control/
    secret: bool = False                        # others must not read it: its module has check_mode

    @property
    def uses_me(self) -> bool:
        """Whether the value depends on the file me."""
        return "{me}" in (self.default or "") or self.name == "aliases"


def _line(name: str, check: Callable[[str], str], default: str | None, readers: str, text: str) -> Row:
    return Row(name, LINE, default, readers, text, check=check)


def _number(name: str, default: str, limits: tuple[int, int], unit: str, readers: str, text: str) -> Row:
    return Row(name, NUMBER, default, readers, text, unit=unit, lowest=limits[0], highest=limits[1])


def _lines(name: str, kind: str, parser: str, default: str, readers: str, text: str) -> Row:
    return Row(name, kind, default, readers, text, parser=parser)


TABLE_OF_FILES = (
    _line("me", values.fqdn, None, "all",
          "this host's full name"),
    _lines("locals", LIST, "domains.parse_locals", "{me}", "mq-resolve",
           "domains whose mail is delivered here"),
    _lines("virtualdomains", TABLE, "domains.parse_virtualdomains", "", "mq-resolve",
           "domains and addresses whose mail goes to PREPEND-LOCAL at this host"),
    _lines("users", TABLE, "users.parse_users", "", "mq-resolve mq-lspawn mq-local",
           "virtual mailboxes and their directories below mail/"),
    _lines("aliases", TABLE, "aliases.parse_aliases", "", "mq-resolve",
           "names that stand for other addresses or go to a destination"),
    _line("localusers", values.one_of("none", "passwd"), "none", "mq-resolve mq-lspawn",
          "whether the accounts of this host get mail: none or passwd"),
    _line("detaildelimiter", values.delimiters, "+",
          "mq-resolve mq-send mq-lspawn mq-local mq-access mq-rewrite xmtpd",
          "characters that separate a mailbox's name from a detail"),
    _lines("relayclients", LIST, "networks.parse_networks", "", "mq-resolve xmtpd",
           "networks whose hosts may send mail to other domains"),
    _lines("smtproutes", TABLE, "routes.parse_smtproutes", "", "mq-route mq-rspawn",
           "next hops for domains, instead of their MX hosts"),
    _lines("senderroutes", TABLE, "routes.parse_senderroutes", "", "mq-route mq-rspawn",
           "next hops for senders, instead of the MX hosts"),
    _lines("fallbackroute", LIST, "routes.parse_fallback", "", "mq-route mq-rspawn",
           "the next hop for mail whose MX hosts all fail for now"),
    Row("credentials", TABLE, "", "mq-remote", "user names and secrets for other hosts",
        parser="credentials.parse_credentials", secret=True),
    _lines("tlspolicy", TABLE, "tlspolicy.parse_tlspolicy", "", "mq-remote mq-route mq-rspawn",
           "what mail to a domain or host wants of TLS"),
    _line("tlsauthorities", values.authorities, "system", "mq-remote",
          "a file with the certificates of authorities, or system"),
    _lines("resolvers", LIST, "hosts.parse_resolvers", "", "mq-route mq-rspawn xmtpd",
           "DNS servers, instead of the system's"),
    _lines("refusednetworks", LIST, "networks.parse_networks", _NOT_FOR_MAIL, "mq-route mq-rspawn",
           "networks that no MX host may be in"),
    _lines("destinations", TABLE, "destinations.parse_destinations", "", "mq-resolve mq-send xmtpd",
           "LMTP services that serve destinations"),
    _lines("listeners", LIST, "listeners.parse_listeners", "127.0.0.1:2525", "mq-queue mq-start xmtpd",
           "addresses and ports at which SMTP is spoken"),
    _lines("access", TABLE, "access.parse_access", "", "xmtpd mq-access",
           "what clients, senders and recipients may do"),
    _lines("rewrite", TABLE, "rewrite.parse_rewrite", "", "xmtpd mq-rewrite",
           "what becomes of senders' and recipients' addresses"),
    _lines("rewriteheaders", TABLE, "rewrite.parse_rewriteheaders", "", "xmtpd mq-rewrite",
           "the fields of the header in which addresses are rewritten"),
    _lines("verify", TABLE, "verify.parse_verify", "", "xmtpd",
           "domains whose recipients are asked for at the service that gets their mail"),
    _lines("throttles", TABLE, "throttles.parse_throttles", _THROTTLES, "xmtpd",
           "how many sessions, messages and recipients clients and networks may have"),
    _lines("pressure", TABLE, "pressure.parse_pressure", "", "xmtpd",
           "what clients feel of it when the queue does not keep up"),
    _lines("headerchecks", TABLE, "headerchecks.parse_headerchecks", "", "xmtpd",
           "what is done about headers that break a rule"),
    _lines("optionsets", TABLE, "optionsets.parse_optionsets", "", "xmtpd",
           "what sessions are offered and allowed, by role and by name"),
    _lines("tlscertificates", TABLE, "certificates.parse_certificates", "", "xmtpd",
           "certificates and keys that clients are shown, by the name they ask for"),
    _line("tlsclientauthorities", values.authorities, "system", "xmtpd",
          "a file with the authorities that vouch for clients, or system"),
    _lines("badmailfrom", LIST, "badmailfrom.parse_badmailfrom", "", "xmtpd",
           "senders whose mail is refused"),
    _line("reversename", values.one_of("off", "look", "require"), "off", "xmtpd",
          "whether a client's name is looked up, and must be there: off, look or require"),
    _line("helocheck", _WHAT, "mark", "xmtpd",
          "what becomes of clients whose HELO name cannot be true: off, mark or reject"),
    _line("earlytalkers", _WHAT, "mark", "xmtpd",
          "what becomes of clients that do not wait for our replies: off, mark or reject"),
    _lines("dnsbl", LIST, "dnsbl.parse_dnsbl", "", "xmtpd",
           "lists in DNS of bad and good clients"),
    _line("senderdomain", values.one_of("off", "mark", "reject", "strict"), "off", "xmtpd",
          "what becomes of senders whose domain takes no mail: off, mark, reject or strict"),
    _line("spf", _WHAT, "off", "xmtpd",
          "what becomes of clients that the sender's domain does not permit: off, mark or reject"),
    _lines("loglevels", TABLE, "loglevels.parse_loglevels", "", "all",
           "how much each program logs"),
    _lines("injectors", TABLE, "injectors.parse_injectors", "* local",
           "mq-auth mq-bounce mq-queue mq-resolve mq-rspawn",
           "which accounts may put mail into the queue"),
    _lines("authbackends", LIST, "authbackends.parse_authbackends", "passwd", "mq-auth xmtpd",
           "who says whether a login and its password are right"),
    _lines("webmailhosts", LIST, "networks.parse_networks", "", "mq-auth",
           "hosts where many log in: failures there count for the account alone"),
    Row("passwd", TABLE, "", "mq-auth mq-passwd", "logins and the hashes of their passwords",
        parser="passwd.parse_passwd", secret=True),
    _lines("logins", TABLE, "logins.parse_logins", "", "xmtpd",
           "which senders a login may use"),
    _lines("accountlimits", TABLE, "accountlimits.parse_accountlimits", "", "mq-auth",
           "how much a login may send within an hour"),
    _lines("accounts", TABLE, "rights.parse_accounts", "",
           "mq-auth mq-bounce mq-fsck mq-lspawn mq-passwd mq-qread mq-queue mq-resolve mq-rspawn mq-send"
           " mq-setup xmtpd", "which account each program becomes in a system home"),
    _number("databytes", "0", (0, _MUCH), "bytes", "xmtpd mq-queue",
            "the largest message taken; 0 means any size"),
    _number("maxrecipients", "1000", (1, 100000), "recipients", "xmtpd",
            "the most recipients of a message from the network (RFC 5321 asks for 100)"),
    _number("minfree", "100M", (0, _MUCH), "bytes", "xmtpd mq-queue",
            "space that must stay free on the queue's disk; less, and mail is put off with 452"),
    _number("okfree", "150M", (0, _MUCH), "bytes", "xmtpd mq-queue",
            "space that must be free again on the queue's disk before mail is taken as usual"),
    _number("queuelifetime", "604800", (0, 3650 * _DAY), "seconds", "mq-fsck mq-send",
            "how long a recipient is tried before the message is returned"),
    _number("delaywarn", "14400", (0, 3650 * _DAY), "seconds", "mq-send",
            "how long a recipient waits before the sender is told of it; 0: it is not told"),
    _number("concurrencylocal", "10", (0, 1000), "deliveries", "mq-send mq-lspawn",
            "deliveries to mailboxes at a time; 0 holds them"),
    _number("concurrencyremote", "20", (0, 10000), "deliveries", "mq-send mq-rspawn",
            "deliveries to other hosts at a time; 0 holds them"),
    _number("concurrencyincoming", "500", (1, 100000), "sessions", "xmtpd",
            "SMTP sessions at a time"),
    _number("concurrencyqueue", "2", (1, 256), "processes", "mq-queue",
            "processes that write messages into the queue"),
    _number("processesincoming", "2", (1, 256), "processes", "xmtpd",
            "processes that share the SMTP sessions"),
    _number("timeoutsmtpd", "300", (1, _DAY), "seconds", "xmtpd",
            "how long a client may be silent, or take for a command (RFC 5321 asks for 300)"),
    _number("timeoutsession", "900", (1, _DAY), "seconds", "xmtpd",
            "how long a client may keep us waiting until a message of its is accepted"),
    _number("minrate", "100", (1, 1000000), "octets a second", "xmtpd",
            "the slowest that a message may come once the time of timeoutsession is used up"),
    _number("processesremote", "2", (1, 64), "processes", "mq-rspawn",
            "processes that talk to other hosts"),
    _lines("remotesessions", TABLE, "remote.parse_sessions", "", "mq-remote mq-rspawn",
           "how many sessions other hosts get, and how long each is used"),
    _lines("remotetimeouts", TABLE, "remote.parse_timeouts", "", "mq-remote",
           "how long another host may take at each step of a session"),
    _number("timeoutremote", "1200", (1, _DAY), "seconds", "mq-remote mq-rspawn",
            "how long another host may take to answer"),
    _number("timeoutconnect", "60", (1, _DAY), "seconds", "mq-remote mq-rspawn",
            "how long a connection to another host may take"),
    _line("smtpgreeting", values.greeting, "{me}", "xmtpd",
          "what the greeting says; its first word is a host name"),
    _line("helohost", values.domain, "{me}", "mq-remote mq-route mq-rspawn xmtpd",
          "the name said in EHLO to other hosts"),
    _line("bouncefrom", values.local_part, "MAILER-DAEMON", "mq-bounce",
          "the name before the @ in the From field of reports"),
    _line("bouncehost", values.domain, "{me}", "mq-bounce",
          "the host behind the @ in the From field of reports"),
    _line("doublebounceto", values.local_part, "postmaster", "mq-bounce",
          "the name before the @ that gets reports which cannot be returned"),
    _line("doublebouncehost", values.domain, "{me}", "mq-bounce",
          "the host behind the @ that gets reports which cannot be returned"),
    _line("defaulthost", values.domain, "{me}", "mq-inject",
          "the host of addresses written without @"),
    _line("defaultdomain", values.domain, "{me}", "mq-inject",
          "the domain appended to hosts written without a dot"),
    _line("plusdomain", values.domain, "{me}", "mq-inject",
          "the domain appended to hosts that end in +"),
    _line("idhost", values.domain, "{me}", "mq-inject",
          "the host in Message-ID fields"),
)

# Forms of tables that are not text; mq-makemap makes them.
OTHER_FORMS = ("access.cdb", "access.sqlite", "rewrite.cdb", "rewrite.sqlite")
HOOKS = "hooks.py"          # a program: mq-hooks(5)
BY_NAME = {row.name: row for row in TABLE_OF_FILES}
