"""The client's half of AUTH (RFC 4954 section 4): one mechanism's octets as lines of base64.

What a mechanism says comes from an Exchange; here is what is the same for all of them. No I/O.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from mqmail.xmtp.reply import Reply

    class Exchange(Protocol):
        """One attempt with one mechanism."""

        mechanism: str

        def first(self) -> bytes | None:
            """What to send with AUTH; None when the server speaks first."""

        def step(self, challenge: bytes) -> bytes:
            """The response; ValueError when it is no challenge of this mechanism."""

        def finish(self) -> str:
            """After the server's 235: "", or why it is not to be believed."""

LONGEST_COMMAND = 510       # RFC 5321 4.5.3.1.4 without CRLF; RFC 4954 section 4 keeps to it
MOST_CHALLENGES = 8


class AuthTalk:
    """``given_up`` says why, once ``*`` has been said."""

    def __init__(self, exchange: Exchange) -> None:
        self.given_up = ""
        self._exchange = exchange
        self._held: bytes | None = None     # an initial response too long for the command
        self._challenges = 0

    def command(self) -> str:
        """AUTH, with the initial response if there is one and it fits."""
        line = f"AUTH {self._exchange.mechanism}"
        first = self._exchange.first()
        if first is None:
            return line
        whole = f"{line} {_encode(first) or '='}"
        if len(whole) <= LONGEST_COMMAND:
            return whole
        self._held = first
        return line

    def step(self, answer: Reply) -> str:
        """The line to say to a 334: a response, or ``*`` to give up."""
        try:
            return _encode(self._respond(_challenge(answer)))
        except ValueError as error:
            self.given_up = f"bad challenge: {error}"[:200]
            return "*"

    def _respond(self, challenge: bytes) -> bytes:
        self._challenges += 1
        if self._challenges > MOST_CHALLENGES:
            raise ValueError("there is no end of them")
        if self._held is None:
            return self._exchange.step(challenge)
        if challenge:
            raise ValueError("it is not empty, and we speak first")
        held, self._held = self._held, None
        return held

    def finish(self) -> str:
        """After a 235: "", or why it is not to be believed."""
        return self.given_up or self._exchange.finish()


def _encode(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def _challenge(answer: Reply) -> bytes:
    """What a 334 holds. Raises ValueError."""
    if len(answer.lines) > 1:
        raise ValueError("it has more than one line")
    try:
        return a2b_base64(answer.text.encode("utf-8"), strict_mode=True)
    except Error:
        raise ValueError("it is not base64") from None
