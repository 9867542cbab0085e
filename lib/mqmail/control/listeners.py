"""listeners: where SMTP is spoken, and with whom."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.hosts import parse_listener
from mqmail.control.networks import NOBODY, Networks, networks_of
from mqmail.control.optionsets import ROLES, check_name
from mqmail.control.values import facts
from mqmail.mail.address import is_destination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mqmail.control.destinations import Destinations
    from mqmail.control.lines import Lines
    from mqmail.control.optionsets import OptionSets

LONGEST_PATH = 100      # sun_path, with the name under which a socket is made first
_FACTS = ("role", "set", "proxy", "xclient", "destination")


@value
class Listener:
    """*address* and *port*, or *path* of a Unix socket. *options*: the name of an option set, or "".
    From *proxy* comes the PROXY protocol; *xclient* may say XCLIENT. *destination*: whose service gets
    the mail first, "" for new."""

    address: str = ""
    port: int = 0
    path: str = ""
    role: str = "mx"
    options: str = ""
    proxy: Networks = NOBODY
    xclient: Networks = NOBODY
    destination: str = ""

    @property
    def place(self) -> str:
        """``127.0.0.1:25``, ``[::1]:25``, ``unix:/path``; "" for one that is nowhere."""
        if self.path or not self.address:
            return f"unix:{self.path}" if self.path else ""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


    def at(self, address: str, port: int, path: str = "") -> Listener:
        """The same in another place."""
        return Listener(address, port, path, self.role, self.options, self.proxy, self.xclient,
                        self.destination)


class Listeners(tuple[Listener, ...]):
    """What the file says. ``numbers``: the line of each place."""

    numbers: dict[str, int]


def parse_listeners(lines: Lines, _me: str) -> Listeners:
    """Lines ``PLACE [role=ROLE] [set=NAME] [proxy=NETWORK,…] [xclient=NETWORK,…] [destination=NAME]``"""
    found: list[Listener] = []
    numbers: dict[str, int] = {}
    for line in lines:
        one = parse_line(line)
        if one.place in numbers:
            raise ValueError(f"{one.place} is given twice: remove one of the lines")
        found.append(one)
        numbers[one.place] = lines.number
    listeners = Listeners(found)
    listeners.numbers = numbers
    return listeners


def parse_line(line: str) -> Listener:
    """One of them."""
    place, *words = line.split()
    given = facts(words, _FACTS)
    role = given.get("role", "mx")
    if role not in ROLES:
        raise ValueError(f"role={role}: write one of {', '.join(ROLES)}")
    options = given.get("set", "")
    if options:
        check_name(options)
    destination = check_destination(given.get("destination", ""))
    address, port, path = _place(place)
    return Listener(address, port, path, role, options, networks_of(given.get("proxy", "")),
                    networks_of(given.get("xclient", "")), destination)


def check_destination(name: str) -> str:
    """What mail may be given as its first destination, "" for new. Raises ValueError."""
    if name == "error" or (name and not is_destination(name)):
        raise ValueError(f"destination={name}: write the name of a destination, and not error, which"
                         " makes reports")
    return "" if name == "new" else name


def given_destinations(listeners: Iterable[Listener]) -> frozenset[str]:
    """Those that mail may have when it comes from xmtpd, besides new."""
    return frozenset([one.destination for one in listeners if one.destination])


def unknown_destinations(path: str, listeners: Iterable[Listener], known: Destinations) -> list[str]:
    """What is wrong with *listeners* that give mail to destinations not in *known*."""
    found = []
    for one in listeners:
        name = one.destination
        if name and known.lookup(name) is None:
            where = _where(path, listeners, one, f"--destination {name}")
            found.append(f"{where}: there is no destination {name}: write one into control/destinations")
    return found


def _where(path: str, listeners: Iterable[Listener], one: Listener, option: str) -> str:
    if isinstance(listeners, Listeners):
        return f"{path} line {listeners.numbers[one.place]}: {one.place}"
    return f"{path}: {one.place}" if one.place else option


def _place(text: str) -> tuple[str, int, str]:
    if text[:5] != "unix:":
        return *parse_listener(text), ""
    path = text[5:]
    if path[:1] != "/" or path[-1:] == "/" or len(path.encode()) > LONGEST_PATH:
        raise ValueError(f"{text!a}: write unix: and an absolute path of at most {LONGEST_PATH} bytes")
    return "", 0, path


def unmet(path: str, listeners: Iterable[Listener], sets: OptionSets, has_tls: bool) -> Iterator[str]:
    """What *listeners*, from *path* or (without a place) the command line, want and other files do not
    have. *has_tls*: there is a certificate."""
    for one in listeners:
        options = sets.options(one.role, one.options)
        where = _where(path, listeners, one, f"--role {one.role}")
        if one.options and not sets.has(one.options):
            yield f"{where}: there is no option set {one.options}: write one into control/optionsets"
        elif one.role == "mx" and options.clientcert == "ask":
            yield (f"{where}: clientcert=ask is not for mx: many hosts have a certificate that nobody"
                   " vouches for, and would be refused")
        elif options.tls in ("require", "implicit") and not has_tls:
            yield (f"{where} is for clients with TLS, and there is no certificate: write one into"
                   " control/tlscertificates, or tls=none into control/optionsets")
