#!/usr/bin/env python3
"""A mail destination of your own: counts the mail for each address. Needs nothing but Python.

    python3 counter.py COUNTS 127.0.0.1:2424        or a path instead of ADDRESS:PORT: a Unix socket

A line of control/destinations names it, and one of control/aliases sends it the mail of a domain (or
of a single address, "me@count.example: @counter:"); then HUP to mq-start:

    counter:lmtp:tcp:127.0.0.1:2424                 or counter:lmtp:unix:/run/counter.sock
    @count.example: @counter:

Named mailbox, it replaces mq-lspawn for all virtual mailboxes, and needs no line in control/aliases.

For another service write another deliver(). It is called once for each recipient, and what it returns
is what becomes of the recipient: 2xx, done; 4xx, try again later; 5xx, tell the sender that it failed;
"551 <somebody@else.example>", send it there instead. Should it raise, mq-send tries again later.
The account that mqmail runs as must be able to connect to the Unix socket.
"""

import os
import socketserver
import sys


def deliver(sender, recipient, message):
    """*message*: bytes, lines end in CRLF. 250 is a promise, so the count must not get lost."""
    with open(sys.argv[1], "a") as counts:
        counts.write(f"{recipient} {len(message)}\n")
        counts.flush()
        os.fsync(counts.fileno())
    return "250 2.0.0 counted"


class Session(socketserver.StreamRequestHandler):
    """LMTP (RFC 2033): SMTP, but with a reply for each recipient after the message."""

    def handle(self):
        self.say("220 counter LMTP")
        sender, recipients = "", []
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"LHLO":
                self.say("250-counter", "250-8BITMIME", "250-SMTPUTF8", "250 PIPELINING")
            elif verb == b"DATA":
                self.say("354 go on")
                message = self.message()
                for recipient in recipients:
                    self.say(deliver(sender, recipient, message))
            elif verb == b"QUIT":
                return self.say("221 bye")
            else:
                if verb == b"MAIL":
                    sender, recipients = address(line), []
                elif verb == b"RCPT":
                    recipients.append(address(line))
                self.say("250 2.0.0 ok")

    def say(self, *lines):
        self.wfile.write("".join([f"{line}\r\n" for line in lines]).encode())

    def message(self):
        """Until the line with a lone dot; other lines that begin with one have another in front."""
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                raise EOFError("the client left in the middle of a message")
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)


def address(line):
    """``MAIL FROM:<address> …`` or ``RCPT TO:<address> …``."""
    return line.decode("utf-8", "surrogateescape").partition("<")[2].rpartition(">")[0]


class TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def main(place):
    if ":" in place:
        host, _, port = place.rpartition(":")
        server = TcpServer((host, int(port)), Session)
    else:
        if os.path.exists(place):
            os.unlink(place)        # what the last one left
        server = UnixServer(place, Session)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[2])
