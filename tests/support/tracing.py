"""System calls of the real programs, seen before they happen: to be counted, recorded, refused, or to
kill whoever makes one.

A seccomp filter (seccomp_unotify(2)) makes the kernel ask a Tracer before each call that changes files
or sends something. All processes that are forked under the filter have it, so one Tracer sees a whole
system, in one order. Linux on x86_64; no privileges needed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import struct
import threading

NUMBERS = {
    "write": 1, "pread64": 17, "pwrite64": 18, "writev": 20, "socket": 41, "connect": 42, "accept": 43,
    "sendto": 44, "sendmsg": 46, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77,
    "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87, "mkdirat": 258, "unlinkat": 263,
    "openat": 257, "renameat": 264, "linkat": 265, "utimensat": 280, "accept4": 288, "renameat2": 316}
NAMES = {number: name for name, number in NUMBERS.items()}
CONTROL = 900               # a descriptor that the filter leaves alone
KILL = -1                   # what a judge says to have the caller killed
SKIP = -2                   # and to have nothing done, but the caller told that it was

_ARCH = 0xC000003E          # AUDIT_ARCH_X86_64
_SECCOMP, _SET_FILTER, _NEW_LISTENER, _WAIT_KILLABLE = 317, 1, 8, 32
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECV, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_CWD = -100


def missing():
    """Why this machine cannot do it; "" when it can."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return "system calls are traced on Linux on x86_64 only"
    return "" if os.path.exists("/proc/sys/kernel/seccomp/actions_avail") else "no seccomp here"


def install(names=tuple(NUMBERS)):
    """Have the kernel ask before this process, or one it forks, makes one of these calls (to another
    descriptor than 2 and CONTROL). Returns where to be asked, a Tracer's descriptor."""
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(names) + 4, _ARCH),
             (_LOAD, 0, 0, 16), (_EQUAL, len(names) + 2, 0, 2), (_EQUAL, len(names) + 1, 0, CONTROL),
             (_LOAD, 0, 0, 0)]
    steps += [(_EQUAL, len(names) - n, 0, NUMBERS[name]) for n, name in enumerate(names)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    code = ctypes.create_string_buffer(b"".join([struct.pack("=HBBI", *step) for step in steps]))
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):      # no new privileges: for those who are not root
        raise OSError(ctypes.get_errno(), "prctl")
    fd = libc.syscall(_SECCOMP, _SET_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, program)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return fd


class Call:
    """A call that is about to be made. *program*: the name of the process, *kind*: create, open, read,
    write, truncate, sync, rename, link, unlink, mkdir, touch, send, socket; *path*: absolute, of a
    ``send`` "" ; *target*: of a rename or link; *data*, *offset*: of a write or send; *size*: of
    truncate."""

    __slots__ = ("data", "fd", "flags", "kind", "name", "offset", "path", "pid", "program", "size",
                 "target", "tid")

    def __init__(self, name, tid, pid, program):
        self.name, self.tid, self.pid, self.program = name, tid, pid, program
        self.kind = self.path = self.target = ""
        self.data, self.offset, self.size, self.flags, self.fd = b"", 0, 0, 0, -1

    def __repr__(self):
        data = f" {self.data[:60]!r}" if self.data else ""
        target = f" {self.target}" if self.target else ""
        return f"<{self.program} {self.name} {self.path[-50:]}{target[-50:]}{data}>"


class Tracer(threading.Thread):
    """Answers the kernel until the last traced process has ended. For each call that concerns files
    below *home* or sends something, ``judge(call)`` says None (it may go on), an errno (it fails so),
    KILL or SKIP.
    *sync*: fsync is done here, so that a call is not judged while the disk is busy for another."""

    def __init__(self, fd, home, judge, sync=False):
        super().__init__(daemon=True)
        self._fd = fd
        self._home = os.path.realpath(home) + "/"
        self.judge = judge
        self._sync = sync
        self.error = None
        self.start()

    def run(self):
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while True:
            [(_, what)] = poll.poll()
            if not what & select.POLLIN:
                break
            asked = bytearray(80)
            try:
                fcntl.ioctl(self._fd, _RECV, asked, True)
            except OSError:
                continue                # it was killed just now
            id, tid, _, nr, _, _, *arguments = struct.unpack("=QIIiIQ6Q", asked)
            value, error, flags = self._answer(tid, nr, arguments)
            try:
                answer = bytearray(struct.pack("=QqiI", id, value, error, flags))
                fcntl.ioctl(self._fd, _SEND, answer, True)
            except OSError:
                pass                    # it was killed
        os.close(self._fd)

    def _answer(self, tid, nr, arguments):
        """(value, error, flags) for the kernel."""
        try:
            call = self._describe(NAMES[nr], tid, arguments)
            verdict = None if call is None else self.judge(call)
            if verdict == KILL:
                os.kill(call.pid, signal.SIGKILL)
            elif verdict is not None:
                return 0, 0 if verdict == SKIP else -verdict, 0
            elif self._sync and call is not None and call.kind == "sync":
                return 0, -_fsync(call), 0
        except (FileNotFoundError, ProcessLookupError):
            pass                        # it is being killed
        except Exception as error:  # noqa: BLE001  the system must not hang; the test looks at it
            self.error = error
        return 0, 0, _CONTINUE

    def _describe(self, name, tid, arguments):
        """A Call, or None when it does not concern us."""
        reading = _READERS[name]
        call = Call(name, tid, 0, "")
        if not reading(call, arguments):
            return None
        if call.kind not in ("send", "socket") and not call.path.startswith(self._home):
            return None
        call.pid, call.program = _process_of(tid)
        return call


