"""tlspolicy: what a domain's mail wants of TLS."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.domains import domain_pattern, suffixes
from mqmail.control.values import ascii_domain, facts, split_key
from mqmail.mail.address import is_ipv4, is_ipv6, lower_ascii
from mqmail.mail.mxlist import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

LEVELS = ("none", "may", "encrypt", "verify")
VERSIONS = ("1.2", "1.3")
LONGEST_NAMES = 1000        # octets of names=
_FACTS = ("names", "min", "sni")
_FORM = "DOMAIN: LEVEL, a level being none, may, encrypt or verify"


@value
class Policy:
    """*level*: none, may, encrypt or verify; the others as in mail.mxlist.Way, *names* () for those that
    go without saying."""

    level: str = "may"
    names: tuple[str, ...] = ()
    minimum: str = ""
    sni: str = ""


@value
class Policies:
    """Domain or host, ``.domain``, "" (all) to Policy."""

    policies: dict[str, Policy]

    def lookup(self, domain: str, host: str) -> Policy:
        """First match: the recipient's domain, its parents, the host of its route ("" without one) and
        that host's parents, the empty name; else TLS is used where it is offered."""
        for whole in (domain, host):
            for name in suffixes(lower_ascii(whole)):
                if name and name in self.policies:
                    return self.policies[name]
        return self.policies.get("") or Policy()

    def way(self, domain: str, host: str, way: Way) -> Way:
        """*way* with the policy for mail to *domain* over the *host* of a route, "" for its MX hosts."""
        policy = self.lookup(domain, host)
        level = "encrypt" if way.kind == "smtps" and policy.level in ("none", "may") else policy.level
        names = policy.names
        if level == "verify" and not names:
            names = (host,) if host else _names_of(domain)
        return Way(way.kind, level, names, policy.minimum, policy.sni, way.auth, way.sources, way.prefer)


def _names_of(domain: str) -> tuple[str, ...]:
    """Whom a certificate for *domain* is for. Not the MX host: DNS, where its name comes from, may have
    been tampered with."""
    if domain[:1] == "[":
        return (domain[1:-1].removeprefix("ipv6:"),)
    return (domain, f".{domain}")


def parse_tlspolicy(lines: Lines, _me: str) -> Policies:
    """Lines ``key: level [names=a,b,.c] [min=1.2] [sni=name]``."""
    policies: dict[str, Policy] = {}
    for line in lines:
        name, rest = split_key(line, _FORM)
        words = rest.split()
        if not words or words[0] not in LEVELS:
            raise ValueError(f"{line[:60]!a} says no level: write {_FORM}")
        key = _key(name)
        if key in policies:
            raise ValueError(f"{name!a} is given twice: remove one of the lines")
        policies[key] = _policy(words[0], words[1:])
    return Policies(policies)


def _key(text: str) -> str:
    """A domain pattern, or a host's IPv6 address, which may stand in brackets."""
    if is_ipv6(text[1:-1]) and text[0] + text[-1] == "[]":
        return lower_ascii(text[1:-1])
    if text.removeprefix("."):
        ascii_domain(text.removeprefix("."))
    return domain_pattern(text)


def _policy(level: str, words: list[str]) -> Policy:
    found = facts(words, _FACTS)
    if level == "none" and found:
        raise ValueError(f"{next(iter(found))}= means nothing without TLS: remove it, or the level none")
    if level != "verify" and "names" in found:
        raise ValueError(f"names= are only looked at by the level verify, not by {level}")
    minimum = found.get("min", "")
    if minimum not in ("", *VERSIONS):
        raise ValueError(f"min={minimum}: write min=1.2 or min=1.3")
    sni = lower_ascii(found.get("sni", ""))
    if sni:
        _check_sni(sni)
    return Policy(level, _names(found.get("names", "")), minimum, sni)


def _check_sni(text: str) -> None:
    """A name, no address (RFC 6066 section 3)."""
    if text[0] == "[" or is_ipv4(text):
        raise ValueError(f"sni={text}: write a host's name, no address")
    ascii_domain(text)


def _names(text: str) -> tuple[str, ...]:
    if len(text) > LONGEST_NAMES:
        raise ValueError(f"names= has more than {LONGEST_NAMES} characters: write fewer, such as a"
                         " domain with a dot before it for all hosts below")
    names = lower_ascii(text).split(",") if text else []
    for name in names:
        if not is_ipv6(name):
            ascii_domain(name.removeprefix("."))
    return tuple(names)
