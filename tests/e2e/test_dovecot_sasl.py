"""Dovecot believes what our mechanisms say, and they believe it."""

import imaplib

import pytest

from mqmail.xmtp.sasl import choose
from support.dovecot import Dovecot
from support.home import SECONDS

pytestmark = pytest.mark.e2e
PASSWORD = "p\u00e4ss, w=rd \u2014 #\\"


@pytest.fixture
def dovecot(new_home, launch):
    return Dovecot(new_home(), launch, "maildir:~/Maildir", passwords={"alice": PASSWORD}).start()


def log_in(dovecot, mechanism, password):
    """Authenticate by IMAP, which takes no initial response: an empty challenge asks for it."""
    with imaplib.IMAP4("127.0.0.1", dovecot.imap, SECONDS) as client:
        offered = [word.removeprefix("AUTH=") for word in client.capabilities if word[:5] == "AUTH="]
        exchange = choose(offered, [mechanism], "alice", password, "", {}, "fyko+d2lbbFgONRv9qkxdawL")
        waiting = [exchange.first()]

        def answer(challenge):
            first = waiting.pop() if waiting else None
            return exchange.step(challenge) if first is None else first

        done, _ = client.authenticate(exchange.mechanism, answer)
        return exchange.mechanism, done, exchange.finish()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])
def test_a_user_is_known_by_the_password_alone(dovecot, mechanism):
    assert log_in(dovecot, mechanism, PASSWORD) == (mechanism, "OK", "")
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        log_in(dovecot, mechanism, PASSWORD + "x")
