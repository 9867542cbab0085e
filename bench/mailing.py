"""One message to 1000 recipients in 100 domains that share ten MX hosts: how many transactions and
connections the hosts see. The hosts are smtp-sinks, the name server is nsd, both on loopback."""

from __future__ import annotations

import os
import shutil
import smtplib
import sys
import time
from contextlib import ExitStack
from typing import Any

from forks import Trouble
from relay import AT_ONCE, write_control
from sink import Sink, free_port_at
from system import ROOT, System, greeted, wait_for

sys.path.append(f"{ROOT}/tests")

FEWEST = 10             # transactions: one for each host


def measure(directory: str) -> dict[str, Any]:
    """On a home of its own below *directory*."""
    from support.nsd import SHARED_ADDRESSES, SHARED_IPS, Nsd, shared_hosts
    program = shutil.which("nsd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise Trouble("nsd is not installed")
    with ExitStack() as stack:
        nsd = stack.enter_context(Nsd(program, shared_hosts()))
        port = free_port_at(SHARED_IPS)
        sinks = [stack.enter_context(Sink(directory, ip, port)) for ip in SHARED_IPS]
        system = System(directory)
        write_control(system.home, relayclients="127.0.0.1", resolvers=f"127.0.0.1:{nsd.port}",
                      refusednetworks="# none", smtproutes=f"::{port}", concurrencyremote=str(AT_ONCE))
        with system.start():
            seconds = _send(system, SHARED_ADDRESSES)
        counters = [sink.counters() for sink in sinks]      # sessions are counted when they have ended
    return {"recipients": len(SHARED_ADDRESSES), "domains": 100, "hosts": len(SHARED_IPS),
            "fewest": FEWEST, "transactions": sum(messages for messages, _ in counters),
            "connections": sum(sessions for _, sessions in counters), "seconds": seconds}


def _send(system: System, addresses: list[str]) -> float:
    """Seconds until all have a verdict, which must be good."""
    start = time.monotonic()
    with greeted(system.port) as client:
        try:
            refused = client.sendmail("sender@client.example.net", addresses,
                                      "Subject: a mailing\r\n\r\nhello\r\n")
        except smtplib.SMTPException as error:
            raise Trouble(f"the mailing is not accepted: {error}") from None
    if refused:
        raise Trouble(f"{len(refused)} recipients were refused")
    found = wait_for(lambda: sent(system.log()), len(addresses))
    if found < len(addresses):
        raise Trouble(f"only {found} of {len(addresses)} recipients were served")
    return time.monotonic() - start


def sent(log: str) -> int:
    """How many recipients mq-send calls delivered."""
    return sum(line.startswith("event=delivered ") for line in log.splitlines())
