"""The server's half of SMTP (RFC 5321), LMTP (RFC 2033) and XMQ: bytes in, events and bytes out.

No sockets, no clock. A shell feeds what it reads; the application takes events one by one, answers
those that want a reply, and writes what ``take_output`` returns:

    server.greet()
    while not server.closed:
        event = server.next_event()
        if event is None: write(server.take_output()); server.feed(read())
        else: handle(event), which calls server.answer(event, reply or None)

``next_event`` returns None when it needs more octets or when an answer is owed. RCPT after RCPT is
handed out without waiting (PIPELINING, RFC 2920), so an application may ask about many at once;
replies leave in the order of the commands whatever the order of the answers.

Lines and turns are in ``dialogue``, the states and what is allowed in each in ``states``, the body
in ``transfer``, commands that carry no mail in ``asides``; here are the others.
"""

from __future__ import annotations

from mqmail.mail.address import BadAddress, check_domain
from mqmail.xmtp import events, params
from mqmail.xmtp.asides import LONGEST_AUTH_LINE, Asides
from mqmail.xmtp.dialogue import Limits
from mqmail.xmtp.reply import LONGEST_LINE_XMQ, Reply, reply
from mqmail.xmtp.states import ALLOWED, CHUNK, IDLE, MAIL, NEEDS, RCPT, READY, REFUSED, START
from mqmail.xmtp.transfer import Transfer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["ALLOWED", "CHUNK", "MAIL", "ONLY_XFD", "RCPT", "READY", "REFUSED", "SERVICE_EXTENSIONS",
           "START", "Limits", "Server"]

OVERSHOOT = 10000               # recipients of a transaction that are not taken before each is an error
# What a service that takes bodies by XFD alone offers, and its answer to DATA.
SERVICE_EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "XMQ")
ONLY_XFD = reply(502, "5.5.1", "the body comes by XFD here")

_SENDER_OK = reply(250, "2.1.0", "sender ok")
_RECIPIENT_OK = reply(250, "2.1.5", "recipient ok")
_EXTENDED = ("MAIL", "RCPT", "AUTH", "XCLIENT")     # verbs whose lines extensions make longer
_MOST_OFFERS = 100
_offers: dict[tuple[str, ...], tuple[tuple[str, ...], frozenset[str]]] = {}     # sessions share them