def _process_of(tid):
    with open(f"/proc/{tid}/status") as file:
        pid = next(int(line[5:]) for line in file if line[:5] == "Tgid:")
    with open(f"/proc/{pid}/comm") as file:
        return pid, file.read().strip()


def _fsync(call):
    try:
        fd = os.open(f"/proc/{call.tid}/fd/{call.fd}", os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno
    return 0


def _memory(tid, address, size):
    fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY)
    try:
        data = os.pread(fd, size, address)
    finally:
        os.close(fd)
    if size and not data:
        raise ProcessLookupError        # what ends has no memory any more
    return data


def _text(tid, address):
    """The path at *address*, which may be near the end of what can be read."""
    data = b""
    while b"\0" not in data:
        at = address + len(data)
        data += _memory(tid, at, 4096 - at % 4096)
    return os.fsdecode(data.partition(b"\0")[0])


def _path(tid, directory, address):
    directory = ctypes.c_int(directory & 0xFFFFFFFF).value
    where = os.readlink(f"/proc/{tid}/cwd" if directory == _CWD else f"/proc/{tid}/fd/{directory}")
    return os.path.normpath(os.path.join(where, _text(tid, address)))


def _open_file(call, fd):
    call.fd = ctypes.c_int(fd & 0xFFFFFFFF).value
    try:
        call.path = os.readlink(f"/proc/{call.tid}/fd/{call.fd}").removesuffix(" (deleted)")
    except FileNotFoundError:
        call.path = ""
    return call.path[:1] == "/"


def _vectors(tid, address, count):
    pairs = struct.unpack(f"={2 * count}Q", _memory(tid, address, 16 * count))
    return b"".join([_memory(tid, at, size) for at, size in zip(pairs[::2], pairs[1::2], strict=True)])


def _is_socket(call, fd):
    _open_file(call, fd)
    return call.path.startswith("socket:")


def _read_write(call, a):
    """write, writev, pwrite64: to a file or a socket."""
    is_file = _open_file(call, a[0])
    if not is_file and not call.path.startswith("socket:"):
        return False
    read = _vectors if call.name == "writev" else _memory
    call.data = read(call.tid, a[1], a[2])
    call.kind = "write" if is_file else "send"
    if not is_file:
        call.path = ""
    elif call.name == "pwrite64":
        call.offset = a[3]
    else:
        with open(f"/proc/{call.tid}/fdinfo/{call.fd}") as file:
            facts = dict(line.split()[:2] for line in file if line.count("\t") == 1)
        appends = int(facts["flags:"], 8) & os.O_APPEND
        call.offset = os.path.getsize(call.path) if appends else int(facts["pos:"])
    return True


def _read_send(call, a):
    if not _is_socket(call, a[0]):
        return False
    call.kind, call.path = "send", ""
    if call.name == "sendto":
        call.data = _memory(call.tid, a[1], a[2])
    else:
        vector, count = struct.unpack("=16xQQ", _memory(call.tid, a[1], 32))
        call.data = _vectors(call.tid, vector, count)
    return True


def _read_socket(call, _):
    call.kind = "socket"
    return True


def _read_open(call, a):
    call.path, call.flags = _path(call.tid, a[0], a[1]), a[2]
    call.kind = "create" if a[2] & os.O_CREAT else "open"
    return True


def _on_file(kind):
    def read(call, a):
        call.kind, call.size = kind, a[1]
        return _open_file(call, a[0])
    return read


def _one_path(kind, at):
    """*at*: whether a directory's descriptor comes before the path."""
    def read(call, a):
        call.kind = kind
        if at and not a[1]:             # utimensat of a descriptor
            return _open_file(call, a[0])
        call.path = _path(call.tid, a[0] if at else _CWD, a[1] if at else a[0])
        return True
    return read


def _two_paths(kind, at):
    def read(call, a):
        first, second = ((a[0], a[1]), (a[2], a[3])) if at else ((_CWD, a[0]), (_CWD, a[1]))
        call.kind, call.path, call.target = kind, _path(call.tid, *first), _path(call.tid, *second)
        return True
    return read


_READERS = {
    "write": _read_write, "writev": _read_write, "pwrite64": _read_write, "pread64": _on_file("read"),
    "sendto": _read_send, "sendmsg": _read_send, "socket": _read_socket, "connect": _read_socket,
    "accept": _read_socket, "accept4": _read_socket, "openat": _read_open, "fsync": _on_file("sync"),
    "fdatasync": _on_file("sync"), "ftruncate": _on_file("truncate"),
    "truncate": _one_path("truncate", False),
    "rename": _two_paths("rename", False), "renameat": _two_paths("rename", True),
    "renameat2": _two_paths("rename", True), "link": _two_paths("link", False),
    "linkat": _two_paths("link", True), "unlink": _one_path("unlink", False),
    "unlinkat": _one_path("unlink", True), "rmdir": _one_path("unlink", False),
    "mkdir": _one_path("mkdir", False), "mkdirat": _one_path("mkdir", True),
    "utimensat": _one_path("touch", True)}

CHANGES = ("create", "write", "truncate", "sync", "rename", "link", "unlink", "mkdir", "touch", "send")
ERRNOS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EDQUOT)
