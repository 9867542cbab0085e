"""xmtpd, the face to the network, in figures: what is asked of it stands beside what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import handshakes
import idle
import load
import policy
import slow
from options import Options
from tables import mebibytes, table

Figures = dict[str, Any]
IDLE = ((True, 2000, 150), (False, 10000, 200))     # TLS, sessions, and below how many MiB


class Part(NamedTuple):
    """One thing to be measured: its *name*, *title*, how to *measure* it and its *text*."""

    name: str
    title: str
    measure: Callable[[], Any]
    text: Callable[[Any], str]


def parts(scratch: Callable[[], str], generator: load.Generator, options: Options,
          progress: Callable[[str], None]) -> tuple[Part, ...]:
    """All there is; *scratch* makes a directory."""
    seconds = options.face_seconds
    return (
        Part("idle", "xmtpd: memory (PSS) of all programs with many idle sessions on one listener",
             lambda: _idle(scratch, progress), idle_text),
        Part("tls", "xmtpd: new TLS sessions per second of CPU",
             lambda: handshakes.measure(scratch(), seconds, progress), tls_text),
        Part("slow", f"xmtpd: mail accepted while {slow.SLOW} clients say an octet a second",
             lambda: slow.measure(scratch(), generator, seconds, progress), slow_text),
        Part("policy", "xmtpd: CPU of a message without policy and with all of it",
             lambda: policy.measure(scratch(), options.entries, seconds, progress), policy_text),
    )


def _idle(scratch: Callable[[], str], progress: Callable[[str], None]) -> list[Figures]:
    found = []
    for secure, count, asked in IDLE:
        progress(f"{count} idle {'TLS' if secure else 'plain'} sessions")
        found.append({**idle.crowded(scratch(), count, secure), "asked_mib": asked})
    return found


def idle_text(results: list[Figures]) -> str:
    """MiB at rest and with the sessions."""
    rows = [["TLS" if one["secure"] else "plain", one["sessions"], mebibytes(one["rest_kib"]),
             mebibytes(one["total_kib"]), f"below {one['asked_mib']}", mebibytes(one["xmtpd_kib"]),
             one["each_kib"]] for one in results]
    return table(("kind", "sessions", "MiB at rest", "MiB with them", "asked", "xmtpd's share",
                  "KiB each"), rows)


def tls_text(results: list[Figures]) -> str:
    """Beside ssl alone."""
    rows = [[one[name] for name in ("how", "server", "resume", "sessions", "reused", "per_s", "cpu_ms",
                                    "per_cpu_s", "ratio")] for one in results]
    return (table(("session", "server", "resume", "sessions", "resumed", "sessions/s", "CPU ms",
                   "sessions per CPU s", "of ssl alone"), rows)
            + "\n  asked: at least 0.50")


def slow_text(result: Figures) -> str:
    """The rates of all turns, since they vary."""
    without, with_them = [", ".join([f"{rate:.0f}" for rate in result[name]])
                          for name in ("without_per_s", "with_per_s")]
    return (f"  {result['sessions']} sessions, {result['messages']} messages a turn; accepted/s"
            f" without them: {without}; with them: {with_them}\n"
            f"  change: {result['change']:+.0%} (asked: at most 10%), turns without them differ by"
            f" {result['noise']:.0%}")


def policy_text(results: list[Figures]) -> str:
    """In all, and what xmtpd has of it."""
    rows = [[one["sessions"], one["reuse"], one["messages"],
             *[one[who][what] for who in ("all", "xmtpd") for what in ("off", "on", "more")]]
            for one in results]
    return (table(("sessions", "reuse", "messages", "CPU ms without", "with", "more",
                   "xmtpd's without", "with", "more"), rows)
            + f"\n  {results[0]['entries']} entries in control/access.cdb; asked: at most 0.30 ms more")
