"""pressure: what xmtpd does while the queue does not keep up."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

MOST = 100_000_000
_STAGES = ("slow", "fewer", "refuse")
_FORM = "write full NUMBER, slow PERCENT%, fewer PERCENT% or refuse PERCENT%, each once"


@value
class Marks:
    """*full*: so many messages waiting are 100 % (0: they are not looked at). At *slow* per cent clients
    wait for some answers, at *fewer* there are fewer sessions, at *refuse* none."""

    full: int = 50000
    slow: int = 50
    fewer: int = 75
    refuse: int = 100


def parse_pressure(lines: Lines, _me: str) -> Marks:
    """Lines ``full 50000``, ``slow 50%``, ``fewer 75%``, ``refuse 100%``."""
    found: dict[str, int] = {}
    for line in lines:
        name, _, text = line.partition(" ")
        text = text.strip(" \t")
        number = text[:-1] if name in _STAGES and text[-1:] == "%" else text if name == "full" else ""
        if name in found or not is_number(number) or int(number) > (MOST if name == "full" else 1000):
            raise ValueError(f"{line[:60]!a}: {_FORM}")
        found[name] = int(number)
    marks = Marks(**found)
    if not 0 < marks.slow <= marks.fewer <= marks.refuse:
        raise ValueError("slow, fewer and refuse must not be in another order, and slow not 0%")
    return marks
