"""optionsets: what a session is offered and allowed, by the name of a set. Each role has one too."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.throttles import parse_sessions
from mqmail.control.values import is_name, number, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mqmail.control.lines import Lines

ROLES = ("mx", "submission", "submissions", "lmtp")
MECHANISMS = ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "CRAM-MD5", "EXTERNAL",
              "OAUTHBEARER", "XOAUTH2")
VERSIONS = ("1.2", "1.3")
# Those of MAIL that look at strangers, in the order in which they are asked if nobody says another.
_OF_STRANGERS = ("badmailfrom", "earlytalkers", "helocheck", "reversename", "dnsbl", "senderdomain",
                 "spf")
CHECKS = ("access", *_OF_STRANGERS, "verify", "header", "hooks")
# Asked of everybody before all others, in this order; each has a file that says whom it is not for.
LIMITS = {"throttle": "throttles", "pressure": "pressure", "senders": "logins",
          "accounts": "accountlimits"}
# Which addresses may be rewritten: policy/rewrite.py.
REWRITES = ENVELOPE_SENDER, ENVELOPE_RECIPIENT, HEADER_SENDER, HEADER_RECIPIENT = (
    "envelope_sender", "envelope_recipient", "header_sender", "header_recipient")
LONGEST_DELAY = 60      # seconds before the greeting: clients wait 300 (RFC 5321 4.5.3.2.1)
LONGEST_IDENT = 30      # seconds for RFC 1413


@value
class Options:
    """*tls*: none, may, require (nothing but STARTTLS before) or implicit (from the first octet);
    *tlsmin* 1.2 or 1.3. *auth*: SASL mechanisms; *authplain*: also without TLS. *relay*: who may send to
    other domains: "yes" all, "auth" who has authenticated, "no" neither; control/relayclients may in any
    case. *checkfrom*: who has authenticated writes From or Sender as control/logins allows. *databytes*,
    *maxrecipients* None: as the control files say. *greetdelay* in seconds. *clientcert*: no, ask,
    require. *show551*: clients are told where a recipient has moved to. *checks*: those of CHECKS that
    are asked, in their order; None for all. *sessions*: how many at a time, as in Limits of
    control/throttles; None: as many as there may be. *rewrite*: those of REWRITES that control/rewrite
    is for. *etrn*: domains, and ``.domain`` for those below, that ETRN may ask for. *vrfy*, *expn*:
    whether these tell what we know. *ident*: seconds for asking the client's host who the client is, 0:
    it is not asked. *tlsset*, *loginset*: the set that is in force after STARTTLS, after AUTH; "": the
    same as before."""

    tls: str = "may"
    tlsmin: str = "1.2"
    auth: tuple[str, ...] = ()
    authplain: bool = False
    relay: str = "auth"
    checkfrom: bool = False
    databytes: int | None = None
    maxrecipients: int | None = None
    greetdelay: int = 0
    clientcert: str = "no"
    prdr: bool = True
    show551: bool = False
    checks: tuple[str, ...] | None = None
    sessions: tuple[int, int] | None = None
    rewrite: tuple[str, ...] = ()
    etrn: tuple[str, ...] = ()
    vrfy: bool = False
    expn: bool = False
    ident: int = 0
    tlsset: str = ""
    loginset: str = ""


_SUBMISSION = {"auth": MECHANISMS[:4], "checkfrom": True, "greetdelay": 0, "prdr": False}
BUILT_IN: dict[str, dict[str, Any]] = {
    "mx": {},
    "submission": {**_SUBMISSION, "tls": "require"},
    "submissions": {**_SUBMISSION, "tls": "implicit"},
    "lmtp": {},
}


@value
class OptionSets:
    """What the file says: name of a set to its options."""

    sets: dict[str, dict[str, Any]]

    def has(self, name: str) -> bool:
        """Whether there is a set *name*."""
        return name in self.sets or name in BUILT_IN

    def opens(self, name: str) -> str:
        """The option by which set *name* lets a client do what others may not, "" for none."""
        found = self.sets.get(name, {})
        for option, opening in (("relay", "yes"), ("authplain", True), ("checkfrom", False),
                                ("vrfy", True), ("expn", True)):
            if found.get(option) == opening:
                return f"{option}={'yes' if opening else 'no'}"
        if found.get("etrn"):
            return f"etrn={','.join(found['etrn'])}"
        asked = found.get("checks")
        if asked is None or set(asked) >= set(CHECKS) - set(_OF_STRANGERS):
            return ""
        return f"checks={','.join(asked) or 'none'}"

    def unvouched(self, path: str) -> list[str]:
        """What is wrong with sets, from *path*, that believe clients' certificates, when it is not said
        who vouches for them: a certificate of the system's authorities can be had by anybody."""
        return [f"{path}: {name} has {option}: write the file of the authorities that vouch for your"
                " clients into control/tlsclientauthorities" for name, found in self.sets.items()
                for option, needs in (("clientcert=require", found.get("clientcert") == "require"),
                                      ("auth=external", "EXTERNAL" in found.get("auth", ()))) if needs]

    def options(self, role: str, name: str = "") -> Options:
        """What holds for *role*, and above it for the set *name*. An unknown name changes nothing."""
        above = self.sets.get(name) or BUILT_IN.get(name) or {}
        return Options(**{**BUILT_IN[role], **self.sets.get(role, {}), **above})


