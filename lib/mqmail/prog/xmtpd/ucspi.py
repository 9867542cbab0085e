"""TLS that is the business of whoever started us: from the first octet, as sslserver and s6-tlsserver do
it, or STARTTLS by UCSPI-TLS, as sslserver and s6-ucspitlsd have it.

https://web.archive.org/web/20150311223457/http://www.suspectclass.com/sgifford/ucspi-tls/ucspi-tls-qmail-howto.html
"""

from __future__ import annotations

import os

from mqmail.base.failure import Temporary
from mqmail.base.waiter import run
from mqmail.net.blocking import BlockingStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("SSLCTLFD", "SSLREADFD", "SSLWRITEFD")
LONGEST = 65536         # octets of what we are told of the TLS session
TIMEOUT = 15.0          # seconds for all of the handshake


def offered(environ: Mapping[str, str]) -> bool:
    """Whether it is there."""
    return all([environ.get(name) for name in NAMES])


def inside(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """(version, cipher) of a session that has been in TLS from its first octet."""
    if not environ.get("SSL_PROTOCOL") or offered(environ):
        return None
    return _agreed(environ)


def has_tls(environ: Mapping[str, str]) -> bool:
    """Whether others see to TLS."""
    return offered(environ) or inside(environ) is not None


def take_over() -> tuple[BlockingStream, str, str]:
    """Ask for TLS; (the stream inside it, version, cipher). Raises Temporary; Expired when there is no
    handshake within TIMEOUT."""
    control, reading, writing = [_descriptor(name) for name in NAMES]
    os.write(control, b"Y")
    found = _variables(control)
    os.close(control)
    return BlockingStream(reading, writing), *_agreed(found)


def _agreed(found: Mapping[str, str]) -> tuple[str, str]:
    return found.get("SSL_PROTOCOL") or "TLS", found.get("SSL_CIPHER") or "unknown"


def _descriptor(name: str) -> int:
    text = os.environ[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise Temporary(f"{name} {text[:30]!a} is not the number of a descriptor")
    return int(text)


def _variables(control: int) -> dict[str, str]:
    """``NAME=value`` texts, each ended by a NUL, the last by two."""
    stream, data = BlockingStream(control, control), b""
    stream.expire_after(TIMEOUT)
    while not data.endswith(b"\0\0") and data != b"\0" and len(data) < LONGEST:
        piece = run(stream.read())
        if not piece:
            break
        data += piece
    words = [word.decode("utf-8", "replace").partition("=") for word in data.split(b"\0")]
    return {name: text for name, _, text in words if text.isprintable()}
