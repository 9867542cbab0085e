"""What the environment asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SECTIONS = ("disk", "idle", "tls", "slow", "policy", "mailing", "dead", "flushes", "waiting", "journal")


@dataclass(frozen=True)
class Options:
    """*journal* is None when the disk decides; *seconds* of one load, *disk_seconds* of one look at the
    disk, *face_seconds* of one turn at xmtpd; *runs* of each program; *dead*: messages for a host that
    is down; *entries* of an access map. *only*: the sections that are wanted, None for all."""

    directory: str
    records: int
    journal: bool | None
    postfix: bool
    own: bool
    seconds: float
    disk_seconds: float
    runs: int
    dead: int
    face_seconds: float
    entries: int
    only: frozenset[str] | None

    def wants(self, section: str) -> bool:
        """Whether it is to be measured."""
        return self.only is None or section in self.only


def read_options(environment: Mapping[str, str]) -> Options:
    """ValueError when a value makes no sense."""
    quick = _switch(environment, "BENCH_QUICK") or False
    records = environment.get("BENCH_RECORDS") or ("10000" if quick else "100000")
    if not (records.isascii() and records.isdigit() and len(records) <= 8):
        raise ValueError(f"BENCH_RECORDS is no number: {records}")
    if environment.get("BENCH_GENERATOR", "") not in ("", "own"):
        raise ValueError("BENCH_GENERATOR is own or nothing")
    journal = _switch(environment, "BENCH_JOURNAL")
    return Options(
        directory=environment.get("BENCH_DIR") or "/var/tmp",
        records=int(records),
        journal=False if quick and journal is None else journal,
        postfix=_switch(environment, "BENCH_POSTFIX") or False,
        own=environment.get("BENCH_GENERATOR") == "own",
        seconds=1.0 if quick else 5.0,
        disk_seconds=0.5 if quick else 2.0,
        runs=20 if quick else 30,
        dead=1000 if quick else 10000,
        face_seconds=1.0 if quick else 2.5,
        entries=100_000 if quick else 1_000_000,
        only=_sections(environment.get("BENCH_ONLY", "")))


def _sections(text: str) -> frozenset[str] | None:
    words = frozenset(text.replace(",", " ").split())
    if not words.issubset(SECTIONS):
        raise ValueError(f"BENCH_ONLY is some of {' '.join(SECTIONS)}, not {text}")
    return words or None


def _switch(environment: Mapping[str, str], name: str) -> bool | None:
    text = environment.get(name, "")
    if text not in ("", "0", "1"):
        raise ValueError(f"{name} is 1 or 0, not {text}")
    return text == "1" if text else None
