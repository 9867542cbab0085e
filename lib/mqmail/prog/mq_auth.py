"""mq-auth: says whether a login is true, and whether it may send more.

Usage:
  mq-auth [--home DIR] [--ready-fd N]
  mq-auth --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once logins are checked
  --help          this text

Speaks SMTP (with XMQ) on run/auth.sock: XSESSION, and AUTH as xmtpd's client says it. It takes no mail.
Who may ask is control/injectors.
"""

from __future__ import annotations

import hmac  # noqa: F401  these three are wanted late, when the interpreter's own files may be out of
import os
import stringprep  # noqa: F401                   our reach
import time
import unicodedata  # noqa: F401

from mqmail.auth import hashes, saltkey
from mqmail.auth.backends import Backends
from mqmail.auth.guard import Guard
from mqmail.auth.habits import Habits
from mqmail.auth.ledger import KINDS, Ledger, text_of
from mqmail.auth.talk import Talk, client_of
from mqmail.base import log, ready, unix, xtext
from mqmail.base.failure import Failure
from mqmail.control import reader
from mqmail.control.loginnames import fold
from mqmail.control.values import is_number
from mqmail.net import daemon
from mqmail.net.service import Service, greet_trusted
from mqmail.net.stream import Deadlines
from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.saslserver import MECHANISMS
from mqmail.xmtp.server import Limits, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.control.rights import Accounts
    from mqmail.net.stream import Stream

SOCKET = "run/auth.sock"
PASSWD = "control/passwd"
CONTROL = ("me", "authbackends", "passwd", "accountlimits", "injectors", "webmailhosts")
_SILENCE = 600.0        # seconds that a session may be silent
_SETTLED = 2.0          # seconds after which nobody is writing a file any more
_LIMITS = Limits(errors=1000000, idle=0)
_NO_MAIL = reply(502, "5.5.1", "no mail is taken here: XSESSION and AUTH only")
_BAD_FACTS = reply(501, "5.5.4", "XSESSION wants facts")
_OK = reply(250, "2.0.0", "ok")


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    begun = daemon.start("mq-auth", __doc__, argv)
    hashes.give_memory_back()
    loop = daemon.new_loop()
    deadlines = Deadlines(loop)
    service = Logins(loop, deadlines, begun.callers(SOCKET), _tellers(begun.accounts))
    listener = Service(loop, deadlines, begun.sockets[SOCKET], service.session, most=5000,
                       timeout=_SILENCE)
    loop.call_soon(ready.announce, begun.ready)
    daemon.run_loop(loop, lambda stopped: listener.stop(10.0, stopped), service.reload)
    service.habits.save()
    return 0


def _tellers(accounts: Accounts | None) -> frozenset[int]:
    """Callers that tell of accounts, and have no business with passwords."""
    if accounts is None:
        return frozenset()
    return frozenset([accounts.of("mq-bounce").uid]) - {0, accounts.of("xmtpd").uid}


