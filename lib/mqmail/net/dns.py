"""Questions to DNS servers: UDP, TCP where the answer is cut off, several servers, a cache.

``await Resolver.ask(name, kind)`` always gives an Answer (mail/mxlist.py), FAILED at the latest after
20 s. Each question goes from a socket of its own, so from a random port, with a random id; answers that
do not fit are not looked at (RFC 5452). Only programs that live long import this: dnspython is slow to
start. The record types are imported here, for mq-rspawn cannot read its modules later on.
"""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, socket
from collections import deque
from errno import EMSGSIZE

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA

from mqmail.base import program
from mqmail.base.waiter import Waiter
from mqmail.mail.address import is_ipv4, is_ipv6
from mqmail.mail.mxlist import FAILED, FOUND, NOTHING, UNKNOWN, Answer
from mqmail.net.expired import Expired
from mqmail.net.stream import connect_tcp

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from dns.message import Message

    from mqmail.net.stream import Deadlines

    Server = tuple[str, int]

PORT = 53
TOTAL = 20.0                # seconds for a question
PATIENCE = (3.0, 6.0, 11.0)     # seconds for a server's answer, in the rounds through all servers
PAYLOAD = 1232              # octets of UDP that no link cuts in pieces
MOST_AT_ONCE = 256          # questions
MOST_KEPT = 10000           # answers
LARGEST_KEPT = 4096         # octets of an answer, and for each record
_RECORD = 32                # more
MOST_RECORDS = 500          # in an answer; of names, which dnspython is slow with:
MOST_NAMES = 100            # of MX and PTR, and of what comes beside an answer
LONGEST_KEPT = 86400
LONGEST_NEGATIVE = 3600     # RFC 2308 section 5 allows one to three hours
KEPT_FAILURE = 30           # RFC 2308 section 7 allows five minutes


def system_servers(path: str = "/etc/resolv.conf") -> list[Server]:
    """The servers of resolv.conf(5); this host's own if there are none."""
    try:
        with open(path, "rb") as file:
            words = [line.split() for line in file.read(65536).decode("utf-8", "replace").split("\n")]
    except OSError:
        words = []
    found = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
    return [(ip, PORT) for ip in found if is_ipv4(ip) or is_ipv6(ip)][:3] or [("127.0.0.1", PORT)]


