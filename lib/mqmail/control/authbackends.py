"""authbackends: who says whether a login is true, asked in this order."""

from __future__ import annotations

from mqmail.base.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqmail.control.lines import Lines

PASSWD, CHECKPASSWORD, DOVECOT, OAUTH = "passwd", "checkpassword", "dovecot", "oauth"
_FORM = ("write passwd, checkpassword /path/program [argument ...], dovecot /path/socket, or"
         " oauth /path/program [argument ...]")
_MECHANISMS = {
    PASSWD: ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"),
    CHECKPASSWORD: ("PLAIN", "LOGIN"),
    DOVECOT: ("SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"),
    OAUTH: ("OAUTHBEARER", "XOAUTH2"),
}


@value
class Backend:
    """One of the kinds; *words*: the program and its arguments, or the socket's path."""

    kind: str
    words: tuple[str, ...] = ()

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Those that it can be asked for."""
        return _MECHANISMS[self.kind]


def parse_authbackends(lines: Lines, _me: str) -> tuple[Backend, ...]:
    """A backend a line."""
    found: list[Backend] = []
    for line in lines:
        kind, *words = line.split()
        if kind not in _MECHANISMS:
            raise ValueError(f"{kind[:40]!a} is no backend: {_FORM}")
        if kind == PASSWD and words:
            raise ValueError("nothing stands behind passwd: its file is control/passwd")
        if kind != PASSWD and (not words or words[0][0] != "/"):
            raise ValueError(f"{kind} wants a path from /: {_FORM}")
        if kind == DOVECOT and len(words) > 1:
            raise ValueError("only the socket's path stands behind dovecot")
        backend = Backend(kind, tuple(words))
        if backend in found or kind in (PASSWD, OAUTH) and kind in [one.kind for one in found]:
            raise ValueError(f"{kind} is given twice: remove one of the lines")
        found.append(backend)
    return tuple(found)


def mechanisms_of(backends: Iterable[Backend]) -> frozenset[str]:
    """The mechanisms that can be offered; EXTERNAL needs nobody but a verified certificate."""
    return frozenset([name for one in backends for name in one.mechanisms] + ["EXTERNAL"])
