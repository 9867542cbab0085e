"""A destination's service of the tests' own: LMTP on a Unix socket, with XMQ or without.

    with LmtpService(path, answer) as service: … service.asked …

*answer(ask)* gives the reply for one recipient, ``250 2.0.0 host=mx``, or CLOSE; it may block. *ask* has
``mail`` and ``rcpt``, the commands' arguments, ``address``, and ``number``, from 0 in its transaction.
"""

import array
import os
import socket
import threading
from collections import namedtuple

CLOSE = "close"
SECONDS = 30
OFFER = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "ENHANCEDSTATUSCODES")

Ask = namedtuple("Ask", "mail rcpt address number")


class LmtpService:
    """``asked``: each Ask, in the order of the transactions; ``sessions``: how many there were;
    *on_mail(count)*: called with the number of MAIL commands of the session; CLOSE ends the session.
    *on_rcpt(argument)*: what RCPT is answered, or CLOSE. *port*: at 127.0.0.1, and no Unix socket."""

    def __init__(self, path, answer, xmq=True, on_mail=lambda count: None,
                 on_rcpt=lambda argument: "250 2.0.0 ok", port=0):
        self._answer = answer
        self._xmq = xmq
        self._on_mail = on_mail
        self._on_rcpt = on_rcpt
        self.asked = []
        self.sessions = 0
        if port:        # of those that sessions of an earlier test may have had just now
            self._listener = socket.create_server(("127.0.0.1", port))
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
        if not port:
            os.chmod(path, 0o777)
        self._listener.listen(200)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def addresses(self):
        """Of all recipients it was asked about."""
        return [ask.address for ask in list(self.asked)]

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.sessions += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        sock.settimeout(SECONDS)
        try:
            with sock:
                _Session(self, sock).converse()
        except OSError:
            pass


class _Session:
    def __init__(self, service, sock):
        self._service = service
        self._sock = sock
        self._buffer = b""
        self._mails = 0
        self._mail = ""
        self._rcpts = []

    def converse(self):
        self._say("220 test LMTP")
        going = True
        while going and (line := self._line()) is not None:
            verb, _, argument = line.partition(" ")
            act = getattr(self, f"_on_{verb.lower()}", lambda _argument: self._say("250 2.0.0 ok"))
            going = act(argument) != CLOSE

    def _on_lhlo(self, _argument):
        offer = OFFER + (("XMQ",) if self._service._xmq else ())
        self._say("250-test", *[f"250-{word}" for word in offer[:-1]], f"250 {offer[-1]}")

    def _on_mail(self, argument):
        self._mails += 1
        self._mail, self._rcpts = argument, []
        if self._service._on_mail(self._mails) == CLOSE:
            return CLOSE
        return self._say("250 2.0.0 ok")

    def _on_rcpt(self, argument):
        self._rcpts.append(argument)
        said = self._service._on_rcpt(argument)
        return CLOSE if said == CLOSE else self._say(said)

    def _on_data(self, _argument):
        self._say("354 go")
        while self._line() != ".":
            pass
        return self._on_xfd("")

    def _on_xfd(self, _size):
        return self._answer(self._mail, self._rcpts)

    def _on_quit(self, _argument):
        return CLOSE

    def _answer(self, mail, rcpts):
        asks = [Ask(mail, rcpt, rcpt.partition(">")[0].rpartition(":")[2].lstrip("<"), number)
                for number, rcpt in enumerate(rcpts)]
        self._service.asked += asks
        for ask in asks:
            said = self._service._answer(ask)
            if said == CLOSE:
                return CLOSE
            code, status, text = said.split(" ", 2)
            tag = f"#{ask.number + 1} " if self._service._xmq else ""
            self._say(f"{code} {status} {tag}{text}")
        return None

    def _say(self, *lines):
        self._sock.sendall("".join([f"{line}\r\n" for line in lines]).encode())

    def _line(self):
        while b"\r\n" not in self._buffer:
            data, extra, _, _ = self._sock.recvmsg(65536, socket.CMSG_SPACE(64))
            for level, kind, raw in extra:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    for fd in array.array("i", raw[:len(raw) // 4 * 4]):
                        os.close(fd)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode()
