"""SASL (RFC 4422) for AUTH (RFC 4954), the server's side: a generator for each mechanism.

``begin`` gives a generator. It yields what is to be done next and is sent the outcome:

* ``Challenge(data)``: say this to the client; send the client's response (octets);
* ``Password``, ``Keys``, ``Secret``, ``Token``: a question about a login; send the answer. Who answers
  may take any time, and may throw an exception into the generator, which lets it through.

It returns the login that the client has proved, in the spelling of whoever answered, or raises
Refused. No secret is ever part of an exception's text. What both sides have in common is in sasl.py and
scram.py.
"""

from __future__ import annotations

from mqmail.base.value import value
from mqmail.xmtp.sasl import BINDINGS, cram_md5, is_token
from mqmail.xmtp.scram import (
    StoredKeys,
    attributes,
    from_base64,
    hmac_sha256,
    is_nonce,
    same,
    saslprep,
    to_base64,
    xor,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Any

    Steps = Generator[Any, Any, str]

# In the order in which they are offered. CRAM-MD5 wants plain secrets: it is for who asks for it.
MECHANISMS = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5", "EXTERNAL",
              "OAUTHBEARER", "XOAUTH2")
LONGEST_LOGIN = 255             # octets (RFC 4616 section 2)
LONGEST_PASSWORD = 1024
_INVALID_TOKEN = b'{"status":"invalid_token","schemes":"bearer"}'   # RFC 7628 section 3.2.2


class Refused(Exception):
    """The client is not believed. str() says why, for the log. *login*: who it says it is. *malformed*:
    what it sent is not of this mechanism."""

    def __init__(self, why: str, login: str = "", malformed: bool = False) -> None:
        super().__init__(why)
        self.login = login
        self.malformed = malformed


@value
class Challenge:
    """To be said to the client."""

    data: bytes


class Password:
    """Is *password* that of *login*? The answer: the login as it is to be known, or "" for no."""

    __slots__ = ("login", "password")

    def __init__(self, login: str, password: str) -> None:
        self.login = login
        self.password = password


@value
class Keys:
    """What is stored of *login*? The answer: (the login as it is to be known, StoredKeys). Of a login
    that is not there too: keys that fit nothing, always the same salt and iterations for the same
    login."""

    login: str


@value
class Secret:
    """The answer: (the login as it is to be known, its secret as octets or None)."""

    login: str


class Token:
    """May who has *token* be *login* ("": whoever the token is for)? The answer: the login, or ""."""

    __slots__ = ("login", "token")

    def __init__(self, login: str, token: str) -> None:
        self.login = login
        self.token = token


@value
class Session:
    """What an exchange has to know. *nonce*: printable ASCII without comma, never used before.
    *offered*: the mechanisms that the client was shown. *bindings*: of this TLS session, type to data.
    *certificate*: the verified name in the client's."""

    nonce: str
    host: str = "localhost"
    offered: tuple[str, ...] = MECHANISMS
    bindings: Mapping[str, bytes] = {}
    certificate: str = ""


def begin(mechanism: str, first: bytes | None, session: Session) -> Steps:
    """The exchange; *first* is the initial response, None without one. KeyError: no such mechanism."""
    return _MECHANISMS[mechanism](first, session)


def _plain(first: bytes | None, _session: Session) -> Steps:
    """RFC 4616 section 2."""
    response = (yield Challenge(b"")) if first is None else first
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise Refused("PLAIN wants three parts", malformed=True)
    authorized, login = [_text(part, LONGEST_LOGIN) for part in parts[:2]]
    return (yield from _password(login, parts[2], authorized))


def _login(first: bytes | None, _session: Session) -> Steps:
    """draft-murchison-sasl-login; some clients say the name at once."""
    name = (yield Challenge(b"Username:")) if first is None else first
    password = yield Challenge(b"Password:")
    return (yield from _password(_text(name, LONGEST_LOGIN), password))


def _password(login: str, password: bytes, authorized: str = "") -> Steps:
    _check_login(login, authorized)
    known = yield Password(login, _text(password, LONGEST_PASSWORD, login))
    return _believe(known, login)


