"""What is known of a session while it goes on."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.policy.verdict import Verdict

STAGES = ("connect", "helo", "mail", "rcpt", "header", "body")


class Facts:
    """One session's. Texts are "" while nothing is known. *role*: mx, submission, submissions or lmtp.
    *listener*: the address it came to. *host*: the client's name, if its address and name confirm each
    other. *tls*: version; *certificate*: a verified name. *login*: who has authenticated. *relay*: may
    send anywhere. *sender*, *recipient*: of the transaction and the RCPT at hand; *recipients*: those
    taken so far. *header*: at its end, without the empty line. *kept*: verdicts against the client that
    wait for RCPT."""

    __slots__ = ("certificate", "cipher", "header", "helo", "host", "ip", "kept", "listener", "login",
                 "mechanism", "options", "port", "recipient", "recipients", "relay", "role", "sender",
                 "session", "size", "tls", "verb")

    def __init__(self, session: str, role: str = "mx", listener: str = "", ip: str = "",
                 port: int = 0) -> None:
        self.session = session
        self.role = role
        self.listener = listener
        self.ip = ip
        self.port = port
        self.host = ""
        self.verb = ""              # HELO, EHLO, LHLO
        self.helo = ""
        self.tls = ""
        self.cipher = ""
        self.certificate = ""
        self.login = ""
        self.mechanism = ""
        self.relay = False
        self.options = ""
        self.sender: str | None = None
        self.size = -1
        self.recipient = ""
        self.recipients: list[str] = []
        self.header = b""
        self.kept: list[Verdict] = []
