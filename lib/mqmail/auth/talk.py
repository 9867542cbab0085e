"""One client's AUTH commands: from the lines that xmtpd hands through to 334, 235, 535, 454, 421."""

from __future__ import annotations

import os
from binascii import Error, a2b_base64, b2a_base64

from mqmail.auth.backends import Doubted, usable
from mqmail.base import log, xtext
from mqmail.base.failure import Temporary
from mqmail.base.waiter import Waiter
from mqmail.control.loginnames import fold
from mqmail.mail.address import is_ipv4, is_ipv6
from mqmail.xmtp import saslserver
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.saslserver import Challenge, Keys, Password, Refused, Secret, Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from mqmail.auth.backends import Backends
    from mqmail.auth.dovecot import Dovecot, Said
    from mqmail.auth.guard import Guard
    from mqmail.xmtp import events

MOST_STEPS = 8          # responses of one exchange
MOST_FAILURES = 3       # of one session; the next ends it
BINDINGS = {"tls_exporter": "tls-exporter", "tls_unique": "tls-unique",
            "tls_server_end_point": "tls-server-end-point"}
_SHOWN = 80             # characters of a login in the log

_WRONG = reply(535, "5.7.8", "login or password wrong")
_MALFORMED = reply(501, "5.5.2", "this is not what the mechanism wants")
_BASE64 = reply(501, "5.5.2", "this is not base64")
_NOT_OFFERED = reply(504, "5.5.4", "this mechanism is not offered")
_TROUBLE = reply(454, "4.7.0", "logins cannot be checked now, try again later")
_ENOUGH = reply(421, "4.7.0", "too many failed logins")
_WAIT = {"address": reply(454, "4.7.0", "too many failed logins from your address, try again later"),
         "account": reply(454, "4.7.0", "too many failed logins for this account, try again later")}


class Client:
    """What XSESSION says. *ip*: an address, or a word for those without, who count as one; *address*:
    the same for other programs, "" for what is none. *offered*: the mechanisms that the client was
    shown, None if not said."""

    def __init__(self, facts: dict[str, str]) -> None:
        self.ip = facts.get("ip", "")
        self.address = self.ip if is_ipv4(self.ip) or is_ipv6(self.ip) else ""
        self.session = facts.get("session", "")
        self.certificate = facts.get("certificate", "")
        names = facts.get("mechanisms")
        self.offered = None if names is None else tuple(names.upper().split(","))
        self.bindings = {kind: bytes.fromhex(facts[name]) for name, kind in BINDINGS.items()
                         if facts.get(name)}


def client_of(text: str) -> Client:
    """Raises ValueError when *text* is not facts."""
    return Client(xtext.parse_facts(text.split(" ")))


