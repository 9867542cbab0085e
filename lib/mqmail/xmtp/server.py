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

The states and what is allowed in each stand in ``ALLOWED``; a verb that is not allowed in the state
is answered 503 in one place. Nothing is buffered beyond one command line or what one feed brought.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.mail.address import BadAddress, check_domain
from mqmail.xmtp import events, params
from mqmail.xmtp.reply import LONGEST_LINE, LONGEST_LINE_XMQ, ProtocolError, Reply, reply
from mqmail.xmtp.text import BARE, DataDecoder, TextCheck

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

START, READY, MAIL, RCPT, CHUNK, REFUSED = "start", "ready", "mail", "rcpt", "chunk", "refused"

_ALWAYS = frozenset((START, READY, MAIL, RCPT, CHUNK))
_GREETED = frozenset((READY, MAIL, RCPT, CHUNK))
ALLOWED = {
    "HELO": _ALWAYS, "EHLO": _ALWAYS, "LHLO": _ALWAYS,
    "MAIL": frozenset((READY,)),
    "RCPT": frozenset((MAIL, RCPT)),
    "DATA": frozenset((MAIL, RCPT)),
    "BDAT": frozenset((MAIL, RCPT, CHUNK)),
    "XFD": frozenset((MAIL, RCPT)),
    "RSET": _ALWAYS, "NOOP": _ALWAYS, "HELP": _ALWAYS, "VRFY": _ALWAYS,
    "STARTTLS": frozenset((READY,)), "AUTH": frozenset((READY,)),
    "QUIT": _ALWAYS | {REFUSED},
}
_IDLE = frozenset(("NOOP", "HELP", "VRFY", "RSET"))
_DEFAULTS = {
    events.Mail: reply(250, "2.1.0", "sender ok"),
    events.Rcpt: reply(250, "2.1.5", "recipient ok"),
    events.BodyEnd: reply(250, "2.0.0", "ok"),
    events.BodyFile: reply(250, "2.0.0", "ok"),
    events.Verify: reply(252, "2.5.2", "send some mail, I will try my best"),
    events.StartTls: reply(220, "2.0.0", "go ahead"),
}


@value
class Limits:
    """What one session may use. *size* 0: no limit. *idle* 0: NOOP, RSET and their like are free."""

    size: int = 0
    recipients: int = 1000          # per transaction; RFC 5321 4.5.3.1.8 wants at least 100
    errors: int = 20                # commands answered 5xx by the core
    refused: int = 100              # recipients answered 5xx by the application
    idle: int = 100                 # commands without progress since the last message
    command: int = 512              # octets with CRLF (RFC 5321 4.5.3.1.4)
    extended: int = 2048            # the same for MAIL and RCPT with their extensions
    line: int = 998


