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


def dns_of(control: Control, services: Any, name: str = "dns") -> Asker | BlockingAsker:
    """The one of the process with that *name*; another one, with nothing cached, if control/resolvers
    has changed. Two of different names do not wait for each other's questions."""
    from mqmail.net.asker import Asker, BlockingAsker
    servers = tuple(control.resolvers)
    kept = services.kept.get(name)
    if kept is None or kept[0] != servers:
        made = BlockingAsker(servers) if services.loop is None \
            else Asker(services.loop, services.deadlines, servers)
        kept = services.kept[name] = (servers, made)
    asker: Asker | BlockingAsker = kept[1]
    return asker


def reverse_name(control: Control, services: Any) -> Check | None:
    """The check at connect."""
    if control.reversename == "off":
        return None
    from mqmail.policy.clientname import ReverseName
    return ReverseName(dns_of(control, services))


def _name_required(control: Control, _services: Any) -> Check | None:
    if control.reversename != "require":
        return None
    from mqmail.policy.clientname import NameRequired
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
    if not (control.is_there("badmailfrom") and control.badmailfrom):
        return None
    from mqmail.policy.badmailfrom import BadMailFrom
    return BadMailFrom(control.badmailfrom)


def _dnsbl(control: Control, services: Any) -> Check | None:
    if not (control.is_there("dnsbl") and control.dnsbl.lists):
        return None
    from mqmail.policy.dnsbl import Dnsbl
    dns = dns_of(control, services, "lists")        # strangers choose what the others ask about
    return Dnsbl(control.dnsbl, control.relayclients, dns, time.monotonic)


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


# At MAIL; those that ask little first.
FACTORIES = (
    ("badmailfrom", _bad_mail_from), ("earlytalkers", _early), ("helocheck", _helo),
    ("reversename", _name_required), ("dnsbl", _dnsbl), ("senderdomain", _sender_domain), ("spf", _spf),
)

LATE_IMPORTS = ("mqmail.net.asker", "mqmail.net.dns", "mqmail.net.mx", "mqmail.policy.badmailfrom",
                "mqmail.policy.clientname", "mqmail.policy.dnsbl", "mqmail.policy.names",
                "mqmail.policy.senderdomain", "mqmail.policy.spfcheck")
