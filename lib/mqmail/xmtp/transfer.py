"""A transaction's second half: the body by DATA, BDAT or XFD, and the verdicts on it.

DATA: RFC 5321 section 4.1.1.4; BDAT: RFC 3030; one reply for each accepted recipient with LMTP:
RFC 2033 section 4.2. Whatever goes wrong with a body, the rest of it is swallowed before it is
answered, so that text is never taken for commands.
"""

from __future__ import annotations

from mqmail.xmtp import events
from mqmail.xmtp.dialogue import AGAIN, Dialogue, Limits
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.states import ALLOWED, CHUNK, READY, START, TRANSACTION
from mqmail.xmtp.text import BARE, DataDecoder, TextCheck

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TAKEN = reply(250, "2.0.0", "ok")
_TOO_LARGE = reply(552, "5.3.4", "message too large")


class Transfer(Dialogue):
    """Base of Server: a transaction and its body."""

    __slots__ = ("_behind", "_check", "_chunk", "_decoder", "_failure", "_finals", "_idle", "_last",
                 "_octets", "_offered", "_refusal", "_said", "_state", "_tagged", "accepted", "kind",
                 "mail", "missed", "words")

    def __init__(self, kind: str, limits: Limits, xmq: bool) -> None:
        super().__init__(limits, xmq)
        self.kind = kind
        self.words: frozenset[str] = frozenset()    # what EHLO offers
        self._idle = 0
        self._state = START
        self._clear(START)

    def _clear(self, state: str) -> None:
        """Forget the transaction."""
        self._state = state
        self.mail: events.Mail | None = None
        self.accepted: list[events.Rcpt] = []
        self.missed = 0                     # RCPT commands of this transaction that were refused
        self._offered = 0                   # those that were understood
        self._behind = 0                    # commands that may have been sent before MAIL was refused
        self._failure: Reply | None = None
        self._finals: list[Reply | None] | None = None
        self._said = 0
        self._tagged = False
        self._octets = 0
        self._chunk, self._last = 0, False
        self._refusal: Reply | None = None
        self._check = TextCheck(self._limits.line)
        self._decoder: DataDecoder | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether MAIL has been accepted and nothing has ended it."""
        return self._state in TRANSACTION

    @property
    def in_body(self) -> bool:
        """Whether the next octets are a body's, be it wanted or not."""
        return self._mode in (self._data_octets, self._chunk_octets, self._refused_chunk)

    @property
    def each_is_told(self) -> bool:
        """Whether each recipient gets a verdict of its own after the body: by LMTP, or the client asked
        for it (PRDR)."""
        return self.kind == "lmtp" or (
            self.mail is not None and self.mail.prdr and len(self.accepted) > 1)

    def _is_idle(self) -> bool:
        """One more command that brings no message nearer. Whether it was the last: the session ends."""
        self._idle += 1
        if not 0 < self._limits.idle < self._idle:
            return False
        self.close(reply(421, "4.7.0", "too many commands without mail"))
        return True

    # --- what the application calls ---

    def answer_recipient(self, number: int, answer: Reply | None = None) -> None:
        """LMTP and PRDR: the verdict on the accepted recipient *number* (from 0) after the body."""
        if self.closed:
            return
        finals = self._finals
        if finals is None or finals[number] is not None:
            raise RuntimeError(f"no verdict is owed to recipient {number}")
        finals[number] = answer or _TAKEN
        if self._tagged:
            self._put_tagged(number, answer or _TAKEN)
        elif self.kind == "smtp":
            self._put_block(finals)
        else:
            while self._said < len(finals) and finals[self._said] is not None:
                self._put(finals[self._said])  # type: ignore[arg-type]
                self._said += 1
        if None not in finals:
            self._owed.clear()
            self._finish()

    def _put_block(self, finals: list[Reply | None]) -> None:
        """PRDR's verdicts, once all are known (draft-hall-prdr-00 section 4.5): one for all if they are
        the same, else a 353, one for each in the order of the RCPTs, and the message's own, which is
        positive if anybody gets it."""
        known = [final for final in finals if final is not None]
        if len(known) < len(finals):
            return
        if known.count(known[0]) == len(known):
            return self._put(known[0])
        self._put(Reply(353, ("responses for each recipient follow",)))
        for final in known:
            self._put(final)
        self._put(min(known, key=lambda final: final.code))

    def fail_body(self, answer: Reply) -> None:
        """The application cannot take the body on its way: the rest is swallowed, then *answer*."""
        if self._failure is None:
            self._failure = answer

    # --- commands ---

    def _data(self, argument: str) -> Any:
        if argument:
            return self._say(reply(501, "5.5.4", "DATA has no argument"))
        if not self.accepted:
            return self._say(self._no_recipients(), error=not self._offered)
        return self._owe(events.Data())

    def _no_recipients(self) -> Reply:
        """503 with LMTP (RFC 2033 section 4.2), 554 when SMTP's were all refused (RFC 5321 3.3)."""
        if not self._offered:
            return reply(503, "5.5.1", "say RCPT first")
        return reply(503 if self.kind == "lmtp" else 554, "5.5.1", "no valid recipients")

    def _bdat(self, argument: str) -> Any:
        """RFC 3030 section 2; a chunk that is refused is swallowed all the same."""
        size, _, last = argument.partition(" ")
        if not (size.isascii() and size.isdigit()):
            return self._no_size()
        if len(size) > 18:      # it will never have come, so there is no next command
            self.close(reply(552, "5.3.4", "chunk too large"))
            return None
        self._chunk, self._last = int(size), last.isascii() and last.upper() == "LAST"
        if not self._chunk and not self._last and self._is_idle():
            return None
        self._refusal = self._refuse_chunk(last)
        if self._refusal is not None:
            self._mode = self._refused_chunk
        elif self._state == CHUNK:
            self._mode = self._chunk_octets
        else:
            return self._owe(events.Data(chunked=True))
        return AGAIN

    def _no_size(self) -> Any:
        refusal = reply(501, "5.5.4", "say BDAT size, or BDAT size LAST")
        self._spoil(refusal)
        return self._say(refusal)

    def _refuse_chunk(self, last: str) -> Reply | None:
        if "CHUNKING" not in self.words:
            return reply(502, "5.5.1", "BDAT is not offered")
        if last and not self._last:
            return reply(501, "5.5.4", "say BDAT size, or BDAT size LAST")
        if self._state not in ALLOWED["BDAT"] or (self._state == CHUNK and self._failure is not None):
            return reply(503, "5.5.1", "no BDAT now")
        return None if self.accepted else self._no_recipients()

    def _spoil(self, refusal: Reply) -> None:
        """A part of the body is lost: the transaction can only be reset (RFC 3030 section 2)."""
        if self.in_transaction:
            self._state = CHUNK
            self.fail_body(refusal)

    def _xfd(self, argument: str) -> Any:
        """Ours: the body as a descriptor. It ends the transaction whatever comes of it."""
        if not self.xmq:
            return self._say(reply(500, "5.5.2", "unknown command"))
        fd = self._fds.pop(0) if self._fds else -1
        refusal = self._refuse_file(argument, fd)
        if refusal is None:
            return self._begin_finals(events.BodyFile(fd, int(argument)), tagged=True)
        if fd >= 0:
            self._spare.append(fd)
        self._say_to_all(refusal, tagged=True)
        return self._drop()

    def _takes_files(self) -> bool:
        """LMTP services deliver from the file; with SMTP a message comes in by DATA or BDAT."""
        return self.xmq and self.kind == "lmtp"

    def _refuse_file(self, argument: str, fd: int) -> Reply | None:
        if not self._takes_files():
            return reply(502, "5.5.1", "only LMTP services take XFD: say BDAT or DATA")
        if self._state not in ALLOWED["XFD"]:
            return reply(503, "5.5.1", "no XFD now")
        if not self.accepted:
            return self._no_recipients()
        if fd < 0 or not (argument.isascii() and argument.isdigit() and len(argument) <= 18):
            return reply(501, "5.5.4", "XFD size, with a descriptor")
        if self._limits.size and int(argument) > self._limits.size:
            return _TOO_LARGE
        return None

    def _drop(self) -> Any:
        """Leave the transaction, telling the application if there was one."""
        was = self.in_transaction
        self._clear(self._state if self._state == START else READY)
        return events.Reset() if was else AGAIN

    # --- what an answer does ---

    def _after_data(self, event: events.Data, answer: Reply | None) -> Reply | None:
        if event.chunked:
            self._state, self._failure = CHUNK, answer
            self._mode = self._chunk_octets
            return None
        if answer is None:
            self._decoder = DataDecoder()
            self._mode = self._data_octets
        return answer or Reply(354, ("go ahead",))

    def _after_body(self, _event: Any, answer: Reply | None) -> Reply | None:
        """One answer for all: with LMTP it goes to each who has none yet."""
        if self._finals is None:
            self._finish()
            return answer or _TAKEN
        for number, final in enumerate(self._finals):
            if final is None:
                self.answer_recipient(number, answer)
        return None

    # --- octets of a body ---

    def _data_octets(self) -> Any:
        if self._at == len(self._buffer):
            return None
        assert self._decoder is not None
        data = self._buffer[self._at:] if self._at else self._buffer
        body, used = self._decoder.feed(data)
        self._buffer, self._at = (b"", 0) if used < 0 else (data, used)
        if used >= 0:
            self._mode = self._body_end
        return self._take(body)

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
            return AGAIN
        self._mode = self._command
        return self._say(self._failure or reply(250, "2.0.0", "go on"), error=False)

    def _refused_chunk(self) -> Any:
        """A BDAT out of place: swallow, then say so. Unless it was the whole body it spoils the
        transaction. Inside one it is no error: the client may have sent it before it knew."""
        piece = min(self._chunk, len(self._buffer) - self._at)
        self._at += piece
        self._chunk -= piece
        if self._chunk:
            return None
        self._mode = self._command
        assert self._refusal is not None
        inside = self.in_transaction and (self._offered > 0 or self._state == CHUNK)
        if not self._last:
            self._spoil(self._refusal)
        return self._say(self._refusal, error=not inside and not self._is_behind())

    def _is_behind(self) -> bool:
        """Whether a command out of order was sent, as it may, before MAIL's refusal was seen
        (RFC 2920 section 3.1)."""
        if not self._behind:
            return False
        self._behind -= 1
        return True

    def _take(self, body: bytes) -> Any:
        """A piece of the body: counted, checked, handed on; or the first flaw of it."""
        if self._failure is not None or not body:
            return AGAIN
        room = self._limits.size - self._octets
        self._octets += len(body)
        large = self._limits.size and len(body) > room
        self._check.feed(body[:room] if large else body)
        if self._check.flaw:
            return self._fail(self._flaw())
        return self._fail(_TOO_LARGE) if large else events.Body(body)

    def _fail(self, answer: Reply) -> events.BodyFailed:
        self._failure = answer
        return events.BodyFailed(answer.said())

    def _flaw(self) -> Reply:
        if self._check.flaw == BARE:
            return reply(550, "5.6.11", "the message holds a bare CR or LF; lines end with CR LF")
        return reply(554, "5.6.0", f"the message holds a line over {self._limits.line} octets")

    # --- the end ---

    def _body_end(self) -> Any:
        self._check.finish()
        if self._failure is None and self._check.flaw:
            return self._fail(self._flaw())
        if self._failure is None:
            return self._begin_finals(events.BodyEnd(self._octets), tagged=False)
        self._say_to_all(self._failure, tagged=False)
        self._finish()
        return events.Reset()

    def _begin_finals(self, event: Any, tagged: bool) -> Any:
        if self.each_is_told:
            self._finals = [None] * len(self.accepted)
            self._tagged = tagged
        self._mode = self._command
        return self._owe(event)

    def _say_to_all(self, answer: Reply, tagged: bool) -> None:
        """Once, or with LMTP to each accepted recipient (nothing is owed before it)."""
        if self.kind != "lmtp" or not self.accepted:
            return self._put(answer)
        for number in range(len(self.accepted)):
            if tagged:
                self._put_tagged(number, answer)
            else:
                self._put(answer)
        return None

    def _put_tagged(self, number: int, answer: Reply) -> None:
        tag = f"#{number + 1} "
        self._put(Reply(answer.code, tuple([tag + line for line in answer.lines]), answer.status))

    def _finish(self) -> None:
        """The transaction is over, with the message taken or not."""
        self._idle = 0
        self._mode = self._command
        self._clear(READY)
