"""destinations: which service serves the recipients of each destination."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.hosts import parse_port, split_port
from mqmail.control.values import domain as check_domain
from mqmail.control.values import number
from mqmail.mail.address import is_destination, is_ipv6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

DEFAULT_TIMEOUT = 600    # seconds; RFC 5321 4.5.3.2.6 grants the end of the data ten minutes
LONGEST_PATH = 107       # sun_path of Linux less its NUL
_FORM = ("write NAME:lmtp:unix:PATH or NAME:lmtp:tcp:HOST:PORT, then concurrency=N and timeout=S"
         " if wanted")


@value
class Destination:
    """An LMTP service: at the Unix socket *path* (relative to the home), or, when that is "", at TCP
    *host* and *port*. *concurrency* is the most sessions at a time, 0 holds all mail for it, None is
    the program's default; *timeout* in seconds is for each reply."""

    name: str
    path: str = ""
    host: str = ""
    port: int = 0
    concurrency: int | None = None
    timeout: int = DEFAULT_TIMEOUT


_REMOTE_TIMEOUT = 14400     # seconds: longer than mq-rspawn gives a slow host, or mail would go twice
BUILT_IN = {
    "new": Destination("new", "run/resolve.sock"),
    "mailbox": Destination("mailbox", "run/mailbox.sock"),
    "local": Destination("local", "run/local.sock"),
    "remote": Destination("remote", "run/remote.sock", timeout=_REMOTE_TIMEOUT),
    "error": Destination("error", "run/bounce.sock"),
}


@value
class Destinations:
    """Name to Destination, the built-in ones included."""

    services: dict[str, Destination]

    def lookup(self, name: str) -> Destination | None:
        """The service of destination *name*, None when there is none."""
        return self.services.get(name)


def parse_destinations(lines: Lines, _me: str) -> Destinations:
    """Lines ``NAME:lmtp:unix:PATH`` or ``NAME:lmtp:tcp:HOST:PORT``, then ``option=value`` words."""
    given: dict[str, Destination] = {}
    for line in lines:
        destination = _parse(line)
        if destination.name in given:
            raise ValueError(f"{destination.name} is given twice: remove one of the lines")
        given[destination.name] = destination
    return Destinations({**BUILT_IN, **given})


def _parse(line: str) -> Destination:
    words = line.split()
    parts = words[0].split(":", 3)
    if len(parts) != 4:
        raise ValueError(f"{words[0]!a} is not a destination: {_FORM}")
    name, protocol, transport, address = parts
    if not is_destination(name):
        raise ValueError(f"{name!a} cannot name a destination: write at most 32 letters, digits,"
                         " - and _")
    if protocol != "lmtp" or transport not in ("unix", "tcp"):
        raise ValueError(f"{protocol}:{transport} is not known: {_FORM}")
    concurrency, timeout = _options(words[1:])
    if transport == "unix":
        return Destination(name, _path(address), concurrency=concurrency, timeout=timeout)
    host, port = split_port(address)
    if not is_ipv6(host):
        check_domain(host)
    return Destination(name, "", host, parse_port(port), concurrency, timeout)


def _path(text: str) -> str:
    if not text or len(text.encode()) > LONGEST_PATH:
        raise ValueError(f"{text[:60]!a} cannot be a socket's path: write 1 to {LONGEST_PATH} bytes")
    return text


def _options(words: list[str]) -> tuple[int | None, int]:
    """(concurrency or None, timeout)."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name in found or name not in ("concurrency", "timeout"):
            raise ValueError(f"{word!a} is not an option: {_FORM}")
        found[name] = text
    concurrency = number(found["concurrency"], "sessions", 0, 10000) if "concurrency" in found else None
    timeout = number(found["timeout"], "seconds", 1, 86400) if "timeout" in found else DEFAULT_TIMEOUT
    return concurrency, timeout