def _cram_md5(first: bytes | None, session: Session) -> Steps:
    """RFC 2195 section 2."""
    if first is not None:
        raise Refused("CRAM-MD5 has no initial response", malformed=True)
    challenge = f"<{session.nonce}@{session.host}>".encode()
    name, space, digest = (yield Challenge(challenge)).rpartition(b" ")
    login = _text(name, LONGEST_LOGIN)
    if not space:
        raise Refused("CRAM-MD5 wants a name and a digest", malformed=True)
    _check_login(login)
    known, secret = yield Secret(login)
    fits = same(cram_md5(secret or b"\0", challenge), digest)
    return _believe(known if fits and secret is not None else "", login)


def _external(first: bytes | None, session: Session) -> Steps:
    """RFC 4422 appendix A: who the client's certificate says it is."""
    response = (yield Challenge(b"")) if first is None else first
    authorized = _text(response, LONGEST_LOGIN)
    if not session.certificate:
        raise Refused("no client certificate was verified", authorized)
    _check_login(session.certificate, authorized)
    return session.certificate


def _bearer(first: bytes | None, _session: Session) -> Steps:
    """RFC 7628 section 3.1."""
    response = (yield Challenge(b"")) if first is None else first
    header, _, rest = _text(response, 12288).partition("\1")
    pairs = dict([pair.partition("=")[::2] for pair in rest.split("\1") if pair])
    parts = header.split(",")
    if len(parts) != 3 or parts[0] not in ("n", "y") or parts[2] or parts[1][:2] not in ("", "a="):
        raise Refused("OAUTHBEARER without its header", malformed=True)
    return (yield from _token(_saslname(parts[1][2:]), pairs.get("auth", ""), "OAUTHBEARER"))


def _xoauth2(first: bytes | None, _session: Session) -> Steps:
    """As Google describes it ("XOAUTH2 protocol")."""
    response = (yield Challenge(b"")) if first is None else first
    pairs = dict([pair.partition("=")[::2] for pair in _text(response, 12288).split("\1") if pair])
    return (yield from _token(pairs.get("user", ""), pairs.get("auth", ""), "XOAUTH2"))


def _token(login: str, auth: str, mechanism: str) -> Steps:
    """A client whose token is refused is told why, and says something before it hears the refusal (RFC
    7628 section 3.2.3)."""
    kind, _, token = auth.partition(" ")
    if kind.lower() != "bearer" or not is_token(token.strip(" ")):
        raise Refused(f"{mechanism} without a token", malformed=True)
    if login:
        _check_login(login)
    known = yield Token(login, token.strip(" "))
    if not known:
        yield Challenge(_INVALID_TOKEN)
    return _believe(known, login)


def _scram(first: bytes | None, session: Session, plus: bool = False) -> Steps:
    """SCRAM-SHA-256 (RFC 5802 section 3, RFC 7677)."""
    message = (yield Challenge(b"")) if first is None else first
    gs2, bare = _split_gs2(message)
    binding = _binding(gs2, session, plus)
    login, nonce = _client_first(bare)
    authorized = gs2.split(b",")[1]
    _check_login(login, _saslname(_text(authorized[2:], LONGEST_LOGIN)) if authorized else "")
    known, keys = yield Keys(login)
    nonce += session.nonce
    server_first = f"r={nonce},s=".encode() + to_base64(keys.salt) + b",i=%d" % keys.iterations
    final = yield Challenge(server_first)
    bound, proof = _client_final(final, nonce, login)
    if not same(bound, gs2 + binding):
        raise Refused("the channel bindings are different", login)
    text = b",".join((bare, server_first, final.rpartition(b",p=")[0]))
    if not _proves(keys, text, proof):
        raise Refused("wrong password", login)
    yield Challenge(b"v=" + to_base64(hmac_sha256(keys.server, text)))     # RFC 4954 section 4
    return _believe(known, login)


