"""Where mail for an address goes: the decision behind mq-resolve, a function of tables alone.

In this order, which is qmail's where qmail has one: aliases, virtual mailboxes, accounts of this host
(local domains only), catch-all aliases, virtual domains, the rest of the world. Domains are compared
by domain_key(): an internationalized one is the same as its A-label, and as nothing that merely looks
like it. A local part is never looked into for routes (``%``, ``!``, ``@``).
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.aliases import split_target
from mqmail.control.whose import find_account, find_mailbox, has_file, without_detail
from mqmail.mail.address import (
    LONGEST_LOCAL,
    LONGEST_PATH,
    address_key,
    domain_key,
    domain_of,
    local_of,
    lower_ascii,
    quote_local,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mqmail.control.aliases import Aliases
    from mqmail.control.domains import VirtualDomains
    from mqmail.control.reader import Control
    from mqmail.control.users import Users

CONTROL = ("me", "locals", "virtualdomains", "users", "aliases", "localusers", "detaildelimiter")
MOST_TARGETS = 10000    # of an alias: what the callers take in one answer
_LOOKED_AT = 50         # addresses behind an alias, in search of one that is good

NEW, MAILBOX, LOCAL, REMOTE = "", "mailbox", "local", "remote"


@value
class Answer:
    """551 with *targets*, (destination or "" for new, address, sender or ""); else a refusal: 550 or
    451, an RFC 3463 *status* and a *text* for the sender."""

    code: int
    status: str
    text: str = ""
    targets: tuple[tuple[str, str, str], ...] = ()


@value
class Tables:
    """What is decided by. *ours* are the local domains and those with virtual mailboxes or a catch-all
    alias; *home_of* gives an account's home (None: accounts get no mail); *exists*(home, ext) says
    whether an extension has a .qmail file."""

    me: str
    locals: frozenset[str]
    ours: frozenset[str]
    virtual: VirtualDomains
    users: Users
    aliases: Aliases
    delimiters: str
    home_of: Callable[[str], str | None] | None
    exists: Callable[[str, str], bool] = has_file


def tables_of(control: Control, home_of: Callable[[str], str | None]) -> Tables:
    """The tables that the files CONTROL make; *home_of* is asked if localusers says passwd."""
    ours = control.locals.union(control.users.domains, control.aliases.domains)
    return Tables(control.me, control.locals, ours,
                  control.virtualdomains, control.users, control.aliases, control.detaildelimiter,
                  home_of if control.localusers == "passwd" else None)


UNKNOWN = Answer(550, "5.1.1", "no such user here")
NO_RELAY = Answer(550, "5.7.1", "relaying denied: this host takes mail from you for its own domains;"
                                " use your provider's mail server")
_TOO_LONG = Answer(550, "5.1.1", "no such user here: the name is too long")
_NO_LOCAL = Answer(451, "4.3.5", "virtualdomains needs a local domain, and there is none")
_TOO_MANY = Answer(451, "4.3.5", f"this alias has more than {MOST_TARGETS} targets")
_NOBODY = Answer(451, "4.3.5", "this alias names itself, and there is no such mailbox")


def resolve(address: str, tables: Tables, may_relay: bool, null_sender: bool = False) -> Answer:
    """The one answer for *address* (canonical, or ``postmaster``). *may_relay*: the caller may send to
    other domains. *null_sender*: a list's owner does not become the sender of a bounce.

    May raise what *home_of* and *exists* raise."""
    if "@" not in address:
        address = f"{address}@{_first_domain(tables) or tables.me}"     # RFC 5321 section 4.1.1.3
    answer = _decide(address, tables, may_relay, set())
    if null_sender and answer.targets:
        return _elsewhere([(destination, target, "") for destination, target, _ in answer.targets])
    return answer


def _decide(address: str, tables: Tables, may_relay: bool, seen: set[str]) -> Answer:
    """*seen*: addresses that have been looked at on the way here, by their keys."""
    alias = _alias_of(address, tables)
    if alias:
        targets = tables.aliases.lookup(alias, tables.ours) or []
        return _expand(address, targets, tables.aliases.owner(alias, tables.ours) or "", tables, seen)
    if domain_of(address) in tables.ours:
        destination = _own(address, tables)
        if destination:
            return _one(destination, address)
        targets = tables.aliases.catch_all(domain_of(address)) or []
        return _expand(address, targets, "", tables, seen) if targets else UNKNOWN
    prepend = tables.virtual.lookup(address)
    if prepend:
        return _prepended(address, prepend, tables, seen)
    return _one(REMOTE, address) if may_relay else NO_RELAY


def _one(destination: str, address: str) -> Answer:
    return _elsewhere([(destination, address, "")])


def _elsewhere(targets: list[tuple[str, str, str]]) -> Answer:
    return Answer(551, "5.1.6", "", tuple(targets))


def _own(address: str, tables: Tables) -> str:
    """Whether an address in one of our domains is a MAILBOX, or LOCAL: an account; "" for neither."""
    if find_mailbox(address, tables.users, tables.delimiters, tables.exists):
        return MAILBOX
    if tables.home_of is not None and domain_of(address) in tables.locals and find_account(
            local_of(address), tables.home_of, tables.delimiters, tables.exists):
        return LOCAL
    return ""


def _alias_of(address: str, tables: Tables) -> str:
    """The alias that speaks for *address*: itself or, if it is no mailbox, what it is without its
    detail; "" without one."""
    if not tables.aliases.targets:
        return ""
    if tables.aliases.lookup(address, tables.ours) is not None:
        return address
    if tables.users.lookup(address) is None:
        for name in without_detail(lower_ascii(local_of(address)), tables.delimiters):
            base = f"{quote_local(name)}@{domain_of(address)}"
            if tables.aliases.lookup(base, tables.ours) is not None:
                return base
    return ""


def _expand(address: str, targets: list[str], owner: str, tables: Tables, seen: set[str]) -> Answer:
    """What the alias with these *targets* and *owner* (or "") stands for. A target that is *address*
    again means its mailbox or account."""
    if len(targets) > MOST_TARGETS:
        return _TOO_MANY
    itself = address_key(address)
    seen.add(itself)
    found = []
    for text in targets:
        destination, target = split_target(text)
        if not destination and address_key(target) == itself:
            destination = _own(target, tables)
            if not destination:
                return _NOBODY
        found.append((destination, target or address, owner))
    return _all_refused(found, tables, seen) or _elsewhere(found)


def _all_refused(targets: list[tuple[str, str, str]], tables: Tables, seen: set[str]) -> Answer | None:
    """The refusal when every target is refused: better said now than in a report to a forged sender.
    A temporary one if there is one."""
    refusal = None
    for destination, target, _ in targets:
        key = address_key(target)
        if destination or key in seen or len(seen) > _LOOKED_AT:
            return None
        seen.add(key)
        answer = _decide(target, tables, True, seen)
        if answer.targets:
            return None
        if refusal is None or answer.code < refusal.code:
            refusal = answer
    return refusal


def _prepended(address: str, prepend: str, tables: Tables, seen: set[str]) -> Answer:
    """PREPEND-LOCAL in a local domain, unless that is refused."""
    local = f"{prepend}-{local_of(address)}"
    domain = _first_domain(tables)
    if not domain:
        return _NO_LOCAL
    target = f"{quote_local(local)}@{domain}"
    if len(local.encode()) > LONGEST_LOCAL or len(target.encode()) + len("<>") > LONGEST_PATH:
        return _TOO_LONG
    answer = _decide(target, tables, True, seen)
    return _one(NEW, target) if answer.targets else answer


def _first_domain(tables: Tables) -> str:
    """The one in which names without a domain are, "" without any."""
    if domain_key(tables.me) in tables.ours:
        return tables.me
    return min(tables.locals or tables.ours, default="")
