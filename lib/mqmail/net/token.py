"""Access tokens for OAuth, from the helper programs of control/credentials.

A helper is run without a shell, as mq-credentials(5) says: a session of its own, no input, no
environment but PATH and HOME, in ``/``. The first line of its output is the token. It has a number of
seconds; after them its process group is ended.
"""

from __future__ import annotations

import os
import time

from mqmail.base import child
from mqmail.base.failure import Temporary
from mqmail.base.value import value
from mqmail.base.waiter import Waiter
from mqmail.mail.shown import clean
from mqmail.xmtp.sasl import is_token

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from subprocess import Popen

SECONDS = 30.0           # that a helper has
LIFETIME = 300.0         # seconds that a token is kept
PAUSE = 10.0             # seconds that a helper is not run again after it failed
MOST_OUTPUT = 8192       # bytes
_MOST_SAID = 200         # characters of its standard error's first line, in our error
_GRACE = 1.0             # seconds between SIGTERM and SIGKILL
_PATH = "/usr/local/bin:/usr/bin:/bin"


class TokenFailed(Temporary):
    """There is no token now; the text names the helper and what is wrong."""

    status = "4.7.0"


def fetch_blocking(program: Sequence[str], seconds: float = SECONDS) -> str:
    """The token that *program* (words, the first a path) prints. Raises TokenFailed."""
    try:
        return _run(program, seconds)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
    name = program[0].rpartition("/")[2]
    raise TokenFailed(f"no access token: {name}: {why}")


async def fetch(loop: asyncio.AbstractEventLoop, program: Sequence[str],
                seconds: float = SECONDS) -> str:
    """As fetch_blocking, in a thread. Whoever stops waiting leaves it to its end."""
    done = Waiter()
    _in_thread(loop, program, seconds, done)
    token, why = await done
    if why:
        raise TokenFailed(why)
    return str(token)


class Tokens:
    """Tokens kept for *lifetime* seconds, by program. A helper runs once at a time, and after a failure
    not before PAUSE seconds; whoever asks meanwhile gets what the others get."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lifetime: float = LIFETIME,
                 seconds: float = SECONDS) -> None:
        self._loop = loop
        self._lifetime = lifetime
        self._seconds = seconds
        self._kept: dict[tuple[str, ...], _Kept] = {}
        self._waiting: dict[tuple[str, ...], list[Waiter]] = {}

    async def get(self, program: tuple[str, ...]) -> str:
        """The token of *program*. Raises TokenFailed."""
        kept = self._kept.get(program)
        if kept is None or kept.until <= self._loop.time():
            waiter = Waiter()
            others = self._waiting.setdefault(program, [])
            others.append(waiter)
            if len(others) == 1:
                self._start(program)
            kept = await waiter
        if kept.why:
            raise TokenFailed(kept.why)     # a new one each time: it gets a traceback
        return kept.token

    def forget(self, program: tuple[str, ...], token: str) -> None:
        """A host has refused *token*: the next ``get`` asks the helper again."""
        kept = self._kept.get(program)
        if kept is not None and kept.token == token:
            del self._kept[program]

    def _start(self, program: tuple[str, ...]) -> None:
        done = Waiter()
        done.when_done(lambda: self._fetched(program, *done.result()))
        _in_thread(self._loop, program, self._seconds, done)

    def _fetched(self, program: tuple[str, ...], token: str, why: str) -> None:
        seconds = min(PAUSE, self._lifetime) if why else self._lifetime
        kept = self._kept[program] = _Kept(self._loop.time() + seconds, token, why)
        for waiter in self._waiting.pop(program):
            waiter.set(kept)


@value
class _Kept:
    """What a helper gave, or why it gave nothing; good until then."""

    until: float
    token: str
    why: str


def _in_thread(loop: asyncio.AbstractEventLoop, program: Sequence[str], seconds: float,
               done: Waiter) -> None:
    """Resolve *done*, in the loop, with (token, "") or ("", why there is none)."""
    import threading

    def run() -> None:
        try:
            outcome = fetch_blocking(program, seconds), ""
        except TokenFailed as failure:
            outcome = "", failure.text
        except Exception as error:  # noqa: BLE001  a bug of ours: nobody may wait for ever
            outcome = "", f"no access token: {error!r}"
        try:
            loop.call_soon_threadsafe(done.set, outcome)
        except RuntimeError:
            pass        # the loop is closed: nobody waits

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as error:       # the system has no more of them
        loop.call_soon(done.set, ("", f"no access token: {error}"))


def _run(program: Sequence[str], seconds: float) -> str:
    """The token. OSError or ValueError: what is wrong."""
    helper, ended = _start(program), False
    output, errors = helper.stdout.fileno(), helper.stderr.fileno()  # type: ignore[union-attr]
    try:
        heard, ended = child.listen(helper, {output: MOST_OUTPUT, errors: MOST_OUTPUT},
                                    time.monotonic() + seconds, strict=(output,))
    finally:
        if not ended:
            child.end(helper, _GRACE)
        helper.stdout.close()  # type: ignore[union-attr]
        helper.stderr.close()  # type: ignore[union-attr]
    if not ended:
        raise ValueError(f"has not ended within {seconds:g} seconds")
    said, complaint = heard[output], heard[errors]
    flaw = _flaw(helper.wait(), said)
    if flaw:
        raise ValueError(f"{flaw}: {_first_line(complaint)}" if complaint.strip() else flaw)
    return _token(said)


def _flaw(code: int, said: bytes) -> str:
    """What is wrong with a helper's end; "" when it did well."""
    if code:
        return f"exit code {code}" if code > 0 else f"killed by signal {-code}"
    return "" if is_token(_token(said)) else "the first line of its output is no access token"


def _start(program: Sequence[str]) -> Popen[bytes]:
    import subprocess
    return subprocess.Popen(
        list(program), cwd="/", env={"PATH": _PATH, "HOME": _home()}, bufsize=0, umask=0o077,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        close_fds=True, restore_signals=True, start_new_session=True)


def _home() -> str:
    import pwd
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def _token(said: bytes) -> str:
    return said.partition(b"\n")[0].decode("ascii", "replace").strip()


def _first_line(complaint: bytes) -> str:
    return clean(complaint.strip().partition(b"\n")[0].decode("utf-8", "replace"), True, _MOST_SAID)