class Talk:
    """One session's. *host*: our name, for challenges. ``backends`` may be replaced at any time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, backends: Backends, guard: Guard,
                 host: str) -> None:
        self.client = Client({})
        self._loop = loop
        self.backends = backends
        self._guard = guard
        self._host = host
        self._failures = 0
        self._exchange: _Exchange | None = None

    async def answer(self, event: events.Auth) -> Reply:
        """To AUTH, or to the line that follows a 334."""
        if event.first:
            refusal = self._begin(event.mechanism)
            if refusal is not None:
                return refusal
        exchange = self._exchange
        assert exchange is not None
        try:
            data = _decoded(event)
            return Reply(334, (_coded(await exchange.step(data)),))
        except Temporary as failure:
            return self._undecided(exchange, failure)
        except _Held:
            return self._refused_by_guard(exchange.login, "account")
        except Refused as refused:
            return await self._failed(exchange, refused, _MALFORMED if refused.malformed else _WRONG)
        except Error:
            return await self._failed(exchange, Refused("not base64", exchange.login), _BASE64)
        except _Known as known:
            return self._succeeded(exchange, fold(known.login))

    def _begin(self, mechanism: str) -> Reply | None:
        """A new exchange; a reply if there is to be none."""
        self._exchange = None
        ours, shown = self.backends.mechanisms, self.client.offered
        if mechanism not in ours or shown is not None and mechanism not in shown:
            return _NOT_OFFERED
        if not self._guard.begin_address(self.client.ip, self._loop.time()):
            return self._refused_by_guard("", "address")
        self._exchange = self._make(mechanism)
        return None

    def _make(self, mechanism: str) -> _Exchange:
        dovecot = self.backends.relay(mechanism)
        if dovecot is not None and mechanism not in ("PLAIN", "LOGIN"):
            return _Relayed(self, mechanism, dovecot)
        return _Own(self, mechanism, saslserver.Session(
            _coded(os.urandom(18)), self._host, self.client.offered or tuple(self.backends.mechanisms),
            self.client.bindings, self.client.certificate))

    def hold(self, login: str) -> None:
        """An attempt for *login* begins. Raises _Held if there may be none now."""
        if not self._guard.begin_account(self.client.ip, fold(login), self._loop.time()):
            raise _Held

    async def ask(self, question: Any) -> Any:
        """The answer to a question of saslserver."""
        kind = type(question)
        if kind is Password:
            return await self.backends.password(question.login, question.password, self.client.address)
        if kind is Keys:
            return self.backends.keys(question.login)
        if kind is Secret:
            return self.backends.secret(question.login)
        assert kind is Token
        return await self.backends.token(question.login, question.token, self.client.address)

    # --- outcomes ---

    def _succeeded(self, exchange: _Exchange, login: str) -> Reply:
        self._exchange = None
        self._guard.undo(self.client.ip, exchange.held, self._loop.time())
        self._guard.success(self.client.ip, exchange.held or login)
        log.event("auth_ok", session=self.client.session, ip=self.client.ip, login=login[:_SHOWN],
                  mechanism=exchange.mechanism)
        return reply(235, "2.7.0", xtext.facts({"login": login, "mechanism": exchange.mechanism}))

    async def _failed(self, exchange: _Exchange, refused: Refused, answer: Reply) -> Reply:
        """Each failure is answered later than the one before."""
        self._exchange = None
        self._failures += 1
        login = refused.login or exchange.login
        self._log_failed(login, exchange.mechanism, str(refused))
        seconds = self._guard.delay(self.client.ip, exchange.held, self._loop.time())
        if seconds:
            waiter = Waiter()
            self._loop.call_later(seconds, waiter.set)
            await waiter
        return _ENOUGH if self._failures > MOST_FAILURES else answer

    def _refused_by_guard(self, login: str, why: str) -> Reply:
        """Nothing is looked at; who goes on all the same is sent away."""
        mechanism = self._exchange.mechanism if self._exchange else ""
        self._exchange = None
        self._failures += 1
        self._log_failed(login, mechanism, f"too many failures of this {why}")
        return _ENOUGH if self._failures > MOST_FAILURES else _WAIT[why]

    def _undecided(self, exchange: _Exchange, failure: Temporary) -> Reply:
        self._exchange = None
        if not isinstance(failure, Doubted):
            self._guard.undo(self.client.ip, exchange.held, self._loop.time())
        self._log_failed(exchange.login, exchange.mechanism, failure.text)
        return _TROUBLE

    def _log_failed(self, login: str, mechanism: str, why: str) -> None:
        log.event("auth_failed", session=self.client.session, ip=self.client.ip, login=login[:_SHOWN],
                  mechanism=mechanism, why=why)


class _Held(Exception):  # noqa: N818  like the next
    """The guard lets nobody try."""


class _Known(Exception):  # noqa: N818  the good end of an exchange
    def __init__(self, login: str) -> None:
        super().__init__(login)
        self.login = login


class _Exchange:
    """One exchange. ``login``: who the client says it is, ``held``: the account it counts for, folded;
    both "" while that is not known."""

    def __init__(self, talk: Talk, mechanism: str) -> None:
        self.mechanism = mechanism
        self.login = ""
        self.held = ""
        self._talk = talk
        self._steps = 0

    async def step(self, data: bytes | None) -> bytes:
        """The challenge behind the client's response. Raises _Known, _Held, Refused, Temporary."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise Refused("too many steps", self.login)
        return await self._next(data)

    async def _next(self, data: bytes | None) -> bytes:
        raise NotImplementedError

    def _hold(self, login: str) -> None:
        self.login = login
        self._talk.hold(login)
        self.held = fold(login)


class _Own(_Exchange):
    """Between the client and us."""

    def __init__(self, talk: Talk, mechanism: str, session: saslserver.Session) -> None:
        super().__init__(talk, mechanism)
        self._session = session
        self._going: saslserver.Steps | None = None

    async def _next(self, data: bytes | None) -> bytes:
        try:
            if self._going is None:
                self._going = saslserver.begin(self.mechanism, data, self._session)
                item = next(self._going)
            else:
                item = self._going.send(data)
            while type(item) is not Challenge:
                if item.login:
                    self._hold(item.login)
                item = self._going.send(await self._talk.ask(item))
        except StopIteration as end:
            raise _Known(end.value) from None
        return item.data


class _Relayed(_Exchange):
    """Between the client and Dovecot; we read along until we know the login."""

    def __init__(self, talk: Talk, mechanism: str, dovecot: Dovecot) -> None:
        super().__init__(talk, mechanism)
        self._dovecot = dovecot
        self._number = 0
        self._reader: saslserver.Steps | None = None

    async def _next(self, data: bytes | None) -> bytes:
        said: Said
        if not self.held:
            self._read_along(data)
        if self._number:
            said = await self._dovecot.go_on(self._number, data or b"")
        else:
            said = await self._dovecot.begin(self.mechanism, data, self._talk.client.address)
            self._number = said.number
        if said.kind == "CONT":
            return said.data
        self.login = said.text or self.login
        if said.temporary:
            raise Temporary("Dovecot cannot say")
        if said.kind != "OK" or not said.text:
            raise Refused("wrong password", self.login)
        raise _Known(usable(said.text, "dovecot"))

    def _read_along(self, data: bytes | None) -> None:
        """An attempt for the login begins when the client has said it; before Dovecot hears of it."""
        if self._reader is None:
            self._reader = saslserver.begin(self.mechanism, data, saslserver.Session("us", offered=()))
            item = next(self._reader)
        else:
            item = self._reader.send(data)
        if type(item) is not Challenge:
            self._hold(item.login)


def _decoded(event: events.Auth) -> bytes | None:
    """What a line holds; None without an initial response. Raises binascii.Error."""
    if event.first and not event.line:
        return None
    if event.first and event.line == "=":       # RFC 4954 section 4: empty
        return b""
    return a2b_base64(event.line.encode("ascii"), strict_mode=True)


def _coded(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")
