"""Rewriting: what becomes of a message's addresses by control/rewrite, as the option set says."""

from __future__ import annotations

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.control.optionsets import ENVELOPE_RECIPIENT, ENVELOPE_SENDER
from mqmail.prog.xmtpd.client import Client
from mqmail.xmtp.reply import Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.mail.headerfilter import HeaderFilter
    from mqmail.xmtp import events

NO_TABLE = reply(451, "4.3.5", "the rewrite table cannot be used now, try again later")


class Rewriting(Client):
    """Base of the handler. Without ``rewrite=`` nothing here does anything."""

    _header: HeaderFilter | None = None             # the body goes through it

    def forget_rewritten(self) -> None:
        """No transaction is open."""
        self._new_sender: str | None = None         # None: as the client says
        self._rewrites_recipients = False
        self._new_recipients: dict[int, str] = {}   # by number

    def rewrite_sender(self, mail: events.Mail) -> Reply | None:
        """The envelope's, when MAIL's checks have been asked. The option set that is in force now counts
        for the recipients too. A refusal, or None."""
        classes = self.options.rewrite
        self._rewrites_recipients = ENVELOPE_RECIPIENT in classes
        if ENVELOPE_SENDER not in classes:
            return None
        try:
            self._new_sender = self._rewritten(mail.sender, "from")
        except BadFile as error:
            return self.no_table(error)
        return None

    def sender(self) -> str:
        """MAIL's, or what has become of it."""
        if self._new_sender is not None:
            return self._new_sender
        mail = self.server.mail
        assert mail is not None
        return mail.sender

    def recipient_of(self, rcpt: events.Rcpt) -> str:
        """RCPT's, or what becomes of it. The first time it raises BadFile."""
        if not self._rewrites_recipients:
            return rcpt.address
        found = self._new_recipients.get(rcpt.number)
        if found is None:
            found = self._new_recipients[rcpt.number] = self._rewritten(rcpt.address, "to")
        return found

    def rewritten_recipient(self, address: str) -> str:
        """What would become of it in a message. Raises BadFile."""
        return self._rewritten(address, "to") if ENVELOPE_RECIPIENT in self.options.rewrite else address

    def _rewritten(self, old: str, tag: str) -> str:
        new = self.settings.rewriter().rewrite(old, tag)
        if new != old:
            self.log("rewritten", what="sender" if tag == "from" else "recipient", old=old, new=new)
        return new

    def filter_header(self) -> Reply | None:
        """From now on the message goes through filtered() as the option set says that is in force. A
        refusal, or None."""
        if self.options.rewrite:
            try:
                self._header = self.settings.rewriter().header_filter(self.options.rewrite)
            except BadFile as error:
                return self.no_table(error)
        return None

    def filtered(self, piece: bytes, is_last: bool = False) -> bytes:
        """The message's next octets as they go to the queue; of the last ones the rest too. Raises
        BadFile."""
        header = self._header
        if header is None:
            return piece
        piece = header.feed(piece)
        return piece + header.end() if is_last else piece

    def no_table(self, error: BadFile) -> Reply:
        """What the client hears."""
        log.event("bad_table", session=self.facts.session, error=error.text[:500])
        return NO_TABLE
