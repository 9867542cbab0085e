"""What is known of a session while it goes on."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.policy.verdict import Verdict

SUBMISSION = ("submission", "submissions")      # roles whose messages are completed
STAGES = ("connect", "helo", "mail", "rcpt", "header", "body")
MESSAGE_MARKS = ("dnsbl", "earlytalkers", "helocheck", "senderdomain", "spf")     # of MAIL's checks


class Facts:
    """One session's. Texts are "" while nothing is known.

    *role*: mx, submission, submissions or lmtp. *listener*: the address it came to, *proxy* that of a
    proxy it came through. *host*: the client's name, if its address and name confirm each other; *uid*
    of a local user, who is *local*: of others an *ip* of "" means that nobody knows it. *tls*: version;
    *certificate*: a verified name; *binding*: the certificate's end point (RFC 5929). *login*: who has
    authenticated, by *mechanism*; *refused*: how many of its recipients were refused for good and
    mq-auth has not been told of. *relay*: may send anywhere. *early*: it spoke before it was greeted;
    *hasty*: it sent commands before it knew that it may. *options*: the name of the option set in
    force. *marks*: what checks have noticed, by their names (mq-checks(5)); those of MAIL's checks are
    forgotten with the transaction. *said*: each stage's verdict, but RCPT's; those against the client
    wait there for RCPT.

    Of the transaction: *sender*, *size* (declared; -1: not), *utf8* (SMTPUTF8 was said), *recipient* of
    the RCPT at hand, *recipients* taken so far, *header* at its end, without the empty line. At the
    stage body: *octets* of the message as it came, and *body*, the start of what follows the header.
    """

    __slots__ = ("binding", "body", "certificate", "cipher", "early", "hasty", "header", "helo", "host",
                 "ip", "listener", "local", "login", "marks", "mechanism", "octets", "options", "port",
                 "proxy", "recipient", "recipients", "refused", "relay", "role", "said", "sender",
                 "session", "size", "tls", "uid", "utf8", "verb")

    def __init__(self, session: str, role: str = "mx", listener: str = "", ip: str = "",
                 port: int = 0) -> None:
        self.session = session
        self.role = role
        self.listener = listener
        self.ip = ip
        self.port = port
        self.proxy = ""
        self.host = ""
        self.uid = ""
        self.local = False
        self.early = False
        self.hasty = False
        self.verb = ""              # HELO, EHLO, LHLO
        self.helo = ""
        self.tls = ""
        self.cipher = ""
        self.certificate = ""
        self.binding = b""
        self.login = ""
        self.mechanism = ""
        self.refused = 0
        self.relay = False
        self.options = ""
        self.marks: dict[str, str] = {}
        self.said: dict[str, Verdict] = {}
        self.forget_message()

    def forget_message(self) -> None:
        """No transaction is open."""
        self.sender: str | None = None
        self.size = -1
        self.utf8 = False
        self.recipient = ""
        self.recipients: list[str] = []
        self.header = b""
        self.body = bytearray()
        self.octets = 0
        for stage in ("mail", "header", "body"):
            self.said.pop(stage, None)
        for mark in MESSAGE_MARKS:
            self.marks.pop(mark, None)
