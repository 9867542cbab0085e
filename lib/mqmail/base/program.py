"""The start and the end of every program: ``start(main)`` is the only place a process exits.

=====================  ====  =========================================
main returns n           n
Failure                its   ``prog: text`` on descriptor 2
SystemExit with text    100  docopt's usage error, the text is printed
OSError                 111
KeyboardInterrupt       111
anything else           111  a bug of ours, with its traceback: always temporary
=====================  ====  =========================================
"""

from __future__ import annotations

import gc
import os
import sys

from mqmail.base import log
from mqmail.base.failure import EXIT_PERMANENT, EXIT_TEMPORARY, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

def start(main: Callable[[list[str]], int]) -> None:
    """Run main(arguments) and end the process with its exit code."""
    gc.set_threshold(10000)     # imports make few cycles, and looking for them costs time
    name = os.path.basename(sys.argv[0])
    log.set_program(name)
    code = run(name, main, sys.argv[1:])
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        code = code or EXIT_TEMPORARY
    os._exit(code)


def run(name: str, main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """main(arguments), every ending turned into an exit code and at most one message."""
    try:
        return main(arguments)
    except Failure as failure:
        complain(name, failure.text + (f" ({failure.private})" if failure.private else ""))
        return failure.exit_code
    except SystemExit as ending:
        return _system_exit(name, ending.code)
    except OSError as error:
        complain(name, f"unable to go on: {describe(error)}")
    except KeyboardInterrupt:
        complain(name, "interrupted")
    except BaseException as error:  # noqa: BLE001  the last line of defence: a bug is temporary
        bug(error)
    return EXIT_TEMPORARY


def _system_exit(name: str, code: object) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    complain(name, str(code))
    return EXIT_PERMANENT


def describe(error: OSError) -> str:
    """``run/queue.sock: No such file or directory``."""
    place = f"{error.filename}: " if error.filename else ""
    return place + (error.strerror or str(error) or type(error).__name__)


def complain(name: str, text: str) -> None:
    """``name: text`` on descriptor 2, for a person."""
    try:
        os.write(2, f"{name}: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def bug(error: BaseException, **facts: object) -> None:
    """Log an exception that should not have been, with where it was raised. To be out of memory is none
    of our mistakes."""
    where, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        where.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    place = ",".join(where[-8:])
    if isinstance(error, MemoryError):
        log.event("no_memory", where=place, **facts)
    else:
        log.event("bug", error=repr(error)[:500], where=place, **facts)
