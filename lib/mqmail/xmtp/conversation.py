"""What every client's session is made of, without transactions: commands out, replies in, in order.

Greeting, EHLO (with HELO to fall back on), STARTTLS, AUTH, probing, XHOP, XSESSION and QUIT. No I/O,
no clock. xmtp/client.py adds the transactions, and says how both are used.
"""

from __future__ import annotations

from mqmail.xmtp.authtalk import AuthTalk
from mqmail.xmtp.reply import ProtocolError, Reply, ReplyReader
from mqmail.xmtp.transaction import (
    Alive,
    AuthDone,
    AuthFailed,
    AuthSaid,
    Broken,
    Hop,
    Ready,
    SessionKnown,
    TlsGo,
    TlsRefused,
    check_command,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.xmtp.authtalk import Exchange


class Conversation:
    """One session. *kind* "smtp" or "lmtp"; *name* is what we call ourselves."""

    _several: tuple[str, ...] = ()      # what has several replies: the handler says which is the last
    _stays: tuple[str, ...] = ()        # what 421 is an answer to like any other

    def __init__(self, kind: str, name: str, most_lines: int = 512) -> None:
        self.kind = kind
        self.features: dict[str, str] = {}
        self.ready = False
        self.broken = False
        self.answers = 0            # replies that have come
        self._name = name
        self._handshake = False     # of TLS, is due: not an octet may come or go
        self._reader = ReplyReader(most_lines)
        self._out: list[bytes] = []
        self._fds: list[int] = []
        self._unsent: list[tuple[str, tuple[str, Any, Any]]] = []
        self._expected: list[tuple[str, Any, Any]] = [("greeting", None, None)]
        self._events: list[Any] = []

    # --- what the shell calls ---

    def take_output(self) -> tuple[bytes, tuple[int, ...]]:
        """(octets, descriptors that ride on them)."""
        if not self._out:
            return b"", ()
        out, fds = b"".join(self._out), tuple(self._fds)
        self._out, self._fds = [], []
        return out, fds

    def feed(self, data: bytes) -> list[Any]:
        """Events for what the server said; b"" is the end of the connection."""
        if self.broken:
            return []
        try:
            if not data:
                self._break("connection closed" + self._when())
            for answer in self._reader.read(data) if data else ():
                self.answers += 1
                self._answer(answer)
                if self.broken:
                    break
            if self._handshake and not self.broken:
                self._before_handshake()
        except ProtocolError as error:
            self._break(str(error) + self._when())
        self._pump()
        events, self._events = self._events, []
        return events

    def _when(self) -> str:
        return f" while waiting for the reply to {self.awaiting}" if self._expected else ""

    @property
    def awaiting(self) -> str:
        """What the next reply will be to: "greeting", "hello" (EHLO, LHLO, HELO), "message" (after the
        body), else a command's name; "" when none is awaited."""
        return self._expected[0][0] if self._expected else ""

    @property
    def idle(self) -> bool:
        """Whether a transaction can begin now with nothing before it."""
        return self.ready and not self.broken and not self._expected and not self._unsent

    @property
    def expecting(self) -> int:
        """How many replies are still to come."""
        return len(self._expected) + len(self._unsent)

    # --- what the application calls ---

    def events(self) -> list[Any]:
        """Events that came without input (Go of an EAGER transaction)."""
        events, self._events = self._events, []
        return events

    def start_tls(self) -> None:
        """STARTTLS (RFC 3207). Raises ValueError when the session is not idle."""
        self._say_alone("STARTTLS", "STARTTLS")

    def tls_started(self) -> None:
        """The handshake is done. What the server said before may have come from anybody: it is
        forgotten, and we say EHLO anew (RFC 3207 section 4.2). ``Ready`` follows."""
        self._handshake = False
        self.features = {}
        self._hello()
        self._pump()

    def authenticate(self, exchange: Exchange) -> None:
        """AUTH (RFC 4954). Raises ValueError when the session is not idle."""
        talk = AuthTalk(exchange)
        self._say_alone(talk.command(), "AUTH", talk)

    def pass_on(self, line: str) -> None:
        """A line of somebody else's AUTH (RFC 4954 section 4): the command, or what follows a 334.
        ``AuthSaid`` follows. Raises ValueError when the session is not idle or *line* is none."""
        check_command(line)
        self._say_alone(line, "AUTH")

    def probe(self) -> None:
        """RSET between transactions: does the server still answer?"""
        self._say("RSET", "RSET")
        self._pump()

    def hop(self, facts: str) -> None:
        """XHOP: which host the service is to talk to ("": none). ValueError when it is no command."""
        line = f"XHOP {facts}".rstrip(" ")
        check_command(line)
        self._say(line, "XHOP")
        self._pump()

    def session(self, facts: str) -> None:
        """XSESSION: whom we ask for. Raises ValueError when it is no command."""
        line = f"XSESSION {facts}"
        check_command(line)
        self._say(line, "XSESSION")
        self._pump()

    def quit(self) -> None:
        """QUIT; ``feed`` of the answer gives Broken("bye")."""
        self._say("QUIT", "QUIT")
        self._pump()

    # --- commands ---

    def _say(self, line: str, kind: str, transaction: Any = None, detail: Any = None) -> None:
        self._unsent.append((line, (kind, transaction, detail)))

    def _say_alone(self, line: str, kind: str, detail: Any = None) -> None:
        """A command that nothing may be sent behind before it is answered."""
        if not self.idle:
            raise ValueError(f"{kind} on a session that is not idle")
        self.ready = False
        self._say(line, kind, detail)
        self._pump()

    def _pump(self) -> None:
        """Write what may be written: all of it with PIPELINING, else one command at a time."""
        if not self._unsent or self.broken or self._handshake:
            return
        if self.ready and "PIPELINING" in self.features:
            now, self._unsent = self._unsent, []
        elif self._expected:
            return
        else:
            now = [self._unsent.pop(0)]
        self._out.append("\r\n".join([line for line, _ in now]).encode("utf-8") + b"\r\n")
        for _, expected in now:
            self._expected.append(expected)
            if expected[0] == "XFD":        # the descriptor rides on its own command
                self._fds.append(expected[2])

    # --- replies ---

    def _answer(self, answer: Reply) -> None:
        if not self._expected:
            return self._break("a reply to nothing", answer if answer.code == 421 else None)
        kind, subject, detail = self._expected[0]
        if answer.code == 421 and kind not in self._stays:
            return self._break(answer.said(), answer)
        if 300 <= answer.code < 400 and kind not in ("DATA", "AUTH"):
            return self._break(f"{kind} answered {answer.said()}")
        if kind not in self._several:
            self._expected.pop(0)
        return self._on[kind](self, answer, subject, detail)

    def _break(self, why: str, answer: Reply | None = None) -> None:
        self.broken = True
        self.ready = False
        self._events.append(Broken(why, answer))

    def _on_greeting(self, answer: Reply, _t: Any, _n: Any) -> None:
        if answer.code >= 300:
            return self._break("greeted with " + answer.said(), answer)
        return self._hello()

    def _hello(self, verb: str = "") -> None:
        """Before anything that has been begun already."""
        verb = verb or ("LHLO" if self.kind == "lmtp" else "EHLO")
        self._unsent.insert(0, (f"{verb} {self._name}", ("hello", verb, None)))

    def _on_hello(self, answer: Reply, verb: str, _n: Any) -> None:
        if answer.code >= 300:
            if verb == "EHLO" and answer.code >= 500:        # RFC 5321 4.1.4: fall back
                return self._hello("HELO")
            return self._break(f"{verb} refused: " + answer.said(), answer)
        if verb != "HELO":
            self.features = features_of(answer)
        self.ready = True
        self._events.append(Ready())
        return None

    def _on_starttls(self, answer: Reply, _t: Any, _n: Any) -> None:
        if answer.code == 220:
            self._handshake = True
        elif answer.code < 400:
            self._break("STARTTLS answered " + answer.said())
        else:
            self.ready = True
            self._events.append(TlsRefused(answer))

    def _before_handshake(self) -> None:
        """Whatever stands behind the 220 was not said by the one with the certificate: it may not
        survive the handshake (RFC 3207 section 6)."""
        if self._reader.partial:
            self._break("plain text behind the reply to STARTTLS")
        else:
            self._events.append(TlsGo())

    def _on_auth(self, answer: Reply, talk: AuthTalk | None, _n: Any) -> None:
        if talk is None:
            self.ready = True
            self._events.append(AuthSaid(answer))
        elif answer.code == 334 and not talk.given_up:
            self._out.append(talk.step(answer).encode("ascii") + b"\r\n")
            self._expected.append(("AUTH", talk, None))
        elif 300 <= answer.code < 400:
            self._break("AUTH answered " + answer.said())
        elif answer.code >= 400:
            self.ready = True
            why = talk.given_up or answer.said()
            self._events.append(AuthFailed(None if talk.given_up else answer, why))
        else:
            self._authenticated(talk.finish())

    def _authenticated(self, doubt: str) -> None:
        """The server says so. If it did not prove that it knows us (RFC 5802 section 5), it is
        another one."""
        self.ready = True
        if doubt:
            self._events.append(AuthFailed(None, doubt))
            self._break("AUTH: " + doubt)
        else:
            self._events.append(AuthDone())

    def _on_xhop(self, answer: Reply, _t: Any, _n: Any) -> None:
        self._events.append(Hop(answer))

    def _on_xsession(self, answer: Reply, _t: Any, _n: Any) -> None:
        self._events.append(SessionKnown(answer))

    def _on_quit(self, _answer: Reply, _t: Any, _n: Any) -> None:
        self._break("bye")

    def _on_rset(self, answer: Reply, _t: Any, _n: Any) -> None:
        if answer.code >= 300:
            return self._break("RSET refused: " + answer.said(), answer)
        return self._events.append(Alive())

    _on: dict[str, Callable[..., None]] = {
        "greeting": _on_greeting, "hello": _on_hello, "STARTTLS": _on_starttls, "AUTH": _on_auth,
        "XHOP": _on_xhop, "XSESSION": _on_xsession, "RSET": _on_rset, "QUIT": _on_quit,
    }


def features_of(answer: Reply) -> dict[str, str]:
    """What EHLO offered: keywords in upper case, with their parameters as text. ``AUTH=`` is how
    servers older than RFC 2554 spell AUTH; many say both."""
    found: dict[str, str] = {}
    for line in answer.lines[1:]:
        word, _, rest = line.strip().partition(" ")
        word = word.upper()
        if word.startswith("AUTH="):
            word, rest = "AUTH", f"{word[5:]} {rest}"
        if word == "AUTH":
            rest = f"{found.get('AUTH', '')} {rest}"
        if word:
            found[word] = rest.strip()
    return found
