"""Whether a host may use a domain in MAIL FROM or HELO, by the domain's SPF record (RFC 7208). Pure:
DNS is asked through a function.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.networks import parse_ip
from mqmail.mail.mxlist import FAILED
from mqmail.policy import spfrecord
from mqmail.policy.reverse import dotted, reverse_name
from mqmail.policy.spfmacro import expand, expand_name, has_macros, parse_text, uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from mqmail.mail.mxlist import Answer
    from mqmail.policy.spfmacro import Pieces
    from mqmail.policy.spfrecord import Directive, Record

    Lookup = Callable[[str, str], Awaitable[Answer]]

NONE, NEUTRAL, PASS, FAIL, SOFTFAIL, TEMPERROR, PERMERROR = (
    "none", "neutral", "pass", "fail", "softfail", "temperror", "permerror")
MOST_TERMS = 10             # that ask DNS (section 4.6.4)
MOST_VOID = 2               # of them without an answer
MOST_NAMES = 10             # hosts of an mx or ptr
LONGEST_EXPLANATION = 300
_RESULTS = {"+": PASS, "-": FAIL, "~": SOFTFAIL, "?": NEUTRAL}
_MOST_KNOWN = 1000
_LARGEST_KNOWN = 512        # octets: larger ones are hundreds of terms, and take kilobytes each
_LARGEST_EXPLANATION = 1024     # octets, before its macros are expanded
_records: dict[bytes, Record] = {}      # read already


@value
class Question:
    """*ip*: the client's. *sender*: MAIL FROM's address, or postmaster at the HELO name; its domain, in
    ASCII, is asked about. *helo*. *receiver*: this host's name; *time*: now, in seconds."""

    ip: str
    sender: str
    helo: str
    receiver: str = "unknown"
    time: int = 0


@value
class Result:
    """*result*: one of section 2.6. *mechanism*: the directive that matched, or "default" or "".
    *why*: what is wrong, of errors. *explanation*: what the domain says of a fail, printable ASCII.
    *is_general*: it holds for all senders at the domain and all HELO names, for no macro was met."""

    result: str
    mechanism: str = ""
    why: str = ""
    explanation: str = ""
    is_general: bool = False


class _Error(Exception):
    """The evaluation ends with *result* (temperror, permerror)."""

    def __init__(self, result: str, why: str) -> None:
        super().__init__(why)
        self.result = result


async def check_host(question: Question, lookup: Lookup) -> Result:
    """Section 4. *lookup(name, type)*: DNS' answer to TXT, A, AAAA, MX, PTR; FAILED is a temporary
    error. It asks about 130 names at the most."""
    domain = question.sender.rpartition("@")[2]
    if not is_name(domain) or "." not in domain.removesuffix("."):      # section 4.3
        return Result(NONE)
    evaluation = _Evaluation(question, lookup)
    try:
        found = await evaluation.check(domain.lower().removesuffix("."), True)
    except _Error as error:
        return Result(error.result, why=str(error))
    return Result(found.result, found.mechanism, explanation=found.explanation,
                  is_general=not evaluation.has_macros)


def is_name(domain: str) -> bool:
    """Whether DNS can be asked about it."""
    name = domain.removesuffix(".")
    return 0 < len(name) <= 253 and name.isascii() and name.isprintable() and all(
        [0 < len(label) <= 63 for label in name.split(".")]) and name[0] != "["


