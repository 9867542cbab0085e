"""Status codes of RFC 3463 (and its registry) in plain words, for people who sent a message."""

from __future__ import annotations

_REASONS = {
    "1.1": "there is no such mailbox; please check the address for typing errors",
    "1.2": "its domain does not exist; please check the address for typing errors",
    "1.3": "this is not a valid address; please check it for typing errors",
    "1.6": "the mailbox has moved and left no new address",
    "1.10": "its domain takes no mail at all; please check the address for typing errors",
    "2.1": "the mailbox is closed",
    "2.2": "the mailbox is full; please try again when its owner has made room",
    "2.3": "the message is larger than this mailbox takes; please send something smaller",
    "3.1": "the mail system there has no room left",
    "3.4": "the message is larger than the mail system there takes; please send something smaller",
    "4.1": "its mail server does not answer",
    "4.2": "the connection to its mail server broke",
    "4.3": "its mail server could not be looked up",
    "4.4": "there is no way to its mail server",
    "4.6": "mail for it goes round in a circle; please tell the postmaster there",
    "4.7": "it could not be delivered in the time allowed",
    "5.3": "the message had too many recipients; please send it to fewer at a time",
    "6.3": "its mail server cannot take 8-bit text",
    "6.7": "its mail server cannot take addresses in UTF-8",
    "7.1": "you are not permitted to send to it",
}
_SUBJECTS = {
    "1": "something is wrong with the address",
    "2": "something is wrong with the mailbox",
    "3": "something is wrong with the mail system there",
    "4": "the network did not carry the message",
    "5": "its mail server and ours did not understand each other",
    "6": "the content of the message was not accepted",
    "7": "the message was not accepted for reasons of security or policy",
}
DEFAULT_STATUS = {"failed": "5.0.0", "delayed": "4.0.0", "delivered": "2.0.0", "relayed": "2.0.0",
                  "expanded": "2.0.0"}      # by the actions of RFC 3464 section 2.3.3
_CLASSES = {"2": "delivered", "4": "it could not be delivered yet"}


def is_status(text: str) -> bool:
    """Whether *text* is an enhanced status code: ``class.subject.detail`` (RFC 3463 section 2)."""
    parts = text.split(".")
    return len(parts) == 3 and parts[0] in ("2", "4", "5") and all(
        p.isascii() and p.isdigit() and len(p) <= 3 for p in parts)


def status_for(status: str, action: str) -> str:
    """*status* if it is one, else what goes with the *action*."""
    return status if is_status(status) else DEFAULT_STATUS[action]


def explain(status: str) -> str:
    """Half a sentence without a full stop: why, and what to do if there is something to be done."""
    kind, _, rest = status.partition(".")
    if kind != "2":
        found = _REASONS.get(rest) or _SUBJECTS.get(rest.partition(".")[0])
        if found:
            return found
    return _CLASSES.get(kind, "it could not be delivered")
