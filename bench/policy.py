"""What policy costs: CPU per message with all of it off and with an access map of a million entries,
lists in DNS, SPF, throttles and verified recipients, in turns, from an address that is a stranger's."""

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
from system import ME, ROOT, System

sys.path.append(f"{ROOT}/tests")

SESSIONS = 10
PAIRS = 4               # of turns without policy and with it
SOURCE = "127.0.0.2"    # 127.0.0.1 is this host, which is asked nothing
SENDER = "sender*@test"     # of nsd's zone, another one each time
ON, OFF = "on", "off"
# The address is on no list: what most mail is asked. Its SPF record has an include, as most have.
RECORDS = ('test. 60 IN MX 10 ns.test.',
           'test. 60 IN TXT "v=spf1 include:_spf.test -all"',
           '_spf.test. 60 IN TXT "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 ip4:127.0.0.0/8 ~all"')
LISTS = "one.bl.test\ntwo.bl.test\n!dnswl.test"


def measure(directory: str, entries: int, seconds: float,
            progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """For sessions with one message and with many: what a message costs, and by program."""
    from support.nsd import Nsd
    program = shutil.which("nsd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise Trouble("nsd is not installed")
    generator = load.Generator(True, SOURCE, SENDER)
    progress(f"policy: writing an access map of {entries} entries")
    with Nsd(program, RECORDS) as nsd, make(f"{directory}/{OFF}") as off, \
            make(f"{directory}/{ON}", nsd.port, entries) as on:
        systems = {OFF: off.start(), ON: on.start()}
        return [{"entries": entries, **_compare(generator, systems, reuse, seconds, progress)}
                for reuse in (True, False)]


def make(directory: str, resolver: int = 0, entries: int = 0) -> System:
    """A home; with the port of a *resolver* all checks are made."""
    os.mkdir(directory, 0o755)
    system = System(directory)
    if not resolver:
        write_control(system.home, optionsets="mx checks=none")
        return system
    write_control(system.home, resolvers=f"127.0.0.1:{resolver}", dnsbl=LISTS, spf="reject",
                  senderdomain="reject", verify=f"{ME} mailbox",
                  throttles="* sessions=100 rate=1000000/60s messages=1000000/60s")
    done = subprocess.run(
        [f"{ROOT}/bin/mq-makemap", "--home", system.home, "access", "-"], text=True, check=False,
        input="".join(access_lines(entries)), capture_output=True)
    if done.returncode:
        raise Trouble(f"mq-makemap: {done.stderr.strip()}")
    return system


def access_lines(entries: int) -> list[str]:
    """A table with all kinds of keys, none of which is ours."""
    kinds = ("Connect:10.{a}.{b}.{c} REJECT\n", "Connect:{n}.dialup.example REJECT\n",
             "From:user{n}@spam.example REJECT\n", "From:.{n}.example REJECT\n",
             "To:user{n}@" + ME + " OK\n")
    return [kinds[n % len(kinds)].format(n=n, a=n >> 16 & 255, b=n >> 8 & 255, c=n & 255)
            for n in range(entries)]


def _compare(generator: load.Generator, systems: dict[str, System], reuse: bool, seconds: float,
             progress: Callable[[str], None]) -> dict[str, Any]:
    """PAIRS times one after the other."""
    found: dict[str, list[dict[str, Any]]] = {ON: [], OFF: []}
    for turn in range(PAIRS):
        for name in (OFF, ON) if turn % 2 == 0 else (ON, OFF):
            progress(f"policy {name}, turn {turn + 1} of {PAIRS}{', reused' * reuse}")
            found[name].append(load.measure(generator, systems[name], SESSIONS, reuse, seconds))
    more = [on["cpu_ms"] - off["cpu_ms"] for on, off in zip(found[ON], found[OFF], strict=True)]
    return {"reuse": reuse, "sessions": SESSIONS, "more_ms": median(more), "each_ms": more,
            **{name: _middle(results) for name, results in found.items()}}


def _middle(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The result whose cost is the median."""
    return sorted(results, key=lambda one: float(one["cpu_ms"]))[len(results) // 2]
