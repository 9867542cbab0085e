"""SASL: a server written by the RFC alone is satisfied, and no server can do harm."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.xmtp import sasl
from mqmail.xmtp.sasl import choose
from mqmail.xmtp.scram import saslprep

ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1,
               max_size=40)
NONCE = ASCII.filter(lambda text: "," not in text)


class Server:
    """RFC 5802 section 3, in its words: knows the secret, checks the proof, proves itself."""

    def __init__(self, secret, salt, iterations, nonce):
        self.salted = hashlib.pbkdf2_hmac("sha256", secret, salt, iterations)
        self.salt, self.iterations, self.nonce = b64encode(salt), iterations, nonce.encode()

    def first(self, client_first):
        self.gs2, self.bare = client_first[:client_first.index(b",,") + 2], client_first.split(b",,")[1]
        self.nonce = self.bare.rpartition(b",r=")[2] + self.nonce
        self.message = b"r=%b,s=%b,i=%d" % (self.nonce, self.salt, self.iterations)
        return self.message

    def final(self, client_final, binding):
        bound, _, proof = client_final.rpartition(b",p=")
        assert bound == b"c=" + b64encode(self.gs2 + binding) + b",r=" + self.nonce
        text = b",".join((self.bare, self.message, bound))
        stored = hashlib.sha256(self.key(b"Client Key")).digest()
        signature = hmac.digest(stored, text, "sha256")
        client = bytes(a ^ b for a, b in zip(b64decode(proof), signature, strict=True))
        known = hashlib.sha256(client).digest() == stored
        return known, b"v=" + b64encode(hmac.digest(self.key(b"Server Key"), text, "sha256"))

    def key(self, name):
        return hmac.digest(self.salted, name, "sha256")


@settings(deadline=None)
@given(user=ASCII, secret=ASCII, other=ASCII, salt=st.binary(min_size=1, max_size=40),
       nonces=st.tuples(NONCE, NONCE), iterations=st.integers(4096, 4200),
       binding=st.none() | st.binary(min_size=1, max_size=40))
def test_scram_both_sides_know_each_other(user, secret, other, salt, nonces, iterations, binding):
    bindings = {} if binding is None else {"tls-exporter": binding}
    exchange = choose(["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], (), user, secret, "", bindings, nonces[0])
    server = Server(other.encode(), salt, iterations, nonces[1])
    known, final = server.final(exchange.step(server.first(exchange.first())), binding or b"")
    assert known == (secret == other)
    if known:
        assert exchange.step(final) == b""
        assert exchange.finish() == ""
    else:
        with pytest.raises(ValueError, match="does not know the secret"):
            exchange.step(final)
        assert exchange.finish() != ""


@settings(deadline=None)
@given(user=TEXT, secret=TEXT, mechanism=st.sampled_from(
    [*sasl.PASSWORD_MECHANISMS[1:], *sasl.TOKEN_MECHANISMS]), challenges=st.lists(
    st.binary(max_size=60) | st.lists(st.sampled_from(
        [b"r=", b"nonce", b"more", b",", b"s=", b"QQ==", b",i=", b"4096", b"e=", b"v=", b"\xff"]),
        max_size=9).map(b"".join), max_size=4))
def test_any_challenges_are_answered_or_refused_and_show_nothing(user, secret, mechanism, challenges):
    token = "secret-token" if mechanism in sasl.TOKEN_MECHANISMS else ""
    try:
        exchange = choose([mechanism], (), user, secret, token, {}, "nonce")
        first = exchange.first()
        for challenge in challenges:
            assert isinstance(exchange.step(challenge), bytes)
    except ValueError as error:
        assert token == "" or token not in str(error)
        return
    assert first is None or isinstance(first, bytes)
    if mechanism == "SCRAM-SHA-256":
        assert exchange.finish() != ""      # nobody guesses a signature


@settings(deadline=None)
@given(TEXT)
def test_saslprep_is_done_once(text):
    once = saslprep(text)
    assert once
    assert saslprep(once) == once


@settings(deadline=None)
@given(offered=st.lists(st.sampled_from([*sasl.PASSWORD_MECHANISMS, *sasl.TOKEN_MECHANISMS, "NTLM"])),
       wanted=st.lists(st.sampled_from([*sasl.PASSWORD_MECHANISMS, *sasl.TOKEN_MECHANISMS])),
       token=st.sampled_from(["", "token"]), bound=st.booleans())
def test_the_choice_is_the_strongest_of_both(offered, wanted, token, bound):
    bindings = {"tls-unique": b"x"} if bound else {}
    exchange = choose(offered, wanted, "user", "secret", token, bindings, "n")
    order = sasl.TOKEN_MECHANISMS if token else sasl.PASSWORD_MECHANISMS
    possible = [name for name in order if name in offered and (not wanted or name in wanted)
                and (bound or name != "SCRAM-SHA-256-PLUS")]
    assert (exchange.mechanism if exchange else None) == (possible[0] if possible else None)
