"""Warm processes, one for each account: forked once, used for many transactions, over a socketpair.

The process that holds them (root's) passes a transaction on, by XMQ with the body's descriptor, to the
account's process, and that one's answers back, each as it comes. A process that dies or hangs costs a
deferral; it may be the user's doing, whose uid it has.
"""

from __future__ import annotations

import os
import select
import signal
import time
from _socket import socketpair

from mqmail.base import log, program, unix, waiter
from mqmail.base.failure import Failure
from mqmail.local.service import refusal
from mqmail.net.blocking import over_socket
from mqmail.net.session import Session
from mqmail.xmtp import events
from mqmail.xmtp.client import FILE, Transaction
from mqmail.xmtp.reply import Reply, reply, untagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.xmtp.server import Server

MOST = 4                # processes kept
_PATIENCE = 1.0         # seconds for a process to end
TIMEOUT = 580.0         # seconds for one recipient: less than mq-send waits for us


class _Process:
    def __init__(self, pid: int, session: Session) -> None:
        self.pid = pid
        self.session = session
        self.used = time.monotonic()


class Warm:
    """*become(account, socket)* runs in the new process and serves the socket until it ends."""

    def __init__(self, host: str, become: Callable[[str, unix.socket], None],
                 timeout: float = TIMEOUT) -> None:
        self._host = host
        self._become = become
        self._timeout = timeout
        self._processes: dict[str, _Process] = {}
        self._leaving: list[int] = []

    def handler(self, server: Server, account_of: Callable[[str], str], flush: Callable[[], None],
                check: Callable[[], None]) -> Handler:
        """An application over *server* that passes its transactions on. *account_of(address)* gives
        the account's name, or raises Failure; *flush()* sends what has been answered; *check()* is
        called before each account's turn and may raise."""
        return Handler(self, server, account_of, flush, check)

    def run(self, account: str, transaction: Transaction, fd: int, size: int,
            verdict: Callable[[int], None]) -> str:
        """Carry out *transaction* in the account's process; "" or why it broke off. *verdict* as in
        Session.run."""
        try:
            process = self._get(account)
            waiter.run(process.session.run(transaction, fd, size, verdict=verdict))
        except OSError as error:
            return program.describe(error)
        process.used = time.monotonic()
        if process.session.broken:
            self._end(account, signal.SIGKILL)
        return process.session.broken

    def _get(self, account: str) -> _Process:
        self._reap()
        process = self._processes.get(account)
        if process is not None and process.session.alive():
            return process
        self._end(account)
        if len(self._processes) >= MOST:
            self._end(min(self._processes, key=lambda name: self._processes[name].used))
        process = self._processes[account] = self._start(account)
        if not waiter.run(process.session.open()):
            self._end(account, signal.SIGKILL)
            raise OSError(0, f"it did not start: {process.session.broken}")
        return process

    def _start(self, account: str) -> _Process:
        # _socket's socketpair gives plain sockets; both ends are close-on-exec
        ours, theirs = socketpair()
        pid = os.fork()
        if pid == 0:
            self._child(account, theirs)
        theirs.close()
        return _Process(pid, Session(over_socket(ours), "lmtp", self._host, self._timeout))

    def _child(self, account: str, theirs: unix.socket) -> None:
        """In the new process: nothing of the parent's but the socket. It ends when that is closed, not
        by a signal to the whole group, which would cut a delivery. (Programs would inherit SIG_IGN.)"""
        code = 111
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda _number, _frame: None)
            kept = theirs.fileno()
            os.closerange(3, kept)
            os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
            code = program.run(log.program(), lambda _argv: self._become(account, theirs) or 0, [])
        finally:
            os._exit(code)

    def end_all(self) -> None:
        """End all processes. One that is idle ends at once."""
        for account in list(self._processes):
            self._end(account)
        self._reap(_PATIENCE)

    def _end(self, account: str, by: int = 0) -> None:
        """Close its socket, and it ends by itself; *by*: the signal for one that may hang."""
        process = self._processes.pop(account, None)
        if process is not None:
            process.session.stream.close()
            if by:
                os.kill(process.pid, by)
            self._leaving.append(process.pid)

    def _reap(self, seconds: float = 0.0) -> None:
        """Take leave of those that end within *seconds*: one that hangs holds up nobody."""
        self._leaving = [pid for pid in self._leaving if not _ended(pid, seconds)]


def _ended(pid: int, seconds: float) -> bool:
    """Whether the child *pid* ends within *seconds*; then it is gone."""
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(seconds * 1000)
    finally:
        os.close(fd)
    return os.waitpid(pid, os.WNOHANG)[0] != 0


class Handler:
    """Passes one session's transactions on, recipients of one account together."""

    def __init__(self, warm: Warm, server: Server, account_of: Callable[[str], str],
                 flush: Callable[[], None], check: Callable[[], None]) -> None:
        self._warm = warm
        self._server = server
        self._account_of = account_of
        self._flush = flush
        self._check = check
        self._accounts: list[str] = []

    async def settle(self) -> None:
        """Everything is answered at once."""

    def handle(self, event: Any) -> None:
        """Answer one event of the core."""
        kind = type(event)
        if kind is events.BodyFile:
            return self._pass_on(event)
        if kind is events.Rcpt:
            return self._server.answer(event, self._rcpt(event))
        if kind is events.Mail:
            self._accounts = []
        if kind is events.Data:
            return self._server.answer(event, reply(502, "5.5.1", "the body comes by XFD here"))
        if kind in (events.Reset, events.Quit, events.Body, events.BodyFailed):
            return None
        return self._server.answer(event)

    def _rcpt(self, rcpt: events.Rcpt) -> Reply | None:
        try:
            self._accounts.append(self._account_of(rcpt.address))
        except (Failure, OSError) as error:
            return refusal(error)
        return None

    def _pass_on(self, event: events.BodyFile) -> None:
        try:
            groups: dict[str, list[int]] = {}
            for number, account in enumerate(self._accounts):
                groups.setdefault(account, []).append(number)
            for account, numbers in groups.items():
                self._check()
                self._transact(account, numbers, event)
        finally:
            os.close(event.fd)

    def _transact(self, account: str, numbers: list[int], event: events.BodyFile) -> None:
        mail, accepted = self._server.mail, self._server.accepted
        assert mail is not None
        utf8 = ["SMTPUTF8"] if mail.utf8 else []
        xid = [f"XID={mail.xid}"] if mail.xid else []
        recipients = [(f"@local:{accepted[n].address}", ()) for n in numbers]
        transaction = Transaction(mail.sender, recipients, utf8 + xid, FILE)
        left = dict(enumerate(numbers))

        def verdict(place: int) -> None:
            said = transaction.verdicts[place]
            assert said is not None
            self._server.answer_recipient(left.pop(place), untagged(said))
            self._flush()

        broken = self._warm.run(account, transaction, event.fd, event.size, verdict)
        for number in left.values():
            text = f"delivery as {account} broke off: {broken or 'no answer'}"
            self._server.answer_recipient(number, reply(451, "4.3.0", text))
