"""Dovecot reads our mailboxes by IMAP, and is a destination by LMTP."""

import pytest

from support.dovecot import Dovecot
from support.home import ME, wait_until

pytestmark = pytest.mark.e2e


def test_imap_reads_what_was_delivered(home, launch):
    dovecot = Dovecot(home, launch, f"maildir:{home.path}/mail/%n/Maildir").start()
    home.deliver(f"alice@{ME}", text=b"Subject: \xc3\xbc\r\n\r\n.\r\nFrom me\r\n\xfc\r\n")
    home.wait_for("alice")
    [text] = dovecot.messages("alice")
    assert text.startswith(f"Return-Path: <sender@example.net>\r\nDelivered-To: alice@{ME}\r\n".encode())
    assert text.endswith(b"\r\nSubject: \xc3\xbc\r\n\r\n.\r\nFrom me\r\n\xfc\r\n")
    assert dovecot.messages("bob") == []
    home.deliver(f"alice@{ME}")
    wait_until(lambda: len(dovecot.messages("alice")) == 2, "another message in the INBOX")
    assert [path.name for path in home.maildir("alice")] == []      # IMAP has taken them over


@pytest.fixture
def handing_over(new_home, launch):
    """(a running home, Dovecot that does not run yet): mail for mailboxes goes to Dovecot."""
    home = new_home("alice", "bob")
    dovecot = Dovecot(home, launch, "maildir:~/Maildir")
    home.control(destinations=f"mailbox:lmtp:tcp:127.0.0.1:{dovecot.lmtp}\n",
                 aliases="both: alice, bob\n")
    return home.start(), dovecot


def test_lmtp_takes_all_that_we_have(handing_over):
    home, dovecot = handing_over
    dovecot.start()
    for number in range(20):
        home.deliver(f"both@{ME}", text=b"Subject: n%02d\r\n\r\n.\r\n\xfc\r\n" % number)
    home.wait_until_empty()
    for user in ("alice", "bob"):
        texts = dovecot.messages(user)
        ends = sorted([text[text.index(b"\r\nSubject: "):] for text in texts])
        assert ends == [b"\r\nSubject: n%02d\r\n\r\n.\r\n\xfc\r\n" % number for number in range(20)]
        assert texts[0].startswith(b"Return-Path: <sender@example.net>\r\n")
    assert not home.maildir("alice")


def test_mail_waits_for_a_dovecot_that_is_down(handing_over):
    home, dovecot = handing_over
    id = home.deliver(f"both@{ME}")
    assert "mailbox+20does+20not+20answer" in home.wait_for_log("event=deferred", f"id={id}")
    dovecot.start()
    home.run("sendmail", "-q")
    home.wait_until_empty()
    dovecot.stop()
    dovecot.start()
    assert [len(dovecot.messages(user)) for user in ("alice", "bob")] == [1, 1]
    home.deliver(f"bob@{ME}")       # over a new session: the old one ended with Dovecot
    home.wait_until_empty()
    assert len(dovecot.messages("bob")) == 2
