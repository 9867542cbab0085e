"""A session with a host: connecting, greeting, TLS, AUTH, as the request's way demands. Both shells.

``open_session`` tries the addresses in turn and returns a Peer, or raises Unreachable with the verdict
for all recipients. Whatever the way demands and the host does not give is a deferral (4.7.x): mail waits
rather than goes in clear.
"""

from __future__ import annotations

from mqmail.base import log, xtext
from mqmail.base.failure import Temporary
from mqmail.net.expired import Expired
from mqmail.net.session import Session
from mqmail.remote.verdicts import Host, passed_on, put_off
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream
    from mqmail.net.tls import TlsStream
    from mqmail.remote.request import Request
    from mqmail.remote.settings import Settings
    from mqmail.remote.shells import Shell
    from mqmail.xmtp.reply import Reply

    Plain = Stream | BlockingStream

MOST_LINES = 100        # of a reply


class Unreachable(Exception):
    """No session with the host; ``verdict`` is for all its recipients."""

    def __init__(self, verdict: Reply) -> None:
        super().__init__(verdict.said())
        self.verdict = verdict


class _NoTls(Exception):
    """The handshake failed, and the way allows to go on without."""


class Peer:
    """An open session. ``host``: who it is. ``made``: when, by the shell's clock."""

    __slots__ = ("host", "made", "session")

    def __init__(self, session: Session, host: Host, made: float) -> None:
        self.session = session
        self.host = host
        self.made = made

    def greeting(self) -> Reply:
        """The answer to XHOP."""
        return reply(250, "2.0.0", xtext.facts({"host": self.host.label, "tls": self.host.tls}))


async def open_session(request: Request, settings: Settings, shell: Shell) -> Peer:
    """With the first of the addresses that talks to us."""
    if request.is_unix:
        return await _Opening(request, settings, shell, "").run()
    end = shell.now() + 2 * settings.timeouts.most
    failure: Unreachable | None = None
    for ip in request.addresses:
        try:
            return await _Opening(request, settings, shell, ip).run()
        except Unreachable as error:
            if failure is None or failure.verdict.code >= 500:      # final only if all say so
                failure = error
        if shell.now() > end:           # slow ones have had their time
            break
    assert failure is not None
    raise failure


