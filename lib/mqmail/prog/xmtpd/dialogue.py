"""One client's session: recipients are asked about, messages handed to the queue, the client answered.

The one application of both shells (the session's beginning and TLS are in session.py). It decides
nothing about addresses and keeps nothing: policy's checks and mq-resolve say who is taken, mq-queue when
a message is safe. What goes wrong on our side is always 4xx.
"""

from __future__ import annotations

import time

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.control.loginnames import fold
from mqmail.policy.verdict import REJECT
from mqmail.prog.xmtpd.client import TLS_FIRST, reply_of, shown
from mqmail.prog.xmtpd.peer import Peer, plain_ip
from mqmail.prog.xmtpd.queries import Queries
from mqmail.queue import ids
from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from mqmail.control.listeners import Listener
    from mqmail.prog.xmtpd.auth import AuthTalk
    from mqmail.prog.xmtpd.pool import Pool
    from mqmail.prog.xmtpd.recipients import Resolver
    from mqmail.prog.xmtpd.settings import Settings

_AUTH_FIRST = reply(530, "5.7.0", "authentication required")
_NO_TLS = reply(454, "4.7.0", "TLS is not available now")       # RFC 3207 section 4
_NO_AUTH = reply(502, "5.5.1", "AUTH is not offered")
_NO_SUCH = reply(504, "5.5.4", "this mechanism is not offered")
_BAD_XCLIENT = reply(501, "5.5.4", "bad XCLIENT attribute")


def greeting(settings: Settings, kind: str) -> Reply:
    """220."""
    return Reply(220, (f"{settings.control.smtpgreeting} {'LMTP' if kind == 'lmtp' else 'ESMTP'}",))


class SessionIds:
    """Short names of sessions, unique in this process, that sort by time."""

    def __init__(self) -> None:
        self._last = 0

    def make(self) -> str:
        """The next one: the microsecond, as in queue ids."""
        self._last = max(self._last + 1, int(time.time() * 1e6))
        return ids.make(self._last, 0)[:11]


