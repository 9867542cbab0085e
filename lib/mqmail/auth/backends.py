"""Those who say whether a login is true, in the order of control/authbackends.

A password is shown to all of them until one says yes; if none does and one cannot say, nobody knows
(Temporary). Challenges and responses are between the client and the first that has the mechanism.
"""

from __future__ import annotations

import os

from mqmail.auth import hashes, program
from mqmail.auth.dovecot import Dovecot
from mqmail.base import log
from mqmail.base.failure import Temporary
from mqmail.control import authbackends
from mqmail.control.loginnames import LONGEST_LOGIN, fold
from mqmail.control.passwd import Passwd
from mqmail.net.threads import Threads
from mqmail.xmtp.scram import hmac_sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from typing import Any

    from mqmail.control.authbackends import Backend
    from mqmail.net.stream import Deadlines
    from mqmail.xmtp.scram import StoredKeys

MOST_WAITING = 64       # hashes to be computed, programs to be run; then clients come again
KEPT = 300.0            # seconds that a password which was right is known again
MOST_KEPT = 10000


class Doubted(Temporary):
    """One has said no, and another cannot say: a guess, as far as anybody knows."""


class Backends:
    """Asked of one process's logins. *passwd* is replaced when its file changes. *key*: this home's, for
    the salts of logins that are not there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, chosen: Sequence[Backend],
                 passwd: Passwd, key: bytes) -> None:
        self.passwd = passwd
        self.mechanisms = authbackends.mechanisms_of(chosen)
        self._loop = loop
        self._chosen = chosen
        self._hashing = Bounded(Threads(loop))
        self._programs = Bounded(Threads(loop))
        self._dovecots = {one: Dovecot(loop, deadlines, one.words[0]) for one in chosen
                          if one.kind == authbackends.DOVECOT}
        self._key = key
        self._secret = os.urandom(32)           # of this process: what is kept is of no use to others
        self._right: dict[bytes, float] = {}    # passwords that were right, hashed, and until when

    def close(self) -> None:
        """No more questions."""
        for one in self._dovecots.values():
            one.close()

    def relay(self, mechanism: str) -> Dovecot | None:
        """The Dovecot that challenges and responses of *mechanism* are between; None: ourselves."""
        for one in self._chosen:
            if mechanism in one.mechanisms:
                if one.kind == authbackends.DOVECOT:
                    return self._dovecots[one]
                if mechanism != "CRAM-MD5" or self.passwd.readable:
                    return None
        return None

    async def password(self, login: str, password: str, ip: str) -> str:
        """The login, folded, if *password* is its; else "". Raises Temporary, Doubted."""
        trouble: Temporary | None = None
        denied = False
        for one in self._chosen:
            try:
                found = await self._ask(one, login, password, ip)
                if found:
                    return usable(found, one.kind)
                denied = denied or one.kind != authbackends.OAUTH       # which knows no passwords
            except Temporary as failure:
                log.event("auth_unavailable", backend=one.kind, error=failure.text)
                trouble = failure
        if trouble is not None:
            raise Doubted(trouble.text) if denied else trouble
        return ""

    async def _ask(self, one: Backend, login: str, password: str, ip: str) -> str:
        """The login as the backend calls it; "" for no."""
        if one.kind == authbackends.PASSWD:
            return login if await self._passwd(login, password) else ""
        if one.kind == authbackends.CHECKPASSWORD:
            done = await self._programs.do(program.check_password, one.words, login, password, ip)
            return login if done else ""
        if one.kind == authbackends.DOVECOT:
            response = b"\0%b\0%b" % (login.encode(), password.encode())
            said = await self._dovecots[one].begin("PLAIN", response, ip)
            if said.temporary:
                raise Temporary(f"{one.words[0]}: Dovecot cannot say")
            return said.text or login if said.kind == "OK" else ""
        return ""

    async def _passwd(self, login: str, password: str) -> bool:
        """By control/passwd; what was right a moment ago is right. Unknown logins take as long."""
        name = fold(login)
        entry = self.passwd.entry(name)
        known = repr((name, password, entry and hash(entry))).encode("utf-8", "surrogateescape")
        key, now = hmac_sha256(self._secret, known), self._loop.time()
        if self._right.get(key, 0.0) > now:
            return True
        if not await self._hashing.do(hashes.fits, entry, password):
            return False
        if len(self._right) >= MOST_KEPT:
            self._right.clear()
        self._right[key] = now + KEPT
        return True

    def keys(self, login: str) -> tuple[str, StoredKeys]:
        """For SCRAM: (the login, folded, "" if it is not there; its keys, or some that fit nothing)."""
        name = fold(login)
        entry = self.passwd.entry(name)
        if entry is None or entry.scram is None:
            return "", hashes.no_keys(self._key, name)
        return name, entry.scram

    def secret(self, login: str) -> tuple[str, bytes | None]:
        """For CRAM-MD5: (the login, folded; its secret, None if there is none)."""
        entry = self.passwd.entry(login)
        return fold(login), None if entry is None else entry.plain

    async def token(self, login: str, token: str, ip: str) -> str:
        """The login, folded, that *token* is good for; "" for none, or if *login* is another. Raises
        Temporary."""
        words = next((one.words for one in self._chosen if one.kind == authbackends.OAUTH), ())
        if not words:
            return ""
        found = await self._programs.do(program.check_token, words, login, token, ip)
        return usable(found, words[0]) if found and fold(login or found) == fold(found) else ""


def usable(login: str, whose: str) -> str:
    """A backend's name for a login, folded. Raises Temporary for one that is none: it would be somebody
    else's, or nobody's, in tables, header fields and the log."""
    folded = fold(login)
    if not folded or not folded.isprintable() or "\ufffd" in folded \
            or len(folded.encode("utf-8", "surrogateescape")) > LONGEST_LOGIN:
        raise Temporary(f"{whose}: says yes, and names the login {login[:40]!a}")
    return folded


class Bounded:
    """Threads, with a limit on what waits for them."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._waiting = 0

    async def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments) in a thread. Raises Temporary when too much waits, and what it raises."""
        if self._waiting >= MOST_WAITING:
            raise Temporary("too many logins at a time")
        self._waiting += 1
        try:
            return await self._threads.do(function, *arguments)
        finally:
            self._waiting -= 1
