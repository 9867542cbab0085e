"""How often a login may be tried: by address (IPv6: by /64) and by account. Pure.

Each has a score: an attempt that begins adds one, a success takes it back, and time takes one in so
many seconds. A high score slows the answer; above its limit nothing is tried at all. Addresses
that an account has logged in from are not hindered by the account's score, so that nobody can keep
its owner out.

At a *shared* host (webmail) many log in from one address: it has no score of its own, and each account
one for that host alone. That one always counts: its owner may be there, and so may who guesses.
"""

from __future__ import annotations

import itertools

from mqmail.base.value import value
from mqmail.control.networks import NOBODY, Networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

MOST_KEYS = 10000       # scores of each kind, and accounts whose networks are known; see _make_room()
MOST_NETWORKS = 20      # known ones of an account; then the oldest is forgotten
LONGEST_DELAY = 8.0     # seconds
_FREE = 2.0             # failures that slow nothing
_SPARED = 50            # high scores that are passed over when room is made


@value
class Rules:
    """*most*: the score at which nothing is tried; *seconds* take one from it."""

    most: float
    seconds: float


ADDRESS = Rules(20.0, 60.0)
ACCOUNT = Rules(30.0, 60.0)


class Scores:
    """Key to score, in bounded memory."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._kept: dict[Hashable, tuple[float, float]] = {}        # (score, when), the oldest first

    def score(self, key: Hashable, now: float) -> float:
        """As it is *now*."""
        score, then = self._kept.get(key, (0.0, now))
        return max(0.0, score - (now - then) / self._rules.seconds)

    def full(self, key: Hashable, now: float) -> bool:
        """Whether one more would be too many."""
        return self.score(key, now) + 1.0 > self._rules.most

    def add(self, key: Hashable, points: float, now: float) -> None:
        """*points* may be less than 0."""
        score = max(0.0, self.score(key, now) + points)
        self._kept.pop(key, None)
        if score:
            if len(self._kept) >= MOST_KEYS:
                self._make_room(now)
            self._kept[key] = score, now

    def _make_room(self, now: float) -> None:
        """Forget the oldest score that slows nothing: else who names many logins, which costs him
        nothing, would have the score forgotten of the one whose password he guesses."""
        for key in list(itertools.islice(self._kept, _SPARED)):
            if self.score(key, now) <= _FREE:
                del self._kept[key]
                return
            self._kept[key] = self._kept.pop(key)       # looked at again when all others have been
        del self._kept[next(iter(self._kept))]

    def __len__(self) -> int:
        return len(self._kept)


class Guard:
    """Before an attempt ``begin_address`` and, when it is known, ``begin_account``; behind it ``undo``
    and ``success``, or ``delay`` for a failure."""

    shared: Networks = NOBODY

    def __init__(self, address: Rules = ADDRESS, account: Rules = ACCOUNT) -> None:
        self._addresses = Scores(address)
        self._accounts = Scores(account)
        self._known: dict[str, dict[str, None]] = {}        # account: networks it has logged in from

    def begin_address(self, ip: str, now: float) -> bool:
        """An attempt from *ip* begins: it counts as a failure until it is none. False: it must not."""
        network = self._network(ip)
        if network and self._addresses.full(network, now):
            return False
        if network:
            self._addresses.add(network, 1.0, now)
        return True

    def _network(self, ip: str) -> str:
        """Whose score counts; "" for none."""
        return "" if self.shared.contains(ip) else network_of(ip)

    def _account(self, ip: str, account: str) -> Hashable:
        return (account, network_of(ip)) if self.shared.contains(ip) else account

    def begin_account(self, ip: str, account: str, now: float) -> bool:
        """It is one for *account*. False: it must not go on."""
        key = self._account(ip, account)
        network = network_of(ip)
        hindered = key != account or not network or network not in self._known.get(account, ())
        if hindered and self._accounts.full(key, now):
            return False
        self._accounts.add(key, 1.0, now)
        return True

    def undo(self, ip: str, account: str, now: float) -> None:
        """It has succeeded, or came to nothing through no fault of the client's."""
        network = self._network(ip)
        if network:
            self._addresses.add(network, -1.0, now)
        if account:
            self._accounts.add(self._account(ip, account), -1.0, now)

    def success(self, ip: str, account: str) -> None:
        """Remember where the account's owner is (an address or network, and nothing of a client without
        one), of no account so much that others are forgotten."""
        network = network_of(ip)
        if not network:
            return
        networks = self._known.pop(account, {})
        networks.pop(network, None)
        for full, most in ((self._known, MOST_KEYS), (networks, MOST_NETWORKS)):
            if len(full) >= most:
                del full[next(iter(full))]
        networks[network] = None
        self._known[account] = networks

    def known(self) -> dict[str, tuple[str, ...]]:
        """The networks that accounts have logged in from, those of the last logins last."""
        return {account: tuple(networks) for account, networks in self._known.items()}

    def delay(self, ip: str, account: str, now: float) -> float:
        """Seconds that the answer to a failure waits: more with each."""
        network = self._network(ip)
        score = max(self._addresses.score(network, now) if network else 0.0,
                    self._accounts.score(self._account(ip, account), now) if account else 0.0)
        return 0.0 if score <= _FREE else min(LONGEST_DELAY, 0.25 * 2.0 ** min(score - _FREE, 10.0))


def network_of(ip: str) -> str:
    """What one host or site has: an IPv4 address, a /64 of IPv6; "" for no address."""
    if ":" not in ip:
        return ip
    head, double, tail = ip.lower().partition("::")
    groups = head.split(":") if head else []
    rest = tail.split(":") if double and tail else []
    if double:
        groups += ["0"] * (8 - len(groups) - len(rest) - ("." in tail)) + rest
    return ":".join([group.lstrip("0") or "0" for group in groups[:4]]) + "::/64"
