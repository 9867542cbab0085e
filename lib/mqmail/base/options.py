"""Command lines of sendmail(8) and qmail's tools: one-letter options, getopt style.

docopt reads the command lines that people type; these two it cannot express (``-oi``, ``-fADDR``,
options after which nothing is permuted) and mq-inject starts in less time without it.
"""

from __future__ import annotations

from mqmail.base.failure import Usage


def parse(arguments: list[str], letters: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Split *arguments* into options and the rest; *letters* is as in getopt(3): ``"ab:c::"``, two
    colons meaning a value that, if there is one, is attached (``-cVALUE``).

    Options end at the first argument that is not one, or at ``--``. Returns ([("a", ""), ("b",
    "value")], rest). Raises Usage on an unknown option or a missing value.
    """
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            position += 1
            break
        if len(word) < 2 or word[0] != "-":
            break
        position += 1
        cluster = word[1:]
        while cluster:
            letter, cluster = cluster[0], cluster[1:]
            place = letters.find(letter)
            if place < 0 or letter == ":":
                raise Usage(f"unknown option -{letter}; --help lists them")
            if letters[place + 1:place + 2] != ":":
                found.append((letter, ""))
                continue
            if not cluster and letters[place + 1:place + 3] != "::":
                if position == len(arguments):
                    raise Usage(f"option -{letter} needs a value")
                cluster = arguments[position]
                position += 1
            found.append((letter, cluster))
            cluster = ""
    return found, arguments[position:]
