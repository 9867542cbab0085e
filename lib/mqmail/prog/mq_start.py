"""mq-start: runs a whole home in the foreground.

Usage:
  mq-start [--home DIR] [--ready-fd N]
  mq-start --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once mail is accepted
  --help          this text

Starts mq-queue, mq-resolve, mq-auth, mq-send, mq-lspawn, mq-rspawn, mq-bounce and xmtpd, restarts those
that die, and stops all on TERM or INT. HUP makes them read their control files again. The log goes to
descriptor 2. Started by root, all but mq-lspawn run as the owner of the home, or, if the home is root's,
each as an account of its own.
"""

from __future__ import annotations

import importlib
import os

from mqmail.base import lock, log, ready
from mqmail.control import reader
from mqmail.net import daemon
from mqmail.net.listening import listen
from mqmail.net.owner import Owner, as_owner, become_owner, import_late, owner_of, system_accounts
from mqmail.net.supervisor import Daemon, Supervisor
from mqmail.policy import known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

# In the order in which they stop: first who brings mail in, last what the others need to finish.
STAGES = (("xmtpd",), ("mq-send",), ("mq-lspawn", "mq-rspawn", "mq-bounce"),
          ("mq-queue", "mq-resolve", "mq-auth"))
AS_ROOT = "mq-lspawn"
# besides those of all daemons
LATE_IMPORTS = ("docopt", "mqmail.net.servertls", "mqmail.prog.xmtpd.listener")


def main(argv: list[str]) -> int:
    """Run everything until TERM."""
    home, ready_fd, _ = daemon.arguments(__doc__, argv)
    daemon.enter(home)
    daemon.become("mq-start")
    os.umask(0o022)
    system_accounts("mq-start")         # says now if it cannot be
    owner = owner_of(".")
    with as_owner(owner):
        held = lock.hold("run/mq-start.lock", "mq-start")
    mains = _import_all()
    with as_owner(owner):               # what the owner may not read is not for root to read here
        lines = reader.load(".", ["listeners"]).listeners
    listeners = [listen(one.address, one.port, one.path) for one in lines]
    unwanted = [held] if ready_fd is None else [held, ready_fd]
    os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)

    def started() -> None:
        log.event("ready", pid=os.getpid())
        ready.announce(ready_fd)
        del unwanted[1:]        # announcing has closed it

    Supervisor(_daemons(mains, owner, listeners, unwanted)).run(started)
    log.event("stopped")
    os.close(held)
    return 0


def _import_all() -> dict[str, Callable[[list[str]], int]]:
    """The main function of each daemon; from here on nothing is read from the interpreter's files."""
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    import_late()
    known.import_late()
    return {name: importlib.import_module("mqmail.prog." + name.replace("-", "_")).main
            for stage in STAGES for name in stage}


def _daemons(mains: dict[str, Callable[[list[str]], int]], owner: Owner, listeners: list[socket],
             unwanted: list[int]) -> list[Daemon]:
    def prepare(name: str) -> None:
        """In the child: close what belongs to others, and give up root. In a system home each daemon
        does that itself, once it has its sockets."""
        for fd in unwanted:
            os.close(fd)
        if name != "xmtpd":
            for sock in listeners:
                sock.close()
        if name != AS_ROOT:
            become_owner(owner)

    sockets = ["--listen"] + [word for sock in listeners for word in ("--listen-fd", str(sock.fileno()))]
    return [Daemon(name, mains[name], ("--home", ".", *(sockets if name == "xmtpd" else ())), number,
                   lambda name=name: prepare(name))         # type: ignore[misc]
            for number, stage in enumerate(STAGES) for name in stage]
