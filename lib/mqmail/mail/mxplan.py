"""The plan for one message: which host gets which recipients next. Pure; no network, no clock.

The caller looks up domains (``lookups``, ``found``, ``failed``), carries out transfers (``transfers``)
and says what became of them (``connected``, ``unreachable``, ``answered``, ``ended``), in any order.

* A next hop is a host, a port and the way it is spoken to: what differs in one of them is another host
  to the plan, and shares neither transfers nor lists.
* Domains with equal MX lists are one *site* from then on, unless the first is on its way already.
* The first untried site goes to one of its best hosts, together with all other untried sites that
  have this host among their best; up to 100 recipients go in one transfer.
* Of several best hosts the one that most sites share is taken; among equals one at random, as RFC 5321
  section 5.1 asks.
* 2xx and 5xx are final. A site with a 2xx has its 4xx recipients wait for another day; one without
  goes on to its next host, without those that got 5xx.
* A host that cannot be reached is taken off all lists. Until it has been reached once, no second
  transfer tries it. If it only refuses further connections, it gets fewer at a time.
* A site whose hosts are used up is given what was said: a reply rather than a failed connection, and
  a final word only if nobody said anything else.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    from mqmail.mail.mxlist import Choice, Way

    Hop = tuple[str, int, Way]      # host, port, way

    class Verdict(Protocol):
        """A reply: 2xx, 4xx or 5xx."""

        @property
        def code(self) -> int:
            """Three digits."""

MOST_LOOKUPS = 50           # domains looked up at a time
MOST_RECIPIENTS = 100       # of one transfer: what every server takes (RFC 5321 4.5.3.1.8)
_ANY = 1 << 30


class _Site:
    """Domains with one MX list. *words*: why its hosts could not be reached."""

    __slots__ = ("fresh", "hosts", "left", "primary", "words")

    def __init__(self, hosts: tuple[tuple[int, Hop], ...]) -> None:
        self.hosts = hosts                      # by preference
        self.primary: tuple[Hop, ...] = ()      # those of the best preference
        self.left: dict[int, None] = {}         # recipients without a verdict, in order
        self.words: Verdict | None = None
        self.fresh = True                       # no host has been tried for it


class _Host:
    """What is known of a host in this run."""

    __slots__ = ("limit", "reached", "running")

    def __init__(self) -> None:
        self.running = 0
        self.reached = False
        self.limit = _ANY       # connections that it takes

    def takes_more(self) -> bool:
        """Whether another transfer may begin now."""
        return self.running < self.limit if self.reached else not self.running


class _Group:
    """Sites at one of their hosts, and what is left to be sent there."""

    __slots__ = ("hop", "running", "served", "site_of", "waiting")

    def __init__(self, hop: Hop, sites: Sequence[_Site]) -> None:
        self.hop = hop
        self.running = 0
        self.site_of = {number: site for site in sites for number in site.left}
        self.served: set[_Site] = set()         # that got a 2xx
        numbers = list(self.site_of)
        self.waiting = [numbers[i:i + MOST_RECIPIENTS] for i in range(0, len(numbers), MOST_RECIPIENTS)]


class Transfer:
    """One transaction to be: *recipients* go to *choice*. ``open``: those without an answer."""

    __slots__ = ("_group", "choice", "open", "recipients")

    def __init__(self, group: _Group, choice: Choice, recipients: list[int]) -> None:
        self._group = group
        self.choice = choice
        self.recipients = tuple(recipients)
        self.open = set(recipients)


class Plan:
    """*domains*: that of each recipient. At most *most* transfers at a time. *pick(hops)* takes one at
    random. *tell(number, verdict)* is called once for each recipient."""

    def __init__(self, domains: Sequence[str], most: int, pick: Callable[[Sequence[Hop]], Hop],
                 tell: Callable[[int, Verdict], None]) -> None:
        self._most = most
        self._pick = pick
        self._tell = tell
        self._recipients: dict[str, list[int]] = {}
        for number, domain in enumerate(domains):
            self._recipients.setdefault(domain, []).append(number)
        self._unasked = list(reversed(self._recipients))
        self._asking: set[str] = set()
        self._choices: dict[Hop, Choice] = {}
        self._merged: dict[tuple[tuple[int, Hop], ...], _Site] = {}
        self._untried: dict[_Site, None] = {}               # in order
        self._shared: dict[Hop, dict[_Site, None]] = {}     # untried sites that have it among their best
        self._groups: list[_Group] = []
        self._hosts: dict[Hop, _Host] = {}
        self._dead: dict[Hop, Verdict] = {}
        self._said: dict[int, Verdict] = {}                 # the last 4xx of a recipient
        self._running = 0
        self._over: Verdict | None = None

    def release(self) -> None:
        """All is over: let go of *tell*, which leads back to us, or only the collector would free us."""
        self._tell = _nobody

    @property
    def looking(self) -> bool:
        """Whether a domain's hosts are not known yet."""
        return bool(self._unasked or self._asking)

    @property
    def finished(self) -> bool:
        """Whether every recipient has its verdict."""
        return not (self._unasked or self._asking or self._untried or self._groups)

    @property
    def stuck(self) -> bool:
        """Whether nothing is under way: no look-up, no transfer."""
        return not self._asking and not self._running

    # --- what is to be done ---

    def lookups(self) -> list[str]:
        """The domains to look up now, 50 at a time."""
        count = min(MOST_LOOKUPS - len(self._asking), len(self._unasked))
        domains = [self._unasked.pop() for _ in range(count)]
        self._asking.update(domains)
        return domains

    def transfers(self) -> list[Transfer]:
        """The transfers to begin now."""
        found: list[Transfer] = []
        while self._running < self._most:
            transfer = self._next()
            if transfer is None:
                break
            found.append(transfer)
        return found

    def _next(self) -> Transfer | None:
        for group in self._groups:
            if group.waiting and self._hosts[group.hop].takes_more():
                return self._begin(group)
        while self._untried:
            group = self._group(next(iter(self._untried)))
            if self._hosts[group.hop].takes_more():
                return self._begin(group)
        return None

    def _group(self, first: _Site) -> _Group:
        """*first* and all untried sites that share the host it goes to."""
        shared = [len(self._shared[hop]) for hop in first.primary]
        hop = self._pick([h for h, n in zip(first.primary, shared, strict=True) if n == max(shared)])
        sites = [first, *[site for site in self._shared[hop] if site is not first]]
        for site in sites:
            self._leave(site)
            site.fresh = False
        group = _Group(hop, sites)
        self._groups.append(group)
        self._hosts.setdefault(hop, _Host())
        return group

    def _begin(self, group: _Group) -> Transfer:
        self._hosts[group.hop].running += 1
        group.running += 1
        self._running += 1
        return Transfer(group, self._choices[group.hop], group.waiting.pop(0))

    # --- look-ups ---

    def found(self, domain: str, choices: Iterable[Choice]) -> None:
        """The hosts of *domain*, at least one."""
        self._asking.discard(domain)
        choices = list(choices)
        ranks = sorted({choice.preference for choice in choices})
        for choice in choices:
            known = self._choices.setdefault(choice.hop, choice)
            if known.trouble and not choice.trouble:        # another look-up knew better
                self._choices[choice.hop] = choice
        key = tuple(sorted([(ranks.index(c.preference), c.hop) for c in choices],
                           key=lambda ranked: (ranked[0], ranked[1][:2])))
        site = self._merged.get(key)
        if site is None or not site.fresh or site.hosts != key:
            site = self._merged[key] = _Site(key)
        site.left.update(dict.fromkeys(self._recipients[domain]))
        if site not in self._untried:
            self._enter(site)

    def failed(self, domain: str, verdict: Verdict) -> None:
        """*domain* has no hosts."""
        self._asking.discard(domain)
        for number in self._recipients[domain]:
            self._tell(number, verdict)

    # --- transfers ---

    def connected(self, transfer: Transfer) -> None:
        """The host has been reached."""
        self._hosts[transfer._group.hop].reached = True

    def unreachable(self, transfer: Transfer, verdict: Verdict) -> None:
        """There was no session for *transfer*, or none that could be used, for the reason *verdict*."""
        group, host = transfer._group, self._hosts[transfer._group.hop]
        self._leave_host(group)
        left = [number for number in transfer.recipients if number in transfer.open]
        group.waiting[:0] = [left] if left and self._over is None else []
        if host.running:
            host.limit = host.running
            self._close_if_done(group)
        else:
            self._bury(group.hop, verdict)

    def answered(self, transfer: Transfer, number: int, verdict: Verdict, final: bool = False) -> None:
        """One recipient's answer. *final*: no other host is to be asked; of 2xx and 5xx that is so."""
        transfer.open.discard(number)
        if 400 <= verdict.code < 500 and not final:
            self._said[number] = verdict
            return
        site = transfer._group.site_of[number]
        if verdict.code < 500:
            transfer._group.served.add(site)
        del site.left[number]
        self._said.pop(number, None)
        self._tell(number, verdict)

    def ended(self, transfer: Transfer) -> None:
        """The transfer is over; every recipient of it has been answered."""
        if transfer.open:
            raise ValueError(f"recipients without an answer: {sorted(transfer.open)}")
        self._leave_host(transfer._group)
        self._close_if_done(transfer._group)

    def give_up(self, verdict: Verdict) -> None:
        """Begin nothing more; those that have heard nothing get *verdict*."""
        self._over = verdict
        while self._unasked:
            self.failed(self._unasked.pop(), verdict)
        for site in list(self._untried):
            self._leave(site)
            self._end(site)
        for group in list(self._groups):
            group.waiting = []
            self._close_if_done(group)

    def _leave_host(self, group: _Group) -> None:
        self._hosts[group.hop].running -= 1
        group.running -= 1
        self._running -= 1

    def _bury(self, hop: Hop, verdict: Verdict) -> None:
        """Off all lists with *hop*; where it is not among the best, when its turn comes."""
        self._dead[hop] = verdict
        for site in list(self._shared.get(hop, ())):
            self._leave(site)
            self._enter(site)
        for group in [g for g in self._groups if g.hop == hop]:
            group.waiting = []
            for site in group.served:
                site.words = verdict
            self._close_if_done(group)

    def _close_if_done(self, group: _Group) -> None:
        """When all of a group's transfers are over its sites go on, or wait."""
        if group.waiting or group.running:
            return
        self._groups.remove(group)
        for site in dict.fromkeys(group.site_of.values()):
            if site in group.served:
                self._end(site)
            else:
                self._enter(site, tried=group.hop)

    # --- sites ---

    def _enter(self, site: _Site, tried: Hop | None = None) -> None:
        """Among the untried, at the best of the hosts that are left."""
        hosts = site.hosts
        for _, hop in hosts:
            if hop in self._dead:
                site.words = _weightier(site.words, self._dead[hop])
        site.hosts = tuple([h for h in hosts if h[1] not in self._dead and h[1] != tried])
        if not site.hosts or not site.left or self._over is not None:
            return self._end(site)
        site.primary = tuple([hop for preference, hop in site.hosts if preference == site.hosts[0][0]])
        self._untried[site] = None
        for hop in site.primary:
            self._shared.setdefault(hop, {})[site] = None
        return None

    def _leave(self, site: _Site) -> None:
        del self._untried[site]
        for hop in site.primary:
            del self._shared[hop][site]

    def _end(self, site: _Site) -> None:
        """Nobody else is asked for *site* today."""
        for number in site.left:
            verdict = self._said.pop(number, None) or site.words or self._over
            assert verdict is not None
            self._tell(number, verdict)
        site.left = {}


def _weightier(old: Verdict | None, new: Verdict) -> Verdict:
    """The first one; but one that is final only if there is no other."""
    return new if old is None or old.code >= 500 > new.code else old


def _nobody(_number: int, _verdict: Verdict) -> None:
    """Who is told when all is over."""
