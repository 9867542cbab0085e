"""What a client calls itself, and whether it waits until it may speak."""

from __future__ import annotations

from mqmail.control.networks import parse_ip
from mqmail.mail.address import BadAddress, check_domain, is_ipv4, is_ipv6, lower_ascii
from mqmail.policy.strangers import StrangerCheck
from mqmail.policy.verdict import NO_OPINION, REJECT, Verdict
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.networks import Networks
    from mqmail.policy.facts import Facts

_LIES = ("syntax", "own-name", "own-address")       # of HELO, that may be refused


def judge_helo(helo: str, ip: str, own_names: frozenset[str], own_ip: str) -> str:
    """What is wrong with *helo* of a client at *ip*, "" if nobody knows it (RFC 5321 sections 2.3.5,
    4.1.3): "", "syntax", "short" (a name without a dot), "own-name", "own-address" (ours),
    "other-address". *own_ip*: the address it has come to, or ""."""
    try:
        check_domain(helo)
    except BadAddress:
        return "syntax"
    if is_ipv4(helo):               # not in brackets
        return "syntax"
    if helo[0] != "[":
        if lower_ascii(helo) in own_names:
            return "own-name"
        return "" if "." in helo else "short"
    literal = helo[1:-1]
    said = literal[5:] if literal[:5].lower() == "ipv6:" else literal
    if ip and parse_ip(said) == parse_ip(ip):
        return ""
    return "own-address" if own_ip and parse_ip(said) == parse_ip(own_ip) else "other-address"


class HeloCheck(StrangerCheck):
    """Notices odd HELO names as the mark ``helocheck``. *refuses*: those that cannot be true as well.
    A name that merely does not fit the address is never refused (RFC 5321 section 4.1.4)."""

    name = "helocheck"
    stage = "mail"

    def __init__(self, refuses: bool, own_names: frozenset[str], trusted: Networks) -> None:
        super().__init__(trusted)
        self._refuses = refuses
        self._own_names = own_names

    def judge(self, facts: Facts) -> Verdict:
        """550 5.7.1, or no opinion."""
        own_ip = _address_of(facts.listener) if facts.helo[:1] == "[" else ""
        found = judge_helo(facts.helo, facts.ip, self._own_names, own_ip)
        if not found:
            return NO_OPINION
        facts.marks["helocheck"] = found
        if not self._refuses or found not in _LIES:
            return NO_OPINION
        text = "says no host name" if found == "syntax" else "says that it is this host"
        return Verdict(REJECT, reply(550, "5.7.1", f"your {facts.verb or 'HELO'} {text}"), why=found)


def _address_of(place: str) -> str:
    """Of ``192.0.2.1:25`` or ``[2001:db8::1]:25``; without a port it is one. "" for no address."""
    host = place.rpartition(":")[0] if place.count(":") == 1 or place[:1] == "[" else place
    ip = host.strip("[]")
    return ip if is_ipv4(ip) or is_ipv6(ip) else ""


# --- its patience ---

class EarlyTalkers(StrangerCheck):
    """Notices who does not wait for the greeting (RFC 5321 section 4.3.1) or sends commands together
    before EHLO is answered (RFC 2920 section 3.1), as the mark ``earlytalkers``."""

    name = "earlytalkers"
    stage = "mail"

    def __init__(self, refuses: bool, trusted: Networks) -> None:
        super().__init__(trusted)
        self._refuses = refuses

    def judge(self, facts: Facts) -> Verdict:
        """550 5.5.0, or no opinion."""
        found = "greeting" if facts.early else "pipelining" if facts.hasty else ""
        if not found:
            return NO_OPINION
        facts.marks["earlytalkers"] = found
        if not self._refuses:
            return NO_OPINION
        text = "you spoke before you were greeted" if facts.early else "you sent commands too early"
        return Verdict(REJECT, reply(550, "5.5.0", text), why=found)
