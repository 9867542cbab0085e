"""The log, line by line, into the journey of each message, in words."""

from __future__ import annotations

from mqmail.base import xtext
from mqmail.queue import ids

MOST = 1000         # messages on their way that are remembered
_FOR_ANOTHER_HOST = "remote"


def facts_of(line: str) -> dict[str, str]:
    """The facts of a log line, {} when it is no such line."""
    try:
        facts = xtext.parse_facts(line.split(" "))
    except ValueError:
        return {}
    return facts if "event" in facts else {}


class Journeys:
    """Takes log lines with their times; gives each message's journey when it is over, or waits."""

    def __init__(self) -> None:
        self._steps: dict[str, list[str]] = {}

    def add(self, line: str, now: float) -> str:
        """The journey that *line*, written at *now* (seconds since the epoch), completes; else ""."""
        facts = facts_of(line)
        id = facts.get("id", "")
        if not ids.is_id(id):
            return ""
        text = _step(facts)
        if text:
            milliseconds = max(0.0, now * 1e3 - ids.microseconds(id) / 1e3)
            self._remember(id).append(f"{milliseconds:7.0f} ms  {text}")
        if facts["event"] not in ("finished", "deferred"):
            return ""
        return "\n".join([f"message {id}", *self._steps.pop(id, [])])

    def _remember(self, id: str) -> list[str]:
        if id not in self._steps and len(self._steps) >= MOST:
            self._steps.pop(next(iter(self._steps)))
        return self._steps.setdefault(id, [])


def _step(facts: dict[str, str]) -> str:
    """One event in words, "" for those that do not matter here."""
    event, address = facts["event"], facts.get("address", "?")
    if event == "queued":
        return f"{_origin(facts)}; mq-queue has it safe on disk"
    if event == "replaced":
        return f"mq-resolve: {address} {_targets(address, facts.get('by', '').split(' '))}"
    if event == "delivered":
        return f"{_service(facts)}: delivered to {address}{_said(facts)}"
    if event == "deferred":
        again = facts.get("retry", "?")
        return f"{_service(facts)}: not now: {address}{_said(facts)}; again in {again} s"
    if event == "failed":
        return f"{_service(facts)}: impossible: {address}{_said(facts)}"
    if event == "told":
        report = facts_of("event=x " + facts.get("said", "").rpartition(" ")[2]).get("id")
        return f"mq-bounce: tells the sender, in message {report}" if report else ""
    if event == "finished":
        return "mq-send: nothing is left to do; removed from the queue"
    return ""


def _origin(facts: dict[str, str]) -> str:
    """Who brought the message."""
    sender = facts.get("sender") or "<>"
    proto = facts.get("proto", "")
    if proto == "bounce":
        return f"mq-bounce wrote a report of failure (from {sender})"
    if proto == "local":
        return f"user {facts.get('uid', '?')} of this host handed it in (from {sender})"
    return f"xmtpd took it by {proto.upper() or 'SMTP'} from {facts.get('ip', '?')} (from {sender})"


def _targets(address: str, paths: list[str]) -> str:
    """What an address stands for; each path is ``@destination:address``."""
    if paths == [""]:
        return "stands for nobody"
    addresses = ", ".join([path.partition(":")[2] for path in paths])
    found = {path.partition(":")[0] for path in paths}
    if found == {"@new"}:
        return f"stands for {addresses}"
    if found == {f"@{_FOR_ANOTHER_HOST}"}:
        return f"goes to another host ({addresses})"
    return f"is a {found.pop()[1:]}" + (f" ({addresses})" if addresses != address else "")


def _service(facts: dict[str, str]) -> str:
    """The program that answered for the recipient."""
    names = {"new": "mq-resolve", "mailbox": "mq-lspawn", "local": "mq-lspawn", "remote": "mq-rspawn",
             "error": "mq-bounce"}
    destination = facts.get("destination", "?")
    return names.get(destination, destination)


def _said(facts: dict[str, str]) -> str:
    said = facts.get("said", "").removeprefix("250 2.0.0 ")
    return f" ({said[:100]})" if said else ""
