"""A client's session: what is known of it, and what it is offered. Base of the handler."""

from __future__ import annotations

from mqmail.base import log, xtext
from mqmail.policy.facts import Facts
from mqmail.policy.stages import KEPT
from mqmail.policy.verdict import DEFER, REJECT, RELAY, Verdict
from mqmail.xmtp.params import XCLIENT_ATTRIBUTES
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.server import Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from mqmail.base.waiter import Waiter
    from mqmail.control.listeners import Listener
    from mqmail.control.optionsets import Options
    from mqmail.net.blocking import BlockingStream
    from mqmail.net.identd import Identd
    from mqmail.prog.xmtpd.peer import Peer
    from mqmail.prog.xmtpd.settings import Settings

EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES")
XCLIENT = "XCLIENT " + " ".join(XCLIENT_ATTRIBUTES[:-1])
REFUSED = reply(550, "5.7.1", "not accepted by local policy")
TLS_FIRST = reply(530, "5.7.0", "say STARTTLS first")
_CERTIFICATE = reply(530, "5.7.0", "a client certificate is required")
LATER = reply(451, "4.7.1", "not accepted for now by local policy, try again later")


class Client:
    """*listener* is where it came to; *peer* who it is; *auth*: whether somebody can check passwords.
    *ucspi_tls* hands STARTTLS to whoever started us: it returns the stream, version and cipher. *identd*
    asks the client's host who it is; ``ident`` is what that says, to be shown and not believed."""

    ucspi_tls: Callable[[], tuple[BlockingStream, str, str]] | None = None
    identd: Identd | None = None
    ident = ""
    logs = True                     # whether the usual is logged
    _settled = False                # it is who it is: XCLIENT is not listened to
    _who: Waiter | None = None

    def __init__(self, settings: Settings, listener: Listener, peer: Peer, session: str,
                 auth: bool = False) -> None:
        self.settings = settings
        self.listener = listener
        self.facts = Facts(session, listener.role, listener.place)
        self._auth_known = auth
        self._via: dict[bool, str] = {}             # XVIA parameters, by whether it may relay
        host = settings.control.smtpgreeting.split(" ", 1)[0]
        self.server = Server("lmtp" if listener.role == "lmtp" else "smtp", host, EXTENSIONS)
        self.meet(peer)

    @property
    def kind(self) -> str:
        """smtp or lmtp."""
        return self.server.kind

    def meet(self, peer: Peer) -> None:
        """The client is *peer*: now, or as a proxy or filter says. What was known of another is
        forgotten; TLS version and cipher are those of the connection all the same."""
        self.peer = peer
        if self._who is not None or self.ident != peer.ident:
            self.ident, self._who = peer.ident, None
        facts = self.facts
        facts.options = self._connect_set = self._session_set = self._message_set = self.listener.options
        facts.login = facts.mechanism = facts.certificate = facts.verb = facts.helo = ""
        facts.binding = b""
        facts.refused = 0
        facts.early = facts.hasty = False
        facts.marks.clear()
        facts.ip, facts.port, facts.host, facts.uid = peer.ip, peer.port, peer.host, peer.uid
        facts.local, facts.relay = peer.local, peer.relay
        facts.said.clear()
        if peer.refusal is not None:
            action = REJECT if peer.refusal.code >= 500 else DEFER
            facts.said["connect"] = Verdict(action, peer.refusal, "rblsmtpd")
        self.offer()

    def ask_who(self, sock: socket | None) -> None:
        """Ask the host at the other end of *sock*, if the place's option set wants it; nobody waits."""
        seconds, facts = self.options.ident, self.facts
        if seconds and self.identd is not None and sock is not None and facts.ip and not facts.proxy:
            self._who = self.identd.ask(sock, seconds)

    async def know_who(self) -> None:
        """Wait for the answer, before a message."""
        who, self._who = self._who, None
        if who is not None:
            self.ident, self._via = await who, {}
            self.log("ident", user=self.ident)

    def offer(self) -> None:
        """Let the core offer and allow what holds now."""
        facts, control = self.facts, self.settings.control
        options = self.options = self.settings.options(facts.role, facts.options)
        size = self.peer.databytes if self.peer.databytes is not None else options.databytes
        self.server.set_limits(Limits(control.databytes if size is None else size,
                                      options.maxrecipients or control.maxrecipients))
        self.server.set_extensions((*EXTENSIONS, *self._more()))
        self._via = {}

    def _more(self) -> list[str]:
        found, options = [], self.options
        if self.may_start_tls:
            found.append("STARTTLS")
        if self.may_authenticate:
            found.append(f"AUTH {' '.join(self.mechanisms)}")
        if options.prdr and self.kind == "smtp":
            found.append("PRDR")
        if options.etrn and self.kind == "smtp":
            found.append("ETRN")
        found += [word for word, told in (("VRFY", options.vrfy), ("EXPN", options.expn)) if told]
        if self.may_be_another:
            found.append(XCLIENT)
        return found

    @property
    def may_start_tls(self) -> bool:
        """Whether STARTTLS is offered; not to a login, of which something may be left to tell."""
        facts = self.facts
        return not (facts.tls or facts.login) and self.options.tls in ("may", "require") and (
            self.ucspi_tls is not None or self.settings.has_tls)

    @property
    def may_authenticate(self) -> bool:
        """Whether AUTH is offered."""
        return bool(self._auth_known and self.options.auth and not self.facts.login
                    and (self.facts.tls or self.options.authplain))

    @property
    def mechanisms(self) -> list[str]:
        """Those that can work in this session."""
        facts = self.facts
        impossible = [word for word, needs in (("SCRAM-SHA-256-PLUS", facts.binding),
                                               ("EXTERNAL", facts.certificate)) if not needs]
        return [word for word in self.options.auth if word not in impossible]

    @property
    def may_be_another(self) -> bool:
        """Whether it is one of those who may say, once and first of all, who the client is. Behind a
        proxy the proxy's word counts: not all who come through it are filters."""
        return not (self._settled or self.facts.login) and self.listener.xclient.contains(self.facts.ip)

    def settle_who(self) -> None:
        """Nobody may say from now on that the client is another."""
        if not self._settled:
            self._settled = True
            if "XCLIENT" in self.server.words:
                self.offer()

    def lacks(self, options: Options) -> Reply | None:
        """What the session has to have for *options*."""
        facts = self.facts
        if self.peer.local:
            return None
        if not facts.tls and options.tls == "require":
            return TLS_FIRST
        if options.clientcert == "require" and not facts.certificate:
            return _CERTIFICATE
        return None

    @property
    def may_relay(self) -> bool:
        """Whether its mail may go anywhere, as far as we know: mq-resolve knows control/relayclients."""
        facts, wanted = self.facts, self.options.relay
        return facts.relay or wanted == "yes" or (wanted == "auth" and facts.login != "") or any(
            [facts.said[stage].action == RELAY for stage in KEPT if stage in facts.said])

    async def judge(self, stage: str) -> Verdict | None:
        """What a stage's checks say; None when it has none. An option set is in force from then on: of
        connect for the session, of helo until the next, else for the message."""
        stages, facts = self.settings.stages, self.facts
        if not stages.has(stage):
            return None
        before = facts.options
        said = await stages.run(stage, facts)
        self._message_set = facts.options
        if stage == "connect":
            self._connect_set = facts.options
        if stage in ("connect", "helo"):
            self._session_set = facts.options
        if facts.options != before:
            self.offer()
        return said

    def change_set(self, name: str) -> None:
        """This one holds from now on as if the place had it; "": all stays."""
        if name:
            self._connect_set = self._session_set = self._message_set = name
            self.use_set(name)

    @property
    def place_options(self) -> Options:
        """What the place or the client's address gives, whatever set is had for a HELO name."""
        return self.settings.options(self.facts.role, self._connect_set)

    def use_set(self, name: str) -> None:
        """This option set is in force now."""
        if self.facts.options != name:
            self.facts.options = name
            self.offer()

    def via(self, relay: bool) -> str:
        """MAIL's parameter that says where the message comes from, for the record (mq-record(5)) and for
        mq-resolve."""
        if relay not in self._via:
            self._via[relay] = "XVIA=" + xtext.encode(xtext.facts(self._origin(relay)))
        return self._via[relay]

    def _origin(self, relay: bool) -> dict[str, str]:
        facts = self.facts
        if self.peer.local:
            found = {"proto": "local", "uid": self.peer.uid}
        else:
            proto = {"LHLO": "lmtp", "HELO": "smtp"}.get(facts.verb, "esmtp")
            # never without ip: who has none is a program of this host, and may relay
            found = {"proto": proto, "ip": facts.ip or "unknown", "helo": facts.helo}
            if facts.tls:
                found["tls"] = f"{facts.tls}:{facts.cipher}"
            found.update(auth=facts.login, cert=facts.certificate, ident=self.ident)
        return {**found, "relay": "1" if relay else "", "session": facts.session}

    def log(self, kind: str, **facts: object) -> None:
        """A line of this session about the usual."""
        if self.logs:
            log.event(kind, session=self.facts.session, **facts)


def reply_of(said: Verdict) -> Reply:
    """What the client hears of REJECT and DEFER."""
    return said.reply or (REFUSED if said.action == REJECT else LATER)


def shown(sender: str) -> str:
    """In the log the null sender is ``<>``."""
    return sender or "<>"
