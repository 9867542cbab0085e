"""TLS as a server: contexts for the certificates of control/tlscertificates, and the handshake.

A context is made once for each certificate, lowest version and wish for a client's certificate; the
keys of session tickets belong to it. Processes that are forked from the one that made it resume each
other's sessions; after a reload with new certificates each process only its own.
"""

from __future__ import annotations

import os
import pwd
import ssl
import sys
import time

from mqmail.base import files
from mqmail.base.failure import BadFile
from mqmail.net.certificate import end_point, validity
from mqmail.net.tls import TlsStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from mqmail.control.certificates import Certificates
    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream

    Wish = tuple[str, str]      # lowest version, and clientcert: no, ask, require

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT = {"no": ssl.CERT_NONE, "ask": ssl.CERT_OPTIONAL, "require": ssl.CERT_REQUIRED}
_LIMIT = 200        # characters of a client's name
_NO_PAIR = "not a certificate and its key in PEM, or the key has a password"
_LARGEST = 1 << 20  # octets of a certificate's file


class Context(ssl.SSLContext):
    """*end*: its certificate's end point for channel binding (RFC 5929 section 4)."""

    end = b""


def _passed_over(found: Any) -> None:
    """What Python has nobody to raise to. Of a client that asks for a host in octets above 127, which
    ends the handshake, and is logged with it, no traceback is wanted."""
    if not (found.exc_type is UnicodeDecodeError and type(found.object) is bytes):
        sys.__unraisablehook__(found)


class ServerTls:
    """The contexts for *certificates* (not empty) and all *wishes*. Clients are verified against
    *authorities*, a file, or the system's if that is "". Raises BadFile."""

    def __init__(self, certificates: Certificates, authorities: str, wishes: Iterable[Wish]) -> None:
        sys.unraisablehook = _passed_over
        self.state = state_of(certificates, authorities, wishes)
        self._certificates = certificates
        self._authorities = authorities
        self._contexts = {(pair, wish): self._new(pair, wish)
                          for pair in set(certificates.files.values()) for wish in set(wishes)}

    def context(self, minimum: str, client: str) -> Context:
        """How to talk as a server that is asked for no name yet."""
        return self._contexts[self._certificates.find(""), (minimum, client)]

    def _new(self, pair: tuple[str, str], wish: Wish) -> Context:
        context = Context(ssl.PROTOCOL_TLS_SERVER)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 1
        context.minimum_version = _VERSIONS[wish[0]]
        context.verify_mode = _CLIENT[wish[1]]
        context.end = _load(context, *pair)
        if wish[1] != "no":
            _trust(context, self._authorities)

        if len(set(self._certificates.files.values())) == 1:
            return context      # whatever name is asked for

        def choose(tls: ssl.SSLObject, name: str | None, _context: object) -> None:
            tls.context = self._contexts[self._certificates.find(name or ""), wish]

        context.sni_callback = choose
        return context


def state_of(certificates: Certificates, authorities: str, wishes: Iterable[Wish]) -> Any:
    """What tells whether contexts have to be made anew: files and their times."""
    paths = {path: "tlscertificates" for pair in certificates.files.values() for path in pair}
    if authorities:
        paths[authorities] = "tlsclientauthorities"
    stamps = [_stamp(path, paths[path]) for path in sorted(paths)]
    return certificates, authorities, frozenset(wishes), stamps


def _stamp(path: str, control: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise BadFile(f"{path}: {_denied(error)}: see control/{control}") from None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _load(context: Context, certificate: str, key: str) -> bytes:
    """Take them in; the certificate's end point. No password is asked for."""
    try:
        for path in (certificate, key):     # load_cert_chain does not say which it cannot read
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        context.load_cert_chain(certificate, key, password=lambda: b"")
        return end_point(_first(certificate))
    except ssl.SSLError as error:
        why = _reason(error) or _NO_PAIR
        raise BadFile(f"{certificate}, {key}: {why}: see control/tlscertificates") from None
    except OSError as error:
        raise BadFile(f"{error.filename}: {_denied(error)}: see control/tlscertificates") from None


def _first(path: str) -> bytes:
    """The first certificate in a file, in DER; b"" if it has none. Raises OSError."""
    text = files.read_bounded(path, _LARGEST).decode("ascii", "replace")
    _, header, rest = text.partition(ssl.PEM_HEADER)
    body, footer, _ = rest.partition(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(header + body + footer) if footer else b""


def outdated(certificates: Certificates, now: float) -> Iterator[str]:
    """What is wrong with the dates of certificates that can be used else. Raises OSError."""
    today = time.strftime("%Y%m%d%H%M%S", time.gmtime(now))
    for path in sorted({certificate for certificate, _ in certificates.files.values()}):
        try:
            first, last = validity(_first(path))
        except (ValueError, IndexError):
            continue            # what OpenSSL takes and we do not understand
        for day, is_wrong, words in ((first, today < first, "is not valid before"),
                                     (last, last < today, "has expired on")):
            if is_wrong:
                yield (f"{path}: {words} {day[:4]}-{day[4:6]}-{day[6:8]}: put a renewed one there: see"
                       " control/tlscertificates")


def _reason(error: ssl.SSLError) -> str:
    """``key values mismatch``."""
    return (error.reason or "").replace("_", " ").lower()


def _denied(error: OSError) -> str:
    """Why, and who must be able to read it."""
    if not isinstance(error, PermissionError):
        return error.strerror or str(error)
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = f"uid {os.geteuid()}"
    hint = " (mq-setup --repair)" if str(error.filename)[:4] == "tls/" else ""
    return f"{error.strerror}: {name} must be able to read it{hint}"


def _trust(context: ssl.SSLContext, authorities: str) -> None:
    try:
        if authorities:
            context.load_verify_locations(authorities)
        else:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    except OSError as error:
        why = _reason(error) if isinstance(error, ssl.SSLError) else _denied(error)
        raise BadFile(f"{authorities}: {why}: see control/tlsclientauthorities") from None


async def start_server(stream: Stream | BlockingStream, context: Context, seconds: float) -> TlsStream:
    """Shake hands with the client at the other end of *stream*, for at most *seconds*. Raises
    TlsFailed, with the stream closed."""
    return await TlsStream(stream, context, server=True).begin(seconds)


def binding_of(tls: TlsStream) -> bytes:
    """The end point of our own certificate in this session."""
    context = tls.context
    return context.end if isinstance(context, Context) else b""


def name_of(certificate: dict[str, Any]) -> str:
    """Whom a verified certificate is for: its first mail address, else its first host, else the common
    name; "" without one that can be shown."""
    names = [*certificate.get("subjectAltName", ()),
             *[pair for rdn in certificate.get("subject", ()) for pair in rdn]]
    for wanted in ("email", "emailAddress", "DNS", "commonName"):
        for kind, text in names:
            if kind == wanted and isinstance(text, str) and text.isprintable() \
                    and 0 < len(text) <= _LIMIT:
                return text
    return ""
