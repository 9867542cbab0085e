"""How long a server waits for its client. Pure: the times are arguments.

Two clocks run while we wait, and only then. The *command's* begins anew with each answer of ours and
whenever octets of a body come: a command line has to be whole within it (RFC 5321 section 4.5.3.2.7),
and in a body it limits silence. The *session's* begins anew with each message that is accepted; octets
of a body that is wanted give time back, *rate* of them a second, so a body that comes no slower costs
nothing of it.
"""

from __future__ import annotations


class Patience:
    """With one client: *command* and *session* in seconds, *rate* in octets a second."""

    __slots__ = ("_command", "_command_left", "_rate", "_session", "_session_left")

    def __init__(self, command: float, session: float, rate: float) -> None:
        self._command = self._command_left = command
        self._session = self._session_left = session
        self._rate = rate

    @property
    def left(self) -> float:
        """Seconds for the next octets; 0 or less: none."""
        return min(self._command_left, self._session_left)

    @property
    def session_is_first(self) -> bool:
        """Whether the session's time ends no later than the command's."""
        return self._session_left <= self._command_left

    def waited(self, seconds: float) -> None:
        """So long we had to."""
        self._command_left -= seconds
        self._session_left -= seconds

    def took(self, octets: int) -> None:
        """Of a body that is wanted, that many have come."""
        self._session_left = min(self._session, self._session_left + octets / self._rate)

    def go_on(self) -> None:
        """An answer has been given, or a piece of a body has come: the command's time begins anew."""
        self._command_left = self._command

    def renew(self) -> None:
        """A message has been accepted: all begins anew."""
        self._command_left, self._session_left = self._command, self._session
