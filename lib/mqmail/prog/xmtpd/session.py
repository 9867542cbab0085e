"""A session's beginning, under both shells: the PROXY protocol, TLS, the greeting; and STARTTLS."""

from __future__ import annotations

from mqmail.base import log
from mqmail.net.converse import Conversation
from mqmail.net.expired import Expired
from mqmail.net.proxy import parse_proxy
from mqmail.prog.xmtpd.peer import Peer, plain_ip
from mqmail.xmtp.reply import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        self._dialogue = handler
        self._plain = handler.options.tls != "implicit"     # whether a text would be understood

    async def open(self) -> str:
        """See Conversation."""
        dialogue = self._dialogue
        if dialogue.listener.proxy.contains(dialogue.facts.ip) and not await self._meet_client():
            return "closed"
        dialogue.tell_of_client()
        if dialogue.options.tls == "implicit":
            if self._server.closed:
                return self._hang_up()
            why = await self._shake_hands_first()
            if why:
                return why
            dialogue.offer()
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
        if take_over is not None:
            facts = dialogue.facts
            self.stream, facts.tls, facts.cipher = take_over()
            dialogue.log("tls", version=facts.tls, cipher=facts.cipher, certificate="")
        else:
            why = await self._shake_hands()
            if why:
                return why
        self._server.tls_started()
        dialogue.tls_started()
        return ""

    def heard(self, data: bytes) -> None:
        """Before EHLO is answered, a client sends one command at a time (RFC 2920 section 3.1)."""
        facts = self._dialogue.facts
        if not facts.verb and b"\n" in data[:-1]:
            facts.hasty = True

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
        stream.unread(data[used:])      # type: ignore[union-attr]
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
        stream.unread(data)             # type: ignore[union-attr]

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

    async def _shake_hands(self) -> str:
        """Why it failed, or ""."""
        from mqmail.net.servertls import start_server
        from mqmail.net.tls import TlsFailed
        dialogue = self._dialogue
        facts = dialogue.facts
        context = dialogue.settings.context(dialogue.options)
        self._plain = False
        try:
            tls = await start_server(self.stream, context, HANDSHAKE_TIMEOUT)  # type: ignore[arg-type]
        except TlsFailed as error:
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
        dialogue.log("tls", version=facts.tls, cipher=facts.cipher, certificate=facts.certificate)

    def say_goodbye(self, answer: Reply) -> None:
        """Not in plain where TLS is expected."""
        if self._plain:
            return super().say_goodbye(answer)
        self._server.close(answer)
        self._server.take_output()
        return self.stream.close()
