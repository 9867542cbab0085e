"""locals and virtualdomains: which domains are ours, and whose mail goes to another name."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.values import domain as check_domain
from mqmail.control.values import local_part
from mqmail.mail.address import address_key, domain_key, domain_of, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.control.lines import Lines


def suffixes(domain: str) -> Iterator[str]:
    """``a.b.c``, ``.b.c``, ``.c`` and the empty string: the order in which qmail looks a domain up."""
    yield domain
    place = domain.find(".", 1)
    while place >= 0:
        yield domain[place:]
        place = domain.find(".", place + 1)
    if domain:
        yield ""


def domain_pattern(text: str) -> str:
    """The key of ``dom``, ``.dom`` or the empty string; ValueError if it is none of them."""
    if text not in ("", "."):
        check_domain(text.removeprefix("."))
    elif text:
        raise ValueError("a lone dot matches nothing: write :VALUE for all domains")
    return domain_key(text)


def parse_locals(lines: Lines, _me: str) -> frozenset[str]:
    """The keys of the local domains, one a line."""
    return frozenset([domain_key(check_domain(line)) for line in lines])


@value
class VirtualDomains:
    """``user@dom``, ``dom``, ``.dom`` or "" (all) to what is put before the local part."""

    prepends: dict[str, str]

    def lookup(self, address: str) -> str | None:
        """The prepend for *address*: "" when the domain is an exception (not virtual, treated as if
        no line matched), None when no line matches. First match: the full address, its domain, each
        parent with its dot, the empty name."""
        found = self.prepends.get(address_key(address))
        if found is not None:
            return found
        for name in suffixes(domain_of(address)):
            if name in self.prepends:
                return self.prepends[name]
        return None


def parse_virtualdomains(lines: Lines, _me: str) -> VirtualDomains:
    """Lines ``user@dom:prepend``, ``dom:prepend``, ``.dom:prepend``, ``:prepend``."""
    prepends: dict[str, str] = {}
    for line in lines:
        name, colon, prepend = line.rpartition(":")
        if not colon:
            raise ValueError(f"{line!a} has no colon: write DOMAIN:PREPEND, or DOMAIN: for an exception")
        if prepend:
            local_part(prepend)
        key = address_key(parse_address(name)) if "@" in name else domain_pattern(name)
        if key in prepends:
            raise ValueError(f"{name!a} is given twice: remove one of the lines")
        prepends[key] = prepend
    return VirtualDomains(prepends)
