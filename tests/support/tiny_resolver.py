"""A resolver for tests of xmtpd: python tiny_resolver.py HOME READY-FD.

A real LMTP service on run/resolve.sock that decides by the address alone:

  local part unknown         550 5.1.1        later            451 4.7.1
             several         551, two lines   taken            250
             refused         551 without an address
             broken          the session ends without an answer
             silent          no answer ever
  domain     far.example     551 <@remote:…> when XVIA says relay=1, else 550 5.7.1
  all else                   551 <@mailbox:…>

Each transaction is written down as a line of HOME/asked: XVIA's facts, the sender, the recipients.
"""

import os
import sys

from mqmail.base import unix, xtext
from mqmail.net import daemon
from mqmail.net.service import Service
from mqmail.net.stream import Deadlines
from mqmail.xmtp import events
from mqmail.xmtp.reply import elsewhere, reply
from mqmail.xmtp.server import Limits, Server

ANSWERS = {
    "unknown": reply(550, "5.1.1", "no such user"),
    "later": reply(451, "4.7.1", "greylisted"),
    "taken": reply(250, "2.1.5", "ok"),
    "several": elsewhere([("remote", "x@a.example", ""), ("", "y@b.example", "")]),
    "refused": reply(551, "5.7.1", "go away"),
}


class Answers:
    def __init__(self, server, stream):
        self._server = server
        self._stream = stream
        self._line = []

    async def settle(self):
        pass

    def end(self, _why):
        pass

    def handle(self, event):
        if type(event) is events.Rcpt:
            return self._rcpt(event)
        if type(event) is events.Mail:
            self._line = [event.xvia, event.sender or "<>"]
        elif type(event) in (events.Reset, events.Quit):
            if self._line:
                with open("asked", "a", encoding="utf-8") as asked:
                    print(*self._line, sep="|", file=asked)
            self._line = []
            return None
        return self._server.answer(event)

    def _rcpt(self, rcpt):
        self._line.append(rcpt.address)
        local, _, domain = rcpt.address.partition("@")
        if local == "silent":
            return
        if local == "broken":
            self._stream.close()
        self._server.answer(rcpt, ANSWERS.get(local) or self._elsewhere(rcpt.address, domain))

    def _elsewhere(self, address, domain):
        if domain != "far.example":
            return elsewhere([("mailbox", address, "")])
        facts = xtext.parse_facts(self._line[0].split(" "))
        if facts.get("relay") == "1":
            return elsewhere([("remote", address, "")])
        return reply(550, "5.7.1", "this host does not relay")


def session(stream):
    extensions = ("PIPELINING", "SMTPUTF8", "ENHANCEDSTATUSCODES", "XMQ")
    server = Server("lmtp", "resolve.example", extensions, Limits(errors=1000, refused=100000, idle=0))
    server.greet()
    answers = Answers(server, stream)
    return server, answers, answers.end


def main(home, ready_fd):
    os.chdir(home)
    loop = daemon.new_loop()
    service = Service(loop, Deadlines(loop), unix.listen("run/resolve.sock"), session)
    os.write(int(ready_fd), b"\n")
    daemon.run_loop(loop, lambda stopped: service.stop(0.0, stopped))


main(*sys.argv[1:])
