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
import pwd

from mqmail.base import lock, ready, unix, waiter
from mqmail.base.failure import Permanent, Temporary
from mqmail.control import loglevels, reader
from mqmail.control.accounts import Accounts
from mqmail.control.values import account_deliveries
from mqmail.control.whose import find_account, find_mailbox
from mqmail.local.plan import User
from mqmail.local.service import Delivery, make_server
from mqmail.local.warm import Warm
from mqmail.local.worker import IDLE, Worker
from mqmail.mail.address import local_of
from mqmail.net import daemon
from mqmail.net.blocking import over_socket
from mqmail.net.converse import converse
from mqmail.net.owner import (
    Owner,
    as_owner,
    become_owner,
    become_program,
    import_late,
    owner_of,
    system_accounts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.xmtp.server import Server

CONTROL = ("me", "users", "localusers", "detaildelimiter", "concurrencylocal")
MAILBOX, LOCAL = "run/mailbox.sock", "run/local.sock"
# processes beyond those that mq-send has sessions with: whoever else asks (control/verify) has to wait
# for none of its
OTHERS = 2


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    home, ready_fd, _ = daemon.arguments(__doc__, argv)
    daemon.enter(home)
    daemon.become("mq-lspawn")
    import_late()           # whom the workers become may be unable to read it
    accounts = system_accounts("mq-lspawn")
    with as_owner(owner_of(".")):
        held = lock.hold("run/mq-lspawn.lock", "mq-lspawn")
        kept = daemon.Kept(CONTROL)
        loglevels.obey()
        sockets = daemon.listen("mq-lspawn", accounts)
    mailbox, local = sockets[MAILBOX], sockets[LOCAL]
    callers = None if accounts is None else accounts.callers(MAILBOX)
    most = max(kept.control.concurrencylocal, 1)
    count = most + OTHERS
    dispatchers = account_deliveries(most) + OTHERS if kept.control.localusers == "passwd" else 0

    def work(number: int) -> None:
        daemon.become("mq-local" if number < count else "mq-lspawn")
        if number < count:
            local.close()
            become_owner(mail_owner()) if accounts is None else become_program("mq-local", accounts)
            Mailboxes(kept.control, CONTROL, callers).serve(mailbox, stays=number == 0)
        else:
            mailbox.close()
            Dispatcher(kept.control, CONTROL, callers).serve(local, stays=False)

    def reload() -> None:
        with as_owner(owner_of(".")):
            loglevels.obey()
            kept.reload()

    wanted = {number: mailbox if number < count else local for number in range(1, count + dispatchers)}
    workers = daemon.Workers("mq-lspawn", count + dispatchers, work, reload, wanted)
    workers.run(lambda: ready.announce(ready_fd))
    os.close(held)
    return 0


def mail_owner() -> Owner:
    """Whom the directory mail/ belongs to. If it is a link, the home's owner, who made it: it could
    lead into anybody's directory."""
    try:
        fd = os.open("mail", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        return owner_of(".")
    try:
        return owner_of(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


class Mailboxes(Worker):
    """Delivers to virtual mailboxes, as the owner of mail/."""

    def make_handler(self, server: Server, flush: Callable[[], None]) -> Any:
        """Delivers here."""
        return Delivery(server, self.whose, flush)

    def whose(self, address: str) -> User:
        """The virtual mailbox of *address*. Raises Permanent."""
        found = self.look_up(lambda: find_mailbox(address, self.control.users,
                                                  self.control.detaildelimiter))
        if found is None:
            raise Permanent("no such mailbox here", "5.1.1")
        directory, ext = found
        return User(directory, f"mail/{directory}", "-" if ext else "", ext, virtual=True)


class Dispatcher(Worker):
    """Hands each delivery to a process that is the recipient's account; it keeps these warm."""

    timeout = IDLE

    def __init__(self, control: reader.Control, names: tuple[str, ...],
                 callers: frozenset[int] | None) -> None:
        super().__init__(control, names, callers)
        self._accounts = Accounts()
        self._warm = Warm(control.me, self._become)

    def make_handler(self, server: Server, flush: Callable[[], None]) -> Any:
        """Passes transactions on to the accounts' own processes."""
        return self._warm.handler(server, self.account_of, flush, self.check)

    def ended(self) -> None:
        """Nobody is served: the accounts' processes go."""
        self._warm.end_all()

    def reload(self) -> str:
        """The accounts' processes have the old control files."""
        self._warm.end_all()
        self._accounts = Accounts()
        return super().reload()

    def account_of(self, address: str) -> str:
        """The name of the account that *address* belongs to. Raises Permanent."""
        found = self.look_up(lambda: find_account(local_of(address), self._accounts.home_of,
                                                  self.control.detaildelimiter))
        if found is None:
            raise Permanent("no such user here", "5.1.1")
        return found[0]

    def _become(self, name: str, sock: unix.socket) -> None:
        """In a new process: become account *name*, then deliver what comes over *sock* until it ends."""
        daemon.become("mq-local")
        account = account_named(name)
        become_account(account)
        home, delimiters = account.pw_dir, self.control.detaildelimiter

        def whose(address: str) -> User:
            found = find_account(local_of(address), {name: home}.get, delimiters)
            if found is None:
                raise Permanent("no such user here", "5.1.1")
            return User(name, home, found[2], found[1])

        stream, server = over_socket(sock), make_server(self.control.me)
        handler = Delivery(server, whose, lambda: stream.write(server.take_output()))
        waiter.run(converse(stream, server, handler))


def account_named(name: str) -> pwd.struct_passwd:
    """The account to become. Raises Failure for one that gets no mail, or that we cannot become."""
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise Temporary(f"account {name} has vanished", "4.2.1") from None
    if account.pw_uid == 0:
        raise Permanent("root gets no mail", "5.1.1")
    if os.geteuid() not in (0, account.pw_uid):
        raise Temporary("mq-lspawn was not started by root", "4.3.5")
    return account


def become_account(account: pwd.struct_passwd) -> None:
    """From root to *account*, for good; then to its home."""
    if os.geteuid() == 0:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    os.umask(0o077)
    try:
        os.chdir(account.pw_dir)
    except OSError:
        os.chdir("/")       # the delivery will say what is wrong
