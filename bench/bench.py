"""bench: measures mqmail on this machine.

Usage:
  make bench [BENCH_QUICK=1] [BENCH_DIR=DIR] ...
  bench.py
  bench.py -h | --help

Starts the whole system on a scratch home, prints tables of figures, and puts the same figures into
bench/last.json. Nothing is asserted: machines differ, so compare figures of one run. Other work on the
machine spoils them; the load average is printed. It takes about five minutes and works for everybody;
root also gets the file system with a journal and the comparison with Postfix.

Environment:
  BENCH_DIR=DIR        where the scratch directory is made, and so which disk is measured (/var/tmp)
  BENCH_QUICK=1        short loads and few waiting messages: about a minute, and rougher figures
  BENCH_RECORDS=N      how many messages wait when the system is started again (100000)
  BENCH_JOURNAL=1|0    whether loads are run on an ext4 with a journal too, in a file on that disk; by
                       default if the disk's file system has none and root asks. Without a journal
                       fsync of a directory costs next to nothing, so figures look too good
  BENCH_POSTFIX=1      put Postfix under the same loads in turn, from a configuration of its own (root)
  BENCH_ONLY=LIST      these sections alone: disk (with memory, start-up, loads, relay), idle, tls, slow,
                       policy (these four are xmtpd's), mailing, dead, flushes, waiting, journal
  BENCH_GENERATOR=own  generate loads with bench/generator.py even if smtp-source is installed

What the figures are:
  loads        4 KiB messages by SMTP to one mailbox, by 1, 10 and 50 sessions at once; "reuse": sessions
               send many messages, else each message has its own. accepted/s: until the last 250;
               delivered/s: until the last file is in the Maildir. CPU ms: per message, of all processes
               below mq-start with those that ended, without the load generator and the kernel's own
               threads. "CPUs used" is their sum over the time; "idle" the whole machine's idle share,
               disk waits included; "busiest process" the share of one CPU that one process used.
  relay        the same messages, but for another host: in by SMTP, out to Postfix's smtp-sink on
               loopback, at most 50 deliveries at a time. Senders use their sessions again; "reuse":
               mqmail does so with its sessions to the sink (control/remotesessions), Postfix with its
               connection cache. delivered/s: until the sink has counted the last.
  idle         PSS of all programs, and xmtpd's part of it, with idle sessions on one listener; their
               clients are processes that do not count.
  tls          xmtpd's TLS sessions beside those of a bare server that knows Python's ssl alone, with the
               same certificate (P-256), settings and words; four clients have one session at a time.
               resumed: sessions that the server has known again. CPU: as with loads.
  slow         10 sessions send mail while 500 other clients say one octet a second, a third each in a
               command, in DATA and in the handshake; in turns without and with them. change: median of
               the pairs; what the turns without them differ by is noise.
  policy       CPU as with loads, by 10 sessions from an address that is a stranger's, each message of
               another sender; at a listener without checks (checks=none) and at one with control/access
               (cdb), lists in DNS and SPF (nsd is asked, answers are cached), senders' domains, verified
               recipients and header rules, in turns. more: median of the pairs. Throttles count at both.
               What mq-queue and mq-local flush varies, and with it the sum; xmtpd's part varies less.
  mailing      one message to 1000 recipients in 100 domains whose MX are the same ten hosts, ten
               smtp-sinks with a zone in nsd: transactions and connections that the sinks have counted.
  down         messages that are all due for one closed port, and the connect calls to it, counted by
               strace, until all have been put off: in one retry time.
  flushes      calls of fsync and its like per message, counted by strace in runs of their own.
  memory       PSS: shared pages count in part for each process that shares them.
  start-up     wall time from start to end, medians, all programs in turn; xmtpd with one QUIT on
               descriptor 0, mq-inject with a small message. The interpreter is the binary behind the
               programs; "through sh" they are run as users do, by the shell lines that find it.
  restart      the files have just been written, so they are in the kernel's memory.
  disk         files a second for: create, write 4 KiB, fsync, rename, fsync of the directory.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, f"{ROOT}/lib")

import dead  # noqa: E402
import disk  # noqa: E402
import face  # noqa: E402
import flushes  # noqa: E402
import idle  # noqa: E402
import load  # noqa: E402
import mailing  # noqa: E402
import relay  # noqa: E402
import report  # noqa: E402
import startup  # noqa: E402
import waiting  # noqa: E402
from forks import Trouble  # noqa: E402
from options import Options, read_options  # noqa: E402
from postfix import Postfix  # noqa: E402
from system import System  # noqa: E402

OUTPUT = f"{ROOT}/bench/last.json"
LOADS = ((1, False), (1, True), (10, False), (10, True), (50, False), (50, True))


class Bench:
    """One run: measures, prints, and keeps the *figures*."""

    def __init__(self, options: Options, top: str) -> None:
        self.figures: dict[str, Any] = {}
        self._options = options
        self._top = top
        self._generator = load.Generator(options.own)
        self._places = 0

    def run(self) -> None:
        """Everything. What cannot be measured is said, and the rest goes on."""
        options = self._options
        where = disk.mount_of(self._top)
        self._introduce(where)
        if options.wants("disk"):
            self._place("disk", self._top, alone=True)
        for part in face.parts(self._scratch, self._generator, options, progress):
            self._section(*part)
        self._section("mailing", "A mailing to domains that share MX hosts",
                      lambda: mailing.measure(self._scratch()), report.mailing)
        self._section("dead", "Messages waiting for a host that is down",
                      lambda: dead.measure(self._scratch(), options.dead), report.dead)
        self._section("flushes", "Flushes to disk per message, by program",
                      lambda: flushes.measure(self._scratch(), self._generator), report.flushes)
        self._section("waiting", f"Started again with {options.records} messages waiting", self._waiting,
                      report.waiting)
        journal = options.journal
        if journal is None:
            journal = where.journal is False and os.geteuid() == 0
        if journal and options.wants("journal"):
            self._journal()

    def _introduce(self, where: disk.Mount) -> None:
        machine: dict[str, Any] = {
            "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "cpus": len(os.sched_getaffinity(0)),
            "cpu": _cpu_model(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "root": os.geteuid() == 0,
            "load_average": os.getloadavg()[0],
            "generator": self._generator.name,
            "disk": where.text,
        }
        self.figures["machine"] = machine
        print(f"{machine['when']}, {machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']},"
              f" Python {machine['python']}, {'root' if machine['root'] else 'not root'}")
        busy = machine["load_average"] > machine["cpus"] / 4
        print(f"load average before: {machine['load_average']:.2f}"
              + (": OTHER WORK IS GOING ON, the figures are worse than they could be" if busy else ""))
        print(f"loads come from {machine['generator']}; scratch files on {machine['disk']}")

    def _place(self, name: str, directory: str, alone: bool) -> None:
        """All that depends on the disk, in a directory on it; with *alone* also what does not."""
        kept = self.figures.setdefault(name, {"mount": disk.mount_of(directory).text})
        title = f"create, write 4 KiB, fsync, rename, fsync of the directory, on {kept['mount']}"
        self._part("limit", f"What the disk can do: {title}", lambda: self._limits(directory),
                   report.limits, kept)
        memory: list[dict[str, Any]] = []
        if alone:
            self._quiet("memory", lambda: memory.append(self._idle(System(self._scratch(directory)))))
            self._part("startup", "Start-up: programs that live for one use", self._startup,
                       report.startup)
        with ExitStack() as stack:
            targets: list[load.Target] = [stack.enter_context(System(self._scratch(directory))).start()]
            if self._options.postfix:
                self._quiet("Postfix", lambda: targets.append(
                    self._postfix(stack, directory, memory, alone)))
            kept["loads"] = self._loads(targets)
        if memory:
            self._part("memory", "Memory (PSS)", lambda: memory, report.memory)
        title = f"Loads on {kept['mount']}"
        self._part("loads", title, lambda: kept["loads"], report.loads, kept)
        print(f"\n  CPU ms per message by program, user+system:\n\n{report.programs(kept['loads'])}")
        title = f"Relay on {kept['mount']}"
        self._part("relay", title, lambda: self._relay(directory), report.relay, kept)

    def _limits(self, directory: str) -> dict[str, float]:
        return {str(at_once): disk.limit(self._scratch(directory), at_once, self._options.disk_seconds)
                for at_once in disk.AT_ONCE}

    def _loads(self, targets: list[load.Target]) -> list[dict[str, Any]]:
        """Each load on each target in turn, so that all meet the same machine."""
        results = []
        for sessions, reuse in LOADS:
            for target in targets:
                progress(f"{target.name}, {sessions} sessions{', reused' * reuse}")
                try:
                    found = load.measure_for(self._generator, target, sessions, reuse,
                                             self._options.seconds)
                except Trouble as error:
                    found = {"trouble": str(error)}
                results.append({"system": target.name, "sessions": sessions, "reuse": reuse, **found})
        return results

    def _relay(self, directory: str) -> list[dict[str, Any]]:
        """Relays with and without reuse of their sessions, under each load in turn."""
        with ExitStack() as stack:
            starters = [relay.start_mqmail]
            if self._options.postfix and os.geteuid() == 0:
                starters.append(relay.start_postfix)
            targets = [start(stack, self._scratch(directory), reuse)
                       for start in starters for reuse in (True, False)]
            return relay.measure(targets, self._generator, self._options.seconds, progress)

    def _postfix(self, stack: ExitStack, directory: str, memory: list[dict[str, Any]],
                 alone: bool) -> Postfix:
        """Running until *stack* ends."""
        if os.geteuid() != 0:
            raise Trouble("only root can start it")
        if alone:
            memory.append(self._idle(Postfix(self._scratch(directory))))
        postfix = stack.enter_context(Postfix(self._scratch(directory)))
        self.figures["machine"]["postfix"] = postfix.version
        return postfix.start()

    def _idle(self, target: System | Postfix) -> dict[str, Any]:
        progress(f"{target.name}, memory")
        with target:
            return idle.measure(target.start())

    def _startup(self) -> dict[str, Any]:
        with System(self._scratch()) as system:
            return startup.measure(system.start(), self._options.runs)

    def _waiting(self) -> dict[str, Any]:
        with System(self._scratch()) as system:
            progress(f"writing {self._options.records} waiting messages")
            waiting.fill(system.home, self._options.records)
            progress("starting with waiting messages")
            return waiting.measure(system, self._options.records)

    def _journal(self) -> None:
        def measure() -> None:
            with disk.journal_image(self._top) as point:
                self._place("journal", point, alone=False)

        if os.geteuid() != 0:
            print("\nno figures with a journal: only root can mount it")
        else:
            self._quiet("figures with a journal", measure)

    def _scratch(self, directory: str = "") -> str:
        """A new directory."""
        self._places += 1
        path = f"{directory or self._top}/{self._places}"
        os.mkdir(path, 0o755)
        return path

    def _section(self, name: str, title: str, measure: Callable[[], Any],
                 text: Callable[[Any], str]) -> None:
        if self._options.wants(name):
            self._part(name, title, measure, text)

    def _part(self, name: str, title: str, measure: Callable[[], Any], text: Callable[[Any], str],
              into: dict[str, Any] | None = None) -> None:
        """Measure one thing, keep it and print it."""
        kept = self.figures if into is None else into

        def do() -> None:
            progress(title)
            kept[name] = measure()
            words = text(kept[name])
            progress("")
            print(f"\n{title}\n\n{words}", flush=True)

        self._quiet(title, do)

    def _quiet(self, what: str, measure: Callable[[], object]) -> None:
        """*measure*; what goes wrong is said."""
        try:
            measure()
        except (Trouble, OSError) as error:
            progress("")
            print(f"\nskipped: {what}: {error}", flush=True)
            self.figures.setdefault("skipped", []).append(f"{what}: {error}")


def progress(text: str) -> None:
    """What is being done, on a terminal only; it is overwritten by what comes next."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text[:78]}")
        sys.stderr.flush()


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


