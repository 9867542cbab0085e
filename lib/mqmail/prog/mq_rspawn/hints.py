"""What mq-send is told besides the verdict: the site, and when it is tried again. Pure."""

from __future__ import annotations

import hashlib

from mqmail.base import xtext
from mqmail.mail.mxlist import DIRECT
from mqmail.remote.carrier import NOT_REACHED
from mqmail.remote.sending import CUT, FINAL
from mqmail.xmtp.reply import Reply, untagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqmail.mail.hostmemory import HostMemory
    from mqmail.mail.mxlist import Choice
    from mqmail.mail.mxplan import Hop


LONGEST = 200       # characters of a site's name


def key_of(hop: Hop) -> str:
    """A next hop's name for people and for mq-send: ``host:port``, and what is special of its way."""
    host, port, way = hop
    special = () if way == DIRECT else (
        way.kind, way.tls, *way.names, way.minimum, way.sni, way.auth, *way.sources, way.prefer)
    name = " ".join([f"{host}:{port}", *[part for part in special if part]])
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST - 17]} {hashlib.sha256(name.encode()).hexdigest()[:16]}"


def unmarked(verdict: Reply) -> Reply:
    """*verdict* without what it said to the planner alone."""
    verdict = untagged(verdict)
    for mark in (NOT_REACHED, CUT, FINAL):
        if verdict.text.endswith(mark):
            return Reply(verdict.code, (verdict.text[:-len(mark)].rstrip(" "),), verdict.status)
    return verdict


def with_hints(verdict: Reply, choices: Sequence[Choice] | None, memory: HostMemory,
               now: float) -> Reply:
    """*verdict* with the site of a recipient whose hosts are *choices*: the best one. Where no host
    could be reached, also how many seconds from *now* the first of them is tried again."""
    facts = {} if choices is None else _hints(verdict, choices, memory, now)
    verdict = unmarked(verdict)
    return Reply(verdict.code, (f"{verdict.text} {xtext.facts(facts)}".strip(),), verdict.status)


def _hints(verdict: Reply, choices: Sequence[Choice], memory: HostMemory,
           now: float) -> dict[str, object]:
    """Of troubles of our own, and of backup hosts while the best one is down, the site says nothing."""
    site = key_of(choices[0].hop)
    times = [memory.until(key_of(choice.hop), now) for choice in choices]
    if verdict.text.endswith(NOT_REACHED):
        waits = [at - now for at in times if at is not None]
        return {"site": site, "retry": max(1, int(min(waits)))} if waits else {}
    return {"site": site} if times[0] is None and "host=" in verdict.text else {}