class _Evaluation:
    """Of one question, with what has been asked so far."""

    def __init__(self, question: Question, lookup: Lookup) -> None:
        self._question = question
        self._lookup = lookup
        self._width, self._number = parse_ip(question.ip)
        self._terms = 0
        self._void = 0
        self._is_void = False           # the term at hand
        self._local = question.sender.rpartition("@")[0] or "postmaster"
        self._named: list[str] | None = None    # the client's names that confirm it
        self.has_macros = False                 # so far

    async def check(self, domain: str, top: bool) -> Result:
        """check_host() of *domain*; an explanation is looked for at the *top* only (section 6.2)."""
        record = await self._record(domain)
        if record is None:
            return Result(NONE)
        for directive in record.directives:
            if await self._matches(directive, domain):
                found = _RESULTS[directive.qualifier]
                explanation = ""
                if found == FAIL and top and record.explain:
                    explanation = await self._explain(record.explain, domain)
                return Result(found, directive.text, explanation=explanation)
        if not record.redirect:
            return Result(NEUTRAL, "default")
        return await self._redirect(record.redirect, domain, top)

    async def _redirect(self, pieces: Pieces, domain: str, top: bool) -> Result:
        """Section 6.1."""
        self._count()
        target = await self._name(pieces, domain)
        found = await self.check(target, top) if is_name(target) else Result(NONE)
        if found.result == NONE:
            raise _Error(PERMERROR, f"redirect to {target[:80]}, which has no SPF record")
        return found

    async def _record(self, domain: str) -> Record | None:
        """Sections 4.4 and 4.5. An error is temporary here only if DNS failed."""
        answer = await self._lookup(domain, "TXT")
        if answer.kind == FAILED:
            raise _Error(TEMPERROR, f"{domain[:80]}: {answer.why}")
        found = [data for data in answer.records if spfrecord.is_record(data)]
        if not found:
            return None
        if len(found) > 1:
            raise _Error(PERMERROR, f"{domain[:80]} has {len(found)} SPF records")
        try:
            return _read(found[0])
        except ValueError as error:
            raise _Error(PERMERROR, f"the SPF record of {domain[:80]}: {error}") from None

    async def _matches(self, directive: Directive, domain: str) -> bool:
        """Section 5."""
        kind = directive.mechanism
        if kind == "all":
            return True
        if kind in ("ip4", "ip6"):
            width, number = directive.network
            return width == self._width and self._within(number, directive)
        self._count()
        target = domain
        if directive.domain:
            if self._never(directive.domain):
                return False
            target = await self._name(directive.domain, domain)
        if kind == "include":
            return await self._includes(target)
        if not is_name(target):
            return False
        self._is_void = False
        found: bool = await _MECHANISMS[kind](self, target, directive)
        self._void += self._is_void
        if self._void > MOST_VOID:
            raise _Error(PERMERROR, f"more than {MOST_VOID} names without a record")
        return found

    async def _includes(self, target: str) -> bool:
        """Section 5.2."""
        found = await self.check(target, False) if is_name(target) else Result(NONE)
        if found.result == NONE:
            raise _Error(PERMERROR, f"includes {target[:80]}, which has no SPF record")
        return found.result == PASS

    async def _a(self, target: str, directive: Directive) -> bool:
        """Section 5.3."""
        return await self._is_at(target, directive)

    async def _mx(self, target: str, directive: Directive) -> bool:
        """Section 5.4."""
        hosts = await self._ask(target, "MX")
        if len(hosts) > MOST_NAMES:
            raise _Error(PERMERROR, f"{target[:80]} has more than {MOST_NAMES} MX hosts")
        for _, host in sorted(hosts):
            if host != "." and await self._is_at(host, directive):
                return True
        return False

    async def _ptr(self, target: str, _directive: Directive) -> bool:
        """Section 5.5."""
        names = await self._names()
        return any([name == target or name.endswith("." + target) for name in names])

    async def _exists(self, target: str, _directive: Directive) -> bool:
        """Section 5.7: an A record, also when the client has an IPv6 address."""
        return bool(await self._ask(target, "A"))

    async def _is_at(self, host: str, directive: Directive) -> bool:
        """Whether *host* has an address in the client's network."""
        addresses = await self._ask(host, "A" if self._width == 32 else "AAAA")
        return any([self._within(parse_ip(ip)[1], directive) for ip in addresses])

    def _within(self, number: int, directive: Directive) -> bool:
        length = directive.four if self._width == 32 else directive.six
        return (number ^ self._number) >> (self._width - length) == 0

    async def _names(self) -> list[str]:
        """The client's names that have its address; trouble makes them fewer (section 5.5)."""
        if self._named is None:
            answer = await self._lookup(reverse_name(self._question.ip), "PTR")
            self._is_void = not answer.records and answer.kind != FAILED
            self._named = []
            for name in answer.records[:MOST_NAMES]:
                found = await self._lookup(name, "A" if self._width == 32 else "AAAA")
                if any([parse_ip(ip)[1] == self._number for ip in found.records]):
                    self._named.append(name)
        return self._named

    async def _ask(self, name: str, kind: str) -> tuple[Any, ...]:
        answer = await self._lookup(name, kind)
        if answer.kind == FAILED:
            raise _Error(TEMPERROR, f"{name[:80]}: {answer.why}")
        if not answer.records:
            self._is_void = True
        return answer.records

    def _count(self) -> None:
        self._terms += 1
        if self._terms > MOST_TERMS:
            raise _Error(PERMERROR, f"more than {MOST_TERMS} terms that ask DNS")

    def _never(self, pieces: Pieces) -> bool:
        """A local part that is not ASCII matches nothing (RFC 8616 section 4)."""
        self.has_macros = self.has_macros or has_macros(pieces)
        return not self._local.isascii() and (uses(pieces, "s") or uses(pieces, "l"))

    async def _name(self, pieces: Pieces, domain: str) -> str:
        """As DNS is asked: a backslash is one, not the sign of an escape (RFC 1035 section 5.1)."""
        if not has_macros(pieces):
            return expand_name(pieces, {}).replace("\\", "\\\\")
        return expand_name(pieces, await self._values(pieces, domain)).replace("\\", "\\\\")

    async def _values(self, pieces: Pieces, domain: str) -> dict[str, str]:
        """Of the macros (section 7.2)."""
        self.has_macros = True
        question = self._question
        sender_domain = question.sender.rpartition("@")[2]
        return {"s": f"{self._local}@{sender_domain}", "l": self._local, "o": sender_domain, "d": domain,
                "i": dotted(question.ip), "v": "in-addr" if self._width == 32 else "ip6",
                "h": question.helo, "c": question.ip, "r": question.receiver, "t": str(question.time),
                "p": await self._best_name(domain) if uses(pieces, "p") else ""}

    async def _best_name(self, domain: str) -> str:
        """%{p}: the domain itself, or a name below it, or any (section 7.3)."""
        names = await self._names()
        below = [name for name in names if name.endswith("." + domain)]
        return domain if domain in names else (below or names or ["unknown"])[0]

    async def _explain(self, pieces: Pieces, domain: str) -> str:
        """Section 6.2: "" for whatever goes wrong."""
        target = await self._name(pieces, domain)
        if not is_name(target):
            return ""
        answer = await self._lookup(target, "TXT")
        if len(answer.records) != 1 or len(answer.records[0]) > _LARGEST_EXPLANATION:
            return ""
        if not answer.records[0].isascii():
            return ""
        try:
            text = parse_text(answer.records[0].decode("ascii"))
            found = expand(text, await self._values(text, domain))
        except (ValueError, _Error):
            return ""
        return found[:LONGEST_EXPLANATION] if found.isascii() and found.isprintable() else ""


_MECHANISMS = {"a": _Evaluation._a, "mx": _Evaluation._mx, "ptr": _Evaluation._ptr,
               "exists": _Evaluation._exists}


def _read(data: bytes) -> Record:
    """The same records come again and again: some are remembered."""
    record = _records.get(data)
    if record is None:
        record = spfrecord.parse(data)
        if len(data) > _LARGEST_KNOWN:
            return record
        if len(_records) >= _MOST_KNOWN:
            _records.clear()
        _records[data] = record
    return record
