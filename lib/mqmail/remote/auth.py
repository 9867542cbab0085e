"""AUTH with a host, as an entry of control/credentials says. Both shells."""

from __future__ import annotations

import base64
import os

from mqmail.net.tls import TlsStream
from mqmail.xmtp import sasl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.credentials import Entry
    from mqmail.net.session import Session
    from mqmail.remote.request import Request
    from mqmail.remote.shells import Shell
    from mqmail.xmtp.reply import Reply


async def authenticate(session: Session, entry: Entry, request: Request,
                       shell: Shell) -> tuple[Reply | None, str]:
    """(the host's refusal or None, why it failed: "" if it did not). Raises token.TokenFailed."""
    token = await shell.token(entry) if entry.program else ""
    offered = session.features.get("AUTH", "")
    nonce = base64.b64encode(os.urandom(18)).decode("ascii")
    try:
        exchange = sasl.choose(offered.split(), entry.mechanisms, entry.user, entry.secret, token,
                               _bindings(session), nonce, request.host, request.port)
    except ValueError as error:
        return None, str(error)
    if exchange is None:
        return None, f"no mechanism in common; the host offers {offered or 'none'}"
    failed = await session.authenticate(exchange)
    if failed is None:
        return None, ""
    if token:
        shell.token_refused(entry, token)
    return failed.reply, failed.why or session.broken


def _bindings(session: Session) -> dict[str, bytes]:
    """Channel bindings of the TLS session (RFC 5929), those that there are."""
    stream = session.stream
    if not isinstance(stream, TlsStream):
        return {}
    found = {kind: stream.channel_binding(kind) for kind in ("tls-unique", "tls-server-end-point")}
    return {kind: data for kind, data in found.items() if data}
