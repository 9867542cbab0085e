"""What another host's answer means for a recipient, in the words that the planner and mq-send hear.

The class of the code and the enhanced status pass on; the peer's own words travel in the fact ``said``,
its name and address in ``host``.
"""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.base.value import value
from mqmail.xmtp.reply import Reply, reply

LONGEST_SAID = 500      # characters
_PROTOCOL = frozenset((500, 502, 503, 504, 555))


@value
class Host:
    """Who answered: *label* is ``name[ip]:port``; *tls* ``version:cipher`` or ""."""

    label: str = ""
    tls: str = ""


NOBODY = Host()


def passed_on(answer: Reply, host: Host, early: bool = False, dsn: bool = False,
              secs: str = "") -> Reply:
    """The verdict in the peer's *answer*. *early*: the message had not begun. *dsn*: the peer was told
    whether success is to be reported. *secs*: how long it took.

    A complaint about the protocol itself may be about a bug of ours, and so is not final. Nor is 552
    when it says that there are too many recipients (RFC 5321 section 4.5.3.1.10). Nobody else's 551
    is followed (RFC 5321 section 3.4): it would be a way to send our mail anywhere.
    """
    code, status = answer.code, answer.status
    if 200 <= code < 300:
        return _verdict(250, status or "2.0.0", host, answer.said(), secs=secs, dsn="1" if dsn else "")
    if code == 552 and early and status in ("", "5.5.3"):
        return _verdict(451, "4.5.3", host, answer.said())
    if code < 400 or code in _PROTOCOL:
        return _verdict(451, "4.5.0", host, answer.said(), secs=secs)
    if code < 500:
        return _verdict(451, status or "4.0.0", host, answer.said(), secs=secs)
    if code == 551:
        return _verdict(550, "5.1.6", host, answer.said(), secs=secs)
    return _verdict(550, status or "5.0.0", host, answer.said(), secs=secs)


def put_off(status: str, host: Host, why: str) -> Reply:
    """451: later, for a reason of ours or because the peer said nothing."""
    return _verdict(451, status, host, why)


def refused(status: str, host: Host, why: str) -> Reply:
    """550: what the message needs the peer does not offer."""
    return _verdict(550, status, host, why)


def marked(verdict: Reply, mark: str) -> Reply:
    """*verdict* with one more fact for the planner, ``reached=no`` or ``final=1``."""
    return Reply(verdict.code, (f"{verdict.lines[0]} {mark}".lstrip(),), verdict.status)


def _verdict(code: int, status: str, host: Host, said: str, secs: str = "", dsn: str = "") -> Reply:
    facts = {"host": host.label, "tls": host.tls, "secs": secs, "dsn": dsn, "said": said[:LONGEST_SAID]}
    return reply(code, status, xtext.facts(facts))
