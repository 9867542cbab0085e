"""Certificates for tests, made with the openssl command."""

import ipaddress
import subprocess
from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_authority(directory):
    """An Authority of one's own, its files in *directory*."""
    return Authority(Path(directory))


class Authority:
    """Signs certificates. ``file`` is its own certificate, PEM, to be given as the authorities."""

    def __init__(self, directory):
        self.file = directory / "authority.pem"
        self._key = directory / "authority.key"
        self._count = 0
        openssl("req", "-x509", *CURVE, "-keyout", self._key, "-out", self.file,
                "-days", "30", "-subj", "/CN=Test authority",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def certificate(self, names, directory, days=30, digest="sha256"):
        """(certificate, key), paths of PEM files, for *names*: host names, ``*.`` too, and IP
        addresses. Negative *days*: it ended so long ago."""
        self._count += 1
        stem = Path(directory) / f"host{self._count}"
        endings = ".pem", ".key", ".req", ".ext"
        certificate, key, asked, more = (stem.with_suffix(ending) for ending in endings)
        openssl("req", "-new", *CURVE, "-keyout", key, "-out", asked, "-subj", "/CN=Test host")
        more.write_text("subjectAltName=" + ",".join([general(name) for name in names]) + "\n"
                        if names else "basicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", asked, "-CA", self.file, "-CAkey", self._key, "-out", certificate,
                "-set_serial", str(self._count), "-days", str(days), f"-{digest}", "-extfile", more)
        return certificate, key


def general(name):
    """A name as subjectAltName has it; "DER:..." is all of it, as openssl takes it."""
    if name.startswith("DER:"):
        return name
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def openssl(*arguments):
    """Run openssl; its complaint if it fails."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False,
                          timeout=60)
    assert done.returncode == 0, done.stderr
