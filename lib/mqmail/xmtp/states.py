"""A server's states, and which verb is allowed in which (RFC 5321 section 4.1.4).

A verb that is not allowed in the state is answered 503 and changes nothing, but for the two that
carry a body with them: a BDAT out of place has its chunk swallowed, an XFD ends the transaction.
"""

from __future__ import annotations

START = "start"             # greeted; no HELO, EHLO or LHLO yet
READY = "ready"             # no transaction
MAIL = "mail"               # MAIL accepted
RCPT = "rcpt"               # at least one RCPT was given, accepted or not
CHUNK = "chunk"             # between the chunks of a body
REFUSED = "refused"         # the greeting was a refusal

_ALWAYS = frozenset((START, READY, MAIL, RCPT, CHUNK))
TRANSACTION = frozenset((MAIL, RCPT, CHUNK))

ALLOWED = {
    "HELO": _ALWAYS, "EHLO": _ALWAYS, "LHLO": _ALWAYS,
    "MAIL": frozenset((READY,)),
    "RCPT": frozenset((MAIL, RCPT)),
    "DATA": frozenset((MAIL, RCPT)),
    "BDAT": TRANSACTION,
    "XFD": frozenset((MAIL, RCPT)),
    "RSET": _ALWAYS, "NOOP": _ALWAYS, "HELP": _ALWAYS, "VRFY": _ALWAYS, "EXPN": _ALWAYS,
    "ETRN": frozenset((READY,)),        # RFC 1985 section 5.1: not within a transaction
    "XHOP": frozenset((READY,)), "XSESSION": frozenset((READY,)),
    "STARTTLS": frozenset((READY,)), "AUTH": frozenset((READY,)),
    "XCLIENT": frozenset((START, READY)),
    "QUIT": _ALWAYS | {REFUSED},
}

# Verbs that bring no message nearer by themselves: a session may only say so many in a row.
IDLE = frozenset(("NOOP", "HELP", "VRFY", "EXPN", "ETRN", "RSET", "HELO", "EHLO", "LHLO", "MAIL", "AUTH",
                  "STARTTLS", "XCLIENT"))

# What an extension brings; without it the verb is not offered.
NEEDS = {"BDAT": "CHUNKING", "XFD": "XMQ", "XHOP": "XMQ", "XSESSION": "XMQ", "STARTTLS": "STARTTLS",
         "AUTH": "AUTH", "XCLIENT": "XCLIENT", "EXPN": "EXPN", "ETRN": "ETRN"}
