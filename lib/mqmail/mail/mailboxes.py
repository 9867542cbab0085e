"""Address lists of header fields (RFC 5322 section 3.4, and 4.4 for what it calls obsolete).

One pass over the text, no recursion: comments may be nested as deep as they like. As qmail does,
``djb fred`` is two addresses with a comma missing, and incomplete hosts are completed.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.mail import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 10_000            # addresses in one list

_BLANK = " \t\r\n"
_SPECIAL = "<>@,;:."
_ATOM_ENDS = frozenset(_BLANK + _SPECIAL + '()[]"')
_TO_BLANK = dict.fromkeys(map(ord, _ATOM_ENDS), " ")


class BadList(ValueError):
    """The text is not a list of addresses; str() says why."""


@value
class Token:
    """*kind* is ``w`` (atom or quoted string), ``l`` (domain literal) or the special character;
    *text* is without quotes; it stands at text[start:end] of the list."""

    kind: str
    text: str
    start: int
    end: int


@value
class Mailbox:
    """An address as found: local part unquoted, domain "" when it has none (both "" for ``<>``).
    It stands at [start:end]; *exact* is False if a source route stands there too; *comma* is where a
    comma is missing before it, or -1."""

    local: str
    domain: str
    start: int
    end: int
    exact: bool = True
    comma: int = -1


@value
class Hosts:
    """How incomplete hosts are completed: control files of the same names."""

    defaulthost: str
    defaultdomain: str
    plusdomain: str

    def complete(self, domain: str) -> str:
        """No host: defaulthost. A last ``+``: plusdomain instead of it. No dot: defaultdomain."""
        domain = domain or self.defaulthost
        if domain[0] == "[":
            return domain
        if domain[-1] == "+":
            return f"{domain[:-1]}.{self.plusdomain}"
        return domain if "." in domain else f"{domain}.{self.defaultdomain}"

    def address(self, local: str, domain: str = "") -> str:
        """The canonical address of a local part (unquoted) at a host; raises BadAddress."""
        return address.parse_address(f"{address.quote_local(local)}@{self.complete(domain)}")


def tokens(text: str) -> list[Token]:
    """The tokens of a list; blanks and comments are dropped. Raises BadList."""
    found, position = [], 0
    atoms = text.translate(_TO_BLANK)
    while position < len(text):
        char, start = text[position], position
        if char in _BLANK:
            position += 1
        elif char == "(":
            position = _after_comment(text, position)
        elif char in _SPECIAL:
            position += 1
            found.append(Token(char, char, start, position))
        elif char in ")]":
            raise BadList(f"{char} without its beginning")
        else:
            kind, word, position = _word(text, atoms, position)
            found.append(Token(kind, word, start, position))
    return found


def _after_comment(text: str, position: int) -> int:
    """Where the comment that begins at *position* ends (RFC 5322 3.2.2: they nest)."""
    depth = 0
    while position < len(text):
        char = text[position]
        position += 2 if char == "\\" else 1
        depth += (char == "(") - (char == ")")
        if not depth:
            return position
    raise BadList("a comment is not closed")


def _word(text: str, atoms: str, position: int) -> tuple[str, str, int]:
    """(kind, text, end) of the word that begins at *position*. *atoms* is *text* with blanks for what
    ends an atom."""
    if text[position] == '"':
        return "w", *_until(text, position + 1, '"', "a quoted string is not closed")
    if text[position] == "[":
        inner, end = _until(text, position + 1, "]", "a domain literal is not closed")
        return "l", f"[{inner}]", end
    end = atoms.find(" ", position)
    word = text[position:end] if end >= 0 else text[position:]
    if "\\" in word:
        return "w", *_quoted_atom(text, position)
    return "w", word, position + len(word)


def _quoted_atom(text: str, position: int) -> tuple[str, int]:
    """An atom with quoted pairs in it."""
    out: list[str] = []
    while position < len(text) and text[position] not in _ATOM_ENDS:
        if text[position] == "\\":
            position += 1
        out.append(text[position:position + 1])
        position += 1
    if position > len(text):
        raise BadList("a backslash at the end")
    return "".join(out), position


def _until(text: str, position: int, closing: str, problem: str) -> tuple[str, int]:
    """The text up to *closing*, quoted pairs undone and unfolded, and the position after it."""
    out: list[str] = []
    while position < len(text):
        char = text[position]
        if char == closing:
            return "".join(out), position + 1
        if char == "\\":
            position += 1
            char = text[position:position + 1]
        if char not in ("\r", "\n"):
            out.append(char)
        position += 1
    raise BadList(problem)


def parse(text: str) -> list[Mailbox]:
    """All mailboxes of a list, groups opened, in their order. Raises BadList."""
    found: list[Mailbox] = []
    pending: list[Token] = []
    inside: list[Token] | None = None
    comma = -1                          # where one would be missing, if another address came now
    for token in tokens(text):
        if inside is not None:
            if token.kind == "<":
                raise BadList("'<' inside '<'")
            if token.kind != ">":
                inside.append(token)
                continue
            found.append(_angle(inside, token.start, comma))
            comma, inside = token.end, None
        elif token.kind == ">":
            raise BadList("'>' without '<'")
        elif token.kind == "<":         # what came before is the name
            pending, inside = [], []
        elif token.kind in ",;:":
            if token.kind != ":":       # what came before ':' is a group's name
                found.extend(_bare(pending, comma))
            pending, comma = [], -1
        else:
            pending.append(token)
    if inside is not None:
        raise BadList("'<' without '>'")
    return found + _bare(pending, comma)


def _angle(inside: list[Token], end: int, comma: int) -> Mailbox:
    """The address of ``<...>``; RFC 5322 4.4: a route before it is read and ignored."""
    if not inside:
        return Mailbox("", "", end, end, True, comma)
    start, exact = inside[0].start, True
    if inside[0].kind == "@":
        colons = [i for i, token in enumerate(inside) if token.kind == ":"]
        if not colons:
            raise BadList("a source route ends in ':'")
        _check_route(inside[:colons[-1]])
        inside, exact = inside[colons[-1] + 1:], False
    local, domain = _spec(inside)
    return Mailbox(local, domain, start, inside[-1].end, exact, comma)


def _check_route(route: list[Token]) -> None:
    """``@host,@host``: an address in it would be another than the one behind it."""
    for before, token in zip(route, route[1:], strict=False):
        if token.kind not in "wl.,@" or (token.kind == "@" and before.kind != ","):
            raise BadList("a source route is @host,@host:")


def _bare(pending: list[Token], comma: int) -> list[Mailbox]:
    """Addresses without ``<>``; two words side by side belong to two of them."""
    if comma >= 0 and pending and all(token.kind != "@" for token in pending):
        raise BadList("words after '>'")
    found: list[Mailbox] = []
    first = 0
    for here in range(1, len(pending) + 1):
        if here < len(pending) and (pending[here].kind in "@." or pending[here - 1].kind in "@."):
            continue
        run, first = pending[first:here], here
        if run:
            local, domain = _spec(run)
            found.append(Mailbox(local, domain, run[0].start, run[-1].end, True, comma))
            comma = run[-1].end
    return found


def _spec(run: list[Token]) -> tuple[str, str]:
    """(local part, domain or "") of addr-spec; obs-local-part may mix atoms and quoted strings."""
    parts: list[list[Token]] = [[]]
    before = "@"
    for token in run:
        if token.kind == "@":
            parts.append([])
        elif token.kind not in "wl." or (token.kind in "wl" and before in "wl"):
            raise BadList(f"{token.text[:40]!a} in the midst of an address")
        else:
            parts[-1].append(token)
        before = token.kind
    if len(parts) > 2 or not all(parts) or any(token.kind == "l" for token in parts[0]):
        raise BadList("an address has a local part, one '@' and a domain")
    local, domain = (*parts, [])[:2]
    return "".join([token.text for token in local]), "".join([token.text for token in domain])


def complete(text: str, hosts: Hosts) -> tuple[str, list[str]]:
    """(*text* with its addresses completed, the canonical addresses; ``<>`` is "").

    What is complete stays as it was written, names and comments too. Raises BadList or BadAddress.
    """
    pieces, done, addresses = [], 0, []
    boxes = parse(text)
    if len(boxes) > MOST:
        raise BadList(f"more than {MOST} addresses")
    for box in boxes:
        null = not box.local and not box.domain
        whole = "" if null else hosts.address(box.local, box.domain)
        addresses.append(whole)
        if box.comma >= 0:
            pieces += [text[done:box.comma], ","]
            done = box.comma
        if not null and not (box.exact and whole.endswith("@" + box.domain)):
            pieces += [text[done:box.start], whole]
            done = box.end
    pieces.append(text[done:])
    return "".join(pieces), addresses


def change(text: str, new: Callable[[str], str]) -> str:
    """*text* with each address that has a domain as *new* makes it, of canonical form; what is the same
    stays as it was written, and so does the local part if only the domain is another. What is no
    address is not asked about. Raises BadList."""
    pieces, done = [], 0
    for box in parse(text):
        try:
            old = address.parse_address(f"{address.quote_local(box.local)}@{box.domain}")
        except address.BadAddress:
            continue
        whole = new(old)
        if whole != old:
            start = box.start
            if address.local_of(whole) == box.local:
                start, whole = _domain_start(text, box), whole.rpartition("@")[2]
            pieces += [text[done:start], whole]
            done = box.end
    pieces.append(text[done:])
    return "".join(pieces)


def _domain_start(text: str, box: Mailbox) -> int:
    """Where the domain of *box* begins."""
    found = tokens(text[box.start:box.end])
    last = max([number for number, token in enumerate(found) if token.kind == "@"])
    return box.start + found[last + 1].start


def one(text: str, hosts: Hosts) -> str:
    """The address of a command line: everything before the last ``@`` is the local part, to be
    quoted if it must be; ``Name <a@b>`` is understood too. "" for an empty one. Raises BadList or
    BadAddress."""
    if text in ("", "<>"):
        return ""
    if text[0] == '"' or text[-1] == ">":
        addresses = complete(text, hosts)[1]
        if len(addresses) != 1:
            raise BadList("not one address")
        return addresses[0]
    local, _, domain = text.rpartition("@") if "@" in text else (text, "", "")
    if not local or text[-1] == "@":
        raise BadList("an address has a local part, one '@' and a domain")
    return hosts.address(local, domain)
