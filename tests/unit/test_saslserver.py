"""SASL's server side, by the examples of the RFCs, and what a hostile client may say."""

from __future__ import annotations

from base64 import b64decode

import pytest

from mqmail.xmtp import saslserver
from mqmail.xmtp.saslserver import Challenge, Keys, Password, Refused, Secret, Session, Token
from mqmail.xmtp.scram import stored_keys

KEYS = stored_keys("pencil", b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FINAL = (b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
         b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
SESSION = Session(NONCE, "mail.example.org", offered=("SCRAM-SHA-256",))


def begun(mechanism, first=None, session=SESSION):
    """(the exchange, its first item)."""
    going = saslserver.begin(mechanism, first, session)
    return going, next(going)


def end(going, value):
    with pytest.raises(StopIteration) as caught:
        going.send(value)
    return caught.value.value


def scram(final=FINAL, first=FIRST, session=SESSION, mechanism="SCRAM-SHA-256"):
    """The exchange and what it says to the client's last message."""
    going, item = begun(mechanism, first, session)
    assert item == Keys("user")
    challenge = going.send(("user", KEYS))
    assert challenge.data.endswith(b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    return going, going.send(final)


def test_scram_rfc_7677_section_3():
    going, last = scram()
    assert last == Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert end(going, b"") == "user"


def test_scram_plus_as_other_implementations_have_it():
    session = Session(NONCE, bindings={"tls-unique": b"xxx"})
    going, last = scram(
        b"c=cD10bHMtdW5pcXVlLCx4eHg=,r=rOprNGfwEbeRWgbNEkqO" + NONCE.encode()
        + b",p=v0J7PaQUPWowoTrwRLCKLzIZBpNUhWFlTrUKI1j9DpM=",
        b"p=tls-unique,,n=user,r=rOprNGfwEbeRWgbNEkqO", session, "SCRAM-SHA-256-PLUS")
    assert last == Challenge(b"v=XjAev9iHBOvTxT+eNzBaFmP1IrqWah2PpZAa0wQrfY4=")
    assert end(going, b"") == "user"


@pytest.mark.parametrize(("change", "why", "malformed"), [
    ((b"p=dHz", b"p=eHz"), "wrong password", False),
    ((b"NEkqO%hv", b"NEkqO%hw"), "nonce", False),
    ((b"c=biws", b"c=eSws"), "bindings", False),
    ((b"c=biws,", b""), "is not c=,r=,p=", True),
    ((b",p=", b",q="), "is not c=,r=,p=", True),
    ((b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", b"p="), "wrong password", False),
    ((b"p=dHz", b"p=!Hz"), "base64", True),
])
def test_scram_last_messages(change, why, malformed):
    with pytest.raises(Refused, match=why) as caught:
        scram(FINAL.replace(*change))
    assert (caught.value.login, caught.value.malformed) == ("user", malformed)


@pytest.mark.parametrize(("first", "why"), [
    (b"", "without its header"), (b"n,", "without its header"), (b"n,b=x,n=user,r=x", "without its"),
    (b"x,,n=user,r=x", "bad flag"), (b"p=tls-unique,,n=user,r=x", "bad flag"),
    (b"n,,r=x,n=user", "is not n=,r="), (b"n,,m=must,n=user,r=x", "is not n=,r="),
    (b"n,,n=user,r=", "is not n=,r="), (b"n,,n=us=er,r=x", "bad name"), (b"n,,n=,r=x", "not a name"),
    (b"n,a=other,n=user,r=x", "act for another"), (b"n,,n=\xff,r=x", "UTF-8"),
])
def test_scram_first_messages(first, why):
    with pytest.raises(Refused, match=why):
        begun("SCRAM-SHA-256", first)


def test_scram_names_are_decoded():
    assert begun("SCRAM-SHA-256", b"n,a==3D2C=2C,n==3D2C=2C,r=x")[1] == Keys("=2C,")


@pytest.mark.parametrize(("first", "why"), [
    (b"n,,n=user,r=x", "no such channel binding"), (b"p=tls-unique,,n=user,r=x", "no such"),
    (b"p=other,,n=user,r=x", "no such"), (b"y,,n=user,r=x", "no such"),
])
def test_plus_wants_a_binding_that_there_is(first, why):
    with pytest.raises(Refused, match=why):
        begun("SCRAM-SHA-256-PLUS", first, Session("x", bindings={"tls-server-end-point": b"y"}))


def test_a_list_of_mechanisms_that_somebody_has_shortened():
    first = FIRST.replace(b"n,,", b"y,,")
    with pytest.raises(Refused, match="removed SCRAM-SHA-256-PLUS"):
        begun("SCRAM-SHA-256", first, Session("x"))
    assert begun("SCRAM-SHA-256", first)[1] == Keys("user")


@pytest.mark.parametrize("first", [b"\0tim\0secret", None])
def test_plain_rfc_4616(first):
    going, item = begun("PLAIN", first)
    if first is None:
        assert item == Challenge(b"")
        item = going.send(b"tim\0tim\0secret")
    assert type(item) is Password
    assert (item.login, item.password) == ("tim", "secret")
    assert end(going, "Tim") == "Tim"


@pytest.mark.parametrize(("response", "why"), [
    (b"tim\0secret", "three parts"), (b"\0tim\0a\0b", "three parts"), (b"other\0tim\0x", "for another"),
    (b"\0\0x", "not a name"), (b"\0ti\nm\0x", "not a name"), (b"\0\xff\0x", "UTF-8"),
    (b"\0" + b"t" * 256 + b"\0x", "too long"), (b"\0tim\0" + b"x" * 1025, "too long"),
])
def test_plain_that_is_none(response, why):
    with pytest.raises(Refused, match=why):
        begun("PLAIN", response)


@pytest.mark.parametrize("first", [None, b"tim"])
def test_login(first):
    going, item = begun("LOGIN", first)
    if first is None:
        assert item == Challenge(b"Username:")
        item = going.send(b"tim")
    assert item == Challenge(b"Password:")
    item = going.send(b"secret")
    assert (item.login, item.password) == ("tim", "secret")
    with pytest.raises(Refused, match="wrong password") as caught:
        going.send("")
    assert caught.value.login == "tim"


def test_cram_md5_rfc_2195():
    session = Session("1896.697170952", "postoffice.reston.mci.net")
    going, item = begun("CRAM-MD5", None, session)
    assert item == Challenge(b"<1896.697170952@postoffice.reston.mci.net>")
    assert going.send(b"tim b913a602c7eda7a495b4e6e7334d3890") == Secret("tim")
    assert end(going, ("tim", b"tanstaaftanstaaf")) == "tim"


@pytest.mark.parametrize(("response", "secret"), [
    (b"tim b913a602c7eda7a495b4e6e7334d3891", b"tanstaaftanstaaf"),
    (b"tim b913a602c7eda7a495b4e6e7334d3890", None), (b"tim", b"x"), (b"", b"x")])
def test_cram_md5_that_is_wrong(response, secret):
    going, _ = begun("CRAM-MD5", None, Session("1896.697170952", "postoffice.reston.mci.net"))
    with pytest.raises(Refused):
        going.send(going.send(response) and ("tim", secret))


def test_external():
    session = Session("x", certificate="alice@example.org")
    for first in (b"", b"alice@example.org"):
        with pytest.raises(StopIteration) as caught:
            begun("EXTERNAL", first, session)
        assert caught.value.value == "alice@example.org"
    with pytest.raises(Refused, match="for another"):
        begun("EXTERNAL", b"bob@example.org", session)
    with pytest.raises(Refused, match="no client certificate"):
        begun("EXTERNAL", b"alice@example.org")


def test_oauthbearer_rfc_7628_section_4():
    first = b"n,a=user@example.com,\1host=server.example.com\1port=143\1auth=Bearer vF9dft4qmT\1\1"
    going, item = begun("OAUTHBEARER", first)
    assert type(item) is Token
    assert (item.login, item.token) == ("user@example.com", "vF9dft4qmT")
    assert end(going, "user@example.com") == "user@example.com"
    going, _ = begun("OAUTHBEARER", first)
    assert b"invalid_token" in going.send("").data
    with pytest.raises(Refused, match="wrong password"):
        going.send(b"\1")


@pytest.mark.parametrize(("mechanism", "first"), [
    ("OAUTHBEARER", b"n,,\1auth=Basic x\1\1"), ("OAUTHBEARER", b"n,,\1\1"),
    ("OAUTHBEARER", b"auth=Bearer x\1\1"), ("OAUTHBEARER", b"p=x,,\1auth=Bearer x\1\1"),
    ("XOAUTH2", b"user=alice\1\1"), ("XOAUTH2", b"user=alice\1auth=Bearer \1\1"),
    ("XOAUTH2", b"user=alice\1auth=Bearer a b\1\1"),
])
def test_no_token(mechanism, first):
    with pytest.raises(Refused) as caught:
        begun(mechanism, first)
    assert caught.value.malformed


def test_questions_show_no_secret():
    for question in (Password("tim", "geheim"), Token("tim", "geheim")):
        assert "geheim" not in repr(question)
