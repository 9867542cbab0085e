"""The access map: who is looked up by which keys, and what an entry means for a session.

The keys of a thing go from the narrowest to the widest; of one key the tagged form is first, then the
untagged one. The first entry found decides, and no other is looked at.

* a client: its address, the networks it is in (the longest prefix first), its name, each parent domain
  with a dot in front, ``*``;
* a HELO name, or the address of a literal: likewise;
* a sender or recipient: the address, without its detail, ``user+detail@``, ``user@``, the domain, each
  parent with a dot in front, ``*``. The null sender: ``<>``, ``*``.

So ``example.org`` is that domain alone, and ``.example.org`` all below it.
"""

from __future__ import annotations

from mqmail.base import log
from mqmail.base.failure import BadFile
from mqmail.base.value import value
from mqmail.control import access, actions
from mqmail.control.domains import suffixes
from mqmail.control.networks import ip_text, parse_ip
from mqmail.control.optionsets import OptionSets
from mqmail.control.whose import without_detail
from mqmail.mail.address import BadAddress, check_domain, domain_key, domain_of, local_of, lower_ascii
from mqmail.policy.maps import Files, Maps
from mqmail.policy.stages import KEPT, Check
from mqmail.policy.verdict import DEFER, DISCARD, NEXT, NO_OPINION, REJECT, RELAY, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.policy.facts import Facts

CONTROL = ("access", "detaildelimiter")
TAGS = {"connect": access.CONNECT, "helo": access.HELO, "mail": access.FROM, "rcpt": access.TO}
_TROUBLE = reply(451, "4.3.5", "the access table cannot be used now, try again later")
_NAMELESS = reply(451, "4.7.25", "your name cannot be looked up now, try again later")
_NO_NAME, _NAME_NEEDED = [Verdict(action, _NAMELESS, why="the client's name is unknown", trouble=True)
                          for action in (NEXT, DEFER)]
_NEED = {"tls": reply(530, "5.7.10", "this mail needs TLS: say STARTTLS first"),     # RFC 3207 section 4
         "auth": reply(530, "5.7.0", "this mail needs authentication")}         # RFC 4954 section 6


@value
class Entry:
    """What decides: the *key*, as it is in the table, its *action*, and the *path* of the file."""

    key: str
    action: str
    path: str


def client_keys(ip: str, host: str, words: frozenset[str]) -> Iterator[str]:
    """Of a client or a HELO name; *ip* and *host* may be ""."""
    if ip:
        yield from ip_keys(ip, words)
    if _is_name(host):
        yield from [name for name in suffixes(domain_key(host)) if name]
    yield access.EVERYBODY


def _is_name(host: str) -> bool:
    """Whether it can be in a table: nothing that a client calls itself (RFC 5321 section 4.1.4) is taken
    for a key of another kind."""
    try:
        check_domain(host)
    except BadAddress:
        return False
    return host[:1] != "["


def ip_keys(ip: str, words: frozenset[str]) -> Iterator[str]:
    """The address and the networks it is in, as far as *words* has their lengths. None for what is no
    IP address."""
    try:
        width, number = parse_ip(ip)
    except ValueError:
        return
    yield ip_text(width, number)
    family = "4/" if width == 32 else "6/"
    lengths = [int(word[2:]) for word in words if word[:2] == family and word[2:].isdigit()]
    for length in sorted(lengths, reverse=True):
        if 0 < length < width:
            shift = width - length
            yield f"{ip_text(width, number >> shift << shift)}/{length}"


def address_keys(address: str, delimiters: str) -> Iterator[str]:
    """Of a sender or recipient, which may be "" and ``postmaster``."""
    if not address:
        yield access.NULL_SENDER
    else:
        local, domain = lower_ascii(local_of(address)), domain_of(address)
        users = [access.user_key(name) for name in (local, *without_detail(local, delimiters))]
        if domain:
            yield from [user + domain for user in users]
        yield from users
        yield from filter(None, suffixes(domain))
    yield access.EVERYBODY


def keys_of(stage: str, facts: Facts, delimiters: str, words: frozenset[str]) -> Iterator[str]:
    """Of what a stage is about, without tags."""
    if stage == "connect":
        return client_keys(facts.ip, facts.host, words)
    if stage == "helo":
        literal = facts.helo[:1] == "[" and facts.helo[-1:] == "]"
        ip = facts.helo[1:-1].lower().removeprefix("ipv6:") if literal else ""
        return client_keys(ip, "" if literal else facts.helo, words)
    return address_keys((facts.sender or "") if stage == "mail" else facts.recipient, delimiters)