class Dialogue(Queries):
    """The handler of one session (net/converse.py). Without a *resolver* all recipients are taken.
    *auth* makes the session's talk to mq-auth; without it AUTH is not offered."""

    _auth: AuthTalk | None = None

    def __init__(self, settings: Settings, listener: Listener, peer: Peer, session: str,
                 resolver: Resolver | None, pool: Pool,
                 auth: Callable[[], AuthTalk] | None = None) -> None:
        super().__init__(settings, listener, peer, session, auth is not None)
        self.resolver = resolver
        self.pool = pool
        self._make_auth = auth
        self.forget_message()

    def forget_message(self) -> None:
        """No transaction is open."""
        self.facts.forget_message()
        self.forget_recipients()
        self.forget_rewritten()
        self.forget_body()

    # --- what the shell calls ---

    async def greet(self) -> None:
        """The client is there, and we know who it is. What connect's checks say against it waits for
        RCPT, but for 421."""
        answer = await self._judge_client()
        self.server.greet(answer or greeting(self.settings, self.kind))

    async def _judge_client(self) -> Reply | None:
        """421, or None."""
        if self.peer.refusal is not None:       # it is known already
            return None
        said = await self.judge("connect")
        if said is None or said.reply is None or said.reply.code != 421:
            return None
        self.log("client_refused", ip=self.facts.ip, said=said.reply.said(), check=said.check,
                 why=said.why)
        return said.reply

    def tls_started(self) -> None:
        """Nothing that was said before is believed (RFC 3207 section 4.2)."""
        facts = self.facts
        facts.verb = facts.helo = facts.login = facts.mechanism = ""
        facts.refused = 0
        facts.said.pop("helo", None)
        self._session_set = self._connect_set
        self.forget_message()
        self.change_set(self.place_options.tlsset)
        self.offer()

    def tell_of_client(self) -> None:
        """Log who it is."""
        facts = self.facts
        self.log("connect", ip=facts.ip, host=facts.host, uid=facts.uid, listener=facts.listener,
                 proxy=facts.proxy)

    def tell_of_tls(self) -> None:
        """Log what has been agreed on."""
        facts = self.facts
        self.log("tls", version=facts.tls, cipher=facts.cipher, certificate=facts.certificate)

    def end(self, why: str) -> None:
        """The session is over."""
        self.forget_body()
        if self._auth is not None:
            self._auth.close()
        self.log("disconnect", why=why, messages=self.messages)

    def handle(self, event: Any) -> Awaitable[None] | None:
        """Answer an event of the core, now or in what is returned."""
        kind = type(event)
        if kind is events.Body:
            return self.body(event.data)
        if kind is events.BodyEnd:
            return self._end_message(event)
        if kind is events.Rcpt:
            self.ask_later(event)
            return None
        if kind in (events.BodyFailed, events.Reset, events.Quit):
            self._drop(kind)
            return None
        handler = self._handlers.get(kind)
        if handler is not None:
            return handler(self, event)
        self.server.answer(event)
        return None

    def _drop(self, kind: type) -> None:
        self.forget_body() if kind is events.BodyFailed else self.forget_message()

    async def _end_message(self, event: events.BodyEnd) -> None:
        await self.finish(event)
        self.forget_message()

    # --- commands ---

    def _hello(self, event: events.Hello) -> Awaitable[None] | None:
        self._session_set = self._connect_set
        self.forget_message()
        facts = self.facts
        facts.verb, facts.helo = event.verb, event.name
        self._via = {}
        if self.settings.stages.has("helo"):
            return self._judge_hello(event)
        self.server.answer(event)
        return None

    async def _judge_hello(self, event: events.Hello) -> None:
        """What is said against it waits for RCPT."""
        await self.judge("helo")
        self.server.answer(event)

    def _mail(self, event: events.Mail) -> Awaitable[None] | None:
        self.forget_message()
        self._since = time.monotonic()
        self.settle_who()
        answer = self._wants_first()
        if answer is not None:
            self.server.answer(event, answer)
            return None
        self.facts.sender, self.facts.size, self.facts.utf8 = event.sender, event.size, event.utf8
        if self.settings.stages.has("mail") or self._who is not None:
            return self._judge_mail(event)
        self.server.answer(event, self.rewrite_sender(event))
        return None

    async def _judge_mail(self, event: events.Mail) -> None:
        """What is said against it waits for RCPT; a client that may say who it is hears it now: it is
        mail of ours, and no postmaster is to be reached by it."""
        if self._who is not None:
            await self.know_who()
        said = await self.judge("mail")
        answer = None
        if said is not None and said.action == REJECT and self.facts.login:
            answer = reply_of(said)
            self.log("sender_refused", ip=self.facts.ip, login=self.facts.login,
                     sender=shown(event.sender), said=answer.said(), check=said.check, why=said.why)
        self.server.answer(event, answer or self._wants_first() or self.rewrite_sender(event))

    def _wants_first(self) -> Reply | None:
        """What must come before MAIL, VRFY and the like (RFC 3207 section 4, RFC 4954 section 6). What
        the listener or the client's address asks for holds whatever set is had for a HELO name, which
        anybody may say."""
        facts = self.facts
        answer = self.lacks(self.options) or self.lacks(self.place_options)
        if answer is not None or self.peer.local:
            return answer
        if facts.role in ("submission", "submissions") and not (facts.login or self.may_relay):
            return _AUTH_FIRST
        return None

    async def _verify(self, event: events.Verify) -> None:
        self.server.answer(event, self._wants_first() or await self.look_up(event))

    def _etrn(self, event: events.Etrn) -> None:
        answer = self._wants_first() or self.start_queue(event)
        self.log("etrn", ip=self.facts.ip, login=self.facts.login, node=event.node,
                 said=answer.said() if answer else "started")
        self.server.answer(event, answer)

    def _start_tls(self, event: events.StartTls) -> None:
        """One session reads certificate and key now: who cannot have TLS may go on without."""
        answer = None
        try:
            if self.ucspi_tls is None:
                self.settings.context(self.options)
        except BadFile as error:
            log.event("tls_refused", session=self.facts.session, ip=self.facts.ip, why=str(error))
            answer = _NO_TLS
        self.server.answer(event, answer)

    async def _authenticate(self, event: events.Auth) -> None:
        facts = self.facts
        if not self.may_authenticate:
            answer = TLS_FIRST if self.options.auth and not facts.tls else _NO_AUTH
        elif event.mechanism not in self.mechanisms:
            answer = _NO_SUCH
        else:
            answer = await self._talk_of_auth().answer(event, facts)
        if answer.code == 421:
            return self.server.close(answer)
        if answer.code == 235:
            self.log("authenticated", ip=facts.ip, login=facts.login, mechanism=facts.mechanism)
            self.change_set(self.place_options.loginset)
            self.offer()
        elif answer.code >= 400:
            self.log("auth_refused", ip=facts.ip, mechanism=event.mechanism, said=answer.said())
        return self.server.answer(event, answer)

    def _talk_of_auth(self) -> AuthTalk:
        """To mq-auth, which is told what is offered, and what the TLS session is known by."""
        if self._auth is None:
            assert self._make_auth is not None
            self._auth = self._make_auth()
        self._auth.mechanisms = self.mechanisms
        self._auth.bindings = {"tls-server-end-point": self.facts.binding} if self.facts.binding else {}
        return self._auth

    # --- XCLIENT ---

    async def _xclient(self, event: events.Xclient) -> None:
        """The client is another (https://www.postfix.org/XCLIENT_README.html)."""
        found = dict(event.attributes)
        said = found.get("addr", self.facts.ip)
        ip = plain_ip(said[5:] if said[:5].upper() == "IPV6:" else said)
        port = found.get("port", "")
        if (said and not ip) or (port and not _is_port(port)):
            return self.server.answer(event, _BAD_XCLIENT)
        facts = self.facts
        proxy, helo = facts.proxy or facts.ip, facts.helo
        host = found.get("name", "" if "addr" in found else facts.host)
        self._settled = True
        self.meet(Peer(ip=ip, host=host, port=int(port or 0)))
        facts.proxy, facts.login = proxy, fold(found.get("login", ""))
        facts.helo = found.get("helo", helo)
        if facts.login:
            self.change_set(self.place_options.loginset)
        self.offer()
        self.forget_message()
        self.log("xclient", ip=ip, host=host, proxy=proxy, login=facts.login)
        answer = await self._judge_client()
        if answer is not None:
            return self.server.close(answer)
        return self.server.answer(event, greeting(self.settings, self.kind))

    _handlers: dict[type, Callable[..., Awaitable[None] | None]] = {
        events.Mail: _mail, events.Hello: _hello, events.Auth: _authenticate, events.Xclient: _xclient,
        events.Verify: _verify, events.Etrn: _etrn, events.StartTls: _start_tls,
    }


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536
