"""mq-start and its log, seen by the one who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

from mqmail.base.failure import Temporary
from mqmail.demo.journey import Journeys
from mqmail.net.lifeline import die_with_parent
from mqmail.net.owner import as_owner, owner_of

LOG = "run/log"
MOST_WORDS = 20     # lines for people that are kept, to be shown if it fails


class System:
    """Everything running on the home in the working directory. The log goes to run/log with times, and
    the journeys of messages come out."""

    def __init__(self, program: str) -> None:
        with as_owner(owner_of(".")):
            self._log = open(LOG, "a", encoding="utf-8", errors="surrogateescape",  # noqa: SIM115
                             opener=lambda path, flags: os.open(path, flags, 0o600))
        reading, announce = os.pipe()
        parent = os.getpid()
        self._process = subprocess.Popen(
            [program, "--home", ".", "--ready-fd", str(announce)], stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, encoding="utf-8", errors="surrogateescape", pass_fds=[announce],
            start_new_session=True, preexec_fn=lambda: die_with_parent(parent))
        os.close(announce)
        self.pid = self._process.pid
        self._change = threading.Condition()
        self._over: list[str] = []
        self._ended = False
        self._words: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with open(reading, "rb") as ready:
            if ready.read(1) != b"\n":
                self._reader.join()         # its last words may still be on their way
                raise Temporary("\n".join(self._words) or "mq-start ended")

    def _read(self) -> None:
        """In a thread of its own, so that each line gets its true time."""
        journeys = Journeys()
        assert self._process.stderr is not None
        for line in self._process.stderr:
            now = time.time()
            text = line.rstrip("\n")
            self._log.write(f"{_stamp(now)} {text}\n")
            self._log.flush()
            over = journeys.add(text, now)
            if over:
                with self._change:
                    self._over.append(over)
                    self._change.notify()
            elif not text.startswith("event=") or text.startswith("event=bug "):
                self._words = [*self._words, text][-MOST_WORDS:]
        with self._change:
            self._ended = True
            self._change.notify()

    def journey(self, seconds: float | None) -> str:
        """The next message's journey; Temporary when none is over in time, or the system has ended."""
        with self._change:
            self._change.wait_for(lambda: self._over or self._ended, seconds)
            if self._over:
                return self._over.pop(0)
            why = "mq-start has ended" if self._ended else f"a message is late by {seconds} s"
            raise Temporary("\n".join([*self._words, f"{why}; {LOG} in the home says more"]))

    def stop(self) -> int:
        """Stop everything cleanly; mq-start's exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._reader.join()
        self._log.close()
        return self._process.wait()


def _stamp(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
