"""The words of a delivery report that a person reads."""

from __future__ import annotations

from mqmail.mail.address import lower_ascii
from mqmail.mail.reason import explain, status_for
from mqmail.mail.shown import clean, fold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.mail.dsn import Report, Reported

_HEADINGS = {
    "failed": "Your message could not be delivered to:",
    "delayed": "Your message has not been delivered yet to:",
    "": "Your message has been delivered to:",
}
_ENDINGS = {
    "failed": "No further attempt will be made for these recipients.",
    "delayed": "You need not do anything: further attempts will be made.",
    "": "",
}
_DOUBLE = ("Dear postmaster: a message with the null sender <> (a bounce, or another automatic "
           "message) could not be delivered. There is nobody to return it to, so it comes to you. "
           "It was sent to:")
_GOOD = {
    "delivered": "it is in the mailbox",
    "relayed": "it was passed on to a mail system that sends no reports",
    "expanded": "it was passed on to the addresses that this one stands for",
}


def subject(about: Report) -> str:
    """For the Subject field: what happened, and to whom or to how many. Not cleaned."""
    actions = {one.action for one in about.recipients}
    if about.double:
        what = "Undeliverable bounce"
    elif "failed" in actions:
        what = "Undelivered mail"
    else:
        what = "Delayed mail" if "delayed" in actions else "Delivered mail"
    if len(about.recipients) == 1:
        return f"{what}: {about.recipients[0].recipient}"
    return f"{what}: {len(about.recipients)} recipients"


def text(about: Report, full: bool, wide: bool) -> str:
    """The whole text, lines with CRLF. *full*: the message is returned whole; *wide*: UTF-8 may be
    used. No line starts with ``-``, whatever the values are."""
    groups = [_group(about, action, wide) for action in ("failed", "delayed", "")]
    greeting = fold(f"This is the mail system at {clean(about.host, wide)}.")
    return greeting + "\r\n" + "".join(groups) + fold(_enclosed(about, full), "")


def _group(about: Report, action: str, wide: bool) -> str:
    """The recipients of one action ("" for all good ones) between a heading and an ending."""
    ours = [one for one in about.recipients
            if ("" if one.action in _GOOD else one.action) == action]
    if not ours:
        return ""
    heading = _DOUBLE if about.double and action == "failed" else _HEADINGS[action]
    ending = _ENDINGS[action]
    return (fold(heading, "") + "\r\n" + "".join([_sentence(one, wide) for one in ours]) + "\r\n"
            + (ending + "\r\n\r\n" if ending else ""))


def _sentence(one: Reported, wide: bool) -> str:
    """Who and why, and below it the remote host's words."""
    why = _GOOD.get(one.action) or explain(status_for(one.status, one.action))
    if one.action == "delayed" and one.until:
        why += f" (attempts go on until {clean(one.until, wide)})"
    lines = fold(f"<{clean(one.recipient, wide)}>{_known_as(one, wide)}: {why}.", "    ")
    if one.said:
        who = f"{one.host} said:" if one.host else "The reason given:"
        lines += fold(clean(f"{who} {one.said}", wide), "    ", "    ")
    return lines


def _known_as(one: Reported, wide: bool) -> str:
    """What the sender wrote to, if it was rewritten on its way."""
    kind, _, original = one.orcpt.partition(";")
    if kind.lower() != "rfc822" or not original or lower_ascii(original) == lower_ascii(one.recipient):
        return ""
    return f" (sent to <{clean(original, wide)}>)"


def _enclosed(about: Report, full: bool) -> str:
    if full:
        return "The message is enclosed."
    if about.ret == "" and "failed" in [one.action for one in about.recipients]:
        return (f"The message is too large to be returned ({about.size} bytes): "
                "only its header is enclosed.")
    return "The message's header is enclosed."
