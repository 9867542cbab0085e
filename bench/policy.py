"""What policy costs: CPU per message at a listener without checks and at one with an access map of a
million entries, lists in DNS, SPF and verified recipients, in turns, from a stranger's address."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import load
from forks import Trouble
from relay import write_control
from system import ME, ROOT, System, free_port

sys.path.append(f"{ROOT}/tests")

SESSIONS = 10
PAIRS = 4               # of turns without policy and with it
SOURCE = "127.0.0.2"    # 127.0.0.1 is this host, which is asked nothing
SENDER = "sender*@from.test"     # of nsd's zone, another one each time
ON, OFF = "on", "off"
Medians = dict[str, float]
# The address is on no list: what most mail is asked. Its SPF record has an include, as most have.
RECORDS = ('from.test. 900 IN MX 10 ns.test.',
           'from.test. 900 IN TXT "v=spf1 include:_spf.test -all"',
           '_spf.test. 900 IN TXT "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 ip4:127.0.0.0/8 ~all"')
LISTS = "one.bl.test\ntwo.bl.test\n!dnswl.test"


class Door:
    """A listener of *system* as a Target of loads."""

    def __init__(self, system: System, port: int) -> None:
        self.name, self.port, self.pid = system.name, port, system.pid
        self.recipient, self.clear, self.arrived = system.recipient, system.clear, system.arrived


def measure(directory: str, entries: int, seconds: float,
            progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """For sessions with many messages and with one: what a message costs."""
    from support.nsd import Nsd
    program = shutil.which("nsd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise Trouble("nsd is not installed")
    generator = load.Generator(True, SOURCE, SENDER)
    progress(f"policy: writing an access map of {entries} entries")
    with Nsd(program, RECORDS, ttl=900) as nsd, System(directory) as system:
        bare_port = free_port()
        configure(system, bare_port, nsd.port, entries)
        system.start()
        doors = {OFF: Door(system, bare_port), ON: Door(system, system.port)}
        return [{"entries": entries, **_compare(generator, doors, reuse, seconds, progress)}
                for reuse in (True, False)]


def configure(system: System, bare_port: int, resolver: int, entries: int) -> None:
    """All checks are made at the system's port, those that no option set can leave out at *bare_port*:
    one home, so that the disk is the same for both. *resolver*: the port of a name server."""
    write_control(system.home, listeners=f"127.0.0.1:{system.port}\n127.0.0.1:{bare_port} set=bare",
                  optionsets="bare checks=none", resolvers=f"127.0.0.1:{resolver}", dnsbl=LISTS,
                  spf="reject", senderdomain="reject", verify=f"{ME} mailbox",
                  throttles="* sessions=100 rate=1000000/60s messages=1000000/60s")
    done = subprocess.run(
        [f"{ROOT}/bin/mq-makemap", "--home", system.home, "access", "-"], text=True, check=False,
        input="".join(access_lines(entries)), capture_output=True)
    if done.returncode:
        raise Trouble(f"mq-makemap: {done.stderr.strip()}")


def access_lines(entries: int) -> list[str]:
    """A table with all kinds of keys, none of which is ours."""
    kinds = ("Connect:10.{a}.{b}.{c} REJECT\n", "Connect:{n}.dialup.example REJECT\n",
             "From:user{n}@spam.example REJECT\n", "From:.{n}.example REJECT\n",
             "To:user{n}@" + ME + " OK\n")
    return [kinds[n % len(kinds)].format(n=n, a=n >> 16 & 255, b=n >> 8 & 255, c=n & 255)
            for n in range(entries)]


def _compare(generator: load.Generator, doors: dict[str, Door], reuse: bool, seconds: float,
             progress: Callable[[str], None]) -> dict[str, Any]:
    """PAIRS times one after the other."""
    few = load.enough(generator, doors[ON], SESSIONS, reuse, seconds)
    taken, _ = load.send_all(generator, doors[ON], SESSIONS, reuse, few)
    messages = max(few, int(seconds * few / taken))
    found: dict[str, list[dict[str, Any]]] = {ON: [], OFF: []}
    for turn in range(PAIRS):
        for name in (OFF, ON) if turn % 2 == 0 else (ON, OFF):
            progress(f"policy {name}, turn {turn + 1} of {PAIRS}{', reused' * reuse}")
            found[name].append(load.measure(generator, doors[name], SESSIONS, reuse, messages))
    return {"reuse": reuse, "sessions": SESSIONS, "messages": messages,
            "all": _medians(found, lambda one: float(one["cpu_ms"])), "xmtpd": _medians(found, _xmtpd)}


def _xmtpd(figures: dict[str, Any]) -> float:
    part = figures["by_program"]["xmtpd"]
    return float(part["user_ms"] + part["system_ms"])


def _medians(found: dict[str, list[dict[str, Any]]], cpu: Callable[[dict[str, Any]], float]) -> Medians:
    """Of *cpu* of the results, and of the differences of pairs."""
    costs = {name: [cpu(one) for one in results] for name, results in found.items()}
    more = [on - off for on, off in zip(costs[ON], costs[OFF], strict=True)]
    return {OFF: median(costs[OFF]), ON: median(costs[ON]), "more": median(more)}
