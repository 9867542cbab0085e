"""What a client asks without bringing mail: VRFY, EXPN, ETRN. Its option set says what it hears."""

from __future__ import annotations

from mqmail.base.failure import BadFile
from mqmail.mail.address import BadAddress, lower_ascii, parse_address
from mqmail.policy.verdict import DEFER, DISCARD, LIMIT, REJECT
from mqmail.prog.xmtpd.message import Message
from mqmail.prog.xmtpd.recipients import passed_on
from mqmail.xmtp.client import ASK, Transaction
from mqmail.xmtp.reply import ProtocolError, Reply, reply, targets_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.xmtp import events

MOST_MEMBERS = 100      # that EXPN tells
_NO_MAILBOX = reply(553, "5.1.3", "say a mailbox")
_NEEDS_UTF8 = reply(252, "2.6.8", "the answer needs SMTPUTF8")      # RFC 6531 section 3.7.4.2
_UNKNOWN = reply(252, "2.5.2", "send some mail, I will try my best")


class Queries(Message):
    """Base of the handler."""

    # --- ETRN ---

    def start_queue(self, event: events.Etrn) -> Reply | None:
        """None: mq-send will look for mail that waits (RFC 1985 section 5.2)."""
        from mqmail.net import trigger  # rarely needed
        names = _allowed(event, self.options.etrn)
        node = f"@{event.node}" if event.below else event.node
        if self._is_unwelcome or not names:
            return reply(459, "4.7.1", f"Node {node} not allowed: not from here")
        if not trigger.tell(trigger.ETRN, names):
            return reply(458, "4.3.2", f"Unable to queue messages for node {node}")
        return None

    @property
    def _is_unwelcome(self) -> bool:
        """Whether policy has something against the client."""
        said = self.facts.said
        return any([stage in said and said[stage].action in (REJECT, DEFER, LIMIT, DISCARD)
                    for stage in ("connect", "helo")])

    # --- VRFY, EXPN ---

    async def look_up(self, event: events.Verify) -> Reply | None:
        """What mq-resolve says of a mailbox; None: nothing is told."""
        is_told = self.options.expn if event.expand else self.options.vrfy
        if not is_told or self.resolver is None or self._is_unwelcome:
            return None
        try:
            address = _mailbox(event.argument, self.settings.control.me)
            asked = self.rewritten_recipient(address)
        except BadAddress:
            return _NO_MAILBOX
        except BadFile as error:
            return self.no_table(error)
        words = [self.via(False)] + ([] if asked.isascii() else ["SMTPUTF8"])
        transaction = Transaction("", [(asked, ())], words, ASK)
        missing = await self.resolver.ask(transaction)
        answer = transaction.verdicts[0] or transaction.refused
        if answer is None:
            return missing
        told = _told(answer, address, event.expand)
        return told if event.utf8 or all(map(str.isascii, told.lines)) else _NEEDS_UTF8


def _allowed(event: events.Etrn, domains: tuple[str, ...]) -> list[str]:
    """Which of *domains*, and no more than that, is asked for: a name, ``.name`` for those below."""
    from mqmail.control.domains import suffixes
    node = lower_ascii(event.node)
    wanted = [f".{node}", node] if event.below else [node]
    return [name for name in wanted if any([one in domains for one in suffixes(name)])]


def _mailbox(text: str, ours: str) -> str:
    """``<user@domain>``, ``user@domain`` or ``user``, as an address. Raises BadAddress."""
    text = text.removeprefix("<").removesuffix(">")
    return parse_address(text if "@" in text else f"{text}@{ours}")


def _told(answer: Reply, address: str, expand: bool) -> Reply:
    """RFC 5321 section 3.5.3: 250 with the mailbox, or the members of a list; 252 for what is not ours
    to know."""
    if answer.code >= 400 and answer.code != 551:
        return _UNKNOWN if answer.status.startswith(("4.7.", "5.7.")) else passed_on(answer)
    lines = [f"<{address}>"]
    try:
        targets = targets_of(answer) if answer.code == 551 else []
    except ProtocolError:
        return _UNKNOWN
    if any([one.destination == "remote" and one.address == address for one in targets]):
        return _UNKNOWN
    if expand and targets:
        lines = [f"<{one.address}>" for one in targets[:MOST_MEMBERS]]
    return Reply(250, tuple(lines), "2.1.5")
