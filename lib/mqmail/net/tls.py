"""TLS over a stream, with memory buffers: the same interface as the stream below, under both shells.

``start_client`` shakes hands. The contexts do not check whom a certificate is for: ``names_match`` of
net/certificate.py does. Whoever imports this pays for ``ssl``.
"""

from __future__ import annotations

import ssl

from mqmail.mail import shown
from mqmail.net.certificate import end_point, names_match
from mqmail.net.expired import Expired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream

__all__ = ["TlsFailed", "TlsStream", "client_context", "names_match", "start_client"]

READ_SIZE = 16384           # octets of a record (RFC 8446 section 5.1)
MOST_HELD = 16384           # octets that wait for others to leave with
MOST_SILENT = 1 << 20       # octets of TLS in a row without any of the application's
LONGEST_WHY = 200           # characters
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_contexts: dict[tuple[bool, str, str], ssl.SSLContext] = {}


class TlsFailed(Exception):
    """No TLS could be had; str() says why: printable, bounded."""


def client_context(verify: bool, minimum: str, authorities: str) -> ssl.SSLContext:
    """How to talk as a client, the same object for the same arguments.

    *verify*: the certificate must be vouched for by *authorities*, a PEM file, or by the system's if
    that is "". *minimum* is "1.2", "1.3" or "". Raises OSError, naming the file, when it is bad.

    "" is 1.2 with *verify*. Without it this is opportunistic TLS, where what is not encrypted badly is
    not encrypted at all (RFC 7435 section 3): all that OpenSSL has been built with is good enough, old
    versions and short keys too. A caller who would rather not send than that says "1.2".
    """
    key = verify, minimum, authorities
    if key not in _contexts:
        _contexts[key] = _new_context(*key)
    return _contexts[key]


def forget_contexts() -> None:
    """Files that contexts were made of may hold something else now."""
    _contexts.clear()


