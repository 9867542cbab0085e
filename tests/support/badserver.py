"""An SMTP host that does what its script says, right or wrong.

    with BadServer({"RCPT": b"550 5.1.1 no\r\n", "BODY": CLOSE}) as server: … server.port …

The script maps what the server hears (``CONNECT``, verbs, ``BODY``: the end of the message, by DATA or
BDAT LAST) to what it does: octets to send, CLOSE, RESET (the connection), SILENT, STUCK (read nothing
any more), READ (wait for the next octets), Endless octets, several of these: ``(b"421 x\r\n", CLOSE)``,
or a function that gets the command's line and gives one of these. What the script leaves out is answered
well.
"""

import select
import socket
import struct
import threading
import time

from support.home import free_port

CLOSE, RESET, SILENT, STUCK, READ = "close", "reset", "silent", "stuck", "read"
SECONDS = 20
OFFER = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")
GOOD = {"CONNECT": b"220 bad.example ESMTP\r\n", "HELO": b"250 bad.example\r\n", "DATA": b"354 go\r\n",
        "BODY": b"250 2.0.0 taken\r\n", "QUIT": (b"221 bye\r\n", CLOSE)}


class Endless:
    """Octets to send again and again, *pause* seconds apart, until the other side has had enough."""

    def __init__(self, octets, pause=0.0):
        self.octets = octets
        self.pause = pause


class BadServer:
    """*offer*: the words of EHLO; *split*: send an octet at a time. ``sessions`` holds what each
    connection said (without bodies), ``bodies`` the messages that came to their end."""

    def __init__(self, script=None, offer=OFFER, split=False, ip="127.0.0.1", port=0):
        lines = ["bad.example", *offer]
        hello = b"".join([b"250%s%s\r\n" % (b" " if n == len(lines) else b"-", line.encode())
                          for n, line in enumerate(lines, 1)])
        self._script = {**GOOD, "EHLO": hello, **(script or {})}
        self._split = split
        self.sessions = []
        self.bodies = []
        self.change = threading.Condition()
        # another each time: planners remember the address of a host that did not answer
        self._listener = socket.create_server((ip, port or free_port()))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_for(self, condition):
        """Wait until *condition()* holds."""
        with self.change:
            assert self.change.wait_for(condition, SECONDS), self.sessions

    def heard(self, verb):
        """The command lines with *verb*, of all sessions."""
        return [line for lines in self.sessions for line in lines if _verb(line) == verb]

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        sock.settimeout(SECONDS)
        lines = []
        self._note(self.sessions, lines)
        try:
            with sock, sock.makefile("rb") as file:
                if self._do(sock, "CONNECT", b""):
                    self._converse(sock, file, lines)
        except OSError:
            pass
        finally:
            self._note(lines, "end")

    def _note(self, where, what):
        with self.change:
            where.append(what)
            self.change.notify_all()

    def _converse(self, sock, file, lines):
        while line := file.readline():
            self._note(lines, line.decode().rstrip("\r\n"))
            verb = _verb(lines[-1])
            if verb == "BDAT":
                good = self._chunk(sock, file, lines)
            else:
                good = self._do(sock, verb, line)
                if good and verb == "DATA" and self._last.startswith(b"354"):
                    good = self._body(sock, file)
            if not good:
                return

    def _body(self, sock, file):
        lines = []
        while (line := file.readline()) != b".\r\n":
            if not line:
                return False
            lines.append(line[1:] if line[:1] == b"." else line)
        self._note(self.bodies, b"".join(lines))
        return self._do(sock, "BODY", b"")

    def _chunk(self, sock, file, lines):
        words = lines[-1].split()
        chunk = file.read(int(words[1]))
        if lines[-2].startswith("BDAT"):
            chunk = self._chunks + chunk
        self._chunks = chunk
        if "LAST" not in words:
            return self._do(sock, "BDAT", lines[-1].encode())
        self._note(self.bodies, chunk)
        return self._do(sock, "BODY", b"")

    def _do(self, sock, verb, line):
        """Act as the script says; whether the conversation goes on."""
        acts = self._script.get(verb, b"250 2.0.0 ok\r\n")
        acts = acts(line.decode().rstrip("\r\n")) if callable(acts) else acts
        for act in acts if isinstance(acts, tuple) else (acts,):
            if act in (CLOSE, RESET):
                if act == RESET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            if act == SILENT:
                return sock.recv(1) != b""      # until the other side gives up
            if act == STUCK:
                _wait_for_end(sock)
                return False
            if isinstance(act, Endless):
                _send_endlessly(sock, act)
            if act == READ:
                sock.recv(1)
                continue
            self._last = act
            for piece in [act[i:i + 1] for i in range(len(act))] if self._split else [act]:
                sock.sendall(piece)
        return True


def _wait_for_end(sock):
    """Until the other side has closed, whatever it has sent before."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    poll.poll(SECONDS * 1000)


def _send_endlessly(sock, act):
    """Ends by an OSError."""
    while True:
        sock.sendall(act.octets)
        time.sleep(act.pause)


def _verb(line):
    return line.partition(" ")[0].upper()
