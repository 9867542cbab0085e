"""An authoritative DNS server in a thread, right or wrong.

    with DnsServer("x.test. 60 IN MX 10 a.test.") as server: … server.port …

``faults`` maps (name, type) or a name to what is done instead: "drop", "servfail", "refused", "tc" (cut
off by UDP), "wrong" (an answer with another id, then nothing), "lie" (one to another question, then the
right one), "garbage" (octets with the right id), "lame" (no answer, no authority), "noedns" (FORMERR
to EDNS). ``asked`` holds the (name, type, "udp" or "tcp") that came.
"""

import contextlib
import socket
import struct
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.zone

SOA = ". 30 IN SOA ns. hostmaster. 1 3600 600 86400 30\n. 30 IN NS ns.\n"


class DnsServer:
    """*text*: records, a line each, names absolute. It listens at *ip*."""

    def __init__(self, text="", faults=None, ip="127.0.0.1"):
        self.zone = dns.zone.from_text(SOA + text + "\n", ".", relativize=False, check_origin=False)
        self.faults = faults or {}
        self.asked = []
        self.ip = ip
        self._udp, self._tcp = _listen(ip)
        self.port = self._udp.getsockname()[1]
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for sock in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _serve_udp(self):
        while True:
            try:
                wire, client = self._udp.recvfrom(65535)
            except OSError:
                return
            if not wire:            # shut down
                return
            for answer in self._answers(wire, "udp"):
                self._udp.sendto(answer, client)

    def _serve_tcp(self):
        while True:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return
            with sock, sock.makefile("rb") as file:
                size = struct.unpack("!H", file.read(2))[0]
                for answer in self._answers(file.read(size), "tcp"):
                    for octet in struct.pack("!H", len(answer)) + answer[:20]:
                        sock.sendall(bytes([octet]))
                    sock.sendall(answer[20:])

    def _answers(self, wire, how):
        """What is sent for a question."""
        query = dns.message.from_wire(wire)
        name = query.question[0].name.to_text().rstrip(".").lower()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((name, kind, how))
        fault = self.faults.get((name, kind), self.faults.get(name))
        if fault == "drop":
            return []
        answer = self._good(query)
        if fault == "wrong":
            return [struct.pack("!H", query.id ^ 1) + answer.to_wire()[2:]]
        if fault == "lie":
            other = dns.message.make_query("other.test", kind, id=query.id)
            return [dns.message.make_response(other).to_wire(), answer.to_wire()]
        if fault == "garbage":
            return [wire[:2] + b"\xff" * 300]
        if fault == "tc" and how == "udp":
            answer.flags |= dns.flags.TC
            answer.answer = []
        if fault == "lame":
            answer.flags &= ~dns.flags.AA
            answer.answer = answer.authority = []
        codes = {"servfail": dns.rcode.SERVFAIL, "refused": dns.rcode.REFUSED}
        if fault in codes or fault == "noedns" and query.edns >= 0:
            answer = dns.message.make_response(query)
            answer.set_rcode(codes.get(fault, dns.rcode.FORMERR))
        return [answer.to_wire(max_size=65535)]

    def _good(self, query):
        """The right answer; CNAMEs are followed."""
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA
        name, kind = query.question[0].name, query.question[0].rdtype
        for _ in range(20):
            node = self.zone.get_node(name)
            if node is None:
                if not any(known.is_subdomain(name) for known in self.zone.nodes):
                    answer.set_rcode(dns.rcode.NXDOMAIN)
                break
            found = node.get_rdataset(1, kind)
            if found:
                answer.answer.append(dns.rrset.from_rdata_list(name, found.ttl, found))
                break
            alias = node.get_rdataset(1, dns.rdatatype.CNAME)
            if not alias:
                break
            answer.answer.append(dns.rrset.from_rdata_list(name, alias.ttl, alias))
            name = alias[0].target
        if not answer.answer or answer.answer[-1].rdtype != kind:
            soa = self.zone.get_node(dns.name.root).get_rdataset(1, dns.rdatatype.SOA)
            answer.authority.append(dns.rrset.from_rdata_list(dns.name.root, soa.ttl, soa))
        return answer


def _listen(ip):
    """A UDP and a TCP socket with the same port."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((ip, 0))
        try:
            return udp, socket.create_server((ip, udp.getsockname()[1]))
        except OSError:
            udp.close()
