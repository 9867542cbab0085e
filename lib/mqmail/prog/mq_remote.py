"""mq-remote: sends one message, read from standard input, to one host. Reports as qmail-remote does.

Usage:
  mq-remote [--home DIR] HOST SENDER RECIPIENT ...
  mq-remote --help

Options:
  --home DIR   the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --help       this text

HOST is written as in control/smtproutes: NAME, NAME:PORT, smtps:NAME, lmtp:/path, with "auth=NAME" and
the like behind it as one argument. MX records are not looked up.
"""

from __future__ import annotations

import os
import signal

from mqmail.base import files, homes, waiter
from mqmail.base.failure import Temporary, Usage
from mqmail.control import reader
from mqmail.control.routes import Routing, parse_hop
from mqmail.local.spool import spool
from mqmail.mail.address import BadAddress, is_ipv4, is_ipv6, needs_utf8, parse_path
from mqmail.mail.crlf import Body
from mqmail.mail.mxlist import MOST_ADDRESSES, preferred
from mqmail.net.expired import Expired
from mqmail.remote import settings
from mqmail.remote.carrier import SLOWEST, Carrier
from mqmail.remote.request import Request
from mqmail.remote.sending import Message
from mqmail.remote.shells import BlockingShell
from mqmail.xmtp.events import Mail, Rcpt
from mqmail.xmtp.reply import Reply, facts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mqmail.control.routes import Route
    from mqmail.remote.settings import Settings

CONTROL = (*settings.CONTROL, "tlspolicy")
_RECIPIENT = {2: b"r", 4: b"s", 5: b"h"}
_PIECE = 65536


def main(argv: list[str]) -> int:
    """Returns 0 once there is a report; what is wrong before that is a Failure."""
    from docopt import docopt
    found = docopt(__doc__, argv, True, None, True)
    sender, recipients = _path(found["SENDER"]), [_address(word) for word in found["RECIPIENT"]]
    try:
        route = parse_hop(found["HOST"], "")
    except ValueError as error:
        raise Usage(f"HOST: {error}") from None
    if not route.host:
        raise Usage("HOST is empty")
    eightbit = _Eightbit()
    fd, size = spool(eightbit.watch(_input()), os.environ.get("TMPDIR") or "/tmp")     # noqa: S108
    homes.enter(homes.chosen(found["--home"]))
    control = reader.load(".", CONTROL)
    way = Routing(tls=control.tlspolicy).way("", route)
    known = settings.from_control(control)
    request = Request(route.host, route.port, _addresses(route), way)
    utf8 = needs_utf8(sender) or any(needs_utf8(address) for address in recipients)
    mail = Mail(sender, size=size, eightbit=eightbit.seen, utf8=utf8)
    message = Message(mail, tuple([Rcpt(address) for address in recipients]), fd, size, lambda: True)
    _report(_send(request, known, message))
    return 0


def _path(word: str) -> str:
    """The sender: an address, or nothing, with or without brackets."""
    try:
        return parse_path(word if word[:1] == "<" else f"<{word}>").address
    except BadAddress as error:
        raise Usage(f"{word!a} is no address: {error}") from None


def _address(word: str) -> str:
    address = _path(word)
    if not address:
        raise Usage("a recipient is empty")
    return address


class _Eightbit:
    """Whether a message has octets above 127."""

    def __init__(self) -> None:
        self.seen = False

    def watch(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """*pieces* as they are."""
        for piece in pieces:
            self.seen = self.seen or not piece.isascii()
            yield piece


def _input() -> Iterator[bytes]:
    body = Body()
    while piece := os.read(0, _PIECE):
        yield body.feed(piece)
    yield body.end()


def _addresses(route: Route) -> tuple[str, ...]:
    """Those of the host, in the order that the way prefers."""
    if route.is_socket:
        return ()
    if is_ipv4(route.host) or is_ipv6(route.host):
        return (route.host,)
    import socket
    try:
        found = socket.getaddrinfo(route.host, route.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Temporary(f"{route.host}: {error.strerror}") from None
    addresses = list(dict.fromkeys([str(entry[4][0]) for entry in found]))
    return preferred(addresses, route.way.prefer)[:MOST_ADDRESSES]


def _send(request: Request, known: Settings, message: Message) -> list[Reply]:
    """The verdict for each recipient. The whole has a limit too: a host that trickles is cut off."""
    verdicts: dict[int, Reply] = {}

    def answer(numbers: Iterable[int], verdict: Reply) -> None:
        verdicts.update(dict.fromkeys(numbers, verdict))

    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(int(5 * known.timeouts.most + message.size / SLOWEST) + 60)
    carrier = Carrier(request, lambda: known, BlockingShell())
    waiter.run(carrier.carry(message, answer))
    signal.alarm(0)
    carrier.close()
    return [verdicts[number] for number in range(len(message.recipients))]


def _too_long(_number: int, _frame: object) -> None:
    raise Expired


def _report(verdicts: list[Reply]) -> None:
    """qmail-remote(8): ``r``, ``s`` or ``h`` and text for each recipient, then ``K``, ``Z`` or ``D``,
    each with a NUL behind it."""
    out = []
    for verdict in verdicts:
        facts = facts_of(verdict.text)
        host, tls = facts.get("host", ""), facts.get("tls", "")
        where = (f"{host} ({tls}) said: " if tls else f"{host} said: ") if host else ""
        text = where + facts.get("said", "")
        out.append(_RECIPIENT[verdict.code // 100] + f"{verdict.status} {text}\n".encode() + b"\0")
    best = min([verdict.code // 100 for verdict in verdicts])
    words = {2: "Kthe host has taken the message for each recipient with r",
             4: "Zno recipient was taken now", 5: "Dno recipient was taken"}
    files.write_all(1, b"".join(out) + words[best].encode() + b"\n\0")


