"""mq-route: prints how mail for some addresses would go, and sends nothing.

Usage:
  mq-route [--home DIR] [-f SENDER] ADDRESS ...
  mq-route --help

Options:
  --home DIR                  the mqmail home (default: $MQMAIL_HOME or /var/mqmail)
  -f SENDER, --sender SENDER  the envelope sender (default: the null sender, that of reports)
  --help                      this text

Looks up what mq-rspawn would, and plans as it does for one message to all the addresses.
"""

from __future__ import annotations

import random

from mqmail.base import program, xtext
from mqmail.base.failure import EXIT_PERMANENT, EXIT_TEMPORARY, Usage
from mqmail.base.waiter import Running
from mqmail.control import reader
from mqmail.mail.address import BadAddress, is_ipv6, parse_address, written_domain_of
from mqmail.mail.mxlist import NoHosts
from mqmail.mail.mxplan import Plan
from mqmail.net import daemon, mx
from mqmail.net.stream import Deadlines
from mqmail.xmtp.reply import reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.mail.mxlist import Choice
    from mqmail.mail.mxplan import Verdict

_TAKEN = reply(250, "2.0.0", "taken")


def main(argv: list[str]) -> int:
    """Print the plan; mq-route(8) has the exit codes."""
    home, _, found = daemon.arguments(__doc__, argv)
    addresses = [_address(word) for word in found["ADDRESS"]]       # type: ignore[attr-defined]
    sender = str(found["--sender"] or "<>")
    daemon.enter(home)
    route = Route("" if sender == "<>" else _address(sender), addresses)
    route.look_up()
    print("\n".join(route.lines()))
    return route.code


def _address(word: str) -> str:
    try:
        return parse_address(word)
    except BadAddress as error:
        raise Usage(f"{word!a} is no address: {error}") from None


class Route:
    """A message from *sender* to *addresses* that is never sent."""

    def __init__(self, sender: str, addresses: list[str]) -> None:
        self.code = 0
        self._sender = sender
        self._addresses = addresses
        self._loop = daemon.new_loop()
        control = reader.load(".", mx.CONTROL)
        self._finder = mx.from_control(self._loop, Deadlines(self._loop), control)
        self._domains = [written_domain_of(address) for address in addresses]
        self._plan = Plan(self._domains, len(addresses), random.choice, self._tell)
        self._found: dict[str, list[Choice]] = {}
        self._refused: list[str] = []

    def look_up(self) -> None:
        """All domains."""
        self._loop.call_soon(self._begin)
        self._loop.run_forever()
        self._loop.close()

    def _begin(self) -> None:
        """The next look-ups."""
        for domain in self._plan.lookups():
            Running(self._one(domain), self._ended)

    def _ended(self, _result: object, error: BaseException | None) -> None:
        if error is not None:
            program.bug(error)
            self.code = EXIT_TEMPORARY
            self._loop.stop()
        elif self._plan.looking:
            self._loop.call_soon(self._begin)
        else:
            self._loop.stop()

    async def _one(self, domain: str) -> None:
        found = self._finder.known(domain, self._sender) or await self._finder.find(domain, self._sender)
        if not isinstance(found, NoHosts):
            self._found[domain] = found
            self._plan.found(domain, found)
            return
        final = found.status[0] == "5"
        self.code = EXIT_PERMANENT if final or self.code == EXIT_PERMANENT else EXIT_TEMPORARY
        self._plan.failed(domain, reply(550 if final else 451, found.status, found.why))

    def _tell(self, number: int, verdict: Verdict) -> None:
        if verdict.code >= 400:
            self._refused.append(f"{self._addresses[number]}: {verdict.said()}")  # type: ignore[attr-defined]

    def lines(self) -> list[str]:
        """What was found, and the transactions if every host takes everything."""
        out: list[str] = []
        for domain in dict.fromkeys(self._domains):
            if domain in self._found:
                out.append(f"{domain}:")
                out += [f"  {self._host(domain, choice)}" for choice in self._found[domain]]
        while transfers := self._plan.transfers():
            for transfer in transfers:
                self._plan.connected(transfer)
                choice = transfer.choice
                out.append(f"to {_place(choice)} {xtext.facts(choice.way.facts())} in one transaction:")
                out += [f"  {self._addresses[number]}" for number in transfer.recipients]
                for number in transfer.recipients:
                    self._plan.answered(transfer, number, _TAKEN)
                self._plan.ended(transfer)
        return out + self._refused

    def _host(self, domain: str, choice: Choice) -> str:
        """``10 mx.example.net:25 192.0.2.1 2001:db8::1 by=mx kind=smtp tls=may``, at the end why there
        are no addresses."""
        route = self._finder.route(domain, self._sender)
        by = route.file if route.host else "mx"
        if choice.preference == mx.FALLBACK:
            by = "fallbackroute"
        facts = xtext.facts({"by": by, **choice.way.facts(), "prefer": choice.way.prefer})
        line = " ".join([str(choice.preference), _place(choice), *choice.addresses, facts])
        return f"{line} ({choice.trouble})" if choice.trouble else line


def _place(choice: Choice) -> str:
    """``host:port``, an IPv6 address in brackets, or the path of a socket."""
    if not choice.port:
        return choice.host
    return f"[{choice.host}]:{choice.port}" if is_ipv6(choice.host) else f"{choice.host}:{choice.port}"
