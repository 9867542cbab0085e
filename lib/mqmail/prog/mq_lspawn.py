"""mq-lspawn: delivers into mailboxes, each as the account it belongs to.

Usage:
  mq-lspawn [--home DIR] [--ready-fd N]
  mq-lspawn --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once deliveries are accepted
  --help          this text

Serves destination mailbox (run/mailbox.sock: virtual mailboxes, by processes that are the owner of
mail/) and, when control/localusers is passwd, destination local (run/local.sock: accounts of this
host; needs root, to become them). Never delivers as root.
"""

from __future__ import annotations

import os
import signal

from mqmail.base import lock, log, ready, unix, waiter
from mqmail.base.failure import BadFile, Permanent, Temporary
from mqmail.control import reader
from mqmail.control.accounts import Accounts
from mqmail.control.whose import find_account, find_mailbox
from mqmail.local.plan import User
from mqmail.local.service import Delivery, make_server
from mqmail.local.warm import Warm
from mqmail.mail.address import local_of
from mqmail.net import daemon
from mqmail.net.blocking import over_socket
from mqmail.net.converse import converse
from mqmail.net.owner import as_owner, become_owner, owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONTROL = ("me", "users", "localusers", "detaildelimiter", "concurrencylocal")
MAILBOX, LOCAL = "run/mailbox.sock", "run/local.sock"
MOST_DISPATCHERS = 4


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    home, ready_fd, _ = daemon.arguments(__doc__, argv)
    daemon.enter(home)
    daemon.become("mq-lspawn")
    owner = owner_of(".")
    with as_owner(owner):
        held = lock.hold("run/mq-lspawn.lock", "mq-lspawn")
        control = reader.load(".", CONTROL)
        mailbox, local = unix.listen(MAILBOX, mode=0o600), unix.listen(LOCAL, mode=0o600)
    count = max(control.concurrencylocal, 1)
    dispatchers = min(count, MOST_DISPATCHERS) if control.localusers == "passwd" else 0

    def work(number: int) -> None:
        daemon.become("mq-local" if number < count else "mq-lspawn")
        if number < count:
            local.close()
            become_owner(owner_of("mail"))
            Mailboxes(control).serve(mailbox)
        else:
            mailbox.close()
            Dispatcher(control).serve(local)

    daemon.Workers("mq-lspawn", count + dispatchers, work).run(lambda: ready.announce(ready_fd))
    os.close(held)
    return 0


class _Stop(BaseException):
    """TERM came while nothing was being delivered."""


class Worker:
    """A process that serves one connection after the other. TERM ends it between deliveries."""

    def __init__(self, control: reader.Control) -> None:
        self.control = control
        self._handler: Any = None
        self._stopping = False
        self._stale = False

    def serve(self, listener: unix.socket) -> None:
        """Accept and converse until TERM."""
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGHUP, self._hang_up)
        listener.setblocking(True)
        try:
            while not self._stopping:
                fd, _ = listener._accept()  # type: ignore[attr-defined]
                self._converse(unix.socket(fileno=fd))
        except _Stop:
            pass

    def _converse(self, sock: unix.socket) -> None:
        stream = over_socket(sock)
        server = make_server(self.control.me)
        self._handler = self.make_handler(server)
        try:
            waiter.run(converse(stream, server, self._handler))
        finally:
            self._handler = None
            stream.close()

    def make_handler(self, server: Any) -> Any:
        """The application over *server*."""
        return Delivery(server, self.whose)

    def whose(self, address: str) -> User:
        """The user to deliver to; raises Permanent or Temporary."""
        raise Permanent("no such user here", "5.1.1")

    def refresh(self) -> None:
        """After HUP: the control files anew, or the old ones when one is wrong."""
        if self._stopping:
            raise _Stop
        if self._stale:
            self._stale = False
            try:
                self.control = reader.load(".", CONTROL)
            except BadFile as error:
                log.event("reload_failed", error=error.text)

    def _terminate(self, _number: int, _frame: object) -> None:
        self._stopping = True
        if self._handler is None or not self._handler.busy:
            raise _Stop

    def _hang_up(self, _number: int, _frame: object) -> None:
        self._stale = True


class Mailboxes(Worker):
    """Delivers to virtual mailboxes, as the owner of mail/."""

    def whose(self, address: str) -> User:
        """The virtual mailbox of *address*."""
        self.refresh()
        found = find_mailbox(address, self.control.users, self.control.detaildelimiter)
        if found is None:
            raise Permanent("no such mailbox here", "5.1.1")
        directory, ext = found
        return User(directory, f"mail/{directory}", "-" if ext else "", ext, virtual=True)


class Dispatcher(Worker):
    """Hands each delivery to a process that is the recipient's account, and keeps such processes warm."""

    def __init__(self, control: reader.Control) -> None:
        super().__init__(control)
        self._accounts = Accounts()
        self._warm = Warm(control.me, self._become)

    def make_handler(self, server: Any) -> Any:
        """Passes transactions on to the accounts' own processes."""
        return self._warm.handler(server, self._account)

    def _account(self, address: str) -> str:
        """The name of the account that *address* belongs to."""
        self.refresh()
        return self._find(address)[0]

    def _find(self, address: str) -> tuple[str, str, str]:
        found = find_account(local_of(address), self._accounts.home_of, self.control.detaildelimiter)
        if found is None:
            raise Permanent("no such user here", "5.1.1")
        return found

    def whose(self, address: str) -> User:
        """In an account's own process: the user, with extension."""
        name, ext, dash = self._find(address)
        home = self._accounts.home_of(name)
        assert home is not None
        return User(name, home, dash, ext)

    def _become(self, name: str, sock: unix.socket) -> None:
        """In a new process: become account *name*, then deliver what comes over *sock* until it ends."""
        daemon.become("mq-local")
        account = _account_of(name)
        os.initgroups(name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        os.umask(0o077)
        try:
            os.chdir(account.pw_dir)
        except OSError:
            os.chdir("/")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)      # the dispatcher ends us by closing
        server = make_server(self.control.me)
        waiter.run(converse(over_socket(sock), server, Delivery(server, self.whose)))


def _account_of(name: str) -> Any:
    import pwd
    account = pwd.getpwnam(name)
    if account.pw_uid == 0:
        raise Permanent("root gets no mail", "5.1.1")
    if os.geteuid() not in (0, account.pw_uid):
        raise Temporary("mq-lspawn was not started by root", "4.3.5")
    return account

