"""loglevels: how much each program logs; and the level of every event, which mq-log(5) lists."""

from __future__ import annotations

from mqmail.base import log
from mqmail.base.failure import Failure
from mqmail.control import reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

PROGRAMS = ("mq-auth", "mq-bounce", "mq-local", "mq-lspawn", "mq-queue", "mq-remote", "mq-resolve",
            "mq-rspawn", "mq-send", "xmtpd")
ALL = "*"

# From what an admin has to look at, which is always logged, to every step.
EVENTS = {
    "error": """
        accept_failed account_stopped accounts_not_read accounts_not_written auth_key_trouble bad_answer
        bad_relayclient bad_table bug check_failed daemon_died fork_failed hook_failed hosts_not_read
        hosts_not_written listen_failed load_unknown message_trouble no_memory no_service queue_failed
        record_bad record_not_moved record_not_removed record_not_written reload_failed scan_failed
        stop_too_slow worker_died""".split(),
    "notice": """
        accounts_not_told auth_failed auth_unavailable bounce_deferred caller_refused clock_set_back
        dnsbl_trouble double_bounce_dropped hook_slow host_down hosts_read listening listening_ended
        pressure proxy_refused queue_body_not_removed queue_left_behind queue_odd_file
        queue_orphan_removed queue_unavailable ready record_incomplete reloaded report_deferred
        report_refused resolve_unavailable run_all scanned service_away service_back site_back
        site_down stopped stopping tls_failed verify_failed wanted_ignored""".split(),
    "info": """
        accepted auth_ok auth_refused authenticated bounced client_refused deferred delivered discarded
        etrn failed finished header_marked message_refused nobody_to_tell queued recipient_refused
        rewritten sender_refused tls_refused told wanted""".split(),
    "debug": """
        connect disconnect ident put_off refused replaced sent tls xclient""".split(),
}
LEVELS = tuple(EVENTS)


def beyond(level: str) -> frozenset[str]:
    """The events that are not logged at *level*."""
    more = LEVELS[LEVELS.index(level) + 1:]
    return frozenset([event for one in more for event in EVENTS[one]])


def obey() -> None:
    """From now on log as the file says, in the home that is the working directory. One that cannot be
    used stops nobody, for no log is worth mail: that is logged, and the levels stay as they are."""
    try:
        log.set_quiet(reader.load(".", ["loglevels"]).loglevels)
    except (Failure, OSError) as error:
        log.event("reload_failed", error=str(error))


def parse_loglevels(lines: Lines, _me: str) -> dict[str, frozenset[str]]:
    """Lines ``PROGRAM LEVEL``, ``*`` for the others: program to the events that it does not log."""
    found: dict[str, frozenset[str]] = {}
    for line in lines:
        program, level = (line.split(None, 1) + [""])[:2]
        if program not in (*PROGRAMS, ALL):
            raise ValueError(f"{program[:40]!a} logs nothing: write {', '.join(PROGRAMS)}, or {ALL}")
        if level not in LEVELS:
            raise ValueError(f"{level[:40]!a} is no level: write {', '.join(LEVELS)}")
        if program in found:
            raise ValueError(f"{program} has a level already")
        found[program] = beyond(level)
    return found
