"""Rewriting of addresses by control/rewrite: who is looked up by which keys, and what comes out.

The keys of an address are those of the access map, from the narrowest to the widest: the address,
without its detail, ``user@``, the domain, each parent with a dot in front, ``*``; of one key the tagged
form (From: for senders' addresses, To: for recipients') is first. The first entry found decides, and
what comes out is not looked up again.
"""

from __future__ import annotations

from mqmail.base.failure import BadFile
from mqmail.base.value import value
from mqmail.control import access
from mqmail.control.domains import suffixes
from mqmail.control.optionsets import HEADER_RECIPIENT, HEADER_SENDER
from mqmail.control.rewrite import SAME, parse_replacement
from mqmail.control.whose import without_detail
from mqmail.mail.address import (
    LONGEST_PATH,
    BadAddress,
    domain_of,
    local_of,
    lower_ascii,
    parse_address,
    quote_local,
)
from mqmail.mail.headerfilter import HeaderFilter
from mqmail.policy.maps import Files, Maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from mqmail.control.reader import Control

CONTROL = ("rewrite", "rewriteheaders", "detaildelimiter")
FROM, TO = access.FROM, access.TO
MOST_KEYS = 1 << 15     # looked up for a message's header: addresses of many labels or details have many
_TAGS = {HEADER_SENDER: FROM, HEADER_RECIPIENT: TO}


@value
class Entry:
    """What decides: the *key*, as it is in the table, its *replacement*, the *path* of the file, and the
    *detail*, with its delimiter, of an address that was found without it."""

    key: str
    replacement: str
    path: str
    detail: str


def keys_of(address: str, delimiters: str) -> Iterator[tuple[str, str]]:
    """(key without a tag, detail that it leaves out) of an address with a domain."""
    local, domain = local_of(address), domain_of(address)
    names = [(lower_ascii(local), "")]
    names += [(lower_ascii(name), local[len(name):]) for name in without_detail(local, delimiters)]
    for name, detail in names:
        yield access.user_key(name) + domain, detail
    for name, detail in names:
        yield access.user_key(name), detail
    for name in suffixes(domain):
        if name:
            yield name, ""
    yield access.EVERYBODY, ""


class Rewriter:
    """*table*: the entries; *headers*: the fields of each class, as control/rewriteheaders has them."""

    def __init__(self, table: Maps, headers: dict[str, frozenset[bytes]], delimiters: str) -> None:
        self._table = table
        self._headers = headers
        self._delimiters = delimiters

    def find(self, address: str, tag: str, tried: Callable[[str], object] | None = None) -> Entry | None:
        """The entry that decides about *address*, of a sender (FROM) or recipient (TO); None without one
        and for an address without a domain. *tried* is told of each key that is looked up. Raises
        BadFile."""
        if "@" not in address:
            return None
        self._table.refresh()
        return self._find(address, tag, tried)

    def _find(self, address: str, tag: str,
              tried: Callable[[str], object] | None = None) -> Entry | None:
        words = self._table.words
        known = ((tag, f"{tag}:"), (access.UNTAGGED, ""))
        prefixes = [prefix for word, prefix in known if word in words]
        for name, detail in keys_of(address, self._delimiters) if prefixes else ():
            for prefix in prefixes:
                if tried is not None:
                    tried(prefix + name)
                found = self._table.get(prefix + name)
                if found is not None:
                    return Entry(prefix + name, *found, detail)
        return None

    def rewrite(self, address: str, tag: str) -> str:
        """What *address*, in canonical form, becomes. Raises BadFile."""
        entry = self.find(address, tag)
        return address if entry is None else replaced(address, entry)

    def header_filter(self, classes: tuple[str, ...]) -> HeaderFilter | None:
        """For one message, of which MOST_KEYS are looked up; None if *classes* (optionsets.REWRITES)
        have none of the header's. Raises BadFile, and so does the filter."""
        self._table.refresh()
        changes: dict[bytes, Callable[[str], str]] = {}
        keys = _Keys()
        for one, tag in _TAGS.items():
            if one in classes:
                changes.update(dict.fromkeys(self._headers[one], self._change(tag, keys)))
        return HeaderFilter(changes) if changes else None

    def _change(self, tag: str, keys: _Keys) -> Callable[[str], str]:
        def change(address: str) -> str:
            entry = self._find(address, tag, keys.count) if keys.number < MOST_KEYS else None
            return address if entry is None else replaced(address, entry)
        return change


class _Keys:
    """Those that have been looked up for a message."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def count(self, _key: str) -> None:
        """One more."""
        self.number += 1


def replaced(address: str, entry: Entry) -> str:
    """What *entry* makes of *address*: itself if that would be too long. Raises BadFile: nobody has
    checked an SQLite file."""
    try:
        new = parse_replacement(entry.replacement)
    except ValueError as error:
        raise BadFile(f"{entry.path}: {entry.key[:80]}: {error}") from None
    if new == SAME:
        return address
    local = local_of(address) if new[0] == "@" else local_of(new) + entry.detail
    try:
        found = parse_address(f"{quote_local(local)}@{new.rpartition('@')[2]}")
    except BadAddress:
        return address
    return found if len(found.encode("utf-8", "surrogateescape")) + 2 <= LONGEST_PATH else address


def make(control: Control, kept: dict[str, Any]) -> Rewriter:
    """By the control files CONTROL; *kept*: what is kept between reloads of them."""
    files = kept.setdefault("rewrite", Files("rewrite"))
    table = Maps("rewrite", control.rewrite.entries, control.rewrite.words, files)
    return Rewriter(table, control.rewriteheaders, control.detaildelimiter)
