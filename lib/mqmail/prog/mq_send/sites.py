"""Sites: which domains share one, which are down and until when, and which mail waits for them. Pure.

A *site* is a name that a service gives with its verdicts (mq-rspawn: the best MX host): what is behind
it answers as one, or does not. A deferral with a time says that the site is down until then; any other
verdict that names the site says that it answers. Nothing of this outlives the process: recipients have
their times in their records, and a service is asked once more after a restart.

Times are seconds since the epoch; *fuzz* in [0, 1) is the caller's random number.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from math import ceil

from mqmail.base.value import value

MOST_KNOWN = 10_000         # domains, and as many sites; those not heard of for longest are forgotten
MOST_WAITING = 50_000       # recipients that can be brought forward; others come at their time
PROBE = 120.0               # seconds in which one message alone asks after a site that was down
_LEAST = 600.0
_STATUS = "4.4.1"           # RFC 3463: no answer from host


@value
class Hold:
    """Why nobody is asked about a recipient, and until when. *tried*: it counts as an attempt."""

    until: float
    status: str
    said: str
    host: str = ""
    tried: bool = True


class Site:
    """*until* when it is down (0: it is not, as far as we know), *retry* for how long that was said;
    *holder*: the message that asks first after that, *probed* until when it is alone; *waiting*: ids of
    messages with the recipients that wait for the site, *order*: these ids and old ones, a heap."""

    __slots__ = ("holder", "host", "name", "order", "probed", "retry", "said", "until", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.until = self.probed = self.retry = 0.0
        self.holder = self.host = self.said = ""
        self.waiting: dict[str, set[str]] = {}
        self.order: list[str] = []

    def is_down(self, now: float) -> bool:
        """Whether *until* has not come. A clock that was set back ends it."""
        return now < self.until <= now + self.retry + 1.0


def later(retry: float, fuzz: float) -> float:
    """How many seconds after the one that asks first the others come: 5 to 15 % of *retry*, and at
    least half a minute."""
    return (0.05 + 0.1 * fuzz) * max(retry, _LEAST)


class Sites:
    """What one destination's service has said of sites; at most *most* are known. False until then."""

    def __init__(self, most: int = MOST_KNOWN, most_waiting: int = MOST_WAITING) -> None:
        self._most = most
        self._most_waiting = most_waiting
        self._domains: OrderedDict[str, str] = OrderedDict()
        self._sites: OrderedDict[str, Site] = OrderedDict()
        self._waiting = 0       # recipients, of all sites

    def __bool__(self) -> bool:
        return bool(self._domains)

    def name(self, domain: str) -> str:
        """The domain's site; ``@domain`` while none is known."""
        return self._domains.get(domain) or f"@{domain}"

    def waiting(self, domain: str) -> int:
        """How many messages wait for the domain's site."""
        site = self._site(domain)
        return len(site.waiting) if site is not None else 0

    def _site(self, domain: str) -> Site | None:
        name = self._domains.get(domain)
        return self._sites.get(name) if name is not None else None

    # --- before a recipient is given to the service ---

    def hold(self, domain: str, id: str, now: float, fuzz: float) -> Hold | None:
        """None: ask. Else the domain's site is down, or message *id* is not the one that finds out
        whether it still is."""
        site = self._site(domain)
        if site is None or not site.until:
            return None
        if site.is_down(now):
            return Hold(site.until + later(site.retry, fuzz), _STATUS, site.said, site.host)
        if now < site.probed <= now + PROBE and id != site.holder:
            return Hold(now + later(site.retry, fuzz), _STATUS, site.said, site.host, tried=False)
        site.holder, site.probed = id, now + PROBE
        return None

    # --- when a verdict has come ---

    def fell(self, domain: str, name: str, id: str, now: float, retry: float, fuzz: float, host: str,
             said: str) -> tuple[float, bool]:
        """The service could not reach site *name* for message *id*, and says that it tries again in
        *retry* seconds. When the recipient is due again, and whether this is news. The message that
        brings the news is the first to ask again."""
        site = self._learn(domain, name, id)
        until = float(ceil(now + retry))    # records have whole seconds; less would be too soon
        news = not site.is_down(now)
        if news:
            site.holder, site.retry = id, retry
        site.until = until if news else min(site.until, until)
        site.host, site.said, site.probed = host, said, 0.0
        if id == site.holder:
            return site.until, news
        return site.until + later(site.retry, fuzz), news

    def answered(self, domain: str, name: str, id: str, seq: str) -> bool:
        """A verdict on recipient *seq* of *id* shows that site *name* (or, when the service did not say,
        the domain's) answers. Whether it was down."""
        site = self._learn(domain, name, id) if name else self._site(domain)
        if site is None:
            return False
        was_down = bool(site.until)
        site.until = site.probed = 0.0
        seqs = site.waiting.get(id)
        if seqs is not None and seq in seqs:
            seqs.discard(seq)
            self._waiting -= 1
            if not seqs:
                del site.waiting[id]
        return was_down

    def _learn(self, domain: str, name: str, id: str = "") -> Site:
        """The site of that name, which is the domain's, as we know from message *id*."""
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = Site(name)
        else:
            self._sites.move_to_end(name)
        former = self._domains.get(domain, "")
        self._domains[domain] = name
        self._domains.move_to_end(domain)
        if former != name and former in self._sites:
            self._leave(former, site, id)
        if len(self._domains) > self._most:
            self._domains.popitem(last=False)
        if len(self._sites) > self._most:
            _, gone = self._sites.popitem(last=False)
            self._waiting -= sum([len(seqs) for seqs in gone.waiting.values()])
        return site

    def _leave(self, name: str, site: Site, id: str) -> None:
        """A domain has another site than we thought. If *id* was to find out whether the former one is
        down, then nobody knows that."""
        former = self._sites[name]
        if former.probed and former.holder == id:
            former.until = former.probed = 0.0
        if name[:1] == "@":
            self._merge(self._sites.pop(name), site)

    def _merge(self, former: Site, site: Site) -> None:
        """What waited for a domain waits for its site."""
        for id, seqs in former.waiting.items():
            known = site.waiting.get(id)
            if known is None:
                site.waiting[id] = seqs
                heappush(site.order, id)
            else:
                self._waiting -= len(known & seqs)
                known |= seqs

    # --- mail that waits ---

    def is_open(self, domain: str, now: float) -> bool:
        """Whether the domain's site is not known to be down, nor being asked after."""
        site = self._site(domain)
        return site is None or not site.is_down(now) and not now < site.probed

    def wait(self, domain: str, id: str, seqs: set[str]) -> None:
        """Recipients *seqs* of *id* wait for the domain's site, and for nothing else."""
        if self._waiting + len(seqs) > self._most_waiting:
            return
        site = self._site(domain) or self._learn(domain, self.name(domain))
        known = site.waiting.get(id)
        if known is None:
            known = site.waiting[id] = set()
            self._push(site, id)
        self._waiting += len(seqs - known)
        known |= seqs

    def _push(self, site: Site, id: str) -> None:
        if len(site.order) > 2 * len(site.waiting) + 100:       # many that wait no longer
            site.order = list(site.waiting)
            heapify(site.order)
        else:
            heappush(site.order, id)

    def release(self, domain: str, most: int) -> list[tuple[str, frozenset[str]]]:
        """The oldest messages, at most *most*, that wait for the domain's site, with the recipients that
        do; they are not remembered any longer."""
        site = self._site(domain)
        found: list[tuple[str, frozenset[str]]] = []
        while site is not None and site.order and len(found) < most:
            id = heappop(site.order)
            seqs = site.waiting.pop(id, None)
            if seqs is not None:
                self._waiting -= len(seqs)
                found.append((id, frozenset(seqs)))
        return found