class Server:
    """One session. *kind* is "smtp" or "lmtp"; *extensions* are EHLO lines ("SIZE" is completed)."""

    def __init__(self, kind: str, host: str, extensions: Sequence[str],
                 limits: Limits | None = None) -> None:
        self.kind = kind
        self.host = host
        self.closed = False
        self.set_extensions(extensions)
        self._limits = limits or Limits()
        self._longest = LONGEST_LINE_XMQ if self.xmq else LONGEST_LINE
        self._out: list[bytes] = []
        self._owed: list[list[Any]] = []            # [event or None, reply or None], in order
        self._buffer, self._at = b"", 0
        self._fds: list[int] = []
        self._spare: list[int] = []
        self._skipping = False                      # inside a command line that is too long
        self._errors = self._refused = self._idle = 0
        self._mode: Callable[[], Any] | None = self._command
        self._state = START
        self.accepted: list[events.Rcpt] = []
        self._clear(START)

    # --- what the shell and the application call ---

    def set_extensions(self, extensions: Sequence[str]) -> None:
        """What EHLO offers from now on."""
        self._extensions = tuple(extensions)
        self.words = frozenset([line.split(" ", 1)[0] for line in extensions])
        self.xmq = "XMQ" in self.words

    def greet(self, answer: Reply | None = None) -> None:
        """Say 220, or refuse the session (RFC 5321 3.1): then only QUIT is listened to."""
        if answer is not None and answer.code >= 400:
            self._state = REFUSED
        self._put(answer or Reply(220, (f"{self.host} {'LMTP' if self.kind == 'lmtp' else 'ESMTP'} mqmail",)))

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Octets, and descriptors, from the peer. Raises ProtocolError on a flood of descriptors."""
        self._buffer = self._buffer[self._at:] + data if self._at < len(self._buffer) else data
        self._at = 0
        if fds:
            self._fds.extend(fds)
            if len(self._fds) > 64:
                raise ProtocolError("too many descriptors")

    def take_output(self) -> bytes:
        """What is to be written now."""
        if not self._out:
            return b""
        out, self._out = b"".join(self._out), []
        return out

    def take_descriptors(self, everything: bool = False) -> list[int]:
        """Descriptors that nobody will use: the shell closes them (*everything* at the end)."""
        spare, self._spare = self._spare, []
        if everything:
            spare += self._fds
            self._fds = []
        return spare

    @property
    def owing(self) -> bool:
        """Whether an answer is owed to the client."""
        return bool(self._owed)

    @property
    def in_transaction(self) -> bool:
        """Whether MAIL has been accepted and nothing has ended it."""
        return self._state in (MAIL, RCPT, CHUNK)

    def next_event(self) -> Any:
        """The next event, or None: more octets or an answer is needed, or the session is over."""
        while self._mode is not None and not self.closed:
            event = self._mode()
            if event is not _AGAIN:
                return event
        return None

    def answer(self, event: Any, answer: Reply | None = None) -> None:
        """Answer *event*; None is the usual yes."""
        for entry in self._owed:
            if entry[0] is event:
                entry[0] = None
                self._after[type(event)](self, entry, event, answer)
                return self._flush()
        raise RuntimeError(f"no answer is owed to {type(event).__name__}")

    def answer_recipient(self, number: int, answer: Reply | None = None) -> None:
        """LMTP: the verdict on the accepted recipient *number* (from 0) after BodyEnd or BodyFile."""
        finals = self._finals
        if finals is None or finals[number] is not None:
            raise RuntimeError(f"no verdict is owed to recipient {number}")
        finals[number] = answer or _DEFAULTS[events.BodyEnd]
        if self._tagged:
            self._put_tagged(number, finals[number])
        else:
            while self._said < len(finals) and finals[self._said] is not None:
                self._put(finals[self._said])
                self._said += 1
        if None not in finals:
            self._owed.clear()
            self._finish()

    def fail_body(self, answer: Reply) -> None:
        """The application cannot take the body on its way: the rest is swallowed, then *answer*."""
        if self._failure is None:
            self._failure = answer

    def close(self, answer: Reply) -> None:
        """Say *answer* (421) and end the session."""
        if not self.closed:
            self._owed.clear()
            self._put(answer)
            self._end()

    def tls_started(self) -> None:
        """The TLS session stands: back to the start, and nothing from before is believed."""
        self._buffer, self._at = b"", 0
        self._mode = self._command
        self._clear(START)

    # --- output ---

    def _put(self, answer: Reply) -> None:
        self._out.append(answer.encode(self._longest))

    def _put_tagged(self, number: int, answer: Reply) -> None:
        tag = f"#{number + 1} "
        self._put(Reply(answer.code, tuple([tag + line for line in answer.lines]), answer.status))

    def _say(self, answer: Reply, error: bool = True) -> Any:
        """A reply of the core's own, in its turn."""
        if error and answer.code >= 500:
            self._errors += 1
            if self._errors > self._limits.errors:
                self.close(reply(421, "4.7.0", "too many errors"))
                return None
        if self._owed:
            self._owed.append([None, answer])
        else:
            self._put(answer)
        return _AGAIN

    def _owe(self, event: Any) -> Any:
        self._owed.append([event, None])
        return event

    def _flush(self) -> None:
        while self._owed and self._owed[0][0] is None and self._owed[0][1] is not None:
            self._put(self._owed.pop(0)[1])

    def _end(self) -> None:
        self.closed = True
        self._mode = None
        self._buffer, self._at = b"", 0

    def _clear(self, state: str) -> None:
        """Forget the transaction."""
        self._state = state
        self.mail: events.Mail | None = None
        self.accepted = []
        self._offered = 0                   # RCPT commands of this transaction
        self._failure: Reply | None = None
        self._finals: list[Reply | None] | None = None
        self._said = 0
        self._tagged = False
        self._octets = 0
        self._chunk, self._last = 0, False
        self._check = TextCheck(self._limits.line)
        self._decoder: DataDecoder | None = None

    # --- command lines ---

    def _command(self) -> Any:
        if self._owed and not self._only_recipients_owed():
            return None
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            return self._unfinished()
        line, self._at = self._buffer[self._at:end + 1], end + 1
        if self._skipping:
            self._skipping = False
            return self._say(reply(500, "5.5.2", "line too long"))
        if line[-2:] != b"\r\n" or b"\r" in line[:-2]:
            return self._say(reply(500, "5.5.2", "lines end with CR LF"))
        try:
            text = line[:-2].decode("utf-8")
        except UnicodeDecodeError:
            return self._say(reply(500, "5.5.2", "not UTF-8"))
        if not text.isprintable() and not text.replace("\t", " ").isprintable():
            return self._say(reply(500, "5.5.2", "control character in a command"))
        return self._dispatch(text, len(line))

    def _only_recipients_owed(self) -> bool:
        return self._buffer[self._at:self._at + 5].upper() == b"RCPT " and all(
            [entry[0] is None or type(entry[0]) is events.Rcpt for entry in self._owed])

    def _unfinished(self) -> None:
        """No line end yet: keep what there is, unless it is too much already."""
        self._buffer, self._at = self._buffer[self._at:], 0
        most = self._longest if self.xmq else self._limits.extended
        if self._skipping or len(self._buffer) > most:
            self._skipping = True
            self._buffer = b""

    def _dispatch(self, text: str, octets: int) -> Any:
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        if octets > self._longest_command(verb):
            return self._say(reply(500, "5.5.2", "line too long"))
        handler = self._verbs.get(verb)
        if self._state == REFUSED and verb != "QUIT":
            return self._say(reply(503, "5.5.1", "no service here"))
        if handler is None:
            return self._say(reply(500, "5.5.2", "unknown command"))
        if self._state not in ALLOWED[verb] and verb != "BDAT":
            return self._say(reply(503, "5.5.1", self._out_of_order(verb)))
        if verb in _IDLE and self._limits.idle:
            self._idle += 1
            if self._idle > self._limits.idle:
                return self.close(reply(421, "4.7.0", "too many commands without mail"))
        return handler(self, argument.strip(" "))

    def _longest_command(self, verb: str) -> int:
        if self.xmq:
            return self._longest
        return self._limits.extended if verb in ("MAIL", "RCPT", "AUTH") else self._limits.command

    def _out_of_order(self, verb: str) -> str:
        if self._state == START:
            return f"say {'LHLO' if self.kind == 'lmtp' else 'EHLO'} first"
        if verb == "MAIL":
            return "a transaction is open already"
        return "say MAIL first" if self._state == READY else "not now"

    def _hello(self, verb: str, name: str) -> Any:
        if (verb == "LHLO") != (self.kind == "lmtp"):
            return self._say(reply(500, "5.5.1", f"this is {self.kind.upper()}"))
        try:
            check_domain(name)
        except BadAddress:
            return self._say(reply(501, "5.5.4", f"say {verb} and your host name"))
        return self._owe(events.Hello(verb, name))

    def _mail(self, argument: str) -> Any:
        try:
            mail = params.parse_mail(argument, self.words)
        except params.Refused as refused:
            return self._say(refused.reply)
        if self._limits.size and mail.size > self._limits.size:      # RFC 1870 section 6.1
            return self._say(reply(552, "5.3.4", "message too large"), error=False)
        return self._owe(mail)

    def _rcpt(self, argument: str) -> Any:
        mail = self.mail
        try:
            rcpt = params.parse_rcpt(argument, self.words, mail is not None and mail.utf8, self._offered)
        except params.Refused as refused:
            return self._say(refused.reply)
        if len(self.accepted) + len(self._owed) >= self._limits.recipients:
            return self._say(reply(452, "4.5.3", "too many recipients"))     # RFC 5321 4.5.3.1.10
        self._offered += 1
        self._state = RCPT
        return self._owe(rcpt)

    def _no_recipients(self) -> Any:
        if self._offered:
            return self._say(reply(554, "5.5.1", "no valid recipients"))
        return self._say(reply(503, "5.5.1", "say RCPT first"))

    def _data(self, argument: str) -> Any:
        if argument:
            return self._say(reply(501, "5.5.4", "DATA has no argument"))
        if not self.accepted:
            return self._no_recipients()
        return self._owe(events.Data())

    def _bdat(self, argument: str) -> Any:
        """RFC 3030 section 2; a chunk that is refused is swallowed all the same."""
        size, _, last = argument.partition(" ")
        good = size.isascii() and size.isdigit() and len(size) <= 18 and last.upper() in ("", "LAST")
        if not good or "CHUNKING" not in self.words:
            return self._say(reply(501, "5.5.4", "say BDAT size, or BDAT size LAST"))
        self._chunk, self._last = int(size), bool(last)
        if self._state not in ALLOWED["BDAT"] or (self._state == CHUNK and self._failure is not None):
            self._refusal = reply(503, "5.5.1", "no BDAT now")
        elif not self.accepted:
            self._refusal = reply(554 if self._offered else 503, "5.5.1", "no valid recipients")
        elif self._state == CHUNK:
            self._mode = self._chunk_octets
            return _AGAIN
        else:
            return self._owe(events.Data(chunked=True))
        self._mode = self._refused_chunk
        return _AGAIN

    def _xfd(self, argument: str) -> Any:
        """Ours: the body as a descriptor. It ends the transaction whatever comes of it."""
        if not self.xmq:
            return self._say(reply(500, "5.5.2", "unknown command"))
        fd = self._fds.pop(0) if self._fds else -1
        good = argument.isascii() and argument.isdigit() and len(argument) <= 18
        refusal = None
        if fd < 0 or not good:
            refusal = reply(501, "5.5.4", "XFD size, with a descriptor")
        elif not self.accepted:
            refusal = reply(554, "5.5.1", "no valid recipients")
        elif self._limits.size and int(argument) > self._limits.size:
            refusal = reply(552, "5.3.4", "message too large")
        if refusal is None:
            return self._begin_finals(events.BodyFile(fd, int(argument)), tagged=True)
        if fd >= 0:
            self._spare.append(fd)
        said = self._say(refusal, error=False)
        self._clear(READY)
        return said

    def _rset(self, argument: str) -> Any:
        if argument:
            return self._say(reply(501, "5.5.4", "RSET has no argument"))
        self._say(reply(250, "2.0.0", "ok"))
        return self._drop()

    def _drop(self) -> Any:
        """Leave the transaction, telling the application if there was one."""
        was = self.in_transaction
        self._clear(self._state if self._state == START else READY)
        return events.Reset() if was else _AGAIN

    def _help(self, _argument: str) -> Any:
        verbs = " ".join(sorted(v for v in self._verbs if v in ALLOWED and self._offers(v)))
        return self._say(reply(214, "2.0.0", f"mqmail; commands: {verbs}"))

    def _offers(self, verb: str) -> bool:
        needs = {"BDAT": "CHUNKING", "XFD": "XMQ", "STARTTLS": "STARTTLS", "AUTH": "AUTH"}
        if verb in ("HELO", "EHLO", "LHLO"):
            return (verb == "LHLO") == (self.kind == "lmtp")
        return verb not in needs or needs[verb] in self.words

    def _vrfy(self, argument: str) -> Any:
        if not argument:
            return self._say(reply(501, "5.5.4", "VRFY whom?"))
        return self._owe(events.Verify(argument))

    def _quit(self, argument: str) -> Any:
        if argument:
            return self._say(reply(501, "5.5.4", "QUIT has no argument"))
        self._put(reply(221, "2.0.0", "goodbye"))
        self._end()
        return events.Quit()

    def _starttls(self, argument: str) -> Any:
        if "STARTTLS" not in self.words:
            return self._say(reply(502, "5.5.1", "STARTTLS is not offered"))
        if argument:
            return self._say(reply(501, "5.5.4", "STARTTLS has no argument"))
        return self._owe(events.StartTls())

    def _auth(self, argument: str) -> Any:
        mechanism, _, initial = argument.partition(" ")
        if "AUTH" not in self.words:
            return self._say(reply(502, "5.5.1", "AUTH is not offered"))
        if not mechanism:
            return self._say(reply(501, "5.5.4", "AUTH by which mechanism?"))
        return self._owe(events.Auth(mechanism.upper(), initial, first=True))

    def _auth_line(self) -> Any:
        """The client's line after a 334."""
        if self._owed:
            return None
        end = self._buffer.find(b"\n", self._at)
        if end < 0 and len(self._buffer) - self._at <= 12288:        # RFC 4954 section 4
            return None
        line = self._buffer[self._at:end + 1] if end >= 0 else b""
        self._at = end + 1 if end >= 0 else len(self._buffer)
        self._mode = self._command
        if line[-2:] != b"\r\n" or not line.isascii() or line == b"*\r\n":
            return self._say(reply(501, "5.7.0", "authentication cancelled"))
        return self._owe(events.Auth(self._mechanism, line[:-2].decode("ascii"), first=False))

    _verbs: dict[str, Callable[..., Any]] = {
        "HELO": lambda self, name: self._hello("HELO", name),
        "EHLO": lambda self, name: self._hello("EHLO", name),
        "LHLO": lambda self, name: self._hello("LHLO", name),
        "MAIL": _mail, "RCPT": _rcpt, "DATA": _data, "BDAT": _bdat, "XFD": _xfd, "RSET": _rset,
        "NOOP": lambda self, _argument: self._say(reply(250, "2.0.0", "ok")),
        "HELP": _help, "VRFY": _vrfy, "QUIT": _quit, "STARTTLS": _starttls, "AUTH": _auth,
    }

    # --- what an answer does ---

    def _after_hello(self, entry: list[Any], event: events.Hello, answer: Reply | None) -> None:
        if answer is None:
            lines = [self.host]
            if event.verb != "HELO":
                size = f"SIZE {self._limits.size}" if self._limits.size else "SIZE"
                lines += [size if line == "SIZE" else line for line in self._extensions]
            answer = Reply(250, tuple(lines))
            self._clear(READY)
        entry[1] = answer

    def _after_mail(self, entry: list[Any], event: events.Mail, answer: Reply | None) -> None:
        entry[1] = answer or _DEFAULTS[events.Mail]
        if entry[1].code < 400:
            self._clear(MAIL)
            self.mail = event

    def _after_rcpt(self, entry: list[Any], event: events.Rcpt, answer: Reply | None) -> None:
        entry[1] = answer or _DEFAULTS[events.Rcpt]
        if entry[1].code < 400:
            self.accepted.append(event)
        elif entry[1].code >= 500 and not self.xmq:
            self._refused += 1
            if self._refused > self._limits.refused:
                self.close(reply(421, "4.7.0", "too many refused recipients"))

    def _after_data(self, entry: list[Any], event: events.Data, answer: Reply | None) -> None:
        if event.chunked:
            self._owed.remove(entry)
            self._state, self._failure = CHUNK, answer
            self._mode = self._chunk_octets
        elif answer is None:
            entry[1] = Reply(354, ("go ahead",))
            self._decoder = DataDecoder()
            self._mode = self._data_octets
        else:
            entry[1] = answer

    def _after_body(self, entry: list[Any], _event: Any, answer: Reply | None) -> None:
        entry[1] = answer or _DEFAULTS[events.BodyEnd]
        self._finish()

    def _after_verify(self, entry: list[Any], _event: Any, answer: Reply | None) -> None:
        entry[1] = answer or _DEFAULTS[events.Verify]

    def _after_tls(self, entry: list[Any], _event: Any, answer: Reply | None) -> None:
        entry[1] = answer or _DEFAULTS[events.StartTls]
        if entry[1].code == 220:
            self._buffer, self._at = b"", 0         # RFC 3207 section 4.2
            self._mode = None

    def _after_auth(self, entry: list[Any], event: events.Auth, answer: Reply | None) -> None:
        entry[1] = answer or reply(235, "2.7.0", "welcome")
        if entry[1].code == 334:
            self._mechanism = event.mechanism
            self._mode = self._auth_line

    _after: dict[type, Callable[..., None]] = {
        events.Hello: _after_hello, events.Mail: _after_mail, events.Rcpt: _after_rcpt,
        events.Data: _after_data, events.BodyEnd: _after_body, events.BodyFile: _after_body,
        events.Verify: _after_verify, events.StartTls: _after_tls, events.Auth: _after_auth,
    }

    # --- the body ---

    def _data_octets(self) -> Any:
        if self._at == len(self._buffer) or self._owed:
            return None
        assert self._decoder is not None
        data = self._buffer[self._at:] if self._at else self._buffer
        body, used = self._decoder.feed(data)
        self._buffer, self._at = (b"", 0) if used < 0 else (data, used)
        if used >= 0:
            self._mode = self._body_end
        return self._take(body)

    def _take(self, body: bytes) -> Any:
        """A piece of the body: counted, checked, handed on; or the first flaw of it."""
        self._octets += len(body)
        if self._failure is not None or not body:
            return _AGAIN
        self._check.feed(body)
        if self._limits.size and self._octets > self._limits.size:
            return self._fail(reply(552, "5.3.4", "message too large"))
        if self._check.flaw:
            return self._fail(self._flaw())
        return events.Body(body)

    def _fail(self, answer: Reply) -> events.BodyFailed:
        self._failure = answer
        return events.BodyFailed(answer.said())

    def _flaw(self) -> Reply:
        if self._check.flaw == BARE:
            return reply(550, "5.6.11", "the message holds a bare CR or LF; lines end with CR LF")
        return reply(554, "5.6.0", f"the message holds a line over {self._limits.line} octets")

    def _body_end(self) -> Any:
        self._check.finish()
        if self._failure is None and self._check.flaw:
            return self._fail(self._flaw())
        if self._failure is None:
            return self._begin_finals(events.BodyEnd(self._octets), tagged=False)
        times = len(self.accepted) if self.kind == "lmtp" else 1
        for _ in range(times):
            self._say(self._failure, error=False)
        self._finish()
        return _AGAIN

    def _begin_finals(self, event: Any, tagged: bool) -> Any:
        if self.kind == "lmtp":
            self._finals = [None] * len(self.accepted)
            self._tagged = tagged
        self._mode = self._command
        return self._owe(event)

    def _finish(self) -> None:
        """The transaction is over, with the message taken or not."""
        self._idle = 0
        self._mode = None if self.closed else self._command
        self._clear(READY)

    def _chunk_octets(self) -> Any:
        """Octets of a BDAT chunk."""
        piece = self._buffer[self._at:self._at + self._chunk]
        if piece:
            self._at += len(piece)
            self._chunk -= len(piece)
            return self._take(piece)
        if self._chunk:
            return None
        if self._last:
            self._mode = self._body_end
            return _AGAIN
        self._mode = self._command
        return self._say(self._failure or reply(250, "2.0.0", "go on"), error=False)

    def _refused_chunk(self) -> Any:
        """A BDAT out of place: swallow, then say so; the transaction stays as it is."""
        piece = min(self._chunk, len(self._buffer) - self._at)
        self._at += piece
        self._chunk -= piece
        if self._chunk:
            return None
        self._mode = self._command
        return self._say(self._refusal)


_AGAIN = object()
