"""Our client and our server believe each other for the right secret alone, by every mechanism; hostile
lines are refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqmail.xmtp import sasl, saslserver
from mqmail.xmtp.saslserver import Challenge, Keys, Password, Refused, Secret, Session, Token
from mqmail.xmtp.scram import StoredKeys, saslprep, stored_keys

LOGIN = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40).filter(
    lambda text: text.isprintable() and saslprep(text) == text and len(text.encode()) < 256)
SECRET = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1,
                 max_size=60)
TOKEN = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
NONCE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","),
                min_size=1, max_size=40)


class Store:
    """One login; it answers the server's questions."""

    def __init__(self, login, secret):
        self.login, self.secret = login, secret
        self.salt = b"0123456789abcdef"

    def answer(self, question):
        kind = type(question)
        known = self.login if question.login in ("", self.login) else ""
        if kind is Password:
            return known if question.password == self.secret else ""
        if kind is Token:
            return known if question.token == self.secret else ""
        if kind is Secret:
            return known, self.secret.encode() if known else None
        assert kind is Keys
        return known, stored_keys(self.secret, self.salt, 4096) if known else StoredKeys(
            self.salt, 4096, b"x" * 32, b"y" * 32)


def converse(exchange, going, store):
    """The login that the server believes; Refused as it raises it. The exchange begins with its first
    response, if it has one."""
    try:
        item = next(going)
        while True:
            if type(item) is Challenge:
                item = going.send(exchange.step(item.data))
            else:
                item = going.send(store.answer(item))
    except StopIteration as end:
        return end.value


@settings(deadline=None)
@given(login=LOGIN, secret=SECRET, other=st.none() | SECRET, token=TOKEN, wrong=st.none() | TOKEN,
       nonces=st.tuples(NONCE, NONCE), mechanism=st.sampled_from(
           ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER",
            "XOAUTH2"]))
def test_our_client_and_our_server(login, secret, other, token, wrong, nonces, mechanism):
    is_token = mechanism in sasl.TOKEN_MECHANISMS
    bindings = {"tls-server-end-point": b"hash"} if mechanism.endswith("PLUS") else {}
    given_secret = secret if other is None else other
    given_token = token if wrong is None else wrong
    if is_token and (mechanism == "XOAUTH2") and "\1" in login:
        return
    exchange = sasl.choose([mechanism], [mechanism], login, given_secret,
                           given_token if is_token else "", bindings, nonces[0])
    store = Store(login, token if is_token else secret)
    going = saslserver.begin(mechanism, exchange.first(), Session(
        nonces[1], "mail.example.org", offered=(mechanism,), bindings=bindings))
    same = given_token == token if is_token else given_secret == secret or (
        "SCRAM" in mechanism and saslprep(given_secret) == saslprep(secret))
    if same:
        assert converse(exchange, going, store) == login
        assert exchange.finish() == ""
    else:
        with pytest.raises(Refused) as caught:
            converse(exchange, going, store)
        assert not caught.value.malformed
        assert caught.value.login == login
        assert "wrong password" in str(caught.value)


@settings(deadline=None)
@given(secret=SECRET, mechanism=st.sampled_from(["PLAIN", "CRAM-MD5", "SCRAM-SHA-256"]))
def test_who_is_not_there_is_refused_in_the_same_words(secret, mechanism):
    exchange = sasl.choose([mechanism], [mechanism], "mallory", secret, "", {}, "n")
    going = saslserver.begin(mechanism, exchange.first(), Session("m", offered=(mechanism,)))
    with pytest.raises(Refused, match="wrong password"):
        converse(exchange, going, Store("alice", secret))


PIECES = st.lists(st.sampled_from(
    [b"n,,", b"y,,", b"p=tls-unique,,", b"n=", b"r=", b"c=biws,", b"p=", b"alice", b",", b"\0", b"=2C",
     b"=", b"\1", b"auth=Bearer ", b"\xff", b" ", b"a=bob", b"user=", b"m=x,"]),
    max_size=9).map(b"".join)


@settings(deadline=None)
@given(mechanism=st.sampled_from(saslserver.MECHANISMS),
       first=st.none() | PIECES | st.binary(max_size=80),
       responses=st.lists(PIECES | st.binary(max_size=80), max_size=6),
       certificate=st.sampled_from(["", "cert@example.org"]))
def test_hostile_lines_are_nobody(mechanism, first, responses, certificate):
    """Whatever is said, who knows no secret is not believed, and Refused is all that is raised."""
    store = Store("alice", "a-secret-that-is-not-among-the-pieces")
    session = Session("nonce", bindings={"tls-unique": b"x"}, certificate=certificate)
    waiting = list(responses)
    going = saslserver.begin(mechanism, first, session)
    try:
        item = next(going)
        while True:
            if type(item) is Challenge:
                if not waiting:
                    return
                item = going.send(waiting.pop(0))
            else:
                item = going.send(store.answer(item))
    except Refused as refused:
        assert "a-secret" not in str(refused)
    except StopIteration as end:
        assert (mechanism, end.value) == ("EXTERNAL", certificate)
        assert certificate
