"""One line's session with its host: opened, used again, replaced when it is no more use. Both shells."""

from __future__ import annotations

from mqmail.base import program
from mqmail.mail.address import domain_of
from mqmail.net.expired import Expired
from mqmail.remote.opening import Unreachable, open_session
from mqmail.remote.sending import FINAL, Sending
from mqmail.remote.verdicts import NOBODY, marked, put_off

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mqmail.remote.opening import Peer
    from mqmail.remote.request import Request
    from mqmail.remote.sending import Answer, Message
    from mqmail.remote.settings import Settings
    from mqmail.remote.shells import Shell
    from mqmail.xmtp.reply import Reply

SLOWEST = 1000              # octets of a body a second, that a peer has to take
_ANY = 1 << 30
NOT_REACHED = "reached=no"
_TOO_LONG = put_off("4.4.2", NOBODY, "the host took too long")
_INTERNAL = put_off("4.3.0", NOBODY, "internal trouble")


class Carrier:
    """Messages to one host, one after the other. *settings()*: those in force."""

    def __init__(self, request: Request, settings: Callable[[], Settings], shell: Shell) -> None:
        self._request = request
        self._current = settings
        self._settings = settings()
        self._shell = shell
        self._peer: Peer | None = None

    async def open(self) -> Peer:
        """A session with the host. Raises Unreachable."""
        self.close()
        self._settings = self._current()
        self._peer = await open_session(self._request, self._settings, self._shell)
        return self._peer

    def close(self) -> None:
        """Say QUIT, if there is a session, and end it."""
        if self._peer is not None:
            self._peer.session.close()
            self._peer = None

    async def carry(self, message: Message, answer: Answer) -> None:
        """Send *message*; each of its recipients is answered once, whatever comes of it."""
        left = set(range(len(message.recipients)))

        def told(numbers: Iterable[int], verdict: Reply) -> None:
            now = [n for n in numbers if n in left]
            left.difference_update(now)
            if now:
                answer(now, verdict)

        try:
            while left:
                before = len(left)
                await self._some(message, left, told)
                if len(left) == before:
                    raise RuntimeError("a transaction without a verdict")
        except Unreachable as failure:
            told(sorted(left), marked(failure.verdict, NOT_REACHED))
        except Expired:         # the command's own limit
            self.close()
            told(sorted(left), marked(_TOO_LONG, FINAL))
        except Exception as error:  # noqa: BLE001  a bug of ours is temporary
            self.close()
            told(sorted(left), internal(error, message.mail.xid))

    async def _some(self, message: Message, left: set[int], told: Answer) -> None:
        """One transaction, with as many as the host takes. It is done again over a fresh session when
        an old one turns out to be of no more use."""
        peer = await self._usable()
        if await self._over(peer, message, _fitting(peer, message, left), told):
            peer = await self.open()
            await self._over(peer, message, _fitting(peer, message, left), told)
        if peer.session.broken:
            self.close()

    async def _over(self, peer: Peer, message: Message, numbers: list[int], told: Answer) -> bool:
        seconds = 3 * self._settings.timeouts.most + message.size / SLOWEST
        limit = self._shell.limit(peer.session, seconds)
        try:
            return await Sending(message, peer, self._shell, told).run(numbers)
        finally:
            limit.cancel()

    async def _usable(self) -> Peer:
        """The session we have, if it is good for one more transaction; else another."""
        peer = self._peer
        if peer is None or not self._may_be_used(peer) or not peer.session.alive():
            return await self.open()
        if self._settings.probe and peer.session.used and not await peer.session.probe():
            return await self.open()
        return peer

    def _may_be_used(self, peer: Peer) -> bool:
        """Within its age and number of transactions, the host's own limit among them (RFC 9422)."""
        most = min(self._settings.uses, _limit(peer, "MAILMAX", self._settings.uses))
        return peer.session.used < most and self._shell.now() - peer.made < self._settings.age


def internal(error: BaseException, id: str = "") -> Reply:
    """The verdict when we met a bug of ours, which goes into the log."""
    program.bug(error, id=id)
    return _INTERNAL


def _fitting(peer: Peer, message: Message, left: set[int]) -> list[int]:
    """As many of *left*, of as many domains, as the host takes at a time (RFC 9422 section 4)."""
    most, most_domains = _limit(peer, "RCPTMAX", _ANY), _limit(peer, "RCPTDOMAINMAX", _ANY)
    found: list[int] = []
    domains: set[str] = set()
    for number in sorted(left):
        domain = domain_of(message.recipients[number].address)
        if len(found) < most and (domain in domains or len(domains) < most_domains):
            domains.add(domain)
            found.append(number)
    return found


def _limit(peer: Peer, name: str, default: int) -> int:
    """What the host's LIMITS say (RFC 9422 section 4); *default* if nothing sensible."""
    for word in peer.session.features.get("LIMITS", "").upper().split():
        key, _, number = word.partition("=")
        if key == name and number.isascii() and number.isdigit() and len(number) < 7 and int(number):
            return int(number)
    return default
