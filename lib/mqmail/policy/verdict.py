"""What a rule says about a session, a sender, a recipient or a message. Pure."""

from __future__ import annotations

from mqmail.base.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.xmtp.reply import Reply

OK = "ok"               # taken, whatever the rules behind this one say
RELAY = "relay"         # taken, and may go anywhere
REJECT = "reject"       # refused for good
DEFER = "defer"         # refused for now, unless a later rule takes it
LIMIT = "limit"         # refused for now, whatever the rules behind this one say
DISCARD = "discard"     # taken and thrown away
NEXT = "next"           # no opinion


@value
class Verdict:
    """*reply*: what the client hears, of REJECT, DEFER, LIMIT. *check*, *why*: who says so, for the log.
    *options*: the name of an option set that is in force from now on, or "". *fields*: header fields to
    be added. *recipients* (at the stage header): those who are refused though the message is taken for
    others, and the reply; who are told so by LMTP and PRDR only, and get the message otherwise.
    *trouble*: the check could not do its work, and might have taken the client: what refuses it for good
    behind this refuses it for now, with this *reply*."""

    action: str = NEXT
    reply: Reply | None = None
    check: str = ""
    why: str = ""
    options: str = ""
    fields: tuple[str, ...] = ()
    recipients: tuple[tuple[str, Reply], ...] = ()
    trouble: bool = False


NO_OPINION = Verdict()