@contextmanager
def scratch(parent: str) -> Iterator[str]:
    """A directory that everybody may look into; removed at the end, and nothing interrupts that."""
    top = tempfile.mkdtemp(prefix="mqmail-bench-", dir=parent)
    os.chmod(top, 0o755)        # the home's owner must get there
    try:
        yield top
    finally:
        handle_signals(signal.SIG_IGN)
        progress("removing scratch files")
        shutil.rmtree(top)
        progress("")


def handle_signals(action: Callable[[int, object], object] | signal.Handlers) -> None:
    """What to do on Ctrl-C and its like."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, action)


def save(figures: dict[str, Any]) -> None:
    """The same figures for programs."""
    with open(OUTPUT, "w", encoding="ascii") as file:
        json.dump(figures, file, indent=1)
        file.write("\n")
    print(f"\nthe same figures: {os.path.relpath(OUTPUT)}")


def _stop(_number: int, _frame: object) -> None:
    handle_signals(signal.SIG_IGN)      # what follows is cleaning up
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """0; 1 for a wrong command line or environment, 111 when nothing can be measured, 130 if stopped."""
    if arguments:
        print(__doc__, end="")
        return 0 if arguments in (["-h"], ["--help"]) else 1
    try:
        options = read_options(dict(os.environ))
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    handle_signals(_stop)
    try:
        with ExitStack() as stack:
            bench = Bench(options, stack.enter_context(scratch(options.directory)))
            bench.run()
        save(bench.figures)
    except KeyboardInterrupt:
        print("\nbench: stopped", file=sys.stderr)
        return 130
    except (Trouble, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 111
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
