"""remotetimeouts and remotesessions: how long other hosts may take, how sessions with them are used."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.values import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqmail.control.lines import Lines

LONGEST = 86400     # seconds


@value
class RemoteTimeouts:
    """Seconds that a host may take at each step (RFC 5321 section 4.5.3.2; for starttls, auth, rset and
    quit it has none). *block*: to take a piece of the message; *end*: to answer when it has all."""

    greeting: int = 300
    hello: int = 300
    starttls: int = 120
    auth: int = 120
    mail: int = 300
    rcpt: int = 300
    data: int = 120
    block: int = 180
    end: int = 600
    rset: int = 20
    quit: int = 5


STEPS: tuple[str, ...] = RemoteTimeouts.__match_args__      # its fields


@value
class Sessions:
    """*idle*: seconds that an unused session is kept, 0 for not at all. *uses*, *age*: the most
    transactions over one session, and its seconds. *probe*: whether RSET finds out if a kept session
    lives. *start*, *most*: sessions with one host at a time, at first and ever."""

    idle: int = 5
    uses: int = 100
    age: int = 300
    probe: bool = False
    start: int = 5
    most: int = 20


LIMITS = {      # unit, lowest and highest
    "idle": ("seconds", 0, 3600), "uses": ("transactions", 1, 1000000), "age": ("seconds", 1, LONGEST),
    "start": ("sessions", 1, 10000), "most": ("sessions", 1, 10000),
}


def parse_timeouts(lines: Lines, _me: str) -> RemoteTimeouts:
    """Lines ``step seconds``."""
    return RemoteTimeouts(**{name: number(text, "seconds", 1, LONGEST)
                             for name, text in _settings(lines, STEPS)})


def parse_sessions(lines: Lines, _me: str) -> Sessions:
    """Lines ``name value``."""
    found: dict[str, int] = {}
    probe = False
    for name, text in _settings(lines, ("probe", *LIMITS)):
        if name == "probe":
            probe = _yes(text)
        else:
            found[name] = number(text, *LIMITS[name])
    most = found.get("most", Sessions().most)
    if found.get("start", 1) > most:
        raise ValueError(f"start {found['start']} is more than most {most}: write a smaller start or a"
                         " larger most")
    found.setdefault("start", min(most, Sessions().start))
    return Sessions(probe=probe, **found)


def _settings(lines: Lines, known: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The two words of each line, the first one of *known*, each once."""
    seen = set()
    for line in lines:
        name, text = (*line.split(None, 1), "")[:2]
        if name not in known or not text:
            raise ValueError(f"{line[:60]!a}: write a name and a value, the name one of"
                             f" {' '.join(known)}")
        if name in seen:
            raise ValueError(f"{name} is given twice: remove one of the lines")
        seen.add(name)
        yield name, text


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"probe {text!a}: write yes or no")
    return text == "yes"
