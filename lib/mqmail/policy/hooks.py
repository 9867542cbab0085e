"""control/hooks.py: the administrator's own checks, a function for each stage.

The file is Python. It is read when the control files are, must not be written by others, and runs with
all rights of xmtpd. A function gets a ``Session`` and says what a line of control/access says, or None.
See mq-hooks(5).
"""

from __future__ import annotations

import os
import sys
import time
from io import BytesIO

from mqmail.base import files, log
from mqmail.base.failure import BadFile
from mqmail.control import reader
from mqmail.control.actions import parse_action
from mqmail.control.optionsets import OptionSets
from mqmail.control.table import HOOKS
from mqmail.mail import header as fields
from mqmail.policy.facts import STAGES
from mqmail.policy.stages import Check
from mqmail.policy.verdict import DEFER, DISCARD, NEXT, NO_OPINION, OK, REJECT, RELAY, Verdict
from mqmail.xmtp.reply import Reply, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, TracebackType
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.policy.facts import Facts

    Function = Callable[["Session"], object]

PATH = f"control/{HOOKS}"
SLOW = 0.1              # seconds: while a hook runs, its process does nothing else
LONGEST = 1 << 20       # octets of the file
_ASYNC = 0x80 | 0x20 | 0x200        # CO_COROUTINE, CO_GENERATOR, CO_ASYNC_GENERATOR
_SHOWN = frozenset(("session", "role", "listener", "ip", "port", "proxy", "host", "local", "uid", "verb",
                    "helo", "tls", "cipher", "certificate", "login", "mechanism", "relay", "options",
                    "marks", "sender", "size", "utf8", "recipient", "recipients", "header", "octets",
                    "body"))
_COPIES: dict[type, Callable[[Any], Any]] = {list: tuple, dict: dict, bytearray: bytes}
_NEVER = frozenset(b"\r\n\0")       # in a line
_ACTIONS = (OK, RELAY, REJECT, DEFER, DISCARD, NEXT)
_TROUBLE = reply(451, "4.3.0", "internal trouble, try again later")


class Session:
    """What a hook sees: the facts of a session (policy/facts.py), which it cannot change."""

    __slots__ = ("_facts",)

    def __init__(self, facts: Facts) -> None:
        object.__setattr__(self, "_facts", facts)

    def __getattr__(self, name: str) -> Any:
        if name not in _SHOWN:
            raise AttributeError(f"a session has no {name}")
        found = getattr(self._facts, name)
        copied = _COPIES.get(type(found))
        return found if copied is None else copied(found)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"a hook cannot change {name}")

    def fields(self, name: str) -> list[str]:
        """The contents of the header fields of that name, unfolded."""
        wanted = name.lower().encode()
        found, _ = fields.read(BytesIO(self.header).readline)
        return [field.content.replace(b"\n", b"").decode("utf-8", "surrogateescape").strip(" \t")
                for field in found if field.key == wanted]


class Hook(Check):
    """A *function* of the file, for *stage*. *sets*: those that it may name."""

    name = "hooks"

    def __init__(self, stage: str, function: Function,
                 sets: OptionSets = OptionSets({})) -> None:    # noqa: B008  it is never changed
        self.stage = stage
        self._sets = sets
        self.sees_taken = stage == "rcpt"
        self._function = function

    def look(self, facts: Facts) -> Verdict:
        """What it says; 451 if it fails, or says what nobody understands."""
        begun = time.monotonic()
        try:
            return self._known(verdict_of(self._function(Session(facts)), self.stage))
        except BaseException as error:  # noqa: BLE001  whatever goes wrong there is temporary
            log.event("hook_failed", session=facts.session, hook=self.stage,
                      at=f"{PATH}:{_line_of(error.__traceback__) or self._line()}",
                      error=_text_of(error))
            return Verdict(DEFER, _TROUBLE, why="a hook failed", trouble=True)
        finally:
            seconds = time.monotonic() - begun
            if seconds > SLOW:
                log.event("hook_slow", session=facts.session, hook=self.stage, ms=int(seconds * 1000))

    def _known(self, said: Verdict) -> Verdict:
        if said.options and not self._sets.has(said.options):
            raise ValueError(f"there is no option set {said.options[:80]!a}")
        return said

    def _line(self) -> int:
        return self._function.__code__.co_firstlineno


def verdict_of(said: object, stage: str) -> Verdict:
    """What a hook's answer means: None, a Verdict, or a text: an action as in control/access, or a reply
    (``550 5.7.1 no``). Raises ValueError."""
    if said is None:
        return NO_OPINION
    if isinstance(said, Verdict):
        return _checked(said, stage)
    if not isinstance(said, str):
        raise ValueError(f"a hook says None, a text or a Verdict, and not {said!a}"[:200])
    words = {"4": "DEFER ", "5": "REJECT "}.get(said[:1], "") + said
    action = parse_action(words, "connect" if stage == "connect" else "to")
    if action.needs:
        raise ValueError("REQUIRE is for control/access: look at session.tls and session.login")
    return Verdict(action.verb or NEXT, action.reply, why="a hook", options=action.options)


