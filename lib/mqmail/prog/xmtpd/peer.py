"""Who the client is: by what tcpserver and its like say in the environment, by the kernel, or by
``--local``. All we know of it before it speaks."""

from __future__ import annotations

import os
from _socket import AF_UNIX, socket

from mqmail.base import unix
from mqmail.base.failure import Temporary
from mqmail.base.value import value
from mqmail.control.networks import ip_text, parse_ip
from mqmail.xmtp.reply import Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LOCAL_PROTOCOLS = ("UNIX", "IPC")      # unixserver, s6-ipcserver
_SUFFIX = frozenset(chr(c) for c in range(33, 127) if chr(c) not in '"(),:;<>[\\]')


@value
class Peer:
    """*ip* "" when there is none; *host* its name if somebody looked it up; *uid* of a local user.
    *relay*: may send to other domains. *suffix* goes behind each recipient (RELAYCLIENT). *refusal*
    answers every RCPT (RBLSMTPD). *databytes* None: as the control file says. *ident*: who it is by its
    own host's word (RFC 1413)."""

    ip: str = ""
    host: str = ""
    local: bool = False
    uid: str = ""
    relay: bool = False
    suffix: str = ""
    refusal: Reply | None = None
    databytes: int | None = None
    port: int = 0
    ident: str = ""


def local_user() -> Peer:
    """The user who started us."""
    return Peer(local=True, uid=str(os.getuid()), relay=True)


def of_environment(environ: Mapping[str, str], fd: int) -> Peer:
    """The peer of *fd* as UCSPI variables give it; without them (inetd) the kernel is asked. Raises
    Temporary for a variable that cannot be used."""
    protocol = environ.get("PROTO", "")
    if not protocol:
        found = of_descriptor(fd)
    elif protocol in _LOCAL_PROTOCOLS:
        uid = environ.get("UNIXREMOTEEUID") or environ.get("IPCREMOTEEUID") or ""
        found = Peer(local=True, uid=uid, relay=True)
    else:
        found = Peer(ip=_remote_ip(environ, protocol), host=environ.get("TCPREMOTEHOST", ""),
                     ident=_ident(environ.get("TCPREMOTEINFO", "")))
    return _with_orders(found, environ)


def _ident(user: str) -> str:
    if not user:
        return ""
    from mqmail.xmtp.ident import vetted  # rarely there
    return vetted(user)


def _remote_ip(environ: Mapping[str, str], protocol: str) -> str:
    """TCPREMOTEIP, or PROTO's own variable (TCP6REMOTEIP, SSLREMOTEIP)."""
    for name in (f"{protocol}REMOTEIP", "TCPREMOTEIP", "TCP6REMOTEIP"):
        if environ.get(name):
            return plain_ip(environ[name])
    return ""


def _with_orders(peer: Peer, environ: Mapping[str, str]) -> Peer:
    """What tcprules may say of a client: RELAYCLIENT, DATABYTES, RBLSMTPD."""
    suffix = environ.get("RELAYCLIENT", "")
    if not _SUFFIX.issuperset(suffix):
        raise Temporary(f"RELAYCLIENT {suffix!a} cannot end an address")
    return Peer(peer.ip, peer.host, peer.local, peer.uid, peer.relay or "RELAYCLIENT" in environ, suffix,
                _refusal(environ.get("RBLSMTPD", "")), _databytes(environ.get("DATABYTES")), peer.port,
                peer.ident)


def _refusal(text: str) -> Reply | None:
    """rblsmtpd's rule: a leading ``-`` refuses for good, other texts for now, "" lets it pass."""
    if text[:1] == "-":
        return reply(553, "5.7.1", text[1:])
    return reply(451, "4.7.1", text) if text else None


def _databytes(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Temporary(f"DATABYTES {text[:30]!a} is not a number of bytes")
    return int(text)


def of_descriptor(fd: int) -> Peer:
    """Whoever is at the other end of *fd*: an IP address, a local user, or (a pipe, a terminal) the
    user who started us."""
    try:
        sock = socket(fileno=fd)
    except OSError:
        return local_user()
    try:
        return of_socket(sock)
    finally:
        sock.detach()


def of_socket(sock: socket) -> Peer:
    """Whoever is at the other end of *sock*."""
    if sock.family == AF_UNIX:
        return Peer(local=True, uid=str(unix.peer_of(sock).uid), relay=True)
    try:
        ip, port = sock.getpeername()[:2]
    except OSError:                 # gone already
        return Peer()
    return Peer(ip=plain_ip(ip), port=port)


def plain_ip(text: str) -> str:
    """An address in its one spelling, without zone, an IPv4 one in IPv6's clothes (RFC 4291 2.5.5.2) as
    IPv4; "" for what is none."""
    try:
        return ip_text(*parse_ip(text))
    except ValueError:
        return ""