def find(table: Maps, stage: str, facts: Facts, delimiters: str,
         tried: Callable[[str], object] | None = None) -> Entry | None:
    """The entry that decides at *stage*, None without one; *tried* is told of each key that is looked
    up. Raises BadFile."""
    words = table.refresh()
    tag = TAGS[stage]
    prefixes = [prefix for word, prefix in ((tag, f"{tag}:"), (access.UNTAGGED, "")) if word in words]
    forms = table.forms
    for name in keys_of(stage, facts, delimiters, words) if prefixes else ():
        for prefix in prefixes:
            key = prefix + name
            if tried is not None:
                tried(key)
            for look_up, path in forms:
                found = look_up(key)
                if found is not None:
                    return Entry(key, found, path)
    return None


def parsed(entry: Entry) -> actions.Action:
    """What an entry says. Raises BadFile: nobody has checked an SQLite file."""
    try:
        return actions.parse_action(entry.action, access.tag_of(entry.key))
    except ValueError as error:
        raise BadFile(f"{entry.path}: {entry.key[:80]}: {error}") from None


def held_against(facts: Facts) -> bool:
    """Whether the client, its HELO name or the sender has been refused: only OK lifts that, and RELAY is
    not OK, or a relay's whole domain would be open to those whom nobody wants."""
    return any([facts.said[stage].action in (REJECT, DISCARD, DEFER) for stage in KEPT
                if stage in facts.said])


def judged(entry: Entry, facts: Facts, stage: str) -> Verdict:
    """What it means at *stage* of a session. Raises BadFile."""
    action = parsed(entry)
    why = f"{entry.path}: {entry.key}"
    for need in action.needs:
        if not (facts.tls if need == "tls" else facts.login):
            return Verdict(REJECT, _NEED[need], why=why, options=action.options)
    if stage == "rcpt" and action.verb == RELAY and held_against(facts):
        return Verdict(NEXT, options=action.options)
    return Verdict(action.verb or NEXT, action.reply, why=why, options=action.options)


class Access(Check):
    """The check of one *stage*: connect, helo, mail or rcpt."""

    name = "access"

    def __init__(self, stage: str, table: Maps, delimiters: str,
                 sets: OptionSets = OptionSets({})) -> None:    # noqa: B008  it is never changed
        self.stage = stage
        self._table = table
        self._delimiters = delimiters
        self._sets = sets

    def look(self, facts: Facts) -> Verdict:
        """By the first entry; a table that cannot be used is trouble."""
        if self.stage == "connect" and facts.local:
            return NO_OPINION
        try:
            entry = find(self._table, self.stage, facts, self._delimiters)
            if self._lacks_name(entry, facts):
                return _NO_NAME if entry is None else _NAME_NEEDED
            if entry is None:
                return NO_OPINION
            return self._checked(entry, judged(entry, facts, self.stage))
        except BadFile as error:
            log.event("bad_table", session=facts.session, error=error.text[:500])
            return Verdict(DEFER, _TROUBLE, why=error.text[:500], trouble=True)

    def _lacks_name(self, entry: Entry | None, facts: Facts) -> bool:
        """Whether everybody is refused, or no entry found, while DNS fails for the client's name."""
        if self.stage != "connect" or not facts.ip or facts.marks.get("reversename") != "unknown" \
                or self._table.words.isdisjoint((access.CONNECT, access.UNTAGGED)):
            return False
        return entry is None or (
            entry.key[-1] == access.EVERYBODY and parsed(entry).verb in (REJECT, DISCARD))

    def _checked(self, entry: Entry, said: Verdict) -> Verdict:
        """*said*; nobody has looked at the sets that a table other than control/access names."""
        if said.options and not self._sets.has(said.options):
            raise BadFile(f"{entry.path}: {entry.key[:80]}: there is no option set {said.options}")
        if said.options and self.stage in ("helo", "mail") and self._sets.opens(said.options):
            raise BadFile(f"{entry.path}: {entry.key[:80]}: {access.too_open(said.options, self._sets)}")
        return said


def make(stage: str) -> Callable[[Control, Any], Check | None]:
    """The factory of a stage's check, see policy/known.py; it raises BadFile for an option set that is
    not there."""

    def factory(control: Control, services: Any) -> Check | None:
        for text in access.unknown_sets("control/access", control.access, control.optionsets):
            raise BadFile(text)
        table = table_of(control, services.kept.setdefault("access", Files("access")))
        sets = control.optionsets
        return Access(stage, table, control.detaildelimiter, sets) if table.exists() else None

    return factory


def table_of(control: Control, files: Files) -> Maps:
    """The access map, by control file access and *files*."""
    return Maps("access", control.access.entries, control.access.words, files)
