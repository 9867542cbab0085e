"""When a message is tried again, and when that ends. Times are seconds since the epoch."""

from __future__ import annotations

from math import sqrt

SKIP_LOCAL = 10
SKIP_REMOTE = 20
SET_BACK = 10.0      # seconds that a clock goes back before it counts as set
FUZZ = 0.1           # the part of the interval that fuzz=1 would add


def next_attempt(arrived: float, now: float, skip: int = SKIP_REMOTE, fuzz: float = 0.0) -> float:
    """The time of the next attempt, always at least a second after *now*.

    qmail's quadratic schedule: attempt n comes (n * skip) ** 2 seconds after the arrival, so that
    an hour more for a message a day old counts as ten minutes for one an hour old; an attempt made
    late moves the later ones. *skip* is 20 for remote and 10 for local destinations. *fuzz* in [0, 1)
    is the caller's random number; it lengthens the interval by up to a tenth, so that messages
    deferred together do not come back together. A clock set back makes a message newborn: what
    waited for minutes does not wait for years.
    """
    born = min(arrived, now)
    root = int(sqrt(now - born)) + max(skip, 1)
    interval = max(born + root * root - now, 1.0)
    return now + interval * (1.0 + FUZZ * fuzz)


def expired(arrived: float, now: float, lifetime: float) -> bool:
    """Whether a message is older than *lifetime* seconds. To be asked after an attempt, so that a
    clock that jumps forward costs no message its last chance."""
    return now - arrived > lifetime
