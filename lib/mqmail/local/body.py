"""The message on its way into a recipient's files: read once, in blocks, LF line ends."""

from __future__ import annotations

import errno
import os

from mqmail.base.failure import Temporary
from mqmail.base.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 65536
_LONGEST_HEADER = 1 << 20
_STATUS = {errno.ENOSPC: "4.3.1", errno.EDQUOT: "4.2.2", errno.EFBIG: "4.2.3", errno.EIO: "4.3.0",
           errno.ENOENT: "4.2.1", errno.ENOTDIR: "4.2.1"}


@value
class Mail:
    """What is to be delivered: *fd* is the body in the queue, *size* bytes with CRLF line ends,
    read with pread only; *sender* "" is the null sender; *id* is the queue's."""

    fd: int
    size: int
    sender: str
    recipient: str
    id: str


class Body:
    """The bytes of a message. The first block is read at once: most messages are no larger."""

    __slots__ = ("_fd", "_first", "size")

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size
        self._first = self._block(0)

    def _block(self, offset: int) -> bytes:
        wanted = min(BLOCK, self.size - offset)
        if not wanted:
            return b""
        block = os.pread(self._fd, wanted, offset)
        if not block:
            raise Temporary(f"the message ends after {offset} of {self.size} bytes")
        return block

    def blocks(self) -> Iterator[bytes]:
        """As it is in the queue, at most BLOCK bytes at a time."""
        block, offset = self._first, 0
        while block:
            yield block
            offset += len(block)
            block = self._block(offset)

    def pieces(self) -> Iterator[bytes]:
        """With LF line ends, a piece per block. A CR that no LF follows is data and stays."""
        held = b""
        for block in self.blocks():
            text = held + block
            held = b"\r" if text[-1] == 13 else b""
            yield text[:len(text) - len(held)].replace(b"\r\n", b"\n")
        if held:
            yield held

    def header(self) -> bytes:
        """The header with LF line ends and LF in front, of a large one the first MiB."""
        data = b"\r\n"
        for block in self.blocks():
            data += block
            end = data.find(b"\r\n\r\n", max(0, len(data) - len(block) - 3))
            if end >= 0 or len(data) > _LONGEST_HEADER:
                data = data[:end + 2] if end >= 0 else data[:_LONGEST_HEADER]
                break
        return data.replace(b"\r\n", b"\n")


def deferral(error: OSError, what: str) -> Temporary:
    """What to say of a failed system call: ``./Maildir/: No space left on device``."""
    text = error.strerror or type(error).__name__
    return Temporary(f"{what}: {text}", _STATUS.get(error.errno or 0, "4.3.0"),
                     private=str(error.filename or ""))