class Logins:
    """The tables in force, what is remembered of clients and accounts, and a session for each caller.
    *callers*: see greet_trusted(); *tellers*: those of them who are not offered AUTH."""

    control: Control
    backends: Backends

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines,
                 callers: frozenset[int] | None, tellers: frozenset[int] = frozenset()) -> None:
        self.loop = loop
        self._callers = callers
        self._tellers = tellers
        self.guard = Guard()
        self.ledger = Ledger()
        self.habits = Habits(loop, self.ledger, self.guard)
        self._key = saltkey.load()
        self._deadlines = deadlines
        self._passwd = _mark()
        self._load()

    def _load(self) -> None:
        passwd = _mark()
        control = reader.load(".", CONTROL)
        self.backends = Backends(self.loop, self._deadlines, control.authbackends, control.passwd,
                                 self._key)
        self.guard.shared = control.webmailhosts
        self.control, self._passwd = control, passwd

    def reload(self) -> None:
        """Read the control files. Raises BadFile, and then nothing has changed."""
        former = self.backends
        self._load()
        former.close()

    def look_again(self) -> None:
        """mq-passwd needs tell nobody: a new file counts at once, one that is changed where it lies when
        nobody is writing it. One with a mistake is not taken."""
        mark = _mark()
        if mark == self._passwd or may_be_half(mark, self._passwd, time.time()):
            return
        self._passwd = mark
        try:
            self.backends.passwd = reader.load(".", ["passwd"]).passwd
        except (Failure, OSError) as error:
            log.event("reload_failed", error=str(error))

    def session(self, stream: Stream) -> tuple[Server, Session, Callable[[str], None]]:
        """The core, the handler and the end of a session."""
        words = ["PIPELINING", "ENHANCEDSTATUSCODES", "XMQ"]
        if unix.peer_of(stream.sock).uid not in self._tellers:
            known = [name for name in MECHANISMS if name in self.backends.mechanisms]
            words.append(f"AUTH {' '.join(known)}")
        server = Server("smtp", self.control.me, words, _LIMITS)
        greet_trusted(stream, server, self.control.injectors, self._callers, "may not ask about logins")
        return server, Session(self, server), lambda _why: None


def _mark() -> tuple[int, ...]:
    """What is different when control/passwd is."""
    try:
        found = os.stat(PASSWD)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def may_be_half(mark: tuple[int, ...], former: tuple[int, ...], now: float) -> bool:
    """Whether the file that was *former* and is *mark* (st_ino, size, st_mtime_ns ...) is just being
    written where it lies: logins may be missing."""
    return mark[:1] == former[:1] and 0.0 <= now - mark[2] / 1e9 < _SETTLED


class Session:
    """One caller: the logins of one client, or questions about accounts."""

    def __init__(self, service: Logins, server: Server) -> None:
        self._service = service
        self._server = server
        self._talk = Talk(service.loop, service.backends, service.guard, service.control.me)

    async def settle(self) -> None:
        """Everything is answered as it comes."""

    def handle(self, event: Any) -> Awaitable[None] | None:
        """Answer one event of the core."""
        kind = type(event)
        if kind is events.Auth:
            return self._auth(event)
        if kind is events.Session:
            self._server.answer(event, self._session(event.facts))
        elif kind is events.Mail:
            self._server.answer(event, _NO_MAIL)
        elif kind not in (events.Reset, events.Quit):
            self._server.answer(event)
        return None

    async def _auth(self, event: events.Auth) -> None:
        if event.first:
            self._service.look_again()
            self._talk.backends = self._service.backends
        answer = await self._talk.answer(event)
        if self._server.closed:
            return
        if answer.code == 421:
            self._server.close(answer)
        else:
            self._server.answer(event, answer)

    def _session(self, text: str) -> Reply:
        try:
            facts = xtext.parse_facts(text.split(" "))
            if "login" in facts:
                return self._account(facts)
            self._talk.client = client_of(text)
        except ValueError:
            return _BAD_FACTS
        return _OK

    def _account(self, facts: dict[str, str]) -> Reply:
        """Whether an account may send so many more; what was refused is noted. Raises ValueError."""
        counts = {kind: _number(facts[kind]) for kind in KINDS if kind in facts}
        login, now = fold(facts["login"]), time.time()
        limit = self._service.control.accountlimits.of(login)
        why, is_news = self._service.ledger.count(login, counts, limit, now)
        if is_news:
            rates = self._service.ledger.rates(login, now)
            log.event("account_stopped", login=login[:80], why=why, ip=facts.get("ip"),
                      session=facts.get("session"), messages=rates["messages"],
                      recipients=rates["recipients"], refused=rates["refused"])
        if not why:
            return _OK
        return reply(450, "4.7.1", f"{login[:80]} is stopped: {text_of(why)};"
                                   " try again later, or ask the postmaster")


def _number(text: str) -> int:
    if not is_number(text) or int(text) > 1_000_000:
        raise ValueError("not a count")
    return int(text)
