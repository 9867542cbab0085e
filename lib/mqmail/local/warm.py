"""Warm processes, one for each account: forked once, used for many transactions, over a socketpair.

The process that holds them (root's) passes a transaction on, by XMQ with the body's descriptor, to the
account's process, and that one's answers back. A process that dies costs a deferral.
"""

from __future__ import annotations

import os
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

MOST = 8                # processes kept
IDLE = 60.0             # seconds after which an unused one is ended
TIMEOUT = 3600.0        # seconds for one transaction


class _Process:
    def __init__(self, pid: int, session: Session) -> None:
        self.pid = pid
        self.session = session
        self.used = time.monotonic()


class Warm:
    """*become(account, socket)* runs in the new process and serves the socket until it ends."""

    def __init__(self, host: str, become: Callable[[str, unix.socket], None]) -> None:
        self._host = host
        self._become = become
        self._processes: dict[str, _Process] = {}

    def handler(self, server: Server, account_of: Callable[[str], str]) -> Handler:
        """An application over *server* that passes its transactions on. *account_of(address)* gives
        the account's name, or raises Failure."""
        return Handler(self, server, account_of)

    def run(self, account: str, transaction: Transaction, fd: int, size: int) -> str:
        """Carry out *transaction* in the account's process; "" or why it broke off."""
        self._end_idle()
        try:
            process = self._get(account)
            waiter.run(process.session.run(transaction, fd, size))
        except OSError as error:
            return program.describe(error)
        process.used = time.monotonic()
        if process.session.broken:
            self._end(account)
        return process.session.broken

    def _get(self, account: str) -> _Process:
        process = self._processes.get(account)
        if process is not None and process.session.alive():
            return process
        self._end(account)
        if len(self._processes) >= MOST:
            self._end(min(self._processes, key=lambda name: self._processes[name].used))
        process = self._processes[account] = self._start(account)
        if not waiter.run(process.session.open()):
            raise OSError(0, f"mq-local for {account} did not start: {process.session.broken}")
        return process

    def _start(self, account: str) -> _Process:
        # _socket's socketpair gives plain sockets; both ends are close-on-exec
        ours, theirs = socketpair()
        pid = os.fork()
        if pid == 0:
            self._child(account, ours, theirs)
        theirs.close()
        return _Process(pid, Session(over_socket(ours), "lmtp", self._host, TIMEOUT))

    def _child(self, account: str, ours: unix.socket, theirs: unix.socket) -> None:
        """In the new process: nothing of the parent's but the socket."""
        code = 111
        try:
            kept = theirs.fileno()
            os.closerange(3, kept)
            os.closerange(kept + 1, 4096)
            code = program.run(log.program(), lambda _argv: self._become(account, theirs) or 0, [])
        finally:
            os._exit(code)

    def _end_idle(self) -> None:
        before = time.monotonic() - IDLE
        for account in [name for name, process in self._processes.items() if process.used < before]:
            self._end(account)

    def _end(self, account: str) -> None:
        """Close its socket: it ends by itself, and is waited for."""
        process = self._processes.pop(account, None)
        if process is not None:
            process.session.stream.close()
            try:
                os.waitpid(process.pid, 0)
            except ChildProcessError:
                pass


class Handler:
    """Passes one session's transactions on, recipients of one account together."""

    def __init__(self, warm: Warm, server: Server, account_of: Callable[[str], str]) -> None:
        self._warm = warm
        self._server = server
        self._account_of = account_of
        self._accounts: list[str] = []
        self.busy = False

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
        except Failure as failure:
            return refusal(failure)
        return None

    def _pass_on(self, event: events.BodyFile) -> None:
        self.busy = True
        try:
            groups: dict[str, list[int]] = {}
            for number, account in enumerate(self._accounts):
                groups.setdefault(account, []).append(number)
            for account, numbers in groups.items():
                self._transact(account, numbers, event)
        finally:
            os.close(event.fd)
            self.busy = False

    def _transact(self, account: str, numbers: list[int], event: events.BodyFile) -> None:
        mail, accepted = self._server.mail, list(self._server.accepted)
        assert mail is not None
        utf8 = ["SMTPUTF8"] if mail.utf8 else []
        xid = [f"XID={mail.xid}"] if mail.xid else []
        recipients = [(f"@local:{accepted[n].address}", ()) for n in numbers]
        transaction = Transaction(mail.sender, recipients, utf8 + xid, FILE)
        broken = self._warm.run(account, transaction, event.fd, event.size)
        for number, verdict in zip(numbers, transaction.verdicts, strict=True):
            said = verdict or reply(451, "4.3.0", f"mq-local broke off: {broken or 'no answer'}")
            self._server.answer_recipient(number, untagged(said))

