"""tlscertificates: which certificate and key are shown to whom."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.values import ascii_domain
from mqmail.mail.address import lower_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mqmail.control.lines import Lines


@value
class Certificates:
    """Name that a client asks for (SNI; ``.example.org``: all below; ``*``: all others) to the paths of
    (certificate with its chain, key), PEM files. Empty: no TLS."""

    files: dict[str, tuple[str, str]]

    def find(self, name: str) -> tuple[str, str]:
        """For a client that asks for *name*, "" for one that asks for none."""
        name = lower_ascii(name)
        if name in self.files:
            return self.files[name]
        while name:
            _, dot, name = name.partition(".")
            if dot + name in self.files:
                return self.files[dot + name]
        return self.files["*"]


def parse_certificates(lines: Lines, _me: str) -> Certificates:
    """Lines ``NAME CERTIFICATE KEY``."""
    files: dict[str, tuple[str, str]] = {}
    for line in lines:
        words = line.split()
        if len(words) != 3:
            raise ValueError(f"{line[:60]!a}: write NAME CERTIFICATEFILE KEYFILE, NAME being * for all")
        name = lower_ascii(words[0])
        if name != "*":
            ascii_domain(name.removeprefix("."))
        if name in files:
            raise ValueError(f"{name} is given twice: remove one of the lines")
        files[name] = words[1], words[2]
    if files and "*" not in files:
        raise ValueError("no line is for all: add one that begins with *, for clients that name no host")
    return Certificates(files)
