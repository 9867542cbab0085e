"""dnsbl: the lists in DNS that are asked about a client's address, and what their answers count."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.networks import parse_networks
from mqmail.control.values import LONGEST_TEXT, ascii_domain, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines
    from mqmail.control.networks import Networks

MOST_LISTS = 32
LONGEST_ZONE = 180          # with an IPv6 address in front of it, still a name
HIGHEST = 1000


@value
class ListedBy:
    """*zone*, in lower case. *white*: it lists good hosts. *answers*: those that count, None for all
    that mean a listing. *weight*: what they add to a client's score, or of a white list take away; 0
    for a white list that outweighs all others. *text*: the reply with ``%i`` for the address; "": the
    list's own."""

    zone: str
    white: bool = False
    answers: Networks | None = None
    weight: int = 1
    text: str = ""


@value
class Lists:
    """A client whose score reaches *threshold* is refused."""

    lists: tuple[ListedBy, ...] = ()
    threshold: int = 1


def parse_dnsbl(lines: Lines, _me: str) -> Lists:
    """Lines ``[!]ZONE [answer=ADDRESS,NETWORK…] [weight=N] [text]`` and ``threshold=N``."""
    found: dict[str, ListedBy] = {}
    threshold = 0
    for line in lines:
        if line.startswith("threshold="):
            if threshold:
                raise ValueError("threshold= is given twice: remove one of the lines")
            threshold = number(line.partition("=")[2], "points", 1, HIGHEST)
            continue
        one = _parse_line(line)
        if one.zone in found:
            raise ValueError(f"{one.zone} is given twice: remove one of the lines")
        found[one.zone] = one
        if len(found) > MOST_LISTS:
            raise ValueError(f"more than {MOST_LISTS} lists: each session would ask all of them")
    return Lists(tuple(found.values()), threshold or 1)


def _parse_line(line: str) -> ListedBy:
    name, *words = line.split(" ")
    white = name[:1] == "!"
    zone = ascii_domain(name[1:] if white else name).lower()
    if "." not in zone or zone[0] == "[" or len(zone) > LONGEST_ZONE:
        raise ValueError(f"{name[:60]!a} is not a zone: write one such as dnsbl.example.org")
    options: dict[str, str] = {}
    while words and (not words[0] or words[0].startswith(("answer=", "weight="))):
        option, _, text = words.pop(0).partition("=")
        if option in options:
            raise ValueError(f"{option}= is given twice")
        if option:
            options[option] = text
    answers = _answers(options["answer"]) if "answer" in options else None
    weight = number(options["weight"], "points", 1, HIGHEST) if "weight" in options else int(not white)
    return ListedBy(zone, white, answers, weight, _text(" ".join(words)))


def _answers(text: str) -> Networks:
    found = parse_networks(text.split(","), "")
    if any([width != 32 for width, _ in found.networks]):
        raise ValueError(f"answer={text[:60]}: lists answer with IPv4 addresses, such as 127.0.0.2")
    return found


def _text(text: str) -> str:
    """ASCII that fits into a reply."""
    if not text.isascii() or "\t" in text or len(text) > LONGEST_TEXT - 100:
        raise ValueError(f"write at most {LONGEST_TEXT - 100} ASCII characters behind the zone, without"
                         " tabs")
    return text
