"""A server core with a small application, and a player of dialogues kept in files.

A ``.smtp`` file: ``#`` comments; first ``kind:``, ``offer:`` (EHLO lines, comma separated) and
``limits:`` (``name=n``) if not the usual; then ``C: line`` (sent with CRLF), ``C| octets`` (sent as
they are) and ``S: line`` (exactly what comes back). Backslash escapes are those of Python's bytes.
C lines without S lines between them are sent in one piece.
"""

import codecs

from mqmail.xmtp import events
from mqmail.xmtp.reply import Reply, reply
from mqmail.xmtp.server import Limits, Server

OFFER = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES")

# The application's answer to an address, by its local part; other addresses are welcome.
ANSWERS = {
    "no": reply(550, "5.1.1", "no such user"),
    "later": reply(451, "4.3.0", "later"),
    "elsewhere": reply(551, "5.1.6", "<@remote:x@a.example>"),
    "lists": Reply(551, ("<@remote:x@a.example>", "<y@b.example> sender=owner@b.example"), "5.1.6"),
}
FINALS = {"full": reply(452, "4.2.2", "mailbox full"), "gone": reply(550, "5.2.1", "gone")}


class Told:
    """A Server and what its application was told: ``log``, with adjacent Body events joined."""

    def __init__(self, kind="smtp", offer=OFFER, late=False, order=None, **limits):
        self.server = Server(kind, "mx.example", offer, Limits(**limits))
        self.log = []
        self.bodies = []  # of messages that were taken
        self._body = b""
        self._late = late  # RCPT is answered only when the core can not go on, last first
        self._waiting = []
        self._order = order or (lambda numbers: numbers)
        self.server.greet()

    def say(self, data, fds=()):
        """What comes back for *data*."""
        self.server.feed(data, fds)
        while True:
            event = self.server.next_event()
            if event is not None:
                self._handle(event)
            elif self._waiting:
                self._answer_waiting()
            else:
                return self.server.take_output()

    def _handle(self, event):
        kind = type(event)
        if kind is events.Body:
            self._body += event.data
        elif kind is events.BodyFailed:
            self._body = b""
        if kind is not events.Body:
            self.log.append(event)
        if kind is events.Rcpt and self._late:
            self._waiting.append(event)
        elif kind not in (events.Body, events.BodyFailed, events.Reset, events.Quit):
            getattr(self, "_on_" + kind.__name__.lower(), self._on_any)(event)

    def _answer_waiting(self):
        for event in reversed(self._waiting):
            self._on_rcpt(event)
        self._waiting = []

    def _on_any(self, event):
        self.server.answer(event)

    def _on_mail(self, mail):
        self.server.answer(mail, ANSWERS.get(mail.sender.partition("@")[0]))

    def _on_rcpt(self, rcpt):
        self.server.answer(rcpt, ANSWERS.get(rcpt.address.partition("@")[0]))

    def _on_data(self, data):
        refused = self.server.mail.sender.startswith("nodata@")
        self.server.answer(data, reply(451, "4.3.1", "no room") if refused else None)

    def _on_bodyend(self, end):
        self.bodies.append(self._body)
        self.log.append(self._body)
        self._body = b""
        self._verdicts(end)

    def _on_bodyfile(self, file):
        self.bodies.append(file)
        self._verdicts(file)

    def _verdicts(self, end):
        if self.server.kind == "smtp":
            return self.server.answer(end)
        accepted = list(self.server.accepted)
        for number in self._order(list(range(len(accepted)))):
            self.server.answer_recipient(number, FINALS.get(accepted[number].address.partition("@")[0]))
        return None

    def _on_auth(self, auth):
        if auth.first and not auth.line:
            return self.server.answer(auth, reply(334, "", "VXNlcjo="))
        good = auth.line == "Z29vZA=="
        return self.server.answer(auth, None if good else reply(535, "5.7.8", "no"))


def opened(kind="smtp", **more):
    """A Told that has been greeted."""
    told = Told(kind, **more)
    told.server.take_output()
    hello = b"LHLO" if kind == "lmtp" else b"EHLO"
    assert told.say(hello + b" client.example\r\n").startswith(b"250-mx.example")
    told.log.clear()
    return told


def codes(octets):
    """The codes of the replies in *octets*: ``[250, 250, 354]``."""
    assert octets == b"" or octets.endswith(b"\r\n")
    return [int(line[:3]) for line in octets.split(b"\r\n")[:-1] if line[3:4] == b" "]


def load(path):
    """(kind, offer, limits, [(octets sent, octets wanted), …]) of a dialogue file."""
    kind, offer, limits, turns = "smtp", OFFER, {}, [[b"", b""]]
    for line in path.read_text(encoding="utf-8").split("\n"):
        word, _, rest = line.partition(" ")
        if word == "kind:":
            kind = rest
        elif word == "offer:":
            offer = tuple(rest.split(", "))
        elif word == "limits:":
            limits = {name: int(number) for name, _, number in (w.partition("=") for w in rest.split())}
        elif word in ("C:", "C|"):
            if turns[-1][1]:
                turns.append([b"", b""])
            turns[-1][0] += _octets(rest) + (b"\r\n" if word == "C:" else b"")
        elif word == "S:":
            turns[-1][1] += _octets(rest) + b"\r\n"
        else:
            assert not word or word[0] == "#", f"{path}: {line}"
    return kind, offer, limits, turns


def _octets(text):
    return codecs.escape_decode(text.encode("utf-8"))[0]
