"""AUTH for a client, and questions about who has logged in: mq-auth's word. Both shells.

No secret is looked at here: the client's lines go to mq-auth as they are, and its answers to the client.
"""

from __future__ import annotations

from mqmail.base import log, program, xtext
from mqmail.base.waiter import Running
from mqmail.control.throttles import UNKNOWN
from mqmail.net.session import Session
from mqmail.policy.accounts import take_refused
from mqmail.xmtp.reply import Reply, facts_of, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from mqmail.net.blocking import BlockingStream
    from mqmail.net.stream import Stream
    from mqmail.policy.facts import Facts
    from mqmail.xmtp import events

    Connect = Callable[[], Awaitable[Stream | BlockingStream]]

SOCKET = "run/auth.sock"
TIMEOUT = 60.0          # seconds for an answer: mq-auth makes clients wait that fail
MOST_IDLE = 8
MOST_TELLING = 100      # sessions that have ended and have something to tell; more are not heard
_OF_THE_CLIENT = (501, 504, 534, 535, 538)      # refusals that are about what it said (RFC 4954)
_DOWN = reply(454, "4.7.0", "logins cannot be checked now, try again later")
_NOT_ASKED = reply(451, "4.3.2", "this account cannot be looked up now, try again later")
_WELCOME = reply(235, "2.7.0", "welcome")


class AuthTalk:
    """One client's. *connect* opens a stream to mq-auth (OSError), *name* is ours. *mechanisms*: what
    the client is offered now. *bindings*: of its TLS session, type (as RFC 5929 calls it) to data."""

    def __init__(self, connect: Connect, name: str, mechanisms: Sequence[str] = (),
                 bindings: Mapping[str, bytes] | None = None) -> None:
        self.mechanisms = mechanisms
        self.bindings = bindings or {}
        self._connect = connect
        self._name = name
        self._session: Session | None = None
        self._asked = False         # whether mq-auth's last word was 334

    async def answer(self, event: events.Auth, facts: Facts) -> Reply:
        """To AUTH or the line behind a 334. 235: *facts* has the login. 421: end the session."""
        line = event.line
        if event.first:
            line = f"AUTH {event.mechanism} {event.line}".rstrip(" ")
            if not await self._told(facts):
                return self._lost()
        session = self._session
        if session is None:
            return self._lost()
        try:
            answer = await session.pass_on(line)
        except ValueError:
            return reply(501, "5.5.2", "this is not base64")
        answer = answer or session.refusal
        self._asked = answer is not None and answer.code == 334
        if answer is None or not _is_clients(answer):
            return self._lost(answer)
        return self._welcome(answer, facts) if answer.code == 235 else answer

    def _welcome(self, answer: Reply, facts: Facts) -> Reply:
        found = facts_of(answer.text)
        self.close()        # it knows one client, and this one is known now
        if not found.get("login"):
            return _DOWN
        facts.login = found["login"]
        facts.mechanism = found.get("mechanism", "")
        return _WELCOME

    async def _told(self, facts: Facts) -> bool:
        """Whether there is a session to mq-auth that knows whom it is for, as things are now (TLS may
        have begun since)."""
        if self._session is not None and self._asked:
            await self._session.pass_on("*")        # the client did not answer: it has begun anew
        if self._session is None or not self._session.alive():
            self.close()
            self._session = await _opened(self._connect, self._name)
        if self._session is None:
            return False
        known = await self._session.tell(self._facts(facts))
        return known is not None and known.code < 300

    def _facts(self, facts: Facts) -> str:
        bindings = {kind.replace("-", "_"): data.hex() for kind, data in self.bindings.items()}
        return xtext.facts({
            "session": facts.session, "ip": facts.ip or ("" if facts.local else UNKNOWN),
            "role": facts.role, "listener": facts.listener,
            "helo": facts.helo, "tls": facts.tls, "certificate": facts.certificate, **bindings,
            "mechanisms": ",".join(self.mechanisms)})

    def _lost(self, answer: Reply | None = None) -> Reply:
        session = self._session
        said = answer.said() if answer is not None else "bad answer"
        log.event("auth_unavailable", error=(session.broken or said) if session else "not there")
        self.close()
        return _DOWN

    def close(self) -> None:
        """The client has gone, or needs it no more."""
        session, self._session, self._asked = self._session, None, False
        if session is not None:
            session.close()


def _is_clients(answer: Reply) -> bool:
    """Whether it is for the client. Others say that mq-auth is not well, or does not understand us: a
    client that hears 5yz would ask its user for another password. 421 is when it fails too often."""
    if answer.code == 421:
        return answer.status.startswith("4.7.")
    return answer.code in (334, 235, *_OF_THE_CLIENT) or 400 <= answer.code < 500


class AccountBook:
    """What accounts may send, asked of mq-auth for all clients of a process (policy/accounts.py)."""

    def __init__(self, connect: Connect, name: str) -> None:
        self._connect = connect
        self._name = name
        self._idle: list[Session] = []
        self._telling = 0

    async def ask(self, facts: Facts, **counts: int) -> Reply | None:
        """None when the login of *facts* may send so many more *messages*, *recipients*; else what to
        say, 4yz. *refused*: so many recipients were refused for good."""
        said = xtext.facts({"login": facts.login, "ip": facts.ip, "session": facts.session, **counts})
        session = await self._take()
        if session is None:
            return _NOT_ASKED
        answer = await session.tell(said)
        if answer is None:
            log.event("auth_unavailable", error=session.broken)
            return _NOT_ASKED
        if len(self._idle) < MOST_IDLE:
            self._idle.append(session)
        else:
            session.close()
        return None if answer.code < 300 else answer if 400 <= answer.code < 500 else _NOT_ASKED

    def tell_refused(self, facts: Facts) -> None:
        """When a session has ended: what has not been told. Under the event loop nobody waits."""
        counts = take_refused(facts) if facts.login and self._telling < MOST_TELLING else {}
        if counts:
            self._telling += 1
            Running(self.ask(facts, **counts), self._told)

    def _told(self, _answer: Reply | None, error: BaseException | None) -> None:
        self._telling -= 1
        if error is not None:
            program.bug(error)

    async def _take(self) -> Session | None:
        while self._idle:
            session = self._idle.pop()
            if session.alive():
                return session
            session.close()
        return await _opened(self._connect, self._name)

    def close(self) -> None:
        """No more questions."""
        idle, self._idle = self._idle, []
        for session in idle:
            session.close()


async def _opened(connect: Connect, name: str) -> Session | None:
    """A new session; None, and a log line, when there is none to be had."""
    try:
        session = Session(await connect(), "smtp", name, TIMEOUT)
    except OSError as error:
        log.event("auth_unavailable", error=error.strerror)
        return None
    if await session.open():
        return session
    log.event("auth_unavailable", error=session.broken)
    return None
