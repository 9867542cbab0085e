"""mq-fsck: checks the queue, and repairs it.

Usage:
  mq-fsck [--home DIR] [--repair] [-q]
  mq-fsck --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --repair        repair what can be; what is not understood is moved to queue/bad
  -q              problems only: no count at the end, no progress
  --help          this text

Each problem is a line: path, kind, what it is, and [how it is repaired]. Mail may flow meanwhile;
most repairs need mq-send stopped. Exit code 0: no problem is left, 1: there are some.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time

from mqmail.base import homes, lock
from mqmail.base.failure import Temporary
from mqmail.base.files import write_all
from mqmail.base.program import describe
from mqmail.base.xtext import encode
from mqmail.control import reader
from mqmail.mail.shown import clean
from mqmail.net import daemon
from mqmail.net.owner import as_owner, give_up_root, owner_of
from mqmail.queue import check, repair
from mqmail.queue.check import Setting
from mqmail.queue.look import BUCKETS, Look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.net.owner import Owner
    from mqmail.queue.check import Finding
    from mqmail.queue.look import Facts

PROBLEMS = 1            # exit code
PAUSE = 2.0             # seconds between two looks at what seems to be wrong
_LOOKS = 4              # the most; what changes all the time is alive
_AT_ONCE = 10_000       # of them are kept for the second look
_PASSES = 5
_SHOW_EVERY = 0.3       # seconds between two lines of progress,
_SHOW_AFTER = 1.0       # of which there are none before
_SEND, _QUEUE, _FSCK = "run/mq-send.lock", "run/mq-queue.lock", "run/mq-fsck.lock"


def main(argv: list[str]) -> int:
    """Check the queue; mq-fsck(8) has the exit codes."""
    home, _, found = daemon.arguments(__doc__, argv)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    owner = _enter(home)
    reader.preload()
    with as_owner(owner):
        _find_queue(home)
        lifetime = reader.load(".", ("queuelifetime",)).queuelifetime
        mends, quiet = bool(found["--repair"]), bool(found["-q"])
        alone = mends and _take_locks()
        locks = Locks((_QUEUE, _SEND))
        if owner.uid == 0 and os.path.lexists("control/me"):
            owner = _become_sender(owner)
        fsck = Fsck(owner, float(lifetime), mends, alone, locks, Progress(not quiet and os.isatty(2)))
        code = fsck.run()
    if not quiet:
        _say(fsck.summary())
    return code


def _enter(home: str) -> Owner:
    try:
        os.chdir(home)
    except OSError as error:
        raise homes.no_home(home, error) from None
    return owner_of(".")


def _become_sender(owner: Owner) -> Owner:
    """In a system home: mq-send's account, whose work this is. Owners and modes are then the business of
    mq-setup --check."""
    give_up_root("mq-send")
    os.umask(0o007)
    return owner.replace(uid=-1)    # type: ignore[attr-defined,no-any-return]  # of every @value


def _find_queue(home: str) -> None:
    try:
        os.scandir("queue").close()
    except PermissionError:
        raise Temporary(f"the queue of {home} may be read only by root and its owner") from None
    except OSError as error:
        raise Temporary(f"{home} has no queue ({describe(error)}): make a home with"
                        f" mq-setup --home {home}") from None


def _take_locks() -> bool:
    """Keep other repairs, and mq-send, from starting. Whether mq-send is not running."""
    try:
        lock.hold(_FSCK, "mq-fsck --repair")
    except FileNotFoundError:
        return True             # no run/: nobody can run here
    try:
        lock.hold(_SEND, "mq-send")
    except Temporary:
        return False
    return True


class Locks:
    """Whether programs hold their locks. The files are opened while we may read them."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._fds = {path: _open_lock(path) for path in paths}

    def is_held(self, path: str) -> bool:
        """A lock that came into being meanwhile counts as held."""
        fd = self._fds[path]
        if fd is None:
            return os.path.lexists(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False


def _open_lock(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


class Fsck:
    """The check. *alone*: mq-send does not run, and cannot start."""

    def __init__(self, owner: Owner, lifetime: float, mends: bool, alone: bool, locks: Locks,
                 progress: Progress) -> None:
        self._owner = owner
        self._locks = locks
        self._lifetime = lifetime
        self._mends = mends
        self._alone = alone
        self._progress = progress
        self._look = Look()
        self._waiting: list[Facts] = []     # what seems to be wrong
        self._gentle = False                # this pass makes only gentle repairs
        self._left: list[str] = []
        self._found = 0
        self._repaired = 0
        self._set(False)

    def run(self) -> int:
        """The exit code. With repairs, first those that bring things where they belong; then all; and so
        on until nothing more can be done."""
        for number in range(_PASSES if self._mends else 1):
            self._gentle = number == 0
            before = self._repaired
            self._pass()
            if self._repaired == before and (number or not self._found):
                break
        self._progress.clear()
        for line in self._left:
            _say(line)
        return PROBLEMS if self._found else 0

    def summary(self) -> str:
        """The last line."""
        how = f"{self._repaired} repaired, {self._found} left" if self._mends else f"{self._found}"
        return f"-- {self._look.messages} messages, problems: {how}"

    def _set(self, known: bool) -> None:
        """What time it is, and who runs; *known*: somebody did at the first look."""
        locks = self._locks
        running = known or locks.is_held(_QUEUE) or (not self._alone and locks.is_held(_SEND))
        self._setting = Setting(time.time(), running, self._owner.uid, self._lifetime)

    def _pass(self) -> None:
        """Once through the queue."""
        self._left, self._found = [], 0
        self._set(False)
        for facts in self._look.walk():
            if check.judge(facts, self._setting):
                self._waiting.append(facts)
                if len(self._waiting) >= _AT_ONCE:
                    self._second_look()
            self._progress.show(self._look, self._found)
        self._second_look()

    def _second_look(self) -> None:
        """What has stayed as it was, and as wrong, is a problem."""
        for _ in range(_LOOKS):
            if not self._waiting:
                return
            self._progress.show(self._look, self._found)
            time.sleep(PAUSE)
            self._set(self._setting.running)
            changed = []
            for facts in self._waiting:
                now = self._look.again(facts)
                findings = check.judge(now, self._setting) if now is not None else []
                if findings and now != facts:
                    changed.append(now)
                elif findings:
                    self._confirmed(facts, findings)
            self._waiting = [facts for facts in changed if facts is not None]
        self._waiting = []

    # --- what is wrong ---

    def _confirmed(self, facts: Facts, findings: list[Finding]) -> None:
        self._progress.clear()
        for finding in findings:
            if not self._mends:
                self._found += 1
                how = repair.words(finding.repair) if finding.repair else "by hand"
                _say(_line(finding, f"repair: {how}"))
            else:
                self._mend(facts, finding)

    def _mend(self, facts: Facts, finding: Finding) -> None:
        if finding.repair is None:
            return self._leave(finding, "by hand")
        if self._gentle and not finding.repair.gentle:
            return self._leave(finding, "not yet")
        if finding.repair.alone and not self._alone:
            return self._leave(finding, f"{repair.words(finding.repair)}: stop mq-send first")
        now = self._look.again(facts)
        if now is None or finding not in check.judge(now, self._setting):
            return self._leave(finding, "not yet") if now is not None else None
        try:
            done = self._act(finding)
        except OSError as error:
            return self._leave(finding, f"{repair.words(finding.repair)}: {error.strerror or error}")
        self._repaired += 1
        _say(_line(finding, f"repaired: {done}"))
        return None

    def _act(self, finding: Finding) -> str:
        assert finding.repair is not None
        if finding.repair.action != "own" or os.getuid() != 0 or self._owner.uid == 0:
            return repair.mend(finding.repair)
        try:
            os.seteuid(0)
            repair.give(finding.path, self._owner.uid, self._owner.gid)
        finally:
            os.seteuid(self._owner.uid)
        return repair.words(finding.repair)

    def _leave(self, finding: Finding, why: str) -> None:
        self._found += 1
        self._left.append(_line(finding, f"left: {why}"))


def _line(finding: Finding, how: str) -> str:
    """Fit for a terminal and for grep, whatever the names are."""
    return f"{encode(finding.path)}: {finding.kind}: {clean(finding.text, wide=True)} [{how}]"


def _say(line: str) -> None:
    write_all(1, f"{line}\n".encode("utf-8", "replace"))


class Progress:
    """A line on a terminal that says how far we are, from the second second on."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._next = time.monotonic() + _SHOW_AFTER
        self._shown = False

    def show(self, look: Look, found: int) -> None:
        """Now and then."""
        if self._wanted and time.monotonic() >= self._next:
            self._next = time.monotonic() + _SHOW_EVERY
            self._shown = True
            part = 100 * look.done // len(BUCKETS)
            self._write(f"\r{part:3d}%, {look.messages} messages, {found} problems\x1b[K")

    def clear(self) -> None:
        """Make place for another line."""
        if self._shown:
            self._shown = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            os.write(2, text.encode())
        except OSError:
            self._wanted = False
