"""The disk: which file system, whether it has a journal, how many durable files a second it can take,
and an image of a file system with a journal for those that have none."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from forks import Trouble, parallel

AT_ONCE = (1, 4, 16)
BLOCK = b"x" * 4096
IMAGE_SIZE = 4 << 30            # bytes; it takes only what is written
_NEW_MOUNTS = 0x20000           # CLONE_NEWNS of <linux/sched.h>
# What each file system has in place of /proc/fs/jbd2.
_KNOWN = {
    "xfs": (True, "a log of its own"), "jfs": (True, "a log of its own"),
    "reiserfs": (True, "a journal"), "f2fs": (True, "a log of its own"),
    "btrfs": (True, "no journal but a tree log, which does the same"),
    "zfs": (True, "no journal but an intent log, which does the same"),
    "tmpfs": (False, "memory: fsync does nothing"), "ramfs": (False, "memory: fsync does nothing"),
    "ext2": (False, "no journal"),
}


@dataclass(frozen=True)
class Mount:
    """Where a directory is: mount point, type and device. *journal* is None when nobody knows."""

    point: str
    kind: str
    device: str
    journal: bool | None
    words: str          # the same for people

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.kind} on {self.device} ({self.point}): {self.words}"


def find_mount(path: str, mountinfo: str) -> tuple[str, str, str, str]:
    """(mount point, type, device, "major:minor") of the absolute *path*, from the text of
    /proc/self/mountinfo (proc(5)); the last of those mounted at the same place."""
    best = ("", "", "", "")
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, found = left.split(), right.split()
        point = fields[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, found[0], found[1], fields[2])
    return best


def judge_journal(kind: str, has_jbd2: bool) -> tuple[bool | None, str]:
    """Whether a file system of this type has a journal, and words for it."""
    if kind in ("ext3", "ext4"):
        return has_jbd2, "a journal" if has_jbd2 else "NO JOURNAL, so fsync does less than elsewhere"
    return _KNOWN.get(kind, (None, "nobody knows here whether it has a journal"))


def mount_of(path: str) -> Mount:
    """The file system of *path*."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        point, kind, device, numbers = find_mount(os.path.realpath(path), file.read())
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{numbers}"))
    has_jbd2 = os.path.isdir(f"/proc/fs/jbd2/{name}-8")     # 8: the journal's inode
    return Mount(point, kind, device, *judge_journal(kind, has_jbd2))


def limit(directory: str, at_once: int, seconds: float) -> float:
    """How many files a second become durable: create, write 4 KiB, fsync, rename, fsync of the
    directory, by *at_once* processes, each in a directory of its own."""
    places = [f"{directory}/limit-{number}" for number in range(at_once)]
    for place in places:
        os.mkdir(place)
    counts = parallel(lambda place: _make_files(place, seconds), places)
    for place in places:
        shutil.rmtree(place)
    return float(sum([count / took for count, took in counts]))


def _make_files(place: str, seconds: float) -> tuple[int, float]:
    """(files, seconds)."""
    directory = os.open(place, os.O_RDONLY)
    start = time.monotonic()
    count = 0
    while time.monotonic() < start + seconds:
        fd = os.open(f"{place}/tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, BLOCK)
        os.fsync(fd)
        os.close(fd)
        os.rename(f"{place}/tmp", f"{place}/{count}")
        os.fsync(directory)
        count += 1
    return count, time.monotonic() - start


@contextmanager
def journal_image(directory: str) -> Iterator[str]:
    """A directory on an ext4 with a journal, in a file below *directory*; for root. The mount is seen
    by our processes alone and the file has no name, so nothing is left, even if we are killed."""
    image, point = f"{directory}/image", f"{directory}/mount"
    os.mkdir(point)
    try:
        with open(image, "wb") as file:
            file.truncate(IMAGE_SIZE)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        _hide_mounts()
        _run("mount", "-o", "loop", image, point)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(image)
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", point], check=False)


def _hide_mounts() -> None:
    """From now on what we mount is seen by our own processes only, and goes with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) != 0:
        raise Trouble(f"no mounts of our own: {os.strerror(ctypes.get_errno())}")
    _run("mount", "--make-rprivate", "/")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
    except FileNotFoundError:
        raise Trouble(f"{command[0]} is not installed") from None
    if done.returncode:
        raise Trouble(f"{' '.join(command)}: {done.stderr.strip()}")
