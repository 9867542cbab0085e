"""nsd, a real name server."""

import socket
import subprocess
import tempfile
from pathlib import Path

from support.home import free_port, wait_until


def answers(ip, port):
    """Whether somebody listens there."""
    try:
        socket.create_connection((ip, port)).close()
    except ConnectionRefusedError:
        return False
    return True


class Nsd:
    """nsd with the zone test, which holds *records* and what a zone must have, and likewise *zones*,
    name to records. *program*: its path; *ttl*: of what is not there."""

    def __init__(self, program, records, zones=(), ttl=60):
        self.directory = tempfile.TemporaryDirectory()
        top = Path(self.directory.name)
        self.port = free_port()
        zones = {"test": ["ns.test. 60 IN A 127.0.0.1", *records], **dict(zones)}
        for name, lines in zones.items():
            (top / f"zone.{name}").write_text("\n".join([
                f"{name}. {ttl} IN SOA ns.test. a.test. 1 60 60 60 {ttl}", f"{name}. 60 IN NS ns.test.",
                *lines, ""]))
        served = "".join([f"zone:\n  name: {name}\n  zonefile: zone.{name}\n" for name in zones])
        (top / "conf").write_text(
            f'server:\n  ip-address: 127.0.0.1@{self.port}\n  username: ""\n  database: ""\n'
            f'  zonesdir: "{top}"\n  pidfile: "{top}/pid"\n  xfrdfile: "{top}/xfrd"\n  xfrdir: "{top}"\n'
            f'  zonelistfile: "{top}/list"\n  server-count: 1\n  rrl-ratelimit: 0\n'
            f'remote-control:\n  control-enable: no\n{served}')
        self._process = subprocess.Popen([program, "-d", "-c", top / "conf"], stderr=subprocess.DEVNULL)

    def __enter__(self):
        wait_until(lambda: answers("127.0.0.1", self.port), "nsd")
        return self

    def __exit__(self, *_error):
        self._process.terminate()
        self._process.wait()
        self.directory.cleanup()


def shared_hosts():
    """Records for a mailing to 100 domains that share ten hosts, mx0.test at 127.0.0.2 and so on: ten
    domains to each host, whose backup is the next one."""
    records = [f"mx{n}.test. 60 IN A {ip}" for n, ip in enumerate(SHARED_IPS)]
    for n in range(100):
        records += [f"d{n}.test. 60 IN MX 10 mx{n % 10}.test.",
                    f"d{n}.test. 60 IN MX {20 + n} mx{(n + 1) % 10}.test."]
    return records


SHARED_IPS = [f"127.0.0.{n}" for n in range(2, 12)]
SHARED_ADDRESSES = [f"u{n}@d{n % 100}.test" for n in range(1000)]