def _split_gs2(message: bytes) -> tuple[bytes, bytes]:
    """(gs2-header with its last comma, client-first-message-bare) of RFC 5802 section 7."""
    parts = message.split(b",", 2)
    if len(parts) != 3 or parts[1][:2] not in (b"", b"a="):
        raise Refused("a SCRAM message without its header", malformed=True)
    return b",".join(parts[:2]) + b",", parts[2]


def _binding(gs2: bytes, session: Session, plus: bool) -> bytes:
    """The data of the channel binding that the client has chosen (RFC 5802 section 6)."""
    flag = gs2.split(b",")[0].decode("ascii", "replace")
    if plus:
        data = session.bindings.get(flag[2:]) if flag[:2] == "p=" and flag[2:] in BINDINGS else None
        if not data:
            raise Refused("no such channel binding", malformed=flag[:2] != "p=")
        return data
    if flag == "y" and "SCRAM-SHA-256-PLUS" in session.offered:
        raise Refused("somebody has removed SCRAM-SHA-256-PLUS from what we offered")
    if flag not in ("n", "y"):
        raise Refused("a SCRAM message with a bad flag", malformed=True)
    return b""


def _client_first(bare: bytes) -> tuple[str, str]:
    """(login, nonce); unknown extensions behind them are passed over."""
    found = _attributes(bare)
    if [name for name, _ in found[:2]] != ["n", "r"] or not is_nonce(found[1][1]):
        raise Refused("the first SCRAM message is not n=,r=", malformed=True)
    return saslprep(_saslname(found[0][1])), found[1][1]


def _client_final(final: bytes, nonce: str, login: str) -> tuple[bytes, bytes]:
    """(what the client has bound, its proof)."""
    found = _attributes(final, login)
    if len(found) < 3 or [found[0][0], found[1][0], found[-1][0]] != ["c", "r", "p"]:
        raise Refused("the last SCRAM message is not c=,r=,p=", login, malformed=True)
    if found[1][1] != nonce:
        raise Refused("the nonce is another", login)
    try:
        return from_base64(found[0][1]), from_base64(found[-1][1])
    except ValueError:
        raise Refused("bad base64 in a SCRAM message", login, malformed=True) from None


def _proves(keys: StoredKeys, text: bytes, proof: bytes) -> bool:
    """Whether the client knows the secret (RFC 5802 section 3)."""
    from hashlib import sha256
    signature = hmac_sha256(keys.stored, text)
    return len(proof) == len(signature) and same(sha256(xor(proof, signature)).digest(), keys.stored)


def _attributes(message: bytes, login: str = "") -> list[tuple[str, str]]:
    try:
        return attributes(message)
    except ValueError as error:
        raise Refused(str(error), login, malformed=True) from None


def _saslname(text: str) -> str:
    """RFC 5802 section 5.1, decoded."""
    plain = text.replace("=2C", ",").replace("=3D", "=")
    if text.count("=") != text.count("=2C") + text.count("=3D"):
        raise Refused("a bad name", malformed=True)
    return plain


def _text(data: bytes, longest: int, login: str = "") -> str:
    """UTF-8 without NUL, of bounded length."""
    if len(data) > longest or b"\0" in data:
        raise Refused("too long, or with NUL in it", login, malformed=True)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("not UTF-8", login, malformed=True) from None


def _check_login(login: str, authorized: str = "") -> None:
    """A name that can be looked up; *authorized*, whom the client wants to act for, is nobody else."""
    if not login or not login.isprintable():
        raise Refused("not a name")
    if authorized not in ("", login):
        raise Refused("wants to act for another", login)


def _believe(known: str, login: str) -> str:
    if not known:
        raise Refused("wrong password", login)
    return known


_MECHANISMS: dict[str, Callable[[bytes | None, Session], Steps]] = {
    "PLAIN": _plain, "LOGIN": _login, "CRAM-MD5": _cram_md5, "EXTERNAL": _external,
    "OAUTHBEARER": _bearer, "XOAUTH2": _xoauth2, "SCRAM-SHA-256": _scram,
    "SCRAM-SHA-256-PLUS": lambda first, session: _scram(first, session, plus=True),
}
