"""The checks of this package that ask DNS or look at the dialogue, as known.py wants them."""

from __future__ import annotations

import time

from mqmail.mail.address import lower_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mqmail.control.reader import Control
    from mqmail.net.asker import Asker, BlockingAsker
    from mqmail.policy.stages import Check

CONTROL = ("me", "smtpgreeting", "helohost", "relayclients", "resolvers", "badmailfrom", "reversename",
           "helocheck", "earlytalkers", "dnsbl", "senderdomain", "spf")


def dns_of(control: Control, services: Any) -> Asker | BlockingAsker:
    """The one of the process; another one, with nothing cached, if control/resolvers has changed."""
    from mqmail.net.asker import Asker, BlockingAsker
    servers = tuple(control.resolvers)
    kept = services.kept.get("dns")
    if kept is None or kept[0] != servers:
        made = BlockingAsker(servers) if services.loop is None \
            else Asker(services.loop, services.deadlines, servers)
        kept = services.kept["dns"] = (servers, made)
    asker: Asker | BlockingAsker = kept[1]
    return asker


def _reverse_name(control: Control, services: Any) -> Check | None:
    if control.reversename == "off":
        return None
    from mqmail.policy.names import ReverseName
    return ReverseName(dns_of(control, services))


def _name_required(control: Control, _services: Any) -> Check | None:
    if control.reversename != "require":
        return None
    from mqmail.policy.names import NameRequired
    return NameRequired(control.relayclients)


def _helo(control: Control, _services: Any) -> Check | None:
    if control.helocheck == "off":
        return None
    from mqmail.policy.names import HeloCheck
    ours = (control.me, control.smtpgreeting.split(" ")[0], control.helohost)
    names = frozenset([lower_ascii(name) for name in ours])
    return HeloCheck(control.helocheck == "reject", names, control.relayclients)


def _early(control: Control, _services: Any) -> Check | None:
    if control.earlytalkers == "off":
        return None
    from mqmail.policy.names import EarlyTalkers
    return EarlyTalkers(control.earlytalkers == "reject", control.relayclients)


def _bad_mail_from(control: Control, _services: Any) -> Check | None:
    if not control.badmailfrom:
        return None
    from mqmail.policy.badmailfrom import BadMailFrom
    return BadMailFrom(control.badmailfrom)


def _dnsbl(control: Control, services: Any) -> Check | None:
    if not control.dnsbl.lists:
        return None
    from mqmail.policy.dnsbl import Dnsbl
    return Dnsbl(control.dnsbl, control.relayclients, dns_of(control, services), time.monotonic)


def _sender_domain(control: Control, services: Any) -> Check | None:
    if control.senderdomain == "off":
        return None
    from mqmail.policy.senderdomain import SenderDomain
    return SenderDomain(control.senderdomain, control.relayclients, dns_of(control, services))


def _spf(control: Control, services: Any) -> Check | None:
    if control.spf == "off":
        return None
    from mqmail.policy.spfcheck import SpfCheck
    return SpfCheck(control.spf == "reject", control.me, control.relayclients, dns_of(control, services),
                    time.monotonic, time.time)


# The cheap ones first; what refuses for good before what asks much.
FACTORIES = (
    ("reversename", _reverse_name), ("badmailfrom", _bad_mail_from), ("earlytalkers", _early),
    ("helocheck", _helo), ("reversename", _name_required), ("dnsbl", _dnsbl),
    ("senderdomain", _sender_domain), ("spf", _spf),
)


def preload() -> None:
    """Import all that the checks may need: for a program that gives up the right to read its modules."""
    for name in ("net.asker", "net.dns", "net.mx", "policy.badmailfrom", "policy.dnsbl", "policy.names",
                 "policy.senderdomain", "policy.spfcheck"):
        __import__(f"mqmail.{name}")
