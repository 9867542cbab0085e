"""Start with many messages waiting: how soon SMTP answers, how soon new mail is delivered."""

from __future__ import annotations

import os
import smtplib
import time
from typing import Any

import procs
from forks import Trouble, parallel
from system import PAUSE, SECONDS, System, greeted, wait_for

from mqmail.net.owner import become_owner, owner_of
from mqmail.queue import ids, lines
from mqmail.queue.record import Envelope, Recipient

DAY = 86400.0
PARTS = 4               # processes that make records
SENDER = "sender@client.example.net"
BODY = (b"Received: from client.example.net (client.example.net [192.0.2.1])\r\n"
        b"\tby mx.example.com with ESMTP; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
        b"From: <sender@client.example.net>\r\nSubject: waits\r\n\r\nhello\r\n")


def make_record(number: int, count: int, now: float, due_in: float = 3600.0,
                spread: float = DAY) -> tuple[str, bytes, float]:
    """Message *number* of *count*: (id, record, seconds when it is due). They came over the last two
    days, are for many hosts, were tried an hour ago, and are due over the *spread* seconds that begin
    in *due_in* seconds."""
    at = now - 2 * DAY + number * 1.9 * DAY / count
    due = now + due_in + number * 7919 % count * (spread / count)
    id = ids.make(int(at * 1e6), 1000 + number % PARTS)
    host = f"host{number % 1000}.example.net"
    via = {"proto": "esmtp", "ip": "192.0.2.1"}
    envelope = Envelope(id, at, len(BODY), False, False, SENDER, "", "", via)
    recipient = Recipient("1", "remote", f"user{number}@{host}")
    wait = lines.wait_line("1", now - 3600.0, "4.4.1", due, host, "connection refused")
    return id, lines.head(envelope, [recipient]) + wait, due


def fill(home: str, count: int, due_in: float = 3600.0, spread: float = DAY) -> None:
    """Put *count* waiting messages (make_record) into a queue that nobody works on, as its owner."""
    now = time.time()

    def make_part(part: int) -> int:
        os.chdir(home)
        become_owner(owner_of("."))
        os.umask(0o027)
        for number in range(part, count, PARTS):
            id, record, due = make_record(number, count, now, due_in, spread)
            _write(f"queue/mess/{ids.directory(id)}/{id}", BODY)
            path = f"queue/wait/{ids.directory(id)}/{id}"
            _write(path, record)
            os.utime(path, (due, due))
        return count

    parallel(make_part, range(PARTS))


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(fd, data)
    os.close(fd)


def measure(system: System, records: int) -> dict[str, Any]:
    """Start *system* and send one message at once. Seconds since the start; memory when all is read."""
    start = time.monotonic()
    system.launch()
    client = greeted(system.port)
    answered = time.monotonic() - start
    with client:
        _send(client, system.recipient)
        accepted = time.monotonic() - start
        wait_for(system.arrived, 1)
    first = time.monotonic() - start
    system.wait_ready()
    found = _wait_scanned(system)
    searched = time.monotonic() - start
    memory = procs.memory(system.pid)
    return {"records": records, "found": found, "scanned_s": searched, "smtp_s": answered,
            "accepted_s": accepted, "delivered_s": first, "mq_send_kib": memory.get("mq-send", 0),
            "all_kib": sum(memory.values())}


def _send(client: smtplib.SMTP, recipient: str) -> None:
    """One message, tried again while the programs behind xmtpd are not there yet (4xx)."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            client.sendmail(SENDER, [recipient], "Subject: the first\r\n\r\nhello\r\n")
            return
        except smtplib.SMTPException as error:
            if time.monotonic() > deadline:
                raise Trouble(f"no message is accepted: {error}") from None
            time.sleep(PAUSE)


def _wait_scanned(system: System) -> int:
    """How many waiting messages mq-send says it has found; 0 when it does not say."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = scanned(system.log())
        if found is not None:
            return found
        time.sleep(0.05)
    return 0


def scanned(log: str) -> int | None:
    """The number in the log's last line event=scanned."""
    for line in reversed(log.splitlines()):
        words = line.split()
        if "event=scanned" in words:
            return next((int(word[8:]) for word in words if word.startswith("waiting=")), None)
    return None
