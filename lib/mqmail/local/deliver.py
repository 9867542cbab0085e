"""One recipient's delivery: follow the user's instructions in order and say what became of it.

Files and programs come first, in the file's order, and forwards last and together: the caller
answers them as replacements. The first that fails ends it, so a mailbox that was served before a
program failed for now is served again by the next attempt; dot-qmail(5) promises no more.
"""

from __future__ import annotations

import os
import time

from mqmail.base.failure import Failure, Permanent, Temporary
from mqmail.base.value import value
from mqmail.local import command, maildir, mbox
from mqmail.local.body import Body, Mail, deferral
from mqmail.local.plan import Plan, User, owner_files, plan
from mqmail.mail import address, dotqmail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.mail.dotqmail import Instruction


@value
class Delivered:
    """All is done and durable; *texts* has a word on each delivery."""

    texts: tuple[str, ...]


@value
class Replaced:
    """The recipient is now these: (address, envelope sender or None for the old one)."""

    addresses: tuple[tuple[str, str | None], ...]


@value
class Deferred:
    """Try again later; *status* is 4.x.x."""

    status: str
    text: str


@value
class Failed:
    """Do not try again; *status* is 5.x.x."""

    status: str
    text: str


if TYPE_CHECKING:
    Verdict = Delivered | Replaced | Deferred | Failed


def deliver(user: User, mail: Mail, timeout: float = command.TIMEOUT) -> Verdict:
    """Do all that the user's instructions say with *mail*. *timeout*: seconds for all its programs."""
    try:
        found = plan(user, mail.recipient)
        body = Body(mail.fd, mail.size)
        _refuse_loop(body, mail.recipient)
        return _follow(found, user, mail, body, timeout)
    except Failure as failure:
        return _verdict(failure)
    except OSError as error:
        return _verdict(deferral(error, "delivery"))


def _verdict(failure: Failure) -> Verdict:
    if isinstance(failure, Permanent):
        return Failed(failure.status, failure.text)
    return Deferred(failure.status, failure.text)


def _refuse_loop(body: Body, recipient: str) -> None:
    """A message that we delivered to this address before has come back (RFC 5321 section 6.3)."""
    mark = "\n" + address.lower_ascii(dotqmail.delivered_to(recipient))
    if _raw(mark) in body.header().lower():
        raise Permanent("this message is looping: it has been delivered here before", "5.4.6")


def _follow(found: Plan, user: User, mail: Mail, body: Body, timeout: float) -> Verdict:
    forwards, texts = [], []
    deadline = time.monotonic() + timeout
    for instruction in found.instructions:
        if instruction.kind == "forward":
            forwards.append(instruction)
        elif instruction.kind == "command":
            outcome = _run(instruction.text, found, user, mail, body, deadline)
            texts.append(f"program: {outcome.text or 'done'}")
            if outcome.code == command.DONE_STOP:
                break
        else:
            texts.append(_store(instruction, found, user, mail, body))
    if forwards:
        return _replaced(forwards, user, mail.sender, mail.recipient)
    return Delivered(tuple(texts))


def _store(instruction: Instruction, found: Plan, user: User, mail: Mail, body: Body) -> str:
    """Put the message into a file of the user's; returns what to say of it."""
    name = instruction.text
    path = name if name[0] == "/" else f"{user.home}/{name}"
    head = dotqmail.return_path(mail.sender) + dotqmail.delivered_to(mail.recipient)
    try:
        if instruction.kind == "maildir":
            return f"maildir: {maildir.deliver(path, _raw(head), body, found.create)}"
        mbox.deliver(path, _raw(dotqmail.from_line(mail.sender, time.time()) + head), body)
        return f"mbox: {name}"
    except OSError as error:
        raise deferral(error, name) from error
    except Temporary as failure:
        raise Temporary(f"{name}: {failure.text}", failure.status) from failure


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _run(text: str, found: Plan, user: User, mail: Mail, body: Body,
         deadline: float) -> command.Outcome:
    """Run a program; returns when it says that it did its work."""
    new_sender = mail.sender
    if mail.sender:
        new_sender = dotqmail.command_sender(mail.recipient, *owner_files(user)) or mail.sender
    home = user.home if user.home[:1] == "/" else os.path.normpath(f"{os.getcwd()}/{user.home}")
    environment = dotqmail.environment(user.name, home, user.ext, found.default, mail.sender,
                                       new_sender, mail.recipient, time.time())
    try:
        outcome = command.run(text, user.home, environment, body, max(0.0, deadline - time.monotonic()))
    except OSError as error:
        raise deferral(error, "program") from error
    return _judge(outcome)


def _judge(outcome: command.Outcome) -> command.Outcome:
    code, text = outcome.code, outcome.text
    if code is None:
        raise Temporary("program took too long and was stopped")
    if code < 0:
        raise Temporary(f"program was killed by signal {-code}")
    if code in command.HARD:
        raise Permanent(text or f"program refused the message (exit {code})")
    if code not in (command.DONE, command.DONE_STOP):
        raise Temporary(text or f"program failed for now (exit {code})")
    return outcome


def _replaced(forwards: list[Instruction] | tuple[Instruction, ...], user: User, sender: str,
              recipient: str) -> Replaced:
    """Each address once, with the envelope sender of its copy. A bounce keeps its null sender."""
    targets = dict.fromkeys([forward.text for forward in forwards])
    owned, per_recipient = owner_files(user) if sender else (False, False)
    if not owned:
        return Replaced(tuple([(target, None) for target in targets]))
    owner = dotqmail.owner_sender(recipient)
    if not per_recipient:
        return Replaced(tuple([(target, owner) for target in targets]))
    return Replaced(tuple([(target, dotqmail.owner_sender(recipient, target) or owner)
                           for target in targets]))


__all__ = ["Deferred", "Delivered", "Failed", "Mail", "Replaced", "User", "deliver"]