def _checked(said: Verdict, stage: str) -> Verdict:
    if said.action not in _ACTIONS:
        raise ValueError(f"{said.action!a} is no action of a Verdict")
    if said.action in (REJECT, DEFER):
        first = "5" if said.action == REJECT else "4"
        if not _is_reply(said.reply, first, stage):
            raise ValueError(f"a Verdict of {said.action} has a reply that begins with {first}")
    if not _are_texts((said.options, said.check, said.why)) or type(said.fields) is not tuple \
            or type(said.recipients) is not tuple:
        raise ValueError("options, check, why of a Verdict are texts, fields and recipients tuples")
    if said.recipients and stage != "header":       # later the queue may know of them already
        raise ValueError(f"recipients are refused at the stage header, and not at {stage}")
    if not all([type(one) is tuple and len(one) == 2 and _is_reply(one[1], "45", stage)
                for one in said.recipients]):
        raise ValueError("recipients are pairs: an address, and a reply that begins with 4 or 5")
    if said.fields and stage in ("rcpt", "body"):
        raise ValueError(f"header fields are added at the other stages, and not at {stage}")
    if not all([_is_field(field) for field in said.fields]):
        raise ValueError("fields are texts NAME: CONTENT, and lines after the first begin with a blank")
    return said


def _is_reply(said: object, first: str, stage: str) -> bool:
    """Whether it is a Reply with a code that begins with one of *first*, and text. 421 ends the session,
    which only connect can do."""
    return isinstance(said, Reply) and type(said.code) is int and 400 <= said.code < 600 \
        and str(said.code)[0] in first and (said.code != 421 or stage == "connect") \
        and type(said.lines) is tuple and bool(said.lines) and _are_texts((*said.lines, said.status))


def _are_texts(things: tuple[object, ...]) -> bool:
    return all([type(one) is str for one in things])


def _is_field(text: object) -> bool:
    """Whether it may stand in a header, with CRLF inside where it is folded."""
    lines = text.encode("utf-8", "surrogateescape").split(b"\r\n") if type(text) is str else [b""]
    return fields.is_field(lines[0]) and not _NEVER.intersection(b"".join(lines)) and all(
        [line[:1] in (b" ", b"\t") and line.strip() for line in lines[1:]])


def _line_of(trace: TracebackType | None) -> int:
    """The last line of the file that was run; 0 if none was."""
    last = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == PATH:
            last = trace.tb_lineno
        trace = trace.tb_next
    return last


def _text_of(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except Exception:  # noqa: BLE001  its __str__ is the file's, too
        return type(error).__name__


def load(home: str = ".") -> dict[str, Function]:
    """Stage to function; {} without a file. Raises BadFile that names the line."""
    code = _read(home)
    return {} if code is None else _functions(_run(code))


def check(home: str = ".") -> None:
    """Read the file and do not run it. Raises BadFile that names the line."""
    _read(home)


def _read(home: str) -> CodeType | None:
    fd = reader.Directory(home).open(HOOKS)
    if fd is None:
        return None
    with open(fd, "rb", buffering=0):
        if os.geteuid() == 0 and os.fstat(fd).st_uid != 0:
            raise BadFile(f"{PATH} is not root's, and root runs nobody else's programs")
        return _compiled(files.read_fd_bounded(fd, PATH, LONGEST))


def _compiled(source: bytes) -> CodeType:
    try:
        return compile(source, PATH, "exec")
    except (SyntaxError, ValueError) as error:
        number = getattr(error, "lineno", None) or 1
        raise BadFile(f"{PATH} line {number}: {_text_of(error)}", number) from None


def _run(code: CodeType) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "hooks", "__file__": PATH}
    sys.stdout = sys.stderr         # of one session, descriptor 1 is the client
    try:
        exec(code, names)  # noqa: S102  the file is the administrator's, as the modules here are
    except (Exception, SystemExit) as error:  # noqa: BLE001  any of them says that the file is wrong
        number = _line_of(error.__traceback__) or 1
        raise BadFile(f"{PATH} line {number}: {_text_of(error)}", number) from None
    return names


def _functions(names: dict[str, Any]) -> dict[str, Function]:
    found = {stage: names[stage] for stage in STAGES if stage in names}
    if not found:
        raise BadFile(f"{PATH}: has none of the functions {', '.join(STAGES)}: write one of them")
    for stage, function in found.items():
        code = getattr(function, "__code__", None)
        if code is None or code.co_flags & _ASYNC:
            raise BadFile(f"{PATH}: {stage} must be a function, without async and yield")
    return found


class _File:
    """The functions, which are loaded once each time the control files are: all stages share them."""

    def __init__(self) -> None:
        self._control: Control | None = None
        self._functions: dict[str, Function] = {}

    def functions(self, control: Control) -> dict[str, Function]:
        """Those that go with *control*. Raises BadFile."""
        if control is not self._control:
            self._functions = load()
            self._control = control
        return self._functions


_file = _File()


def prepare(control: Control) -> None:
    """Run the file now, for this process and those it forks: without root, and before anything else is
    changed. Raises BadFile."""
    _file.functions(control)


def make(stage: str) -> Callable[[Control, Any], Check | None]:
    """A factory for policy/known.py."""

    def factory(control: Control, _services: Any) -> Check | None:
        function = _file.functions(control).get(stage)
        return Hook(stage, function, control.optionsets) if function is not None else None

    return factory
