"""logins: which envelope senders a login may use."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.loginnames import check_login, fold
from mqmail.control.values import domain as check_domain
from mqmail.mail.address import BadAddress, address_key, domain_key, domain_of, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines

ANY = "*"
OTHERS = "*"        # the login whose line stands for all without one


@value
class Logins:
    """Login, folded, to senders: addresses, ``@domain`` or ANY, by their keys; *me* is this host."""

    senders: dict[str, frozenset[str]]
    me: str

    def may_send(self, login: str, sender: str) -> bool:
        """Whether who logged in as *login* may use *sender*, an address or "" for the null sender, which
        anybody may use (reports on delivery and on reading have it: RFC 8098 section 3)."""
        name = fold(login)
        allowed = self._allowed(name)
        if not sender:
            return True
        wanted = address_key(sender)
        if allowed is None:
            return wanted == self._own(name)
        return ANY in allowed or wanted in allowed or f"@{domain_of(sender)}" in allowed

    def may_send_any(self, login: str) -> bool:
        """Whether it may use any sender."""
        return ANY in (self._allowed(fold(login)) or ())

    def _allowed(self, name: str) -> frozenset[str] | None:
        return self.senders.get(name) or self.senders.get(OTHERS)

    def _own(self, name: str) -> str:
        """The address that a login without a line is, or the one it has at this host; "" for neither."""
        try:
            return address_key(parse_address(name if "@" in name else f"{name}@{self.me}"))
        except BadAddress:
            return ""


def parse_logins(lines: Lines, me: str) -> Logins:
    """Lines ``LOGIN: SENDER, ...``, a sender an address, ``@domain`` or ``*``. The login ``*``: all that
    have no line."""
    found: dict[str, frozenset[str]] = {}
    for line in lines:
        login, colon, rest = line.partition(":")
        name = login.strip()
        if not colon or not rest.strip():
            raise ValueError(f"{line[:60]!a}: write LOGIN: SENDER, @DOMAIN, or LOGIN: * for any")
        name = OTHERS if name == OTHERS else check_login(name)
        if name in found:
            raise ValueError(f"{name} is given twice: put all senders behind one")
        found[name] = frozenset([_sender(text.strip()) for text in rest.split(",")])
    return Logins(found, me)


def _sender(text: str) -> str:
    if text == ANY:
        return text
    if text[:1] == "@":
        return "@" + domain_key(check_domain(text[1:]))
    try:
        return address_key(parse_address(text))
    except BadAddress as error:
        raise ValueError(f"{text[:60]!a}: {error}: write an address, @DOMAIN or *") from None
