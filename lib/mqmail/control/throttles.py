"""throttles: how much clients may do, each by itself and whole networks together."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.networks import parse_ip, parse_networks
from mqmail.control.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

MOST = 10_000_000
_KINDS = ("sessions", "rate", "messages", "recipients")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 7 * 86400
_WHOLE_SITE = 64        # host bits of an IPv6 network that one customer has (RFC 6177)
UNKNOWN = "unknown"     # the name under which all clients without an address are counted
_FORM = ("write NETWORK or *, then limits, or together and limits, or free; limits are sessions=N,"
         " sessions=N%, sessions=N,M%, rate=N/60s, messages=N/1h, recipients=N/1h")


@value
class Rate:
    """At most *most* within any *seconds*."""

    most: int
    seconds: int


def most_of(sessions: tuple[int, int], total: int) -> int:
    """A number of sessions, if there are *total* for all."""
    return max(1, sessions[0], total * sessions[1] // 100)


@value
class Limits:
    """*sessions* at a time: (number, per cent of all), of which the larger counts; *rate*: sessions that
    begin. None: no limit."""

    sessions: tuple[int, int] | None = None
    rate: Rate | None = None
    messages: Rate | None = None
    recipients: Rate | None = None

    def most_sessions(self, total: int) -> int | None:
        """How many at a time, if there are *total* for all."""
        return None if self.sessions is None else most_of(self.sessions, total)


_Table = dict[tuple[int, int], dict[int, Limits | None]]     # (width, host bits): number: limits


@value
class Throttles:
    """*each*: limits of each client in a network, None for those that are free; *together*: of all
    clients of a network as one. *others*: of each client in none; *everybody*: of all as one."""

    each: _Table
    together: _Table
    others: Limits | None
    everybody: Limits | None

    def of(self, ip: str) -> list[tuple[str, Limits]] | None:
        """What holds for a client: whose doings count together, by name, and their limits. None: it is
        free. A client is an IPv4 address, or a /64 of IPv6; all without an address are one."""
        try:
            width, number = parse_ip(ip)
        except ValueError:
            return self._with_everybody([(UNKNOWN, self.others or Limits())])
        own = self._own(width, number)
        if own is None:
            return None
        found = [(client_of(width, number), own)]
        for (family, shift), networks in self.together.items():
            limits = networks.get(number >> shift) if family == width else None
            if limits is not None:
                found.append((f"{width}/{shift}/{number >> shift:x}", limits))
        return self._with_everybody(found)

    def _with_everybody(self, found: list[tuple[str, Limits]]) -> list[tuple[str, Limits]]:
        return found if self.everybody is None else [*found, ("*", self.everybody)]

    def _own(self, width: int, number: int) -> Limits | None:
        """By the smallest network that holds it."""
        for (family, shift), networks in self.each.items():     # the smallest come first
            if family == width and number >> shift in networks:
                return networks[number >> shift]
        return self.others if self.others is not None else Limits()


def client_of(width: int, number: int) -> str:
    """The name under which a client is counted."""
    return f"4:{number:x}" if width == 32 else f"6:{number >> _WHOLE_SITE:x}"


def parse_throttles(lines: Lines, _me: str) -> Throttles:
    """Lines ``NETWORK|* [together] LIMIT …`` and ``NETWORK free``."""
    each: _Table = {}
    together: _Table = {}
    stars: dict[bool, Limits | None] = {}
    for line in lines:
        where, *words = line.split()
        is_together = words[:1] == ["together"]
        limits = None if words == ["free"] and where != "*" else _limits(words[is_together:])
        if where == "*":
            if is_together in stars:
                raise ValueError("* is given twice: remove one of the lines")
            stars[is_together] = limits
        else:
            _put(together if is_together else each, where, limits)
    return Throttles(_smallest_first(each), _smallest_first(together), stars.get(False), stars.get(True))


def _put(table: _Table, where: str, limits: Limits | None) -> None:
    ((width, shift), numbers), = parse_networks([where], "").networks.items()
    number, = numbers
    networks = table.setdefault((width, shift), {})
    if number in networks:
        raise ValueError(f"{where} is given twice: remove one of the lines")
    networks[number] = limits


def _smallest_first(table: _Table) -> _Table:
    return dict(sorted(table.items()))


def _limits(words: list[str]) -> Limits:
    found: dict[str, tuple[int, int] | Rate] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in _KINDS or name in found:
            raise ValueError(f"{word[:40]!a}: {_FORM}")
        found[name] = parse_sessions(text) if name == "sessions" else _rate(word, text)
    if not found:
        raise ValueError(f"no limit is given: {_FORM}")
    return Limits(**found)  # type: ignore[arg-type]


def parse_sessions(text: str) -> tuple[int, int]:
    """``20``, ``10%`` or ``20,10%``: (number, per cent of all)."""
    plain, comma, share = text.partition(",")
    if not comma and plain[-1:] == "%":
        plain, share = "0", plain
    percent = share[:-1] if share else "0"
    if not (is_number(plain) and int(plain) <= MOST and is_number(percent) and int(percent) <= 100) \
            or (comma and share[-1:] != "%") or not int(plain) + int(percent):
        raise ValueError(f"{text[:40]}: write a number of sessions, a share such as 10%, or 20,10% for"
                         " the larger of both")
    return int(plain), int(percent)


def _rate(word: str, text: str) -> Rate:
    """``100/60s``, ``100/1h``."""
    plain, _, time = text.partition("/")
    unit = _SECONDS.get(time[-1:], 0)
    seconds = int(time[:-1]) * unit if is_number(time[:-1]) else 0
    if not (is_number(plain) and 0 < int(plain) <= MOST and 0 < seconds <= _LONGEST):
        raise ValueError(f"{word[:40]!a}: {_FORM}; at most 7d")
    return Rate(int(plain), seconds)
