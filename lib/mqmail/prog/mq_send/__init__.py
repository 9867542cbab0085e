"""mq-send: the scheduler. Takes messages from the queue to the services of their destinations.

Usage:
  mq-send [--home DIR] [--ready-fd N]
  mq-send --help

Options:
  --home DIR      the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  --ready-fd N    write a newline to descriptor N once messages are taken
  --help          this text

TERM finishes what is being delivered and ends; HUP reads the control files again; ALRM tries all
waiting messages now.
"""

from __future__ import annotations

import gc

from mqmail.base import ready
from mqmail.net import daemon, trigger
from mqmail.prog.mq_send.scheduler import Scheduler


def main(argv: list[str]) -> int:
    """Run the daemon until TERM."""
    begun = daemon.start("mq-send", __doc__, argv)
    loop = daemon.new_loop()
    scheduler = Scheduler(loop)
    scheduler.start(begun.sockets[trigger.PATH], begun.sockets[trigger.ETRN])
    gc.freeze()
    loop.call_soon(ready.announce, begun.ready)      # when signals are heard
    daemon.run_loop(loop, scheduler.stop, scheduler.reload, {"SIGALRM": scheduler.run_all})
    return 0
