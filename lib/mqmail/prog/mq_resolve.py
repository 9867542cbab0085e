"""mq-resolve: who is this recipient, and where does mail for them go.

Usage:
  mq-resolve [--home DIR] [--ready-fd N]
  mq-resolve --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once questions are answered
  --help          this text

Speaks LMTP (with XMQ) on run/resolve.sock and answers each RCPT with 551 and the addresses that take
its place, 550 or 4xx; it never takes a message. Who may ask is control/injectors.
"""

from __future__ import annotations

import gc

from mqmail.base import program, ready, xtext
from mqmail.base.failure import Failure
from mqmail.control import reader, resolve
from mqmail.control.accounts import Accounts
from mqmail.net import daemon
from mqmail.net.service import Service, greet_trusted
from mqmail.net.stream import Deadlines
from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, elsewhere, reply
from mqmail.xmtp.server import SERVICE_EXTENSIONS, Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.control.resolve import Tables
    from mqmail.net.stream import Stream

SOCKET = "run/resolve.sock"
CONTROL = (*resolve.CONTROL, "relayclients", "injectors")
_LIMITS = Limits(recipients=100000, errors=1000000, refused=1000000, idle=0)
_BUG = reply(451, "4.3.0", "internal trouble, try again later")


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    begun = daemon.start("mq-resolve", __doc__, argv)
    service = Resolver(begun.callers(SOCKET))
    loop = daemon.new_loop()
    listener = Service(loop, Deadlines(loop), begun.sockets[SOCKET], service.session, most=5000)
    loop.call_soon(ready.announce, begun.ready)
    daemon.run_loop(loop, lambda stopped: listener.stop(10.0, stopped), service.reload)
    return 0


class Resolver:
    """The tables in force, and a session for each caller."""

    control: Control
    tables: Tables

    def __init__(self, callers: frozenset[int] | None) -> None:
        self._callers = callers
        self.reload()

    def reload(self) -> None:
        """Read the control files. Raises BadFile, and then nothing has changed."""
        control = reader.load(".", CONTROL)
        tables = resolve.tables_of(control, Accounts().home_of)
        self.control, self.tables = control, tables
        gc.collect()
        gc.freeze()     # large tables do not change: the collector need not go through them again

    def session(self, stream: Stream) -> tuple[Server, Questions, Callable[[str], None]]:
        """The core, the handler and the end of a session."""
        server = Server("lmtp", self.control.me, SERVICE_EXTENSIONS, _LIMITS)
        greet_trusted(stream, server, self.control.injectors, self._callers,
                      "may not ask where mail goes")
        return server, Questions(self, server), lambda _why: None


class Questions:
    """One session. A transaction has no message: each of its RCPTs is a question."""

    def __init__(self, service: Resolver, server: Server) -> None:
        self._service = service
        self._server = server
        self._may_relay = False
        self._null_sender = False

    async def settle(self) -> None:
        """Everything is answered at once."""

    def handle(self, event: Any) -> None:
        """Answer one event of the core."""
        kind = type(event)
        if kind is events.Rcpt:
            self._server.answer(event, self._rcpt(event))
        elif kind is events.Mail:
            self._server.answer(event, self._mail(event))
        elif kind not in (events.Reset, events.Quit):
            self._server.answer(event)

    def _mail(self, mail: events.Mail) -> Reply | None:
        try:
            facts = xtext.parse_facts(mail.xvia.split(" ")) if mail.xvia else {}
        except ValueError:
            return reply(501, "5.5.4", "bad XVIA")
        self._may_relay = bool(mail.xid) or self._is_relay(facts)
        self._null_sender = not mail.sender
        return None

    def _is_relay(self, facts: dict[str, str]) -> bool:
        """Whether who sends this may send to other domains: a program on this host, a client that
        xmtpd knows, one of our networks."""
        return ("ip" not in facts or facts.get("relay") == "1"
                or self._service.control.relayclients.contains(facts["ip"]))

    def _rcpt(self, rcpt: events.Rcpt) -> Reply:
        """The answer; one address that we stumble over is put off, and the others have theirs."""
        try:
            answer = resolve.resolve(rcpt.address, self._service.tables, self._may_relay,
                                     self._null_sender)
        except Failure as failure:
            return reply(451, failure.status, failure.text)
        except OSError as error:
            return reply(451, "4.3.0", f"a mailbox cannot be looked at: {error.strerror}")
        except Exception as error:  # noqa: BLE001  a bug of ours is temporary
            program.bug(error, recipient=rcpt.address)
            return _BUG
        if answer.targets:
            return elsewhere(list(answer.targets))
        return reply(answer.code, answer.status, answer.text)