class _Opening:
    """One address, or a Unix socket's path (*ip* is "" then)."""

    def __init__(self, request: Request, settings: Settings, shell: Shell, ip: str) -> None:
        self._request = request
        self._way = request.way
        self._settings = settings
        self._shell = shell
        self._ip = ip
        name = request.host.strip("[]")
        self._host = Host(f"{name}[{ip}]:{request.port}" if ip else name)

    async def run(self) -> Peer:
        """The session, with TLS if it can be had and is not unwanted."""
        level = "encrypt" if self._way.kind == "smtps" and self._way.tls == "may" else self._way.tls
        try:
            return await self._open(level)
        except _NoTls as failed:
            log.event("tls_failed", host=self._host.label, said=str(failed)[:300])
        return await self._open("none")

    async def _open(self, level: str) -> Peer:
        plain = await self._connect()
        kind, settings = "lmtp" if self._way.kind == "lmtp" else "smtp", self._settings
        try:
            stream = await self._wrap(plain, level) if self._way.kind == "smtps" else plain
            session = Session(stream, kind, settings.name, settings.timeouts, MOST_LINES)
        except BaseException:
            plain.close()
            raise
        limit = self._shell.limit(session, 2 * settings.timeouts.most)
        try:
            await self._prepare(session, level)
        except BaseException:
            session.close()
            raise
        finally:
            limit.cancel()
        return Peer(session, self._host, self._shell.now())

    async def _prepare(self, session: Session, level: str) -> None:
        if not await session.open():
            raise Unreachable(self._refusal(session))
        if self._way.kind != "smtps" and level != "none":
            await self._start_tls(session, level)
        if self._way.auth:
            await self._authenticate(session)

    async def _connect(self) -> Plain:
        settings, request = self._settings, self._request
        try:
            if request.is_unix:
                return await self._shell.connect_unix(request.host, settings.connect)
            return await self._shell.connect(self._ip, request.port, self._source(), settings.connect)
        except Expired:
            raise self._put_off("4.4.1", f"no connection within {settings.connect:g} s") from None
        except OSError as error:
            raise self._put_off("4.4.1", error.strerror or str(error)) from None

    def _source(self) -> str:
        """Our own address of the same family, if the way has one."""
        return next((ip for ip in self._way.sources if (":" in ip) == (":" in self._ip)), "")

    # --- TLS ---

    async def _wrap(self, plain: Plain, level: str) -> TlsStream:
        """TLS from the first octet."""
        from mqmail.net import tls
        seconds = self._settings.timeouts.of("STARTTLS")
        try:
            wrapped = await tls.start_client(plain, self._context(level), self._sni(), seconds)
        except tls.TlsFailed as failed:
            raise self._put_off("4.7.5", str(failed)) from None
        self._check(wrapped, level)
        return wrapped

    async def _start_tls(self, session: Session, level: str) -> None:
        if "STARTTLS" not in session.features:
            if level == "may":
                return None
            raise self._put_off("4.7.4", "TLS is required, and this host does not offer it")
        why = await session.start_tls(self._context(level), self._sni())
        if why and level == "may":
            raise _NoTls(why)           # also when it may be talked to: some close then
        if why:
            raise self._put_off("4.7.5", why)
        return self._check(session.stream, level)  # type: ignore[arg-type]

    def _context(self, level: str) -> SSLContext:
        from mqmail.net import tls
        minimum = self._way.minimum or ("" if level == "may" else "1.2")
        try:
            return tls.client_context(level == "verify", minimum, self._settings.authorities)
        except OSError as error:
            raise self._put_off("4.3.5", f"{error.filename}: {error.strerror}") from None

    def _sni(self) -> str:
        return self._way.sni or self._request.host.strip("[]")

    def _check(self, stream: TlsStream, level: str) -> None:
        """The names of a certificate count for level ``verify`` alone."""
        from mqmail.net import tls
        if level == "verify" and not tls.names_match(stream.certificate, self._way.names):
            raise self._put_off("4.7.5", f"the certificate is not for {' or '.join(self._way.names)}")
        self._host = Host(self._host.label, f"{stream.version}:{stream.cipher}")

    # --- AUTH ---

    async def _authenticate(self, session: Session) -> None:
        """As the entry of control/credentials says; never in clear over a network."""
        from mqmail.remote.auth import authenticate
        entry = self._settings.credentials.entry(self._way.auth)
        if entry is None:
            raise self._put_off("4.3.5", f"control/credentials has no entry {self._way.auth}")
        if not self._is_private():
            raise self._put_off("4.7.0", "AUTH needs TLS, which this host did not give")
        try:
            answer, why = await authenticate(session, entry, self._request, self._shell)
        except Temporary as failure:        # there is no token
            answer, why = None, failure.text
        if why:
            log.event("auth_failed", host=self._host.label, entry=self._way.auth, said=why[:300])
            raise self._put_off("4.7.8" if answer is not None else "4.7.0", f"AUTH: {why}")

    def _is_private(self) -> bool:
        """Under TLS, or on this host."""
        return bool(self._host.tls) or not self._ip or self._ip == "::1" or self._ip.startswith("127.")

    # --- what it means ---

    def _put_off(self, status: str, why: str) -> Unreachable:
        return Unreachable(put_off(status, self._host, why))

    def _refusal(self, session: Session) -> Reply:
        """What a session that could not be opened means."""
        if session.refusal is None:
            return put_off("4.4.2", self._host, session.broken)
        if session.refusal.code < 500:
            return put_off(session.refusal.status or "4.4.1", self._host, session.broken)
        return passed_on(session.refusal, self._host)