def check_name(text: str) -> str:
    """A set's name. Raises ValueError."""
    if not is_name(text):
        raise ValueError(f"{text[:80]!a} is not a name: write letters, digits, - and _")
    return text


def parse_optionsets(lines: Lines, _me: str) -> OptionSets:
    """Lines ``NAME option=value …``."""
    found: dict[str, dict[str, Any]] = {}
    named: dict[str, int] = {}
    for line in lines:
        name, *words = line.split()
        check_name(name)
        if name in found:
            raise ValueError(f"{name} is given twice: write all its options into one line")
        found[name] = _parse(words)
        for option in ("tlsset", "loginset"):
            if option in found[name]:
                named.setdefault(found[name][option], lines.number)
    for name in named:
        if name not in found and name not in BUILT_IN:
            lines.number = named[name]
            raise ValueError(f"there is no option set {name}: write {name} OPTION=VALUE")
    return OptionSets(found)


def _parse(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        option, equals, text = word.partition("=")
        if not equals or option not in _OPTIONS:
            raise ValueError(f"{word[:60]!a}: the options are {'=, '.join(_OPTIONS)}=")
        if option in found:
            raise ValueError(f"{option}= is given twice")
        try:
            found[option] = _OPTIONS[option](text)
        except ValueError as error:
            raise ValueError(f"{option}={error}") from None
    return found


def _flag(text: str) -> bool:
    return one_of("yes", "no")(text) == "yes"


def _mechanisms(text: str) -> tuple[str, ...]:
    if text == "none":
        return ()
    found = tuple(text.upper().split(",")) if text.isascii() else (text,)
    if not set(MECHANISMS).issuperset(found) or len(set(found)) < len(found):
        raise ValueError(f"{text}: write none, or some of {', '.join(MECHANISMS).lower()}")
    return found


def _rewrite(text: str) -> tuple[str, ...]:
    """``all``, ``none``, or names with commas between them."""
    if text in ("all", "none"):
        return REWRITES if text == "all" else ()
    found = tuple(text.split(","))
    if not set(REWRITES).issuperset(found) or len(set(found)) < len(found):
        raise ValueError(f"{text[:80]}: write all, none, or some of {', '.join(REWRITES)}, each once")
    return found


def _checks(text: str) -> tuple[str, ...] | None:
    """``all``, ``none``, or names with commas between them, in the order in which they are asked."""
    if text in ("all", "none"):
        return None if text == "all" else ()
    found = tuple(text.split(","))
    for name in found:
        if name in LIMITS:
            raise ValueError(f"{name}: is a limit, which is asked always and first: leave it out here;"
                             f" control/{LIMITS[name]} says whom it is not for")
        if name not in CHECKS:
            raise ValueError(f"{name[:40]}: write all, none, or some of {', '.join(CHECKS)}")
        if found.count(name) > 1:
            raise ValueError(f"{name}: is given twice")
    return found


def _domains(text: str) -> tuple[str, ...]:
    """``none``, or names and ``.name`` with commas between them."""
    if text == "none":
        return ()
    from mqmail.control.domains import domain_pattern  # rarely needed
    found = tuple([domain_pattern(name) for name in text.split(",")])
    if "" in found:
        raise ValueError(f"{text[:60]}: write domains with commas between them, or none")
    return found


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "tls": one_of("none", "may", "require", "implicit"),
    "tlsmin": one_of(*VERSIONS),
    "auth": _mechanisms,
    "authplain": _flag,
    "relay": one_of("yes", "auth", "no"),
    "checkfrom": _flag,
    "databytes": lambda text: number(text, "bytes", 0, 1 << 50),
    "maxrecipients": lambda text: number(text, "recipients", 1, 100000),
    "greetdelay": lambda text: number(text, "seconds", 0, LONGEST_DELAY),
    "clientcert": one_of("no", "ask", "require"),
    "prdr": _flag,
    "show551": _flag,
    "checks": _checks,
    "sessions": parse_sessions,
    "rewrite": _rewrite,
    "etrn": _domains,
    "vrfy": _flag,
    "expn": _flag,
    "tlsset": check_name,
    "loginset": check_name,
    "ident": lambda text: number(text, "seconds", 0, LONGEST_IDENT),
}
