"""One session on descriptors 0 and 1: under tcpserver, s6-tcpserver, inetd, or for ``sendmail -bs``.

A process that lives for one client: imports little, connects to mq-resolve and mq-queue when they are
needed. Its log goes to descriptor 2, unless that is the client.
"""

from __future__ import annotations

import os

from mqmail.base import homes, unix
from mqmail.base.failure import EXIT_TEMPORARY, Failure
from mqmail.base.waiter import run
from mqmail.control import loglevels, reader
from mqmail.net.blocking import BlockingStream, over_socket
from mqmail.prog.xmtpd import dialogue, pool, resolver, settings, ucspi
from mqmail.prog.xmtpd.peer import Peer, local_user, of_environment
from mqmail.prog.xmtpd.services import Services
from mqmail.prog.xmtpd.session import Session
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.listeners import Listener
    from mqmail.prog.xmtpd import Options

_TROUBLE = reply(421, "4.3.0", "internal trouble, try again later")


def serve(options: Options) -> int:
    """Serve the client on descriptors 0 and 1."""
    _keep_log_from_client()
    os.set_blocking(0, True)
    os.set_blocking(1, True)
    stream = BlockingStream(0, 1)
    try:
        homes.enter(options.home)
        if not options.local and os.geteuid() == 0 == os.stat(".").st_uid:
            _give_up_root()
        me = reader.load(".", ["me"]).me
        loglevels.obey()
        services = Services(_connect, me)
        found = settings.load(None if options.local else services)
        listener = options.listener()
        found.check_listeners([listener], ucspi.has_tls(os.environ))
        peer = local_user() if options.local else of_environment(os.environ, 0)
    except (Failure, OSError):
        stream.write(_TROUBLE.encode())
        raise
    return _converse(stream, found, listener, peer, options, services)


def _give_up_root() -> None:
    """In a system home. In another it is for whoever starts us (setuidgid): what we import later may be
    root's alone to read. No hooks of the owner's are run by root (policy/hooks.py)."""
    from mqmail.net.owner import become_program, system_accounts
    accounts = system_accounts("xmtpd")
    assert accounts is not None
    become_program("xmtpd", accounts)


def _converse(stream: BlockingStream, found: settings.Settings, listener: Listener, peer: Peer,
              options: Options, services: Services) -> int:
    control = found.control
    # mq-resolve talks to programs of ours only; a local user's recipients are looked at in the queue
    addresses = None if options.local else resolver.OneResolver(
        lambda: _connect(resolver.SOCKET), control.me)
    queue = pool.Pool(lambda: _connect(pool.SOCKET), control.me)
    handler = dialogue.Dialogue(found, listener, peer, dialogue.SessionIds().make(), addresses, queue,
                                services.auth)
    handler.logs = not options.local        # that user did not ask for a log
    if ucspi.offered(os.environ):
        handler.ucspi_tls = ucspi.take_over
        handler.offer()
    inside = ucspi.inside(os.environ)
    if inside is not None and not options.local:        # who may be a program under a server with TLS
        handler.facts.tls, handler.facts.cipher = inside
        handler.offer()
    talk = Session(stream, handler.server, handler)
    why = run(talk.run())
    talk.stream.close()
    handler.end(why)
    services.book.tell_refused(handler.facts)
    queue.close()
    services.close()
    return EXIT_TEMPORARY if why == "bug" else 0


async def _connect(path: str) -> BlockingStream:
    return over_socket(unix.connect(path))


def _keep_log_from_client() -> None:
    """inetd makes the client's socket our descriptor 2 too; and it may be closed. Then nobody logs."""
    try:
        log = os.fstat(2)
        if log.st_mode & 0o170000 != 0o140000:      # S_IFSOCK
            return
        clients = [(found.st_dev, found.st_ino) for found in (os.fstat(0), os.fstat(1))]
        if (log.st_dev, log.st_ino) not in clients:
            return
    except OSError:
        pass
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
