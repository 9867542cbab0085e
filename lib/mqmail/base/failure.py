"""How things go wrong, and the exit code of each way (100 permanent, 111 temporary, as qmail's).

Raise where the thing is known, catch at a protocol's border or in ``program.start``. *text* is fit
for a peer or a user; *private*, if given, goes to the log only. *status* is an RFC 3463 code.
"""

from __future__ import annotations

EXIT_PERMANENT = 100
EXIT_TEMPORARY = 111


class Failure(Exception):
    """Something that is not a bug of ours failed."""

    exit_code = EXIT_TEMPORARY
    status = "4.3.0"

    def __init__(self, text: str, status: str = "", private: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.status = status or type(self).status
        self.private = private


class Temporary(Failure):
    """It may work later."""


class Permanent(Failure):
    """Trying again cannot help."""

    exit_code = EXIT_PERMANENT
    status = "5.3.0"


class Usage(Permanent):
    """The command line is wrong; *text* says what to type instead."""


class BadFile(Temporary):
    """A file of ours or of the admin's cannot be used: names file, line and what is wrong. *line*: the
    number of the bad one; 0 when it is not about one line of several."""

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line
