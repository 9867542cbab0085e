"""SASL, by the examples of the RFCs, and what a hostile server may say."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest

from mqmail.xmtp import sasl, scram
from mqmail.xmtp.sasl import choose

NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = (b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
ALL = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "XOAUTH2", "OAUTHBEARER")
TOKEN = "vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="


def pick(offered, wanted=(), user="user", secret="pencil", token="", bindings=None, nonce=NONCE, **more):
    return choose(offered, wanted, user, secret, token, bindings or {}, nonce, **more)


def scram_exchange():
    exchange = pick(["SCRAM-SHA-256"])
    exchange.first()
    return exchange


def test_plain_rfc_4616_section_4():
    exchange = pick(["PLAIN"], user="tim", secret="tanstaaftanstaaf")
    assert (exchange.mechanism, exchange.first()) == ("PLAIN", b"\0tim\0tanstaaftanstaaf")
    assert exchange.finish() == ""
    with pytest.raises(ValueError, match="too many"):
        exchange.step(b"more")


def test_login():
    exchange = pick(["LOGIN"], user="tim", secret="p\xe4ss word")
    assert (exchange.mechanism, exchange.first()) == ("LOGIN", None)
    assert exchange.step(b"Username:") == b"tim"
    assert exchange.step(b"Password:") == b"p\xc3\xa4ss word"
    with pytest.raises(ValueError, match="too many"):
        exchange.step(b"Mother's name:")
    assert exchange.finish() == ""


def test_cram_md5_rfc_2195_section_2():
    exchange = pick(["CRAM-MD5"], user="tim", secret="tanstaaftanstaaf")
    assert (exchange.mechanism, exchange.first()) == ("CRAM-MD5", None)
    answer = exchange.step(b"<1896.697170952@postoffice.reston.mci.net>")
    assert answer == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert exchange.finish() == ""
    with pytest.raises(ValueError, match="too many"):
        exchange.step(b"<again>")


def test_cram_md5_answers_no_empty_challenge():
    with pytest.raises(ValueError, match="empty"):
        pick(["CRAM-MD5"]).step(b"")


def test_scram_rfc_7677_section_3():
    exchange = pick(["SCRAM-SHA-256"])
    assert exchange.mechanism == "SCRAM-SHA-256"
    assert exchange.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert exchange.step(SERVER_FIRST) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    assert "not shown" in exchange.finish()
    assert exchange.step(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") == b""
    assert exchange.finish() == ""
    with pytest.raises(ValueError, match="too many"):
        exchange.step(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_scram_plus():
    """The numbers are those of other implementations' tests."""
    exchange = pick(ALL, bindings={"tls-unique": b"xxx"})
    assert exchange.mechanism == "SCRAM-SHA-256-PLUS"
    assert exchange.first() == b"p=tls-unique,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert exchange.step(SERVER_FIRST) == (
        b"c=cD10bHMtdW5pcXVlLCx4eHg=,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=v0J7PaQUPWowoTrwRLCKLzIZBpNUhWFlTrUKI1j9DpM=")
    exchange.step(b"v=XjAev9iHBOvTxT+eNzBaFmP1IrqWah2PpZAa0wQrfY4=")
    assert exchange.finish() == ""


