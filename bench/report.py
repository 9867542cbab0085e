"""The figures as tables for people. Pure: figures in, text out."""

from __future__ import annotations

from typing import Any

from tables import mebibytes, sorted_names, table

Figures = dict[str, Any]


def loads(results: list[Figures]) -> str:
    """Rates and CPU of each load; below, where the CPU went."""
    header = ("server", "sessions", "reuse", "messages", "accepted/s", "delivered/s", "CPU ms",
              "user ms", "system ms", "CPUs used", "idle", "busiest process")
    rows: list[list[object]] = []
    for one in results:
        start = [one["system"], one["sessions"], one["reuse"]]
        if "trouble" in one:
            rows.append([*start, one["trouble"]])
            continue
        rows.append([*start, one["messages"], one["accepted_per_s"], one["delivered_per_s"],
                     one["cpu_ms"], one["user_ms"], one["system_ms"], one["cpu_share"],
                     f"{one['idle']:.0%}", f"{one['busiest']} {one['busiest_share']:.0%}"])
    return table(header, rows)


def programs(results: list[Figures]) -> str:
    """CPU ms per message by program, a table for each server."""
    good = [one for one in results if "trouble" not in one]
    servers = dict.fromkeys([one["system"] for one in good])
    return "\n\n".join([_programs([one for one in good if one["system"] == name]) for name in servers])


def _programs(good: list[Figures]) -> str:
    """Of programs that never use 1 % nothing is said."""
    names = [name for name in sorted_names([one["by_program"] for one in good])
             if any(_cpu(one, name) > one["cpu_ms"] / 100 for one in good)]
    rows = [[one["system"], one["sessions"], one["reuse"], *[_split(one, name) for name in names]]
            for one in good]
    return table(("server", "sessions", "reuse", *names), rows)


def _cpu(one: Figures, name: str) -> float:
    part = one["by_program"].get(name, {"user_ms": 0.0, "system_ms": 0.0})
    return float(part["user_ms"] + part["system_ms"])


def _split(one: Figures, name: str) -> str:
    """user+system."""
    part = one["by_program"].get(name)
    return f"{max(0, part['user_ms']):.2f}+{max(0, part['system_ms']):.2f}" if part else "-"


def flushes(results: list[Figures]) -> str:
    """fsync calls per message, by program."""
    names = sorted_names([one["by_program"] for one in results])
    rows = [[one["sessions"], one["reuse"], sum(one["by_program"].values()),
             *[one["by_program"].get(name, 0.0) for name in names]] for one in results]
    return table(("sessions", "reuse", "all", *names), rows)


def relay(results: list[Figures]) -> str:
    """Rates and CPU of relaying, and by program."""
    return (f"{loads(results)}\n\n  CPU ms per message by program, user+system:\n\n"
            f"{programs(results)}")


def mailing(result: Figures) -> str:
    """What the hosts of a mailing saw."""
    return (f"  {result['recipients']} recipients in {result['domains']} domains, {result['hosts']} MX"
            f" hosts: {result['transactions']} transactions over {result['connections']} connections\n"
            f"  (the fewest possible: {result['fewest']}), all served after {result['seconds']:.2f} s")


def dead(result: Figures) -> str:
    """What a host that is down saw."""
    return (f"  {result['messages']} messages: {result['attempts']} connection attempts in one retry"
            f" time (the fewest possible: 1),\n"
            f"  {result['put_off']} put off after {result['seconds']:.1f} s")


def memory(results: list[Figures]) -> str:
    """PSS at rest and with idle sessions."""
    rows = []
    for one in results:
        sizes = sorted(one["by_program_kib"].items(), key=lambda pair: -pair[1])
        rows.append([one["system"], one["processes"], mebibytes(one["rest_kib"]),
                     mebibytes(one["added_kib"]),
                     ", ".join([f"{name} {mebibytes(size):.1f}" for name, size in sizes])])
    more = f"MiB more with {results[0]['sessions']} sessions"
    return table(("server", "processes", "MiB at rest", more, "at rest by program"), rows)


def startup(result: Figures) -> str:
    """Wall time of programs that live for one use."""
    rows = [[name, one["median_ms"], one["least_ms"], one["ratio"]]
            for name, one in result["commands"].items()]
    return table(("program", "median ms", "least ms", "times the bare interpreter"), rows)


def waiting(result: Figures) -> str:
    """A start with many messages waiting."""
    return (f"  SMTP answers after {result['smtp_s']:.2f} s\n"
            f"  the first new message is accepted after {result['accepted_s']:.2f} s,"
            f" in the Maildir after {result['delivered_s']:.2f} s\n"
            f"  mq-send has found {result['found']} waiting messages after {result['scanned_s']:.2f} s;"
            f" its PSS is {mebibytes(result['mq_send_kib']):.1f} MiB,"
            f" that of all programs {mebibytes(result['all_kib']):.1f} MiB")


def limits(result: dict[str, float]) -> str:
    """Durable files a second; *result*: by how many at once."""
    return "  " + ", ".join([f"{at_once} at once: {rate:.0f}/s" for at_once, rate in result.items()])
