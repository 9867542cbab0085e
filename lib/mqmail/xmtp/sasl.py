"""SASL (RFC 4422) for AUTH (RFC 4954), the client's side: an Exchange for each mechanism.

Exchanges give and take plain octets; base64 and lines are the protocol core's. What both sides compute
is in functions by themselves, SCRAM's in scram.py. No secret is ever part of an error's text.
"""

from __future__ import annotations

from mqmail.xmtp.scram import (
    attributes,
    from_base64,
    hmac_sha256,
    is_nonce,
    parse_server_first,
    same,
    saslname,
    saslprep,
    scram_keys,
    to_base64,
    xor,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PASSWORD_MECHANISMS = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")
TOKEN_MECHANISMS = ("OAUTHBEARER", "XOAUTH2")      # both: the strongest first
BINDINGS = ("tls-exporter", "tls-unique", "tls-server-end-point")   # the best first (RFC 9266)


class Exchange:
    """One authentication. ``first`` is asked once, then ``step`` for each challenge, then ``finish``
    when the server has said that it is satisfied."""

    mechanism = ""

    def first(self) -> bytes | None:
        """The initial response; None: the server speaks first."""
        return None

    def step(self, challenge: bytes) -> bytes:
        """The response to *challenge*. Raises ValueError: give up, the challenge is bad."""
        raise ValueError(f"a challenge too many for {self.mechanism}")

    def finish(self) -> str:
        """Why the server's success must not be believed; "" when it can be."""
        return ""


def choose(offered: Iterable[str], wanted: Sequence[str], user: str, secret: str, token: str,
           bindings: Mapping[str, bytes], nonce: str, host: str = "", port: int = 0) -> Exchange | None:
    """The strongest mechanism of those *offered*, if any are *wanted* of these only; None: none.

    With a *token*, an OAuth mechanism (for *host* and *port*, if given); else one for *secret*.
    *bindings*: channel binding type to data, of this TLS session. *nonce*: printable ASCII without
    comma, never used before. Raises ValueError when *user* or *secret* cannot be sent.
    """
    names = {name.upper() for name in offered}
    allowed = {name.upper() for name in wanted} or {*PASSWORD_MECHANISMS, *TOKEN_MECHANISMS}
    ours = [name for name in (TOKEN_MECHANISMS if token else PASSWORD_MECHANISMS) if name in allowed]
    kind = next((kind for kind in BINDINGS if bindings.get(kind)), "")
    if not kind:
        ours = [name for name in ours if name != "SCRAM-SHA-256-PLUS"]
    mechanism = next((name for name in ours if name in names), "")
    if mechanism == "SCRAM-SHA-256-PLUS":
        return Scram(user, secret, nonce, kind, bindings[kind])
    if mechanism == "SCRAM-SHA-256":
        could_bind = "SCRAM-SHA-256-PLUS" in ours and "SCRAM-SHA-256-PLUS" not in names
        return Scram(user, secret, nonce, could_bind=could_bind)
    if mechanism == "OAUTHBEARER":
        return OAuthBearer(user, token, host, port)
    if mechanism == "XOAUTH2":
        return XOAuth2(user, token)
    return _PASSWORDS[mechanism](user, secret) if mechanism else None


class Plain(Exchange):
    """RFC 4616."""

    mechanism = "PLAIN"

    def __init__(self, user: str, secret: str) -> None:
        self._response = b"\0" + octets(user) + b"\0" + octets(secret)

    def first(self) -> bytes:
        return self._response


class Login(Exchange):
    """What servers ask is not looked at: they spell it in many ways (draft-murchison-sasl-login)."""

    mechanism = "LOGIN"

    def __init__(self, user: str, secret: str) -> None:
        self._responses = [octets(secret), octets(user)]

    def step(self, challenge: bytes) -> bytes:
        return self._responses.pop() if self._responses else super().step(challenge)


class CramMd5(Exchange):
    """RFC 2195."""

    mechanism = "CRAM-MD5"

    def __init__(self, user: str, secret: str) -> None:
        self._user, self._secret = octets(user), octets(secret)
        self._done = False

    def step(self, challenge: bytes) -> bytes:
        if self._done or not challenge:
            raise ValueError("a challenge too many for CRAM-MD5" if challenge else "an empty challenge")
        self._done = True
        return self._user + b" " + cram_md5(self._secret, challenge)


_PASSWORDS = {kind.mechanism: kind for kind in (CramMd5, Plain, Login)}


class Scram(Exchange):
    """SCRAM-SHA-256 (RFC 5802, RFC 7677), bound to the TLS session if *kind* says how (-PLUS).

    *could_bind*: we could, but this server offers no -PLUS. If it does and somebody has cut that out of
    its list, the server notices (RFC 5802 section 6).
    """

    def __init__(self, user: str, secret: str, nonce: str, kind: str = "", binding: bytes = b"", *,
                 could_bind: bool = False) -> None:
        if not user or not is_nonce(nonce):
            raise ValueError("SCRAM wants a user, and a nonce of printable ASCII without comma")
        self.mechanism = "SCRAM-SHA-256-PLUS" if kind else "SCRAM-SHA-256"
        flag = f"p={kind}" if kind else "y" if could_bind else "n"
        self._gs2 = f"{flag},,".encode()
        self._binding = binding
        self._nonce = nonce
        self._bare = octets(f"n={saslname(saslprep(user))},r={nonce}")
        self._secret = octets(saslprep(secret))
        self._signature: bytes | None = None
        self._doubt = "the server has not shown that it knows the secret"

    def first(self) -> bytes:
        return self._gs2 + self._bare

    def step(self, challenge: bytes) -> bytes:
        if self._signature is None:
            return self._answer(challenge)
        if not self._doubt:
            return super().step(challenge)
        self._check(challenge)
        return b""

    def finish(self) -> str:
        return self._doubt

    def _answer(self, challenge: bytes) -> bytes:
        """The client's final message, for the server's first one."""
        nonce, salt, iterations = parse_server_first(challenge)
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ValueError("the server's nonce does not continue ours")
        bound = b"c=" + to_base64(self._gs2 + self._binding) + b",r=" + nonce.encode()
        message = b",".join((self._bare, challenge, bound))
        client, stored, server = scram_keys(self._secret, salt, iterations)
        self._signature = hmac_sha256(server, message)
        return bound + b",p=" + to_base64(xor(client, hmac_sha256(stored, message)))

    def _check(self, challenge: bytes) -> None:
        """The server's final message: its signature, or an error, which its reply will tell too."""
        (name, text), *_more = attributes(challenge)
        if name == "e":
            self._doubt = f"the server said {text[:60]!a}"
        elif name != "v" or not same(from_base64(text), self._signature or b""):
            raise ValueError("the server's signature is wrong: it does not know the secret")
        else:
            self._doubt = ""


class _OAuth(Exchange):
    """A token. The server's reason to refuse it comes as a challenge (JSON), which wants a response."""

    _ending = b""

    def __init__(self, user: str, token: str) -> None:
        if "\1" in user or not is_token(token):
            raise ValueError("not a user or not an access token")
        self._user, self._token = user, token
        self._refused = False

    def step(self, challenge: bytes) -> bytes:
        if self._refused:
            return super().step(challenge)
        self._refused = True
        return self._ending


class XOAuth2(_OAuth):
    """As Google describes it ("XOAUTH2 protocol"); Microsoft has it too."""

    mechanism = "XOAUTH2"

    def first(self) -> bytes:
        return octets(f"user={self._user}\1auth=Bearer ") + self._token.encode() + b"\1\1"


class OAuthBearer(_OAuth):
    """RFC 7628 section 3.1; *host* and *port* as connected to, if known."""

    mechanism = "OAUTHBEARER"
    _ending = b"\1"      # section 3.2.3

    def __init__(self, user: str, token: str, host: str = "", port: int = 0) -> None:
        super().__init__(user, token)
        self._where = (f"\1host={host}" if host else "") + (f"\1port={port}" if port else "")

    def first(self) -> bytes:
        return octets(f"n,a={saslname(self._user)},{self._where}\1auth=Bearer {self._token}\1\1")


def is_token(text: str) -> bool:
    """Whether *text* can be sent as an access token (RFC 6750 section 2.1, and any other visible
    ASCII, as some issuers have it)."""
    return text.isascii() and text.isprintable() and text != "" and " " not in text


def octets(text: str) -> bytes:
    """UTF-8 without NUL. Raises ValueError, which names nothing of the text."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ValueError("a name or secret that is not UTF-8") from None
    if b"\0" in data:
        raise ValueError("a name or secret with NUL in it")
    return data


def cram_md5(secret: bytes, challenge: bytes) -> bytes:
    """The digest of RFC 2195 section 2, in lower-case hex digits."""
    import hmac
    return hmac.new(secret, challenge, "md5").hexdigest().encode()
