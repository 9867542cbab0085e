"""A Dovecot that says nothing any more."""

import socket
import threading

import pytest

from mqmail.auth.dovecot import Dovecot
from mqmail.base.failure import Temporary
from support.home import SECONDS
from support.shells import Looping


def serve(listener, questions):
    """To the first connection nothing but a greeting is said, to the next one ok."""
    kept = []
    for answers in (False, True):
        peer = listener.accept()[0]
        peer.settimeout(SECONDS)
        kept.append(peer)
        peer.sendall(b"VERSION\t1\t1\nMECH\tPLAIN\nDONE\n")
        for line in peer.makefile("rb"):
            if line.startswith(b"AUTH"):
                questions.append(answers)
                if answers:
                    peer.sendall(b"OK\t" + line.split(b"\t")[1] + b"\tuser=frank\n")
                break
    for peer in kept:
        peer.recv(1000)
        peer.close()


def test_it_is_asked_by_another_connection(tmp_path):
    shell, questions = Looping(), []
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(SECONDS)
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener, questions))
        thread.start()
        dovecot = Dovecot(shell.loop, shell.deadlines, path, 0.2)

        async def ask():
            with pytest.raises(Temporary, match="no answer"):
                await dovecot.begin("PLAIN", b"\0frank\0x", "")
            said = await dovecot.begin("PLAIN", b"\0frank\0x", "")
            dovecot.close()
            return said

        assert shell.run(ask()).text == "frank"
        thread.join(SECONDS)
    shell.close()
    assert questions == [False, True]
