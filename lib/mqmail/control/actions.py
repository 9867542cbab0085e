"""What an entry of control/access says."""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.control.values import is_name, is_number
from mqmail.xmtp.reply import Reply

ACTIONS = ("OK", "RELAY", "REJECT", "DEFER", "DISCARD")
NEEDS = ("tls", "auth")
NOTHING: tuple[str, ...] = ()
LONGEST_TEXT = 400      # octets: with code and status within a reply line (RFC 5321 4.5.3.1.5)
_TEXTS = {"reject": (550, "5.7.1", "not allowed here"), "defer": (451, "4.7.1", "try again later")}
_MAY = {"RELAY": ("connect", "to"), "REQUIRE": ("from", "to")}
_WHY = {"RELAY": "anybody can write a sender or a HELO name", "REQUIRE": "before MAIL nobody can know"}


@value
class Action:
    """*verb*: ok, relay, reject, defer, discard, or "" for an entry that does not decide. *reply* of
    reject and defer. *options*: the name of an option set, or "". *needs*: what must be in use, of
    NEEDS; else the client is refused."""

    verb: str = ""
    reply: Reply | None = None
    options: str = ""
    needs: tuple[str, ...] = ()


def parse_action(text: str, tag: str) -> Action:
    """``[set:NAME] [REQUIRE tls|auth] [OK|RELAY|REJECT|DEFER|DISCARD ...]``; *tag*: that of the key.
    Raises ValueError."""
    word, rest = _next(text)
    options, needs = "", NOTHING
    if word[:4] == "set:":
        options = _option_set(word[4:])
        word, rest = _next(rest)
    if word.upper() == "REQUIRE":
        _check_tag("REQUIRE", tag)
        word, rest = _next(rest)
        needs = _needs(word)
        word, rest = _next(rest)
    if not word and (options or needs):
        return Action("", None, options, needs)
    return Action(*_decision(word, rest, tag), options, needs)


def _next(text: str) -> tuple[str, str]:
    """The first word and the rest."""
    word, _, rest = text.strip(" \t").replace("\t", " ").partition(" ")
    return word, rest.strip(" ")


def _option_set(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"set:{name[:80]}: a set's name is made of letters, digits, - and _")
    return name


def _needs(word: str) -> tuple[str, ...]:
    found = tuple(word.lower().split(","))
    if not set(NEEDS).issuperset(found):
        raise ValueError(f'REQUIRE "{word[:40]}": write REQUIRE tls, REQUIRE auth or REQUIRE tls,auth')
    return found


def _check_tag(action: str, tag: str) -> None:
    if tag not in _MAY[action]:
        tags = " and ".join([f"{one.capitalize()}:" for one in _MAY[action]])
        raise ValueError(f"{action} goes with {tags} alone, for {_WHY[action]}")


def _decision(word: str, rest: str, tag: str) -> tuple[str, Reply | None]:
    """(verb, reply)."""
    verb = word.upper()
    if verb not in ACTIONS:
        raise ValueError(f'unknown action "{word[:40]}": write OK, RELAY, REJECT, DEFER, DISCARD,'
                         " REQUIRE or set:NAME" if word else "no action: write one behind the key")
    if verb == "RELAY":
        _check_tag(verb, tag)
    if verb in ("REJECT", "DEFER"):
        return verb.lower(), _reply(verb, rest, tag)
    if rest:
        raise ValueError(f"{verb} stands alone: remove {rest[:40]!a}")
    return verb.lower(), None


def _reply(verb: str, text: str, tag: str) -> Reply:
    """``[CODE [STATUS]] [TEXT]``."""
    code, status, default = _TEXTS[verb.lower()]
    word, rest = _next(text)
    if word.isdigit():
        code, text = _code(word, status[0], tag), rest
        word, rest = _next(text)
        if _is_status(word):
            if word[0] != status[0]:
                raise ValueError(f"{word}: the status of {verb} begins with {status[0]}")
            status, text = word, rest
    if not (text.isascii() and text.isprintable()) or len(text) > LONGEST_TEXT:
        raise ValueError(f"a reply has at most {LONGEST_TEXT} ASCII characters, without tabs")
    return Reply(code, (text or default,), status)


def _code(word: str, first: str, tag: str) -> int:
    """A reply code (RFC 5321 section 4.2.1). 421 ends the session."""
    if not (word.isascii() and len(word) == 3 and word[0] == first and word[1] <= "5"):
        raise ValueError(f"{word[:20]!a} is no code: write one from {first}00 to {first}59")
    if word == "421" and tag != "connect":
        raise ValueError("421 ends the session, which only Connect: can do: write 450 or 451")
    return int(word)


def _is_status(word: str) -> bool:
    """RFC 3463 section 2."""
    parts = word.split(".")
    return len(parts) == 3 and all([is_number(part) and len(part) <= 3 for part in parts])