def _new_context(verify: bool, minimum: str, authorities: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.check_hostname = False
    if minimum or verify:
        context.minimum_version = _VERSIONS[minimum or "1.2"]
        context.set_ciphers("DEFAULT")
    else:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    elif authorities:
        try:
            context.load_verify_locations(authorities)
        except OSError as error:        # ssl.SSLError is one
            raise OSError(error.errno, error.strerror or str(error), authorities) from None
    else:
        context.load_default_certs()
    return context


async def start_client(stream: Stream | BlockingStream, context: ssl.SSLContext, server_name: str,
                       seconds: float) -> TlsStream:
    """Shake hands with the server at the other end of *stream*, naming *server_name* (SNI; "": do
    not). Raises TlsFailed, with the stream closed."""
    try:
        early = stream.read_now()
        if early is not None:       # RFC 3207 section 6: it would pass for what came under TLS
            raise TlsFailed("the server did not wait for the handshake" if early
                            else "connection closed before the handshake")
        tls = _wrapped(stream, context, server_name.rstrip("."))
    except TlsFailed:
        stream.close()
        raise
    return await tls.begin(seconds)


def _wrapped(stream: Stream | BlockingStream, context: ssl.SSLContext, name: str) -> TlsStream:
    try:
        return TlsStream(stream, context, name)
    except (ValueError, TypeError):     # TypeError: a NUL
        raise TlsFailed(shown.clean(f"{name} cannot be a server's name", False, LONGEST_WHY)) from None


class TlsStream:
    """TLS over *stream*; as a client that names *server_name*, or as a server. What is read is not kept
    here beyond one read of the stream below, what is written not beyond MOST_HELD and a record: it
    leaves, in one piece, as soon as something is to be read, or with the end."""

    __slots__ = ("_ended", "_incoming", "_is_server", "_outgoing", "_plain", "_silent", "_stream",
                 "_tls")

    def __init__(self, stream: Stream | BlockingStream, context: ssl.SSLContext, server_name: str = "",
                 server: bool = False) -> None:
        self._stream = stream
        self._is_server = server
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server, server_name or None)
        self._plain = b""       # decrypted, not yet read
        self._ended = False
        self._silent = 0

    async def begin(self, seconds: float) -> TlsStream:
        """Shake hands, for at most *seconds*. Itself, or TlsFailed with the stream closed."""
        self._stream.expire_after(seconds)
        try:
            await self._handshake()
        except TlsFailed:
            self._stream.close()
            raise
        except Expired:
            self._stream.close()
            raise TlsFailed(f"no handshake within {seconds:g} s") from None
        return self

    async def _handshake(self) -> None:
        """The client begins."""
        if self._is_server:
            await self._take()
        while not self._shake():
            await self._take()
        self._decrypt()

    async def _take(self) -> None:
        raw = await self._stream.read()
        if not raw:
            raise TlsFailed("connection closed during the handshake")
        self._incoming.write(raw)

    def _shake(self) -> bool:
        """Whether the handshake is complete. What it says is sent, but for a server's session tickets
        (RFC 8446 section 4.6.1): they leave with a greeting, or as soon as the client is to speak."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()       # the alert that says so
            raise TlsFailed(_why(error)) from None
        if not self._is_server or self.version != "TLSv1.3":
            self._flush()
        return True

    # --- what has been agreed on ---

    @property
    def version(self) -> str:
        """``TLSv1.3``."""
        return self._tls.version() or ""

    @property
    def cipher(self) -> str:
        """``TLS_AES_256_GCM_SHA384``."""
        agreed = self._tls.cipher()
        return agreed[0] if agreed else ""

    @property
    def certificate(self) -> dict[str, Any]:
        """The peer's, as ssl has it; empty when it was not verified, or holds what ssl cannot read."""
        try:
            return self._tls.getpeercert() or {}
        except (ValueError, ssl.SSLError):      # a name in octets above 127
            return {}

    @property
    def context(self) -> ssl.SSLContext:
        """The one in use: a server's may have been chosen by the name that the client asked for."""
        return self._tls.context

    def channel_binding(self, kind: str) -> bytes:
        """What binds an authentication to this connection (RFC 5929), for a client; b"" when there is
        nothing of this *kind*. TLS 1.3 has no tls-unique (RFC 8446 appendix C.5)."""
        if kind == "tls-unique" and self.version != "TLSv1.3":
            return self._tls.get_channel_binding(kind) or b""
        if kind == "tls-server-end-point":
            return end_point(self._tls.getpeercert(binary_form=True) or b"")
        return b""

    # --- reading ---

    async def read(self) -> bytes:
        """The next octets; b"" at the end. SMTP says itself where a message ends, so an end without
        close_notify is one like another. Raises Expired.

        A peer may ask for answers of TLS itself without end (KeyUpdate, RFC 8446 section 4.6.3): it has
        to read them."""
        while not self._plain and not self._ended:
            self._flush()
            await self._stream.drain()
            self._receive(await self._stream.read())
        plain, self._plain = self._plain, b""
        return plain

    def unread(self, data: bytes) -> None:
        """Put octets back: the next read gives them."""
        self._plain = data + self._plain

    def read_now(self) -> bytes | None:
        """What can be read without waiting; None: nothing yet."""
        if not self.has_input():
            return None
        plain, self._plain = self._plain, b""
        return plain

    def has_input(self) -> bool:
        """Whether octets, or the end, can be read now. Session tickets are neither."""
        while not self._plain and not self._ended:
            raw = self._stream.read_now()
            if raw is None:
                return False
            self._receive(raw)
            self._flush()
        return True

    def _receive(self, raw: bytes) -> None:
        self._silent += len(raw)
        if not raw or self._silent > MOST_SILENT:
            self._ended = True
            return
        self._incoming.write(raw)
        self._decrypt()

    def _decrypt(self) -> None:
        """What came, record by record; asking for more than there is would cost an exception."""
        found = []
        try:
            while self._incoming.pending and not self._ended:
                piece = self._tls.read(READ_SIZE)
                found.append(piece)
                self._ended = not piece
        except ssl.SSLWantReadError:        # the rest of a record is still to come
            pass
        except ssl.SSLError:        # not what the peer sent, or not TLS
            self._ended = True
        if found:
            self._plain += b"".join(found)
            self._silent = 0

    # --- writing ---

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send with the next read, or the end; what is lost shows at the next read. Descriptors do not
        pass through TLS: ValueError."""
        if fds:
            raise ValueError("descriptors do not pass through TLS")
        if self.closed or not data:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view):]
        except ssl.SSLError:
            self._ended = True
        if self._outgoing.pending > MOST_HELD:
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._stream.write(self._outgoing.read())

    async def drain(self) -> None:
        """Wait until little is left to send. Raises Expired at the deadline."""
        await self._stream.drain()

    # --- as the stream below ---

    def take_fds(self) -> list[int]:
        """Descriptors that came with what was read; the caller owns them."""
        return self._stream.take_fds()

    def expire_after(self, seconds: float) -> None:
        """From now, a read or drain that waits longer than this raises Expired; 0: for ever."""
        self._stream.expire_after(seconds)

    def expire(self) -> None:
        """The deadline has passed: wake whoever waits (event loop only)."""
        self._stream.expire()  # type: ignore[union-attr]

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._stream.closed

    @property
    def sock(self) -> socket | None:
        """The socket below."""
        return self._stream.sock

    def close(self) -> None:
        """Say close_notify without waiting for the peer's, and close."""
        if not self.closed:
            try:
                self._tls.unwrap()
            except ssl.SSLError:        # the peer's is still to come, or there was no handshake
                pass
            self._flush()
        self._stream.close()


def _why(error: ssl.SSLError) -> str:
    """``wrong version number``, ``certificate has expired``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = error.verify_message
    else:
        text = (error.reason or str(error)).replace("_", " ").lower()
    return shown.clean(text, False, LONGEST_WHY)