class Resolver:
    """*servers* are asked in turn; the one that failed last comes last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines,
                 servers: list[Server]) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._servers = servers
        self._kept: dict[tuple[str, str], tuple[float, Answer]] = {}
        self._asked: dict[tuple[str, str], list[Waiter]] = {}
        self._turns: deque[Waiter] = deque()
        self._running = 0

    async def ask(self, name: str, kind: str) -> Answer:
        """What there is of *kind* (MX, A, AAAA, TXT, PTR) at *name*, which is ASCII."""
        key = (name, kind)
        known = self.known(name, kind)
        if known is not None:
            return known
        if key in self._asked:                  # somebody waits for the same
            waiter = Waiter()
            self._asked[key].append(waiter)
            answer: Answer = await waiter
            return answer
        waiters = self._asked[key] = []
        answer = Answer(FAILED, why="interrupted")
        try:
            answer = await self._in_turn(name, kind)
            self._keep(key, answer)
        finally:
            del self._asked[key]
            for waiter in waiters:
                waiter.set(answer)
        return answer

    def known(self, name: str, kind: str) -> Answer | None:
        """The answer that need not be asked for."""
        kept = self._kept.get((name, kind))
        return kept[1] if kept is not None and kept[0] > self._loop.time() else None

    def _keep(self, key: tuple[str, str], answer: Answer) -> None:
        self._kept.pop(key, None)
        if not answer.ttl or sum([_octets(one) for one in answer.records]) > LARGEST_KEPT:
            return
        if len(self._kept) >= MOST_KEPT:
            now = self._loop.time()
            self._kept = {k: kept for k, kept in self._kept.items() if kept[0] > now}
            for old in list(self._kept)[:max(0, len(self._kept) - MOST_KEPT * 9 // 10)]:
                del self._kept[old]
        self._kept[key] = (self._loop.time() + answer.ttl, answer)

    async def _in_turn(self, name: str, kind: str) -> Answer:
        """Ask, when not too many others are being asked: who waits longer than TOTAL is not."""
        end = self._loop.time() + TOTAL
        if self._running >= MOST_AT_ONCE:
            self._turns.append(Waiter())
            await self._turns[-1]
        else:
            self._running += 1
        try:
            return await self._ask_servers(name, kind, end)
        except Exception as error:  # noqa: BLE001  of ours or dnspython's: others must not suffer
            program.bug(error, name=name, kind=kind)
            return Answer(FAILED, ttl=KEPT_FAILURE, why="internal trouble")
        finally:
            if self._turns:
                self._loop.call_soon(self._turns.popleft().set)
            else:
                self._running -= 1

    async def _ask_servers(self, name: str, kind: str, end: float) -> Answer:
        try:
            query = dns.message.make_query(dns.name.from_text(name), kind, use_edns=0, payload=PAYLOAD)
        except (dns.exception.DNSException, UnicodeError):
            return Answer(UNKNOWN, ttl=LONGEST_NEGATIVE, why="not a name")
        answer = Answer(FAILED, why="too many questions at once")
        for patience in PATIENCE:
            slow = False
            for server in list(self._servers):
                left = end - self._loop.time()
                if left <= 0:
                    break
                answer = await self._ask_server(server, query, min(patience, left))
                if answer.kind != FAILED:
                    return answer
                slow = slow or answer.why.endswith(_SLOW)
                self._demote(server)
            if not slow or self._turns:         # all have said that they cannot, or others wait
                break
        return answer

    def _demote(self, server: Server) -> None:
        if server in self._servers:
            self._servers.remove(server)
            self._servers.append(server)

    async def _ask_server(self, server: Server, query: Message, seconds: float) -> Answer:
        """What one server says; FAILED if it says nothing of use."""
        where = f"{server[0]}: "
        try:
            found = await self._exchange(server, query, seconds)
            if query.edns >= 0 and found.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
                query.use_edns(False)           # RFC 6891 section 7: it does not know EDNS
                found = await self._exchange(server, query, seconds)
            return read(found, where)
        except Expired:
            return Answer(FAILED, ttl=KEPT_FAILURE, why=where + _SLOW)
        except OSError as error:
            words = error.strerror or os.strerror(error.errno or 0)
            return Answer(FAILED, ttl=KEPT_FAILURE, why=where + words)
        except dns.exception.DNSException as error:
            return Answer(FAILED, ttl=KEPT_FAILURE, why=f"{where}{error or type(error).__name__}")

    async def _exchange(self, server: Server, query: Message, seconds: float) -> Message:
        wire = query.to_wire()
        found = await self._by_udp(server, query, wire, seconds)
        if found.flags & dns.flags.TC:
            return await self._by_tcp(server, query, wire, seconds)
        return found

    async def _by_udp(self, server: Server, query: Message, wire: bytes, seconds: float) -> Message:
        sock = socket(AF_INET6 if ":" in server[0] else AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
        waiter = Waiter()
        fd = sock.fileno()

        def readable() -> None:
            try:
                data = sock.recv(65535)
            except BlockingIOError:
                return
            except OSError as error:            # ICMP: nobody listens
                return waiter.fail(error)
            try:
                found = _parse(query, data)
            except TooLarge as error:
                return waiter.fail(error)
            if found is not None:
                waiter.set(found)

        timer = self._loop.call_later(seconds, waiter.fail, Expired())
        try:
            sock.setblocking(False)
            sock.connect(server)
            sock.send(wire)
            self._loop.add_reader(fd, readable)
            found: Message = await waiter
            return found
        finally:
            timer.cancel()
            self._loop.remove_reader(fd)
            sock.close()

    async def _by_tcp(self, server: Server, query: Message, wire: bytes, seconds: float) -> Message:
        """RFC 7766; one question a connection."""
        stream = await connect_tcp(self._loop, self._deadlines, *server, seconds)
        try:
            stream.expire_after(seconds)
            stream.write(len(wire).to_bytes(2, "big") + wire)
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                more = await stream.read()
                if not more:
                    raise ConnectionResetError(104, "closed in the middle of an answer")
                data += more
        finally:
            stream.close()
        found = _parse(query, data[2:2 + int.from_bytes(data[:2], "big")])
        if found is None:
            raise ConnectionError(71, "an answer to another question")
        return found


_SLOW = "no answer in time"


class TooLarge(OSError):
    """An answer with so many records that reading it would keep all others waiting."""


def _too_many(query: Message, data: bytes) -> int:
    """How many records *data* says that it has (RFC 1035 section 4.1.1), 0 if they can be read."""
    names = query.question[0].rdtype in (dns.rdatatype.MX, dns.rdatatype.PTR)
    answers, *others = [int.from_bytes(data[place:place + 2], "big") for place in (6, 8, 10)]
    if answers > (MOST_NAMES if names else MOST_RECORDS) or sum(others) > MOST_NAMES:
        return answers + sum(others)
    return 0


def _repeats(query: Message, data: bytes) -> bool:
    """Whether *data* has the question."""
    asked = query.question[0].name.to_digestable() + query.question[0].rdtype.to_bytes(2, "big")
    return data[12:12 + len(asked)].lower() == asked


def _octets(record: Any) -> int:
    """About the memory that it takes."""
    return _RECORD + len(record[1] if type(record) is tuple else record)


def _parse(query: Message, data: bytes) -> Message | None:
    """The response to *query*; None for anything else, which then is not looked at. Raises TooLarge."""
    if data[:2] != query.id.to_bytes(2, "big"):
        return None
    records = _too_many(query, data)
    if records:
        if _repeats(query, data):
            raise TooLarge(EMSGSIZE, f"an answer of {records} records")
        return None
    try:
        found = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
        return found if query.is_response(found) else None
    except Exception:  # noqa: BLE001  whatever a stranger's octets can make dnspython raise
        return None


def read(message: Message, where: str = "") -> Answer:
    """A response as an Answer; *where* says whose, in the reasons for FAILED."""
    code = message.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Answer(FAILED, ttl=KEPT_FAILURE, why=where + dns.rcode.to_text(code))
    in_charge = message.flags & (dns.flags.AA | dns.flags.RA)
    if code == dns.rcode.NOERROR and not message.answer and not in_charge:
        return Answer(FAILED, ttl=KEPT_FAILURE, why=f"{where}knows nothing of it (lame)")
    assert isinstance(message, dns.message.QueryMessage)
    if code == dns.rcode.NXDOMAIN:
        return Answer(UNKNOWN, ttl=_negative_ttl(message))
    chain = message.resolve_chaining()          # DNSException for too many CNAMEs, or a loop of them
    if chain.answer is None:
        return Answer(NOTHING, ttl=_negative_ttl(message))
    records = [_record(rdata) for rdata in chain.answer]
    return Answer(FOUND, tuple(records), min(chain.minimum_ttl, LONGEST_KEPT))


def _record(rdata: Any) -> Any:
    if rdata.rdtype == dns.rdatatype.MX:
        name = rdata.exchange.to_text().lower()
        return rdata.preference, name if name == "." else name.rstrip(".")
    if rdata.rdtype == dns.rdatatype.TXT:
        return b"".join(rdata.strings)          # RFC 7208 section 3.3
    if rdata.rdtype == dns.rdatatype.PTR:
        return rdata.target.to_text().lower().rstrip(".")
    return rdata.address


def _negative_ttl(message: Message) -> int:
    """By the SOA record (RFC 2308 section 5); without one nothing is kept."""
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return int(min(rrset.ttl, rrset[0].minimum, LONGEST_NEGATIVE))
    return 0