class Server(Asides):
    """One session. *kind* is "smtp" or "lmtp"; *extensions* are EHLO lines ("SIZE" is completed)."""

    __slots__ = ("_extensions", "_refused")

    def __init__(self, kind: str, host: str, extensions: Sequence[str],
                 limits: Limits | None = None) -> None:
        words = [line.split(" ", 1)[0] for line in extensions]
        super().__init__(kind, host, limits or Limits(), "XMQ" in words)
        self.set_extensions(extensions)
        self._refused = 0

    # --- what the shell and the application call ---

    def set_extensions(self, extensions: Sequence[str]) -> None:
        """What EHLO offers from now on."""
        lines = tuple(extensions)
        found = _offers.get(lines)
        if found is None:
            if len(_offers) >= _MOST_OFFERS:
                _offers.clear()
            found = _offers[lines] = lines, frozenset([line.split(" ", 1)[0] for line in lines])
        self._extensions, self.words = found
        self.xmq = "XMQ" in self.words
        self._most = max([self._longest_command(verb) for verb in ("", "MAIL", "AUTH")])

    def set_limits(self, limits: Limits) -> None:
        """What the session may use from now on."""
        self._limits = limits

    def greet(self, answer: Reply | None = None) -> None:
        """Say 220, or refuse the session (RFC 5321 3.1): then only QUIT is listened to."""
        if answer is not None and answer.code == 421:
            return self.close(answer)
        if answer is not None and answer.code >= 400:
            self._state = REFUSED
        kind = "LMTP" if self.kind == "lmtp" else "ESMTP"
        return self._put(answer or Reply(220, (f"{self.host} {kind} mqmail",)))

    @property
    def state(self) -> str:
        """One of the states in ``states``."""
        return self._state

    def answer(self, event: Any, answer: Reply | None = None) -> None:
        """Answer *event*; None is the usual yes."""
        if self.closed:
            return None
        for entry in self._owed:
            if entry[0] is event:
                return self._settle(entry, event, answer)
        raise RuntimeError(f"no answer is owed to {type(event).__name__}")

    def _settle(self, entry: list[Any], event: Any, answer: Reply | None) -> None:
        entry[0] = None
        said = self._after[type(event)](self, event, answer)
        if said is None:                # nothing to say yet, or it is said: the entry was the only one
            self._owed.clear()
        elif len(self._owed) == 1:
            self._owed.clear()
            self._put(said)
        else:
            entry[1] = said
            self._flush()

    @property
    def at_rest(self) -> bool:
        """Whether no more octets are wanted: the session is over (``closed``), or the client has been
        told to shake hands."""
        return self._mode is None

    def tls_started(self) -> None:
        """The TLS session stands: back to the start, and nothing from before is believed."""
        self._buffer, self._at = b"", 0
        self._mode = self._command
        self._authenticated = self._extended = False
        self._clear(START)

    # --- commands ---

    def _dispatch(self, text: str, octets: int) -> Any:
        verb, _, argument = text.partition(" ")
        verb = verb.upper() if verb.isascii() else verb
        if octets > self._longest_command(verb):
            return self._say(reply(500, "5.5.2", "line too long"))
        if self._state == REFUSED and verb != "QUIT":
            return self._say(reply(503, "5.5.1", "no service here"))
        handler = self._verbs.get(verb)
        if handler is None:
            return self._say(reply(500, "5.5.2", "unknown command"))
        if self._state not in ALLOWED[verb] and verb not in ("BDAT", "XFD"):
            return self._say(reply(503, "5.5.1", self._out_of_order(verb)), error=not self._is_behind())
        if verb in IDLE and self._is_idle():
            return None
        return handler(self, argument.strip(" "))

    def _longest_command(self, verb: str) -> int:
        """AUTH's is as long as what follows a 334: a token of OAuth is no shorter, and mail programs
        send it as initial response, whatever SMTP's limit is (RFC 4954 section 4)."""
        if verb == "AUTH" and "AUTH" in self.words:
            return LONGEST_AUTH_LINE
        if self.xmq:
            return LONGEST_LINE_XMQ
        return self._limits.extended if verb in _EXTENDED else self._limits.command

    def _out_of_order(self, verb: str) -> str:
        if self._state == START:
            return f"say {'LHLO' if self.kind == 'lmtp' else 'EHLO'} first"
        if verb == "MAIL":
            return "a transaction is open already"
        return "say MAIL first" if self._state == READY else "not now"

    def _hello(self, verb: str, name: str) -> Any:
        if (verb == "LHLO") != (self.kind == "lmtp"):       # RFC 2033 section 4.1
            return self._say(reply(500, "5.5.1", f"this is {self.kind.upper()}"))
        try:
            check_domain(name)
        except BadAddress:
            name = ""
        if not name or not name.isascii():                  # RFC 6531 section 3.7.1: A-labels
            return self._say(reply(501, "5.5.4", f"say {verb} and your host name"))
        return self._owe(events.Hello(verb, name))

    def _mail(self, argument: str) -> Any:
        try:
            mail = params.parse_mail(argument, self._known())
        except params.Refused as refused:
            self._mail_refused()
            return self._say(refused.reply)
        if self._limits.size and mail.size > self._limits.size:      # RFC 1870 section 6.1
            self._mail_refused()
            return self._say(reply(552, "5.3.4", "message too large"), error=False)
        return self._owe(mail)

    def _known(self) -> frozenset[str]:
        """The extensions whose parameters are understood: none after HELO (RFC 5321 section 2.2.1)."""
        return self.words if self._extended else frozenset()

    def _mail_refused(self) -> None:
        self._behind = self._limits.recipients + 1      # all RCPT and a DATA

    def _rcpt(self, argument: str) -> Any:
        utf8 = self.mail is not None and self.mail.utf8
        try:
            rcpt = params.parse_rcpt(argument, self._known(), utf8, self._offered)
        except params.Refused as refused:
            self.missed += 1
            return self._say(refused.reply)
        if len(self.accepted) >= self._limits.recipients:
            self._miss()
            return self._say(reply(452, "4.5.3", "too many recipients"))     # RFC 5321 4.5.3.1.10
        self._offered += 1
        self._state = RCPT
        return self._owe(rcpt)

    def _miss(self) -> None:
        """A recipient is not taken. A client may name many more than it may have; it ends."""
        self.missed += 1
        if self.missed > OVERSHOOT:
            self._count_error()

    def _room_for_recipients(self) -> bool:
        return len(self.accepted) + len(self._owed) < self._limits.recipients

    def _rset(self, argument: str) -> Any:
        if argument:
            return self._say(reply(501, "5.5.4", "RSET has no argument"))
        self._say(reply(250, "2.0.0", "ok"))
        return self._drop()

    def _help(self, _argument: str) -> Any:
        verbs = " ".join(sorted([verb for verb in self._verbs if self._offers(verb)]))
        return self._say(reply(214, "2.0.0", f"mqmail; commands: {verbs}"))

    def _offers(self, verb: str) -> bool:
        if verb in ("HELO", "EHLO", "LHLO"):
            return (verb == "LHLO") == (self.kind == "lmtp")
        return verb not in NEEDS or NEEDS[verb] in self.words

    def _quit(self, argument: str) -> Any:
        if argument:
            return self._say(reply(501, "5.5.4", "QUIT has no argument"))
        self._put(reply(221, "2.0.0", "goodbye"))
        self._end()
        return events.Quit()

    _verbs: dict[str, Callable[..., Any]] = {
        "HELO": lambda self, name: self._hello("HELO", name),
        "EHLO": lambda self, name: self._hello("EHLO", name),
        "LHLO": lambda self, name: self._hello("LHLO", name),
        "MAIL": _mail, "RCPT": _rcpt, "DATA": Transfer._data, "BDAT": Transfer._bdat,
        "XFD": Transfer._xfd, "RSET": _rset, "HELP": _help, "QUIT": _quit,
        "NOOP": lambda self, _argument: self._say(reply(250, "2.0.0", "ok")),
        "VRFY": Asides._vrfy, "EXPN": Asides._expn, "ETRN": Asides._etrn, "XHOP": Asides._hop,
        "XSESSION": Asides._session, "STARTTLS": Asides._starttls, "AUTH": Asides._auth,
        "XCLIENT": Asides._xclient,
    }

    # --- what an answer does; it returns what is said to the client ---

    def _after_hello(self, event: events.Hello, answer: Reply | None) -> Reply:
        """A hello that is accepted is a RSET too (RFC 5321 section 4.1.4)."""
        if answer is None:
            lines = [self.host]
            if event.verb != "HELO":
                size = f"SIZE {self._limits.size}" if self._limits.size else "SIZE"
                lines += [size if line == "SIZE" else line for line in self._extensions]
            answer = Reply(250, tuple(lines))
        if answer.code < 400:
            self._extended = event.verb != "HELO"
            if self.in_transaction:
                self._mode = self._tell_reset
            self._clear(READY)
        return answer

    def _tell_reset(self) -> Any:
        self._mode = self._command
        return events.Reset()

    def _after_mail(self, event: events.Mail, answer: Reply | None) -> Reply:
        answer = answer or _SENDER_OK
        if answer.code < 400:
            self._clear(MAIL)
            self.mail = event
        else:
            self._mail_refused()
            self._count_refusal(answer)
        return answer

    def _after_rcpt(self, event: events.Rcpt, answer: Reply | None) -> Reply:
        answer = answer or _RECIPIENT_OK
        if answer.code < 400:
            self._accept(event)
            return answer
        self._miss()
        if answer.code >= 500 and not self.xmq:
            self._refused += 1
            if self._refused > self._limits.refused:
                self.close(reply(421, "4.7.0", "too many refused recipients"))
        return answer

    def _accept(self, rcpt: events.Rcpt) -> None:
        """In the order of the commands, whatever the order of the answers."""
        accepted = self.accepted
        accepted.append(rcpt)
        if len(accepted) > 1 and accepted[-2].number > rcpt.number:
            accepted.sort(key=lambda one: one.number)

    _after: dict[type, Callable[..., Reply | None]] = {
        events.Hello: _after_hello, events.Hop: Asides._after_hop,
        events.Session: Asides._after_session, events.Mail: _after_mail, events.Rcpt: _after_rcpt,
        events.Data: Transfer._after_data, events.BodyEnd: Transfer._after_body,
        events.BodyFile: Transfer._after_body, events.Verify: Asides._after_verify,
        events.Etrn: Asides._after_etrn, events.StartTls: Asides._after_tls,
        events.Auth: Asides._after_auth, events.Xclient: Asides._after_xclient,
    }
