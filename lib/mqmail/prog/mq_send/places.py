"""Where a message's mail goes, so that who stands behind several of its recipients gets it once. Pure.

A look at one place does not go through all recipients: a message may have 100,000.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqmail.queue.record import Recipient, State

    Key = tuple[str, str, str | None]


class Places:
    """The recipients of a message that have been resolved, by destination, address and sender."""

    def __init__(self, states: Iterable[State]) -> None:
        self._states: dict[Key, list[State]] = {}
        for state in states:
            self.add(state)

    def add(self, state: State) -> None:
        """A recipient that is resolved now; one that is not is left out."""
        if state.recipient.destination != "new":
            self._states.setdefault(key_of(state.recipient), []).append(state)

    def covers(self, recipient: Recipient) -> bool:
        """Whether another recipient that has not failed goes to the same place, and its sender hears of
        it at least what it is to hear of this one."""
        key = key_of(recipient)
        left = [s for s in self._states.get(key, ()) if s.active and s.kind not in ("fail", "replaced")
                and key_of(s.recipient) == key]
        if left:
            self._states[key] = left
        else:
            self._states.pop(key, None)
        wanted = _wanted(recipient)
        return any(s.recipient.seq != recipient.seq and wanted <= _wanted(s.recipient) for s in left)


def key_of(recipient: Recipient) -> Key:
    """The place: destination, address, envelope sender of this copy."""
    return recipient.destination, recipient.address, recipient.sender


def _wanted(recipient: Recipient) -> frozenset[str]:
    """What the sender is to hear of, delays aside (RFC 3461 section 4.1; failures, if unsaid)."""
    return frozenset(recipient.notify or ("failure",)) & {"success", "failure"}
