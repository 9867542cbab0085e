"""What the kernel refuses to send leaves no gap: nothing follows it, and the peer gets the end."""

import os
import socket

from mqmail.net.daemon import new_loop
from mqmail.net.stream import Deadlines, Stream


def test_nothing_follows_what_could_not_be_sent():
    ours, theirs = socket.socketpair()
    loop = new_loop()
    ours.setblocking(False)
    theirs.settimeout(10)
    stream = Stream(loop, ours, Deadlines(loop))
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        stream.write(b"one ")
        stream.write(b"two ", (fd,) * 254)      # more descriptors than the kernel takes at once: EINVAL
        stream.write(b"three")
        with theirs.makefile("rb") as file:
            assert file.read() == b"one "
    finally:
        os.close(fd)
        stream.close()
        loop.close()
        theirs.close()
