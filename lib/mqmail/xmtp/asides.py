"""Commands that carry no mail: VRFY, EXPN (RFC 5321 section 4.1.1.6), ETRN (RFC 1985), STARTTLS, AUTH,
XCLIENT, XHOP, XSESSION. Each but VRFY is there only where EHLO offers it.
"""

from __future__ import annotations

from mqmail.mail.address import BadAddress, check_domain
from mqmail.xmtp import events, params
from mqmail.xmtp.dialogue import AGAIN, Limits
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.states import START
from mqmail.xmtp.transfer import Transfer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST_AUTH_LINE = 12288       # RFC 4954 section 4

_AUTH_TOO_LONG = reply(500, "5.5.6", "authentication line too long")
_NO_HOP = reply(502, "5.5.1", "XHOP is not offered")
_NO_SESSION = reply(502, "5.5.1", "XSESSION is not offered")
_MECHANISM = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


class Asides(Transfer):
    """Base of Server."""

    __slots__ = ("_authenticated", "_extended", "_mechanism", "host")

    def __init__(self, kind: str, host: str, limits: Limits, xmq: bool) -> None:
        super().__init__(kind, limits, xmq)
        self.host = host
        self._extended = False              # EHLO or LHLO was said: parameters are understood
        self._mechanism = ""
        self._authenticated = False

    def _vrfy(self, argument: str) -> Any:
        return self._whom("VRFY", argument)

    def _expn(self, argument: str) -> Any:
        if "EXPN" not in self.words:
            return self._say(reply(502, "5.5.1", "EXPN is not offered"))
        return self._whom("EXPN", argument)

    def _whom(self, verb: str, argument: str) -> Any:
        """With SMTPUTF8 as last word names may be UTF-8, here and in the reply (RFC 6531 section
        3.7.4.2)."""
        who, _, last = argument.rpartition(" ")
        utf8 = "SMTPUTF8" in self.words and bool(who) and last.isascii() and last.upper() == "SMTPUTF8"
        who = who.strip(" ") if utf8 else argument
        if not who:
            return self._say(reply(501, "5.5.4", f"{verb} whom?"))
        if not utf8 and not who.isascii():
            return self._say(reply(553, "5.6.7", "this name needs SMTPUTF8"))
        return self._owe(events.Verify(who, verb == "EXPN", utf8))

    def _etrn(self, argument: str) -> Any:
        """RFC 1985 section 5: a host, or with ``@`` all of a domain; no queue has a name (``#``)."""
        if "ETRN" not in self.words:
            return self._say(reply(502, "5.5.1", "ETRN is not offered"))
        node = argument.removeprefix("@")
        if node[:1] == "#" and node.isascii():
            return self._say(reply(458, "4.5.4", f"Unable to queue messages for node {node[:64]}"))
        try:
            check_domain(node)
        except BadAddress:
            node = ""
        if not node or not node.isascii():
            return self._say(reply(501, "5.5.4", "ETRN for which host?"))
        return self._owe(events.Etrn(node, below=argument[:1] == "@"))

    def _hop(self, argument: str) -> Any:
        if not self.xmq:
            return self._say(_NO_HOP)
        return self._owe(events.Hop(argument))

    def _session(self, argument: str) -> Any:
        if not self.xmq:
            return self._say(_NO_SESSION)
        return self._owe(events.Session(argument))

    def _starttls(self, argument: str) -> Any:
        if "STARTTLS" not in self.words:
            return self._say(reply(502, "5.5.1", "STARTTLS is not offered"))
        if argument:
            return self._say(reply(501, "5.5.4", "STARTTLS has no argument"))
        return self._owe(events.StartTls())

    def _xclient(self, argument: str) -> Any:
        if "XCLIENT" not in self.words:
            return self._say(reply(502, "5.5.1", "XCLIENT is not offered"))
        try:
            return self._owe(events.Xclient(params.parse_xclient(argument)))
        except params.Refused as refused:
            return self._say(refused.reply)

    def _auth(self, argument: str) -> Any:
        """RFC 4954 section 4. An initial response of "=" (empty) is handed on as it is."""
        mechanism, _, initial = argument.partition(" ")
        if "AUTH" not in self.words:
            return self._say(reply(502, "5.5.1", "AUTH is not offered"))
        if self._authenticated:
            return self._say(reply(503, "5.5.1", "you are authenticated already"))
        mechanism = mechanism.upper() if mechanism.isascii() else ""
        if not 0 < len(mechanism) <= 20 or not _MECHANISM.issuperset(mechanism):
            return self._say(reply(501, "5.5.4", "AUTH by which mechanism?"))
        if " " in initial or not initial.isascii():
            return self._say(reply(501, "5.5.4", "bad initial response"))
        return self._owe(events.Auth(mechanism, initial, first=True))

    def _auth_line(self) -> Any:
        """The step after a 334: the client's line."""
        if self._owed:
            return None
        line = self._cut(LONGEST_AUTH_LINE, _AUTH_TOO_LONG)
        if line is None:
            return None
        self._mode = self._command
        if line is AGAIN:
            return AGAIN
        if line == b"*" or not line.isascii():
            return self._say(reply(501, "5.7.0", "authentication cancelled"))
        return self._owe(events.Auth(self._mechanism, line.decode("ascii"), first=False))

    # --- what an answer does ---

    def _count_refusal(self, answer: Reply) -> None:
        if answer.code >= 500:
            self._count_error()

    def _after_verify(self, _event: Any, answer: Reply | None) -> Reply:
        answer = answer or reply(252, "2.5.2", "send some mail, I will try my best")
        self._count_refusal(answer)
        return answer

    def _after_etrn(self, event: events.Etrn, answer: Reply | None) -> Reply:
        node = f"@{event.node}" if event.below else event.node
        return answer or reply(250, "2.0.0", f"OK, queuing for node {node} started")

    def _after_hop(self, _event: Any, answer: Reply | None) -> Reply:
        return answer or _NO_HOP

    def _after_session(self, _event: Any, answer: Reply | None) -> Reply:
        return answer or _NO_SESSION

    def _after_tls(self, _event: Any, answer: Reply | None) -> Reply:
        answer = answer or reply(220, "2.0.0", "go ahead")
        if answer.code == 220:
            self._buffer, self._at = b"", 0         # RFC 3207 section 4.2
            self._mode = None
        return answer

    def _after_auth(self, event: events.Auth, answer: Reply | None) -> Reply:
        answer = answer or reply(235, "2.7.0", "welcome")
        if answer.code == 334:
            self._mechanism = event.mechanism
            self._mode = self._auth_line
        self._authenticated = answer.code < 300
        self._count_refusal(answer)
        return answer

    def _after_xclient(self, _event: Any, answer: Reply | None) -> Reply:
        answer = answer or Reply(220, (f"{self.host} ESMTP",))
        if answer.code == 220:
            self._authenticated = self._extended = False
            self._clear(START)
        return answer
