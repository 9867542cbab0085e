"""A session's beginning, under both shells: the PROXY protocol, TLS, the greeting; STARTTLS; and how
long we wait for the client (docs/decisions/0019)."""

from __future__ import annotations

from time import monotonic

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.net.converse import Conversation
from mqmail.net.expired import Expired
from mqmail.net.proxy import parse_proxy
from mqmail.prog.xmtpd.peer import Peer, plain_ip
from mqmail.xmtp.patience import Patience
from mqmail.xmtp.reply import ProtocolError, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.converse import AnyStream
    from mqmail.net.tls import TlsStream
    from mqmail.prog.xmtpd.dialogue import Dialogue
    from mqmail.xmtp.reply import Reply
    from mqmail.xmtp.server import Server

PROXY_TIMEOUT = 10.0        # seconds for all of what the proxy says
HANDSHAKE_TIMEOUT = 15.0    # for all of it
MOST_HANDSHAKES = 20        # of an address at a time, before it is greeted: no throttle knows of them

_shaking: dict[str, int] = {}       # address: how many


class Session(Conversation):
    """One. *handler* is a Dialogue."""

    def __init__(self, stream: AnyStream, server: Server, handler: Dialogue,
                 timeout: float = 0.0) -> None:
        super().__init__(stream, server, handler, timeout)
        control = handler.settings.control
        self._patience = Patience(control.timeoutsmtpd, control.timeoutsession, control.minrate)
        self._began = 0.0           # to wait
        self._taken = self._messages = 0
        self._dialogue = handler
        self._plain = not self._is_to_shake_hands           # whether a text would be understood

    @property
    def _is_to_shake_hands(self) -> bool:
        """Before anything else is said."""
        return self._dialogue.options.tls == "implicit" and not self._dialogue.facts.tls

    async def open(self) -> str:
        """See Conversation."""
        dialogue = self._dialogue
        if dialogue.listener.proxy.contains(dialogue.facts.ip) and not await self._meet_client():
            return "closed"
        dialogue.tell_of_client()
        if dialogue.options.ident and not self._server.closed:
            dialogue.ask_who(self.stream.sock)
        if self._is_to_shake_hands:
            if self._server.closed:
                return self._hang_up()
            why = await self._shake_hands_first()
            if why:
                return why
            dialogue.offer()
        elif dialogue.facts.tls:
            dialogue.tell_of_tls()
        if self._server.closed:
            return "busy"
        if dialogue.options.greetdelay:
            await self._wait(dialogue.options.greetdelay)
        await dialogue.greet()
        return ""

    async def secure(self) -> str:
        """STARTTLS."""
        dialogue = self._dialogue
        take_over = dialogue.ucspi_tls
        why = await self._shake_hands() if take_over is None else self._take_over(take_over)
        if why:
            return why
        self._server.tls_started()
        dialogue.tls_started()
        return ""

    def allow(self, answered: bool) -> float:
        """See Conversation."""
        patience, dialogue = self._patience, self._dialogue
        if dialogue.taken != self._taken:
            patience.took(dialogue.taken - self._taken)
            self._taken = dialogue.taken
        if dialogue.messages != self._messages:
            patience.renew()
            self._messages = dialogue.messages
        elif answered or self._server.in_body:
            patience.go_on()
        self._began = monotonic()
        return patience.left

    def heard(self, data: bytes) -> None:
        """Before EHLO is answered, a client sends one command at a time (RFC 2920 section 3.1)."""
        self._patience.waited(monotonic() - self._began)
        if self._patience.left <= 0:        # no deadline ends a flood
            raise Expired
        facts = self._dialogue.facts
        if not facts.verb and b"\n" in data[:-1]:
            facts.hasty = True

    def late(self) -> tuple[str, Reply]:
        """See Conversation."""
        if not self._patience.session_is_first:
            return super().late()
        seconds = self._dialogue.settings.control.timeoutsession
        return "slow", reply(421, "4.4.2", f"no message within {seconds} s of waiting for you")

    # --- before the greeting ---

    def _hang_up(self) -> str:
        """There are too many already: a handshake costs more than 421 is worth."""
        self._server.take_output()
        return "busy"

    async def _meet_client(self) -> bool:
        """Whether the proxy says who the client is."""
        stream, dialogue = self.stream, self._dialogue
        facts = dialogue.facts
        facts.proxy = proxy = facts.ip
        stream.expire_after(PROXY_TIMEOUT)
        data = b""
        found = None
        try:
            while found is None:
                piece = await stream.read()
                data += piece
                if not piece:
                    raise ProtocolError("closed before the PROXY protocol")
                found = parse_proxy(data)
        except (ProtocolError, Expired) as error:
            log.event("proxy_refused", session=facts.session, proxy=proxy,
                      why=str(error) or f"nothing within {PROXY_TIMEOUT:g} s")
            return False
        said, used = found
        stream.unread(data[used:])
        dialogue.meet(Peer(ip=plain_ip(said.ip), port=said.port))
        return True

    async def _wait(self, seconds: int) -> None:
        """A client that does not wait for the greeting talks too early (RFC 5321 section 4.3.1)."""
        stream = self.stream
        stream.expire_after(seconds)
        try:
            data = await stream.read()
        except Expired:
            return
        self._dialogue.facts.early = bool(data)
        stream.unread(data)

    # --- TLS ---

    async def _shake_hands_first(self) -> str:
        """The same, of a client that has not been judged yet."""
        ip = self._dialogue.facts.ip
        if _shaking.get(ip, 0) >= MOST_HANDSHAKES:
            return self._hang_up()
        _shaking[ip] = _shaking.get(ip, 0) + 1
        try:
            return await self._shake_hands()
        finally:
            _shaking[ip] -= 1
            if not _shaking[ip]:
                del _shaking[ip]

    def _take_over(self, take_over: Callable[[], tuple[BlockingStream, str, str]]) -> str:
        """Somebody else shakes hands. Why it failed, or ""."""
        dialogue = self._dialogue
        facts = dialogue.facts
        try:
            self.stream, facts.tls, facts.cipher = take_over()
        except Expired:
            log.event("tls_refused", session=facts.session, ip=facts.ip, why="no handshake in time")
            return "tls"
        dialogue.tell_of_tls()
        return ""

    async def _shake_hands(self) -> str:
        """Why it failed, or ""."""
        from mqmail.net.servertls import start_server
        from mqmail.net.tls import TlsFailed
        dialogue = self._dialogue
        facts = dialogue.facts
        self._plain = False
        try:
            context = dialogue.settings.context(dialogue.options)
            tls = await start_server(self.stream, context, HANDSHAKE_TIMEOUT)  # type: ignore[arg-type]
        except (TlsFailed, BadFile) as error:
            log.event("tls_refused", session=facts.session, ip=facts.ip, why=str(error))
            return "tls"
        self.stream = tls
        self._plain = True
        self._note(tls)
        return ""

    def _note(self, tls: TlsStream) -> None:
        from mqmail.net.servertls import binding_of, name_of
        dialogue = self._dialogue
        facts = dialogue.facts
        facts.tls, facts.cipher = tls.version, tls.cipher
        facts.certificate = name_of(tls.certificate)
        facts.binding = binding_of(tls)
        dialogue.tell_of_tls()

    def say_goodbye(self, answer: Reply) -> None:
        """Not in plain where TLS is expected."""
        if self._plain:
            return super().say_goodbye(answer)
        self._server.close(answer)
        self._server.take_output()
        return self.stream.close()
