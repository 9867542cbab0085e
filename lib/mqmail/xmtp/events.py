"""What a server core tells its application. Every event that wants a reply says so.

The application answers with ``server.answer(event, reply)``; reply None is the usual positive one.
"""

from __future__ import annotations

from mqmail.base.value import value


@value
class Hello:
    """HELO, EHLO or LHLO. Wants a reply (None: the core's own, with the extensions)."""

    verb: str
    name: str


@value
class Mail:
    """MAIL. Wants a reply. *sender* is "" for ``<>``; *size* -1 when not declared; *ret* ""
    or "full"/"hdrs"; *envid* decoded; *xid*, *xvia*, *xconn*, *xforce* only from XMQ callers.
    *prdr*: the client wants a verdict for each recipient after the body."""

    sender: str
    size: int = -1
    eightbit: bool = False
    utf8: bool = False
    ret: str = ""
    envid: str = ""
    auth: str = ""
    xid: str = ""
    xvia: str = ""
    xconn: int = 0
    xforce: int = 0
    prdr: bool = False


@value
class Rcpt:
    """RCPT. Wants a reply; several may be asked before the first is answered (PIPELINING).
    *notify* holds "never" or any of "success", "failure", "delay"; *orcpt* is "type;address",
    decoded. *x* holds XSTATUS, XSAID, XHOST, XTLS, XTIME, XUNTIL, XACTION of an XMQ caller, lower-case
    names without x."""

    address: str
    destination: str = ""
    notify: tuple[str, ...] = ()
    orcpt: str = ""
    x: tuple[tuple[str, str], ...] = ()
    number: int = 0


@value
class Hop:
    """XHOP: where this session's messages are to be sent. Wants a reply (None: 502, not here)."""

    facts: str


@value
class Session:
    """XSESSION: what the caller knows of the client that it asks for. Wants a reply (None: 502, not
    here)."""

    facts: str


@value
class Data:
    """The body is about to come, by DATA or by a first BDAT. Wants a reply (None: go on)."""

    chunked: bool = False


@value
class Body:
    """Octets of the body, dots removed. Wants no reply."""

    data: bytes


@value
class BodyFile:
    """XFD: the whole body as an open descriptor, now the application's to close. Wants a reply as
    BodyEnd does."""

    fd: int
    size: int


@value
class BodyEnd:
    """The body is complete. Wants a reply: one for SMTP, one for each accepted recipient for LMTP
    (``server.answer_recipient``; ``server.answer`` gives the same to all who have none yet)."""

    size: int


@value
class BodyFailed:
    """The body cannot be taken (*reply* says why); what was kept of it is to be dropped. The core
    swallows the rest and answers by itself. Wants no reply."""

    why: str


@value
class Reset:
    """The transaction is over without a message (RSET, EHLO, a refused XFD, the end of a body that could
    not be taken). Wants no reply."""


@value
class Verify:
    """VRFY, or EXPN (*expand*). With SMTPUTF8 (*utf8*) the reply may have UTF-8. Wants a reply (None:
    252)."""

    argument: str
    expand: bool = False
    utf8: bool = False


@value
class Etrn:
    """ETRN: mail that waits for the host *node*, or (*below*) for all of that domain, is to be tried.
    Wants a reply: 250 to 253, 458 or 459 (None: 250)."""

    node: str
    below: bool = False


@value
class StartTls:
    """STARTTLS. Wants a reply (None: 220). After it is sent the shell makes the TLS session and
    calls ``server.tls_started()``; nothing that came before is left in the core."""


@value
class Auth:
    """AUTH, or the client's line after a 334. Wants a reply: 334 to ask on, 235, or an error. *line*
    is BASE64 that nobody has checked; with *first* it is the initial response, or "" without one. A
    client that gives up (``*``) is answered by the core; the next Auth is a *first* one again."""

    mechanism: str
    line: str
    first: bool


@value
class Xclient:
    """XCLIENT, Postfix's: (name in lower case, value) of each attribute, a value that is not available
    being "". Wants a reply: 220 takes the session back to its start, with the client being who that
    is (None: 220), another refuses."""

    attributes: tuple[tuple[str, str], ...]


@value
class Quit:
    """QUIT; the core has answered. The shell closes once all is written."""