def test_scram_keys_are_what_a_server_keeps():
    client, stored, server = scram.scram_keys(b"pencil", b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    assert (b64encode(stored), b64encode(server)) == (
        b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        b"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=")
    assert len(client) == 32


@pytest.mark.parametrize("final", [b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G0=", b"v=", b"v=6rri",
                                   b"v=XjAev9iHBOvTxT+eNzBaFmP1IrqWah2PpZAa0wQrfY4=",
                                   b"v=!!!", b"x=1", b"", b"\xff=1"])
def test_scram_server_that_does_not_know_the_secret(final):
    exchange = scram_exchange()
    exchange.step(SERVER_FIRST)
    with pytest.raises(ValueError, match=r"signature|SCRAM|base64|padding|data"):
        exchange.step(final)
    assert exchange.finish() != ""


def test_scram_server_that_says_an_error():
    exchange = scram_exchange()
    exchange.step(SERVER_FIRST)
    assert exchange.step(b"e=other-error") == b""
    assert exchange.finish() == "the server said 'other-error'"


@pytest.mark.parametrize(("change", "why"), [
    ((b"r=rO", b"r=xO"), "does not continue ours"),
    ((b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", b""), "does not continue ours"),
    ((b"%hv", b"%h v"), "nonce or salt"),
    ((b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="), "nonce or salt"),
    ((b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s=W22\nZaJ"), "base64"),
    ((b"gQ==", b"gQ"), "padding"),
    ((b"r=", b"m=must,r="), "is not r=,s=,i="),
    ((b",i=4096", b""), "is not r=,s=,i="),
    ((b"i=4096", b"j=4096"), "is not r=,s=,i="),
    ((b"i=4096", b"4096"), "is not a=...,b=..."),
    ((b"i=4096", b"i="), "is no number"),
    ((b"i=4096", b"i=04096"), "is no number"),
    ((b"i=4096", b"i=+4096"), "is no number"),
    ((b"i=4096", b"i=4_096"), "is no number"),
    ((b"i=4096", "i=\u0664\u0660\u0669\u0666".encode()), "is no number"),
    ((b"i=4096", b"i=4095"), "wants 4095 iterations"),
    ((b"i=4096", b"i=1000001"), "wants 1000001 iterations: we do 4096 to 1000000"),
    ((b"i=4096", b"i=" + b"9" * 5000), "wants 999999999999 iterations"),
    ((b"r=", b"\xff="), "not UTF-8"),
])
def test_scram_bad_first_message(change, why):
    with pytest.raises(ValueError, match=why):
        scram_exchange().step(SERVER_FIRST.replace(*change))


def test_scram_takes_extensions_at_the_end():
    assert scram_exchange().step(SERVER_FIRST + b",x=anything").startswith(b"c=biws,")


def test_scram_escapes_and_prepares_the_user():
    assert b",,n=a=3Db=2Cc\xc3\xa4,r=" in pick(["SCRAM-SHA-256"], user="a=b,c\u00ad\xe4").first()


@pytest.mark.parametrize("nonce", ["", "a,b", "a b", "\xe4", "a\n"])
def test_scram_wants_a_nonce(nonce):
    with pytest.raises(ValueError, match="nonce"):
        pick(["SCRAM-SHA-256"], nonce=nonce)


def test_xoauth2_as_its_authors_show_it():
    exchange = pick(ALL, ["XOAUTH2"], "someuser@example.com", token="ya29." + TOKEN[:-2])
    assert exchange.mechanism == "XOAUTH2"
    assert b64encode(exchange.first()) == (
        b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJo"
        b"ZG1semRHRXVZMjl0Q2cBAQ==")


def test_oauthbearer_rfc_7628_section_4_1():
    exchange = pick(ALL, user="user@example.com", token=TOKEN, host="server.example.com", port=143)
    assert exchange.mechanism == "OAUTHBEARER"
    assert b64encode(exchange.first()) == (
        b"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZG"
        b"OWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2c9PQEB")


def test_oauthbearer_without_a_place():
    assert pick(ALL, user="a,b", token="t").first() == b"n,a=a=2Cb,\1auth=Bearer t\1\1"


@pytest.mark.parametrize(("mechanism", "ending"), [("XOAUTH2", b""), ("OAUTHBEARER", b"\1")])
def test_a_token_that_is_refused(mechanism, ending):
    exchange = pick([mechanism], token=TOKEN)
    exchange.first()
    assert exchange.step(b'{"status":"invalid_token"}') == ending
    with pytest.raises(ValueError, match="too many"):
        exchange.step(b'{"status":"invalid_token"}')


@pytest.mark.parametrize("token", ["a b", "a\1b", "a\n", "\xe4"])
def test_no_token(token):
    with pytest.raises(ValueError, match="access token"):
        pick(ALL, token=token)


@pytest.mark.parametrize(("offered", "more", "mechanism"), [
    (ALL, {}, "SCRAM-SHA-256"),
    (ALL, {"bindings": {"tls-exporter": b"x"}}, "SCRAM-SHA-256-PLUS"),
    (["SCRAM-SHA-256-PLUS"], {}, None),
    (["LOGIN", "PLAIN", "CRAM-MD5"], {}, "CRAM-MD5"),
    (["LOGIN", "PLAIN"], {}, "PLAIN"),
    (["plain"], {}, "PLAIN"),
    (["LOGIN"], {}, "LOGIN"),
    (["GSSAPI", "NTLM"], {}, None),
    ([], {}, None),
    (ALL, {"wanted": ["LOGIN", "plain"]}, "PLAIN"),
    (["PLAIN"], {"wanted": ["SCRAM-SHA-256"]}, None),
    (["XOAUTH2", "OAUTHBEARER"], {}, None),
    (ALL, {"token": "t"}, "OAUTHBEARER"),
    (["XOAUTH2", "PLAIN"], {"token": "t"}, "XOAUTH2"),
    (["PLAIN"], {"token": "t"}, None),
])
def test_choose(offered, more, mechanism):
    exchange = pick(offered, **more)
    assert (exchange and exchange.mechanism) == mechanism


@pytest.mark.parametrize(("offered", "wanted", "bindings", "flag"), [
    (["SCRAM-SHA-256"], (), {}, b"n"),
    (["SCRAM-SHA-256"], (), {"tls-unique": b"x"}, b"y"),        # we could, it could not
    (ALL, ["SCRAM-SHA-256"], {"tls-unique": b"x"}, b"n"),       # both could, and it may not be done
    (ALL, (), {}, b"n"),
    (ALL, (), {"tls-unique": b""}, b"n"),                       # it has none
    (ALL, (), {"tls-server-end-point": b"x", "tls-unique": b"y"}, b"p=tls-unique"),
    (ALL, (), {"tls-unique": b"y", "tls-exporter": b"x"}, b"p=tls-exporter"),
])
def test_the_flag_of_channel_binding(offered, wanted, bindings, flag):
    assert pick(offered, wanted, bindings=bindings).first().split(b",")[0] == flag


@pytest.mark.parametrize("mechanism", sasl.PASSWORD_MECHANISMS[1:])
@pytest.mark.parametrize(("user", "secret"), [("u\0ser", "geheim"), ("user", "geh\0eim"),
                                              ("user", "geheim\udcff")])
def test_what_cannot_be_sent_is_refused_without_being_shown(mechanism, user, secret):
    with pytest.raises(ValueError, match="name or secret") as caught:
        pick([mechanism], user=user, secret=secret)
    assert "eim" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("text", "prepared"), [
    ("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"),
    ("a\u00a0b", "a b"),
    ("\u0007", "\u0007"), ("\u0627\u0031", "\u0627\u0031"),     # forbidden: as it is
    ("\u0627\u0031\u0628", "\u0627\u0031\u0628"), ("\u0627\u0628\ufe8e", "\u0627\u0628\u0627"),
    ("\u0627a\u2168\u0627", "\u0627a\u2168\u0627"), ("\u00ad", "\u00ad"),
    ("\u2168\ue000", "\u2168\ue000"),
])
def test_saslprep_rfc_4013_section_3(text, prepared):
    assert scram.saslprep(text) == prepared
