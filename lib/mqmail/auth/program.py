"""Running a program that knows logins: checkpassword-compatible ones, and helpers for tokens. Blocking:
to be called in a thread.

No shell reads what the admin wrote; a session of its own, in ``/``, no environment but PATH and what is
given. It has a number of seconds; after them its process group is ended.
"""

from __future__ import annotations

import time

from mqmail.base import child
from mqmail.base.failure import Temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from subprocess import Popen

SECONDS = 20.0
MOST_OUTPUT = 4096          # octets; a pipe takes as much at once
_GRACE = 1.0                # seconds between SIGTERM and SIGKILL
LONGEST_CHECK = 512         # octets on descriptor 3 (checkpassword's interface)
_PATH = "/usr/local/bin:/usr/bin:/bin"
_THREE = 'exec "$@" 3<&0 0</dev/null'       # what comes on descriptor 0 is to be on 3
YES, NO = 0, 1              # exit codes; all others: it cannot say


def check_password(words: Sequence[str], login: str, password: str, ip: str,
                   seconds: float = SECONDS) -> bool:
    """Whether the program *words* (http://cr.yp.to/checkpwd/interface.html) lets *login* in. It is given
    /bin/true to run. Raises Temporary."""
    data = b"%b\0%b\0%d\0" % (login.encode(), password.encode(), int(time.time()))
    if len(data) > LONGEST_CHECK:
        return False
    shell = ["/bin/sh", "-c", _THREE, "sh", *words, "/bin/true"]
    code, _ = run(shell, data, seconds, {"TCPREMOTEIP": ip, "PROTO": "TCP"} if ip else {})
    return _verdict(words[0], code)


def check_token(words: Sequence[str], login: str, token: str, ip: str,
                seconds: float = SECONDS) -> str:
    """The login that *token* is good for, or "": the program reads the token and *login*, "" or who the
    client says it is, a line each, and prints the login. Raises Temporary."""
    code, output = run(words, f"{token}\n{login}\n".encode(), seconds, {"TCPREMOTEIP": ip} if ip else {})
    if not _verdict(words[0], code):
        return ""
    found = output.partition(b"\n")[0].decode("utf-8", "replace").strip()
    if not found or not found.isprintable():
        raise Temporary(f"{words[0]}: says yes, and prints no login")
    return found


def _verdict(program: str, code: int) -> bool:
    if code not in (YES, NO):
        what = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
        raise Temporary(f"{program}: {what}")
    return code == YES


def run(words: Sequence[str], data: bytes, seconds: float,
        environ: Mapping[str, str]) -> tuple[int, bytes]:
    """(exit code, the start of its output) of a program that gets *data*, at most a pipe full. Raises
    Temporary."""
    import subprocess
    deadline = time.monotonic() + seconds
    try:
        program = subprocess.Popen(
            list(words), cwd="/", env={"PATH": _PATH, **environ}, bufsize=0, umask=0o077,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True)
    except OSError as error:
        raise Temporary(f"{words[0]}: {error.strerror}") from None
    try:
        _give(program, data)
        output = program.stdout.fileno()  # type: ignore[union-attr]
        said, ended = child.listen(program, {output: MOST_OUTPUT}, deadline)
        if not ended:
            raise Temporary(f"{words[0]}: has not ended within {seconds:g} seconds")
        return program.wait(), said[output]
    finally:
        if program.poll() is None:
            child.end(program, _GRACE)
        program.stdout.close()  # type: ignore[union-attr]


def _give(program: Popen[bytes], data: bytes) -> None:
    assert program.stdin is not None
    try:
        program.stdin.write(data)
    except BrokenPipeError:
        pass        # it does not want to know
    program.stdin.close()
