"""One SMTP or LMTP transaction: a message over a session to some of its recipients. Both shells."""

from __future__ import annotations

import os

from mqmail.base import xtext
from mqmail.base.value import value
from mqmail.mail.address import needs_utf8
from mqmail.net.expired import Expired
from mqmail.net.session import file_pieces
from mqmail.remote.verdicts import marked, passed_on, put_off, refused
from mqmail.xmtp.client import BODY, Transaction
from mqmail.xmtp.reply import ProtocolError, Reply, ReplyReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mqmail.mail.recode import Plan
    from mqmail.remote.opening import Peer
    from mqmail.remote.shells import Shell
    from mqmail.xmtp.events import Mail, Rcpt

    Answer = Callable[[Iterable[int], Reply], None]

FINAL = "final=1"           # no other host is to be asked, whatever the verdict
CUT = "cut=1"               # the host broke the session off
_HEADER = 262144            # octets in which a header is looked for


@value
class Message:
    """*fd* and *size*: the body; *wanted()*: whether somebody still waits for verdicts."""

    mail: Mail
    recipients: tuple[Rcpt, ...]
    fd: int
    size: int
    wanted: Callable[[], bool]


class Interrupted(Exception):
    """The body cannot or need not be sent to its end."""


class Sending:
    """*answer(numbers, verdict)* says what becomes of recipients, once for each."""

    def __init__(self, message: Message, peer: Peer, shell: Shell, answer: Answer) -> None:
        self._answer = answer
        self._message = message
        self._session = peer.session
        self._host = peer.host
        self._features = peer.session.features
        self._shell = shell
        self._started = shell.now()
        self._recoding: Plan | None = None  # the host takes 7-bit text alone
        self._begun = False                 # the body
        self._complete = False              # all of it

    async def run(self, numbers: list[int]) -> bool:
        """Carry it out. True: nothing has happened, for the peer had closed the session. Recipients that
        were one too many are not answered: they are for another transaction."""
        session, reused = self._session, self._session.used > 0
        numbers = await self._fitting(numbers)
        if not numbers:
            return False
        transaction = Transaction(self._message.mail.sender, [self._rcpt(n) for n in numbers],
                                  self._mail(), BODY)
        final = False
        try:
            await session.run(transaction, pieces=self._pieces(transaction),
                              verdict=lambda i: self._verdict(transaction, i, numbers[i]))
        except Interrupted as error:
            why = await self._interrupted(transaction, str(error))
            final = not self._message.wanted()
        except OSError as error:
            why = put_off("4.3.0", self._host, f"the message cannot be read: {error.strerror}")
            final = True
            session.broken = "given up"
        else:
            if not session.broken:
                return False
            if reused and not self._begun and transaction.waiting == len(numbers):
                return True
            why = self._broken()
            final = self._complete and session.refusal is None      # it may have been taken (RFC 1047)
        left = [n for n, verdict in zip(numbers, transaction.verdicts, strict=True) if verdict is None]
        self._answer(left, marked(why, FINAL if final else CUT))
        return False

    def _verdict(self, transaction: Transaction, i: int, number: int) -> None:
        answer = transaction.verdicts[i]
        assert answer is not None
        if not self._begun and transaction.accepted and _is_too_many(answer):
            return
        told = "DSN" in self._features and bool(self._message.recipients[number].notify)
        verdict = passed_on(answer, self._host, early=not self._begun, dsn=told,
                            secs=f"{self._shell.now() - self._started:.1f}")
        self._answer([number], verdict)

    def _broken(self) -> Reply:
        """What the end of the session means for those who have no verdict."""
        if self._session.refusal is not None:
            return passed_on(self._session.refusal, self._host)
        return put_off("4.4.2", self._host, self._session.broken)

    # --- what the peer can take ---

    async def _fitting(self, numbers: list[int]) -> list[int]:
        """The recipients that the message can go to by this session; the others are told why not."""
        if self._is_too_large():
            why = f"message of {self._message.size} octets: this host takes {self._features['SIZE']}"
            self._refuse(numbers, "5.3.4", why)
            return []
        numbers = self._knowing_utf8(numbers)
        knows = "8BITMIME" in self._features or "SMTPUTF8" in self._features
        if numbers and self._message.mail.eightbit and not knows:
            return await self._recodable(numbers)
        return numbers

    def _refuse(self, numbers: list[int], status: str, why: str) -> None:
        if numbers:
            self._answer(numbers, marked(refused(status, self._host, why), FINAL))

    def _is_too_large(self) -> bool:
        """By the limit that the peer has announced (RFC 1870 section 6.1; 0: it has none)."""
        text = self._features.get("SIZE", "")
        most = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0
        return 0 < most < self._message.size

    def _knowing_utf8(self, numbers: list[int]) -> list[int]:
        if not self._message.mail.utf8 or "SMTPUTF8" in self._features:
            return numbers
        whole = needs_utf8(self._message.mail.sender) or not self._header_is_ascii()
        needing = [n for n in numbers if whole or needs_utf8(self._message.recipients[n].address)]
        why = "SMTPUTF8 is needed, and this host does not offer it"         # RFC 6531 section 3.2
        self._refuse(needing, "5.6.7", why)
        return [n for n in numbers if n not in needing]

    def _header_is_ascii(self) -> bool:
        return os.pread(self._message.fd, _HEADER, 0).partition(b"\r\n\r\n")[0].isascii()

    async def _recodable(self, numbers: list[int]) -> list[int]:
        """All of them or none: RFC 6152 section 3 leaves nothing else for a host without 8BITMIME."""
        from mqmail.mail import recode
        try:
            pieces = file_pieces(self._message.fd, self._message.size)
            self._recoding = await self._shell.apart(recode.check, pieces)
        except recode.CannotRecode as error:
            self._refuse(numbers, "5.6.3", f"this host takes no 8-bit text: {error}")
            return []
        return numbers

    def _mail(self) -> list[str]:
        """MAIL's parameters, as far as the peer knows them."""
        mail, features, words = self._message.mail, self._features, []
        if "SIZE" in features and self._recoding is None:
            words.append(f"SIZE={self._message.size}")
        if mail.eightbit and "8BITMIME" in features:
            words.append("BODY=8BITMIME")
        if mail.utf8 and "SMTPUTF8" in features:
            words.append("SMTPUTF8")
        if mail.ret and "DSN" in features:
            words.append(f"RET={mail.ret.upper()}")
        if mail.envid and "DSN" in features:
            words.append(f"ENVID={xtext.encode(mail.envid)}")
        return words

    def _rcpt(self, number: int) -> tuple[str, list[str]]:
        rcpt = self._message.recipients[number]
        if "DSN" not in self._features or not (rcpt.notify or rcpt.orcpt):
            return rcpt.address, []
        words = [f"NOTIFY={','.join(rcpt.notify).upper()}"] if rcpt.notify else []
        kind, _, address = rcpt.orcpt.partition(";")
        utf8 = self._message.mail.utf8 and "SMTPUTF8" in self._features
        if rcpt.orcpt and (utf8 or address.isascii()):
            words.append(f"ORCPT={kind};{xtext.encode(address)}")
        return rcpt.address, words

    # --- the body ---

    def _octets(self) -> Iterable[bytes]:
        pieces = file_pieces(self._message.fd, self._message.size)
        if self._recoding is None:
            return pieces
        from mqmail.mail import recode
        return recode.recode(pieces, self._recoding)

    def _pieces(self, transaction: Transaction) -> Iterator[bytes]:
        """The body; ends by Interrupted when the caller is gone (it will send the message again) or
        the peer has refused it before its end."""
        self._begun = True
        chunked = "CHUNKING" in self._features
        for piece in self._octets():
            if not self._message.wanted():
                raise Interrupted("the caller has gone away")
            if transaction.refused is not None or not chunked and self._session.stream.has_input():
                raise Interrupted("refused before the end of the message")
            yield piece
        self._complete = True

    async def _interrupted(self, transaction: Transaction, why: str) -> Reply:
        """The session ends without QUIT, for it would be taken for a line of the message."""
        answer = transaction.refused
        if answer is None and self._message.wanted():
            answer = await self._early_answer()
        self._session.broken = why
        if answer is None or answer.code < 400:
            return put_off("4.4.2", self._host, "connection lost in the middle of the message")
        return passed_on(answer, self._host)

    async def _early_answer(self) -> Reply | None:
        try:
            answers = ReplyReader().feed(await self._session.stream.read())
        except (Expired, ProtocolError):
            return None
        return answers[0] if answers else None


def _is_too_many(answer: Reply) -> bool:
    """Whether RCPT was answered that this transaction is full (RFC 5321 section 4.5.3.1.10)."""
    return answer.code in (452, 552) and answer.status[1:] in ("", ".5.3")
