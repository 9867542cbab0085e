"""Delivery as an LMTP service: the application over the server core that mq-local is.

One connection, blocking, one recipient after the other; parallel deliveries are several processes.
"""

from __future__ import annotations

import os

from mqmail.base import program, xtext
from mqmail.base.failure import Failure, Permanent
from mqmail.local.deliver import Deferred, Delivered, Failed, Mail, Replaced, deliver
from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, elsewhere, reply
from mqmail.xmtp.server import Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.local.deliver import Verdict
    from mqmail.local.plan import User

EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "XMQ")
_LIMITS = Limits(recipients=10000, errors=1000, refused=1000000, idle=0)
_ONLY_XFD = reply(502, "5.5.1", "the body comes by XFD here")


def make_server(host: str) -> Server:
    """The server core of a delivery service, its greeting said."""
    server = Server("lmtp", host, EXTENSIONS, _LIMITS)
    server.greet()
    return server


class Delivery:
    """Handles one session's events. *whose(address)* gives the User, or raises Failure; *flush()* sends
    what has been answered."""

    def __init__(self, server: Server, whose: Callable[[str], User], flush: Callable[[], None]) -> None:
        self._server = server
        self._whose = whose
        self._flush = flush

    async def settle(self) -> None:
        """Everything is answered at once."""

    def handle(self, event: Any) -> None:
        """Answer one event of the core."""
        kind = type(event)
        if kind is events.BodyFile:
            return self._deliver_all(event)
        if kind is events.Rcpt:
            return self._server.answer(event, self._rcpt(event.address))
        if kind is events.Data:
            return self._server.answer(event, _ONLY_XFD)
        if kind in (events.Reset, events.Quit, events.Body, events.BodyFailed):
            return None
        return self._server.answer(event)

    def _rcpt(self, address: str) -> Reply | None:
        try:
            self._whose(address)
        except (Failure, OSError) as error:
            return refusal(error)
        return None

    def _deliver_all(self, event: events.BodyFile) -> None:
        """One delivery for each recipient, each answered as soon as it is done."""
        mail = self._server.mail
        assert mail is not None
        try:
            for number, rcpt in enumerate(list(self._server.accepted)):
                self._server.answer_recipient(number, self._deliver(event, mail, rcpt.address))
                self._flush()
        finally:
            os.close(event.fd)

    def _deliver(self, event: events.BodyFile, mail: events.Mail, address: str) -> Reply:
        try:
            user = self._whose(address)
            return answer(deliver(user, Mail(event.fd, event.size, mail.sender, address, mail.xid)))
        except (Failure, OSError) as error:
            return refusal(error)
        except Exception as error:  # noqa: BLE001  a bug of ours is temporary
            program.bug(error, id=mail.xid)
            return reply(451, "4.3.0", "internal trouble")


def answer(verdict: Verdict) -> Reply:
    """What a verdict is in LMTP; forwards are a 551."""
    if isinstance(verdict, Delivered):
        return _said(250, "2.0.0", "; ".join(verdict.texts) or "thrown away as told")
    if isinstance(verdict, Replaced):
        return elsewhere([("", address, sender or "") for address, sender in verdict.addresses])
    if isinstance(verdict, Deferred):
        return _said(451, verdict.status, verdict.text)
    assert isinstance(verdict, Failed)
    return _said(550, verdict.status, verdict.text)


def _said(code: int, status: str, text: str) -> Reply:
    """A user's program may have written *text*: a word ``retry=1`` in it is not to count as a fact."""
    if "=" in text:
        text = f"said={xtext.encode(f'{code} {status} {text}')}"
    return reply(code, status, text)


def refusal(error: Failure | OSError) -> Reply:
    """A failure as a reply."""
    if isinstance(error, Failure):
        return reply(550 if isinstance(error, Permanent) else 451, error.status, error.text)
    return reply(451, "4.3.0", f"a mailbox cannot be looked at: {error.strerror}")
